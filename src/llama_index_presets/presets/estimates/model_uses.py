"""Models of a preset as it would use them: which, by whom, with which key, at which address."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llama_index_presets.embed.catalogue import catalogue
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers import embedding_models, language_models, language_providers, rerankers
from llama_index_presets.providers.embedding_models import CATALOGUE, EMBEDDING_PROVIDERS
from llama_index_presets.providers.names import ModelName, Provider
from llama_index_presets.providers.variables import first_variable

__all__ = ["ModelUse", "model_uses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """Use of one model.

    Attributes:
        part: ``"embedding"``, ``"reranker"`` or ``"llm"``.
        name: As the settings or the matrix write it.
        model: What its provider calls it.
        provider: Who has it, in a few words.
        key: Variables that may hold its key, separated by " or "; empty where it needs none.
        key_from: Where the key is: ``"environment"``, the path of a ``.env`` file, ``"keyring"``; empty where there is
            none. Never the key.
        endpoint: Address that it is asked at; empty for the vendor's own, and for a model in this process.
        endpoint_from: What gave the address: ``"name"``, a setting, a variable, ``"default"``.
        on_this_machine: Whether nothing is sent elsewhere.
    """

    part: str
    name: str
    model: str
    provider: str
    key: str
    key_from: str
    endpoint: str
    endpoint_from: str
    on_this_machine: bool

    @property
    def key_state(self) -> str:
        """The key in words, for a person.

        Example:
            >>> from llama_index_presets.presets.matrix import preset
            >>> [use.key_state for use in model_uses(preset("healthcare"), Settings())]
            ['no key', 'no key']
        """
        if not self.key:
            return "no key"
        return f"{self.key}: set ({self.key_from})" if self.key_from else f"{self.key}: not set"

    @property
    def place(self) -> str:
        """Where it runs, in words, for a person."""
        if self.endpoint:
            return f"{self.endpoint} ({self.endpoint_from})"
        return "in this process" if self.on_this_machine else "the vendor's own address"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "key_set": bool(self.key_from)}


def model_uses(row: Preset, settings: Settings) -> list[ModelUse]:
    """The models of a row, in the order in which a question meets them; nothing is sent anywhere.

    Args:
        row: As the settings choose it; see `Preset.with_settings`.
        settings: Name a reranker, and the options of each model.
    """
    return list(_uses(row, settings))


def _uses(row: Preset, settings: Settings) -> Iterator[ModelUse]:
    embedding = embedding_models.read_embedding_name(row.embedding)
    hosted = embedding.provider == CATALOGUE and catalogue()[embedding.model].provider != "local"
    yield _use(
        "embedding", row.embedding, embedding, EMBEDDING_PROVIDERS.get("openai" if hosted else embedding.provider),
        row.options.get("embedding", {}), embedding_models.embedding_endpoint,
        embedding_models.embeds_on_this_machine,
    )  # fmt: skip
    if row.pattern == "advanced":
        name = settings.reranker or rerankers.DEFAULT_RERANKER
        reranker = rerankers.read_reranker_name(name)
        yield _use(
            "reranker", name, reranker, rerankers.RERANKER_PROVIDERS.get(reranker.provider),
            settings.reranker_options or {}, rerankers.reranker_endpoint, rerankers.reranks_on_this_machine,
        )  # fmt: skip
    llm = language_models.read_name(row.llm)
    yield _use(
        "llm", row.llm, llm, language_providers.PROVIDERS.get(llm.provider), row.options.get("llm", {}),
        language_models.endpoint_of, language_models.is_on_this_machine,
    )  # fmt: skip


def _use(
    part: str,
    name: str,
    read: ModelName,
    provider: Provider | None,
    options: Mapping[str, Any],
    endpoint_of: Callable[[ModelName, Mapping[str, Any]], tuple[str, str]],
    is_here: Callable[[ModelName, Mapping[str, Any]], bool],
) -> ModelUse:
    keys = (options["key"],) if "key" in options else provider.keys if provider else ()
    found = first_variable(keys, secret=True)
    address, origin = endpoint_of(read, options)
    return ModelUse(
        part=part,
        name=name,
        model=read.model,
        provider=provider.about if provider else "on this machine" if is_here(read, options) else "",
        key=" or ".join(keys),
        key_from=found.source if found else "",
        endpoint=address,
        endpoint_from=origin,
        on_this_machine=is_here(read, options),
    )
