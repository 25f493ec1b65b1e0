"""Model of context sentences: which one it is, what it costs, and the contextualiser of an engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from llama_index.core.llms.llm import LLM

from llama_index_presets.answer.cache.store import SentenceCache
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.errors import SettingsError
from llama_index_presets.files.encryption import Encryptor
from llama_index_presets.monitor.calls.usage import provider_of
from llama_index_presets.monitor.prices import Pricer, context_window_of
from llama_index_presets.presets.checks.offline import refuse_remote
from llama_index_presets.presets.contextual.contextualiser import ContextModel, Contextualiser
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers.language_models import (
    is_on_this_machine,
    language_model_rates,
    make_language_model,
    read_name,
)
from llama_index_presets.providers.language_providers import PROVIDERS

__all__ = ["ceiling", "counting_contextualiser", "writing_contextualiser"]

_MOST_BYTES: Final = 2**30
_MOST_SECONDS: Final = 100 * 365 * 86_400.0  # a sentence about the same text stays as good as it was
_NO_MODEL: Final = (
    "chunk_context is 'llm', and 'extractive' writes nothing: set context_llm, or llm, to a language model, such as "
    "'ollama/llama3.2', or chunk_context to 'title'."
)


def _cache(path: Path, sealer: Encryptor | None) -> SentenceCache:
    return SentenceCache(path, max_bytes=_MOST_BYTES, max_age_s=_MOST_SECONDS, sealer=sealer)


def _named(name: str, options: Mapping[str, Any], pricer: Pricer) -> ContextModel:
    """A model by its name; without a known price it is free where it stays on this machine."""
    read = read_name(name)
    if read.provider == "extractive":
        raise SettingsError(_NO_MODEL)
    provider, _ = language_model_rates(read, pricer, local=is_on_this_machine(read, options))
    window = options.get("context_window") or context_window_of(provider, read.model)
    return ContextModel(name=str(name), provider=provider, model=read.model, window_tokens=window)


def _given(llm: LLM) -> ContextModel:
    """A model that the caller brought along."""
    model, window = llm.metadata.model_name, llm.metadata.context_window
    kind = llm.class_name()
    return ContextModel(
        name=f"{kind}/{model}", provider=provider_of(kind, model), model=model, window_tokens=window
    )


@contextmanager
def writing_contextualiser(parts: EngineParts) -> Iterator[Contextualiser | None]:
    """The contextualiser of an engine; None where the setting does not want one.

    Raises:
        SettingsError: There is no language model, or it would be asked elsewhere though nothing may leave this machine.
    """
    values = parts.settings
    if values.chunk_context != "llm":
        yield None
        return
    llm, about, limited = _model(parts)
    cache = _cache(parts.storage.contexts, parts.encryption.sealer if parts.encryption else None)
    try:
        yield Contextualiser(about=about, cache=cache, llm=llm, limited=limited, pricer=parts.ledger.pricer)
    finally:
        cache.close()


def _model(parts: EngineParts) -> tuple[LLM, ContextModel, Callable[[int], LLM] | None]:
    """The model of the sentences, what is known of it, and what limits its replies; see `Contextualiser`."""
    values, row, pricer = parts.settings, parts.preset, parts.ledger.pricer
    own = values.context_llm is None
    options = (row.options.get("llm") or {}) if own else {}
    name = values.context_llm or row.llm
    llm = parts.synthesizer.llm if own else make_language_model(name)
    if isinstance(llm, ExtractiveLLM):
        raise SettingsError(_NO_MODEL)
    by_hand = own and "llm" in parts.overrides
    about = _given(llm) if by_hand else _named(name, options, pricer)
    if row.monitoring == "local" or row.swapped:
        refuse_remote(row.name, [llm])
    return llm, about, _limit_of_object(llm) if by_hand else _limit_of_name(name, options, llm)


def _limit_of_name(name: str, options: Mapping[str, Any], llm: LLM) -> Callable[[int], LLM] | None:
    """Makes the model of a name with a limit; one in this process costs nothing, and is not loaded twice."""
    provider = PROVIDERS.get(read_name(name).provider)
    if provider is None:  # a class of the application's own
        return _limit_of_object(llm)
    if provider.on_this_machine:
        return None
    own = options.get("max_tokens", math.inf)
    return lambda most: make_language_model(name, {**options, "max_tokens": int(min(most, own))})


def _limit_of_object(llm: LLM) -> Callable[[int], LLM] | None:
    """Copies a model with a limit, where its class reads the field ``max_tokens`` at each request."""
    read_once = hasattr(llm, "_generation_config")  # Gemini's, when it is made
    if "max_tokens" not in type(llm).model_fields or read_once:
        return None
    own: int | None = getattr(llm, "max_tokens", None)
    return lambda most: llm.model_copy(update={"max_tokens": most if own is None else min(most, own)})


@contextmanager
def counting_contextualiser(
    row: Preset,
    values: Settings,
    path: Path | None,
    sealer: Encryptor | None,
    pricer: Pricer | None = None,
) -> Iterator[Contextualiser | None]:
    """A contextualiser that only counts: it needs no key and sends nothing.

    Args:
        row: The row, as the settings choose it.
        values: The settings.
        path: File of the sentences that are there; None where there is no storage.
        sealer: Of an encrypted storage.
        pricer: Prices; None for the package's.

    Raises:
        SettingsError: There is no language model.
    """
    if values.chunk_context != "llm":
        yield None
        return
    options = {} if values.context_llm else row.options.get("llm") or {}
    pricer = pricer or Pricer()
    about = _named(values.context_llm or row.llm, options, pricer)
    cache = _cache(path, sealer) if path is not None else None
    try:
        yield Contextualiser(about=about, cache=cache, pricer=pricer)
    finally:
        if cache is not None:
            cache.close()


def ceiling(values: Settings) -> Decimal | None:
    """Dollars that the sentences of one ingest may cost; None for no ceiling."""
    return Decimal(str(values.context_max_usd)) if math.isfinite(values.context_max_usd) else None
