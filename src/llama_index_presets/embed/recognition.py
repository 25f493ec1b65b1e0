"""Recognition of a `HuggingFaceEmbedding` as one of our local models, so that both share index and cache."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index_presets.embed.catalogue import EmbeddingModel, catalogue
from llama_index_presets.embed.local import LocalEmbedding

__all__ = ["as_local"]


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
