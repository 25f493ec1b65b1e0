"""Models of an engine: the embedding, its vector length, and the LLM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.embeddings.multi_modal_base import MultiModalEmbedding
from llama_index.core.utils import get_tokenizer

from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding, CachedMultiModalEmbedding
from llama_index_presets.embed.catalogue import catalogue
from llama_index_presets.embed.recognition import as_local
from llama_index_presets.errors import PresetsError, SettingsError
from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.chunking.chunk_context import ChunkContext
from llama_index_presets.ingest.chunking.strategies import CHUNKERS
from llama_index_presets.presets.index.storage import Storage
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers.embedding_models import (
    CATALOGUE,
    embedding_endpoint,
    make_embedding_model,
    read_embedding_name,
)
from llama_index_presets.providers.language_models import make_language_model as make_llm
from llama_index_presets.providers.names import ModelName
from llama_index_presets.values import Fingerprint

__all__ = [
    "explain_runtime",
    "make_chunker",
    "make_embedding",
    "make_fingerprint",
    "make_llm",
    "open_embedding",
    "reads_images",
    "with_cache",
]

LONGEST_CHUNK = 512
"""Tokens; a longer chunk mixes topics, however much the model reads."""


def make_embedding(
    name: str,
    *,
    local: bool,
    sends: bool = True,
    dimensions: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> BaseEmbedding:
    """The embedding model of a cell.

    Args:
        name: See `embedding_models.read_embedding_name`.
        local: Whether nothing may be downloaded.
        sends: Whether it will embed; one that only counts tokens needs no key.
        dimensions: Fewer numbers a vector, of models that can be shortened.
        options: See `options.check_options`.

    Raises:
        SettingsError: The key of a hosted model is missing, the model cannot be shortened, or an option is wrong.
        ModelError: The weights are not on this machine and may not be downloaded.
    """
    read, options = read_embedding_name(name), options or {}
    if read.provider != CATALOGUE:
        return make_embedding_model(read, options, sends=sends, dimensions=dimensions)
    model = catalogue()[read.model]
    if options and model.provider == "local":
        raise SettingsError(f"'{model.name}' runs in this process and takes no {', '.join(options)}.")
    if dimensions is not None and not model.shortens:
        raise SettingsError(
            f"'{model.name}' has {model.dim} dimensions and cannot be shortened. Leave dimensions out."
        )
    if model.modality == "image":
        from llama_index_presets.embed.clip.embedding import ClipEmbedding

        clip = ClipEmbedding(model.name, allow_download=not local)
        clip.check_weights()
        return clip
    if model.provider == "local":
        from llama_index_presets.embed.local.embedding import LocalEmbedding

        return LocalEmbedding(model.name, allow_download=not local)
    hosted = ModelName(provider="openai", model=model.name)
    address, origin = embedding_endpoint(read, options)
    own = {"endpoint": address} if origin == "catalogue" else {}
    return make_embedding_model(hosted, {**own, **options}, sends=sends, dimensions=dimensions)


def with_cache(
    embed_model: BaseEmbedding, setting: str, place: Storage, *, queries: bool, hash_key: bytes | None = None
) -> BaseEmbedding:
    """An embedding model behind the cache of an engine.

    Args:
        embed_model: The model.
        setting: ``"storage"``, ``"off"``, or a folder; see `Settings.embedding_cache`.
        place: Where the engine keeps its files.
        queries: Whether questions are kept, too; where nothing may leave the machine they are not written down.
        hash_key: Of an encrypted storage; without it the cache can be tested for a text.
    """
    if setting == "off":
        return embed_model
    folder = place.embeddings if setting == "storage" else Path(setting)
    kind = CachedMultiModalEmbedding if reads_images(embed_model) else CachedEmbedding
    return kind(embed_model, EmbeddingCache(folder, hash_key=hash_key), cache_queries=queries)


def open_embedding(
    row: Preset, values: Settings, place: Storage, *, local: bool, queries: bool, hash_key: bytes | None
) -> BaseEmbedding:
    """The embedding model of a row as the settings want it, behind the cache of its storage.

    Args:
        row: The row, as the settings choose it.
        values: The settings.
        place: Where the engine keeps its files.
        local: As for `make_embedding`.
        queries: As for `with_cache`.
        hash_key: As for `with_cache`.
    """
    model = make_embedding(
        row.embedding, local=local, dimensions=values.dimensions, options=row.options.get("embedding")
    )
    return with_cache(model, values.embedding_cache, place, queries=queries, hash_key=hash_key)


def reads_images(embed_model: BaseEmbedding) -> bool:
    """Whether a model puts images into the space of its texts."""
    return isinstance(embed_model, MultiModalEmbedding)


def make_chunker(
    embed_model: BaseEmbedding,
    chunk_tokens: int | None,
    chunking: str = "sentence",
    context: ChunkContext = "none",
) -> SentenceChunker:
    """A chunker that measures with the model's own tokenizer and never exceeds what the model reads.

    Args:
        embed_model: What the chunks are for.
        chunk_tokens: Longest chunk; None takes what the model reads, at most 512.
        chunking: Key of `ingest.chunking.strategies.CHUNKERS`.
        context: What chunks are given of their document.

    A `HuggingFaceEmbedding` of a model of the catalogue is measured with that. Any other model that is not ours has no
    tokenizer that we could ask: its chunks are measured in tokens of cl100k_base and kept to three quarters of its
    ``max_length`` (512 where it has none).
    """
    asked = as_local(_innermost(embed_model)) or embed_model
    tokenize = getattr(asked, "tokenize", None) or get_tokenizer()
    limit = getattr(asked, "max_tokens", None)
    if not isinstance(limit, int):
        known = catalogue().get(_short_name(embed_model))
        limit = known.max_tokens if known else int(getattr(embed_model, "max_length", 512) * 0.75)
    more: dict[str, Any] = {"embed_model": embed_model} if chunking == "semantic" else {}
    return CHUNKERS[chunking](
        tokenize=tokenize, max_tokens=min(limit, chunk_tokens or LONGEST_CHUNK), context=context, **more
    )


def make_fingerprint(embed_model: BaseEmbedding, chunker: SentenceChunker) -> Fingerprint:
    """What makes the vectors of an index. The dimension of an unknown model is found by embedding a word."""
    known = catalogue().get(_short_name(embed_model).removesuffix("-int8"))
    # What the object says goes first: its vectors may be shorter than the model's.
    dim = getattr(embed_model, "dim", None) or getattr(embed_model, "dimensions", None)
    dim = dim or (known.dim if known else None)
    if dim is None:
        dim = len(embed_model.get_text_embedding("dimension"))
    return Fingerprint(model=_short_name(embed_model), dim=int(dim), chunker=chunker.name)


def explain_runtime(embed_model: BaseEmbedding) -> str:
    """What runs an embedding model on this machine, and why; empty for one that does not say."""
    explain = getattr(_innermost(embed_model), "explain", None)
    try:
        return str(explain()) if callable(explain) else ""
    except PresetsError as error:  # weights that are gone, or a runtime that was uninstalled
        return str(error)


def _short_name(embed_model: BaseEmbedding) -> str:
    """Name of what makes the vectors: the same for runtimes that agree to a cosine of 0.9999, so not for int8."""
    inner = _innermost(embed_model)
    name = str((as_local(inner) or embed_model).model_name).rsplit("/", 1)[-1]
    return f"{name}-int8" if getattr(inner, "precision", None) == "int8" else name


def _innermost(embed_model: BaseEmbedding) -> BaseEmbedding:
    inner = getattr(embed_model, "inner", None)
    return _innermost(inner) if isinstance(inner, BaseEmbedding) else embed_model
