"""Context windows of language models: from their class, the list of prices, or the server that has them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW

from llama_index_presets.monitor.prices import context_window_of
from llama_index_presets.monitor.usage import provider_of

__all__ = ["SMALLEST_WINDOW", "find_window"]

SMALLEST_WINDOW: Final = 8_192
"""Tokens; of a model that nobody knows."""

_NAMES: Final = (
    "max_model_len",  # vLLM
    "loaded_context_length",  # LM Studio: what it was loaded with, less than the model can
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
    "n_ctx",  # llama.cpp
    "n_ctx_train",
)
_TIMEOUT_S: Final = 3.0
_log = logging.getLogger(__name__)


def find_window(model: Any, known: LLMMetadata | None) -> int:
    """Context window of a model in tokens; 8,192 with a warning in the log where nobody knows it.

    Args:
        model: The model.
        known: What its class says, or None.
    """
    if known is not None and known.context_window != DEFAULT_CONTEXT_WINDOW:  # which stands for "unknown"
        return known.context_window
    provider = provider_of(model.class_name(), model.model)
    found = (context_window_of(provider, model.model) if provider else None) or _of_server(model)
    if found is None:
        _log.warning(
            "The context window of '%s' is not known; %d tokens are assumed. Set llm.context_window.",
            model.model, SMALLEST_WINDOW,
        )  # fmt: skip
    return found or SMALLEST_WINDOW


def _of_server(model: Any) -> int | None:
    """What a server of OpenAI's protocol says of its model; None where it cannot be asked or says nothing."""
    if not getattr(model, "api_base", None):
        return None
    try:
        listed = model._get_client().with_options(timeout=_TIMEOUT_S, max_retries=0).models.list().data
    except Exception as error:  # it may be down, or have no such list: the answer will say what is wrong
        _log.info("The server of '%s' does not list its models (%s).", model.model, type(error).__name__)
        return None
    entries = [entry.model_dump() for entry in listed]
    chosen = [entry for entry in entries if entry.get("id") == model.model] or entries[: len(entries) == 1]
    return _window(chosen[0]) if chosen else None


def _window(entry: Mapping[str, Any]) -> int | None:
    """The window in an entry of ``/v1/models``, under the name of any server."""
    places = [entry, *(part for part in entry.values() if isinstance(part, Mapping))]
    counts = (place.get(name) for name in _NAMES for place in places)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)
