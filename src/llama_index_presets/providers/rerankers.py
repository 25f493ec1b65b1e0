"""Rerankers by name: cross-encoders on this machine, and the providers that have rerankers as a service.

cross-encoder/ms-marco-MiniLM-L6-v2     a name on the hub, or a folder: runs on this machine
cohere/rerank-v3.5, voyage/rerank-2.5   a provider and its model
http://localhost:8000#bge-reranker      a server of Cohere's protocol (vLLM, Infinity), and the model that it serves
my_app.models:Mine?top_n=5              any LlamaIndex postprocessor of your own, with arguments
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from llama_index_presets.packages.extras import require
from llama_index_presets.providers.language_models import make_own
from llama_index_presets.providers.names import CLASS, SERVER, ModelName, Provider, spelt
from llama_index_presets.providers.options import (
    arguments_of,
    check_options,
    endpoint_at,
    key_of,
    stays_here,
)

if TYPE_CHECKING:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

__all__ = [
    "CROSS_ENCODER",
    "DEFAULT_RERANKER",
    "RERANKER_PROVIDERS",
    "make_reranker",
    "read_reranker_name",
    "reranker_endpoint",
    "reranks_on_this_machine",
]

CROSS_ENCODER: Final = "cross-encoder"
"""Provider of every name that is a folder or a name on the hub."""

DEFAULT_RERANKER: Final = "cross-encoder/ms-marco-MiniLM-L6-v2"
"""What the advanced pattern re-ranks with where the settings name nothing else."""

_COHERE: Final = {"endpoint": "base_url", "timeout_s": "", "headers": ""}

RERANKER_PROVIDERS: Final[dict[str, Provider]] = {
    "cohere": Provider(
        about="Cohere",
        module="llama_index.postprocessor.cohere_rerank",
        kind="CohereRerank",
        extra="cohere",
        keys=("CO_API_KEY", "COHERE_API_KEY"),
        endpoints=("CO_API_URL",),
        bare=("rerank-v", "rerank-english-", "rerank-multilingual-"),
        names=_COHERE,
        fixed={"max_retries": 1},  # of its own; see `billed_rerankers`
        prices="cohere",
    ),
    "voyage": Provider(
        about="Voyage AI",
        module="llama_index.postprocessor.voyageai_rerank",
        kind="VoyageAIRerank",
        extra="voyage",
        keys=("VOYAGE_API_KEY",),
        names={"endpoint": "", "timeout_s": "", "headers": ""},
        prices="voyageai",
    ),
    SERVER: Provider(
        about="a server of Cohere's protocol",
        module="llama_index.postprocessor.cohere_rerank",
        kind="CohereRerank",
        extra="cohere",
        names=_COHERE,
        fixed={"max_retries": 1},  # of its own; see `billed_rerankers`
    ),
}
"""Name before the slash -> provider; ``http`` stands for every ``http://…#model``."""


def read_reranker_name(name: str) -> ModelName:
    """Read the name of a reranker; what is spelt in no other way is a folder or a name on the hub.

    Raises:
        SettingsError: A provider without a model, a server without one, or what is no class.

    Example:
        >>> read_reranker_name("cohere/rerank-v3.5").provider, read_reranker_name("BAAI/bge-reranker-base").provider
        ('cohere', 'cross-encoder')
    """
    read = spelt(name, RERANKER_PROVIDERS, setting="reranker")
    return read or ModelName(provider=CROSS_ENCODER, model=name)


def reranker_endpoint(name: ModelName, options: Mapping[str, Any]) -> tuple[str, str]:
    """The address that a reranker is asked at, and what gave it; empty for the vendor's own, and for this process."""
    return endpoint_at(name, RERANKER_PROVIDERS, options, "reranker")


def reranks_on_this_machine(name: ModelName, options: Mapping[str, Any]) -> bool:
    """Whether reranking sends nothing elsewhere; a class of the application's own is judged once it is made."""
    return stays_here(name, RERANKER_PROVIDERS, options, "reranker")


def make_reranker(name: ModelName, options: Mapping[str, Any], *, top_n: int) -> BaseNodePostprocessor:
    """Make a reranker of a provider or a class; each hit keeps its retrieval score beside the new one.

    Args:
        name: As `read_reranker_name` gives it; no cross-encoder.
        options: See `options.check_options`.
        top_n: Most hits that it gives.

    Raises:
        SettingsError: An option is wrong, a key is missing, a package is missing (with its install line).
    """
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

    from llama_index_presets.providers.billed_rerankers import say_what_is_billed
    from llama_index_presets.rerank.provenance_keeper import KeepsRetrievalScores

    checked = check_options(options, "reranker")
    if name.provider == CLASS:
        own: BaseNodePostprocessor = make_own(
            name, checked, BaseNodePostprocessor, "node postprocessor of LlamaIndex"
        )
        return KeepsRetrievalScores(own)
    provider = RERANKER_PROVIDERS[name.provider]
    kind = getattr(require(provider.module, extra=provider.extra), provider.kind)
    address, _ = reranker_endpoint(name, checked)
    key = key_of(name, provider, checked) or "none"
    values: dict[str, Any] = {
        "model": name.model,
        "top_n": top_n,
        "api_key": key,
        **{option: checked[option] for option in ("timeout_s", "headers") if option in checked},
        **({"endpoint": address} if address else {}),
    }
    made = (_of_any_vendor(kind) if name.provider == SERVER else kind)(
        **arguments_of(values, provider, "reranker")
    )
    if address:
        made.base_url = address  # the class keeps it in its client only, where no check of addresses looks
    say_what_is_billed(made, provider.prices)
    return KeepsRetrievalScores(made, attempts=3)


def _of_any_vendor(kind: type) -> type:
    """A reranker's class for servers that speak its protocol: its name says nothing of who bills."""
    facts = {"serves_any_vendor": True, "__annotations__": {"serves_any_vendor": ClassVar[bool]}}
    return type(kind)(
        kind.__name__, (kind,), {"__module__": kind.__module__, "__doc__": kind.__doc__, **facts}
    )
