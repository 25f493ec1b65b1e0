"""What decides a vector: everything about an embedding model that changes its numbers, as one text."""

from __future__ import annotations

import json
from typing import Any, Final

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index_presets.errors import SettingsError

__all__ = ["vector_identity"]

_BESIDE_THE_POINT: Final = frozenset(
    {
        "api_key", "token", "default_headers", "headers", "timeout", "request_timeout", "max_retries", "num_workers",
        "embed_batch_size", "compute_batch_size", "show_progress_bar", "parallel_process", "target_devices", "device",
        "cache_folder", "embeddings_cache", "callback_manager", "rate_limiter", "reuse_client", "keep_alive",
        "allow_download", "processes", "concurrency", "requests_per_minute", "tokens_per_minute",
    }
)  # fmt: skip
"""Options that change how a vector is fetched or computed, not what it is."""


def vector_identity(model: BaseEmbedding) -> str:
    """Name what makes the vectors of a model, so that two models never share one.

    A model that has a text attribute `vector_identity` says it itself. Of any other, it is the class and all its
    options but those like keys, timeouts and batch sizes: a rotated key does not make new vectors.

    Raises:
        SettingsError: The options cannot be read.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> vector_identity(MockEmbedding(embed_dim=8)) == vector_identity(MockEmbedding(embed_dim=9))
        False
    """
    own = getattr(model, "vector_identity", None)
    if isinstance(own, str) and own:
        return own
    try:
        options: dict[str, Any] = model.to_dict()
        kept = {name: value for name, value in options.items() if name not in _BESIDE_THE_POINT}
        return json.dumps([_full_name(model), kept], sort_keys=True, default=str)
    except Exception as error:
        raise SettingsError(
            f"What makes the vectors of {type(model).__name__} cannot be told ({type(error).__name__}). Name it: "
            "CachedEmbedding(inner, cache, identity='model and version')."
        ) from error


def _full_name(model: BaseEmbedding) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"
