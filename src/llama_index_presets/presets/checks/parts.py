"""Types of the parts that a caller hands to `build`, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms.llm import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilters

from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.settings import Settings

__all__ = ["check_arguments", "check_filters"]

_KINDS: Final[dict[str, tuple[str, tuple[type, ...], str]]] = {
    "llm": ("llm", (LLM, str), 'a LlamaIndex LLM, or a name such as "ollama/llama3.2"'),
    "embedding": ("embed_model", (BaseEmbedding,), "a LlamaIndex embedding, such as LocalEmbedding()"),
    "store": ("vector_store", (BasePydanticVectorStore,), 'a LlamaIndex vector store, such as DuckDBVectorStore("a")'),
    "reranker": ("reranker", (BaseNodePostprocessor,), "a LlamaIndex postprocessor, such as CrossEncoderRerank()"),
}  # fmt: skip
_OF_A_NAME: Final = {
    "embedding": "; the name of one goes into settings={'embedding': …}",
    "store": "; the name of one goes into settings={'store': …}, its URL or folder into storage=",
}


def check_arguments(preset: Any, storage: Any, given: Mapping[str, Any], filters: Any, settings: Any) -> None:
    """Check what `build` was given.

    Args:
        preset: Must be a text.
        storage: Must be a text or a path.
        given: Parts by the column of the matrix that they replace; None where the preset's is taken.
        filters: `MetadataFilters` or None.
        settings: A mapping, `Settings`, a path, or None.

    Raises:
        SettingsError: One of them is of another type; the message says which type it must have.

    Example:
        >>> check_arguments("healthcare", "./clinic", {"llm": "ollama/llama3.2", "store": None}, None, None)
    """
    if not isinstance(preset, str):
        raise SettingsError(f"The preset is of type {_type(preset)}; give its name, such as 'healthcare'.")
    if not isinstance(storage, str | Path) or storage == "":
        what = "empty" if storage == "" else f"of type {_type(storage)}"
        raise SettingsError(f"storage is {what}; give a folder, such as './clinic', or a URL of the vectors.")
    for column, part in given.items():
        name, kinds, wanted = _KINDS[column]
        if part is None or isinstance(part, kinds):
            continue
        hint = _OF_A_NAME.get(column, "") if isinstance(part, str) else ""
        raise SettingsError(f"{name} is of type {_type(part)}; give {wanted}{hint}.")
    if filters is not None:
        check_filters(filters)
    if settings is not None and not isinstance(settings, Mapping | Settings | str | Path):
        raise SettingsError(
            f"settings is of type {_type(settings)}; give a dictionary, such as {{'top_k': 8}}, or a TOML file."
        )


def check_filters(filters: Any) -> None:
    """Check that filters are LlamaIndex's.

    Raises:
        SettingsError: They are something else than `MetadataFilters`.

    Example:
        >>> check_filters(MetadataFilters(filters=[]))
    """
    if not isinstance(filters, MetadataFilters):
        raise SettingsError(
            f"The filters are of type {_type(filters)}; give MetadataFilters(filters=[MetadataFilter("
            "key='department', value='hr')])."
        )


def _type(value: Any) -> str:
    """What a value is, without the value, which may be a secret."""
    return f"type, the class {value.__name__} itself" if isinstance(value, type) else type(value).__name__
