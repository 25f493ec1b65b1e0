"""Identity of a model's vectors; a `HuggingFaceEmbedding` of one of our local models shares index and cache with it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index_presets.embed.catalogue import EmbeddingModel, catalogue
from llama_index_presets.embed.local.embedding import LocalEmbedding
from llama_index_presets.errors import SettingsError

__all__ = ["as_local", "vector_identity"]


def as_local(embed_model: BaseEmbedding) -> LocalEmbedding | None:
    """The `LocalEmbedding` that makes the same vectors as an official one, or None.

    By the name of a model of the catalogue, or by the hash of the weights in a folder. It is never run: its tokenizer,
    length, name and identity stand for those of the official object, which has none.

    Args:
        embed_model: Any model; of those that are no `HuggingFaceEmbedding`, or that leave their vectors unnormalised,
            nothing is known.
    """
    if not _is_official(embed_model) or not getattr(embed_model, "normalize", True):
        return None
    name = str(embed_model.model_name)
    model = _by_weights(Path(name)) if Path(name).is_dir() else _by_name(name)
    if model is None:
        return None
    length = getattr(embed_model, "max_length", None)
    return LocalEmbedding(
        model.name,
        allow_download=False,
        max_length=length if length and length < model.max_tokens else None,
        query_prefix=getattr(embed_model, "query_instruction", None) or model.query_prefix,
        passage_prefix=getattr(embed_model, "text_instruction", None) or model.passage_prefix,
    )


def _is_official(embed_model: BaseEmbedding) -> bool:
    return any(
        kind.__name__ == "HuggingFaceEmbedding"
        and kind.__module__.startswith("llama_index.embeddings.huggingface")
        for kind in type(embed_model).__mro__
    )


def _local_models() -> list[EmbeddingModel]:
    return [one for one in catalogue().values() if one.provider == "local" and one.modality == "text"]


def _by_name(name: str) -> EmbeddingModel | None:
    # sentence-transformers reads a name without an organisation as one of its own
    names = (name, f"sentence-transformers/{name}")
    return next((one for one in _local_models() if one.hub in names), None)


@cache
def _by_weights(folder: Path) -> EmbeddingModel | None:
    file = folder / "model.safetensors"
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return next((one for one in _local_models() if one.sha256 == found), None)


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
    """Identity of a model's vectors, so that two models never share one cache entry.

    A model that has a text attribute `vector_identity` says it itself, and a `HuggingFaceEmbedding` of a model that
    we know has that of `LocalEmbedding`. Of any other, it is the class and all its
    options but those like keys, timeouts and batch sizes: a rotated key does not make new vectors.

    Raises:
        SettingsError: The options cannot be read.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> vector_identity(MockEmbedding(embed_dim=8)) == vector_identity(MockEmbedding(embed_dim=9))
        False
    """
    own = getattr(as_local(model) or model, "vector_identity", None)
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
