"""Metadata of a node as a filter sees it."""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.schema import BaseNode
from pydantic_core import to_json

__all__ = ["REFERENCE_KEYS", "filterable_fields", "filterable_metadata", "metadata_json"]

REFERENCE_KEYS = ("ref_doc_id", "doc_id", "document_id")
"""Keys that stand for the node's source document where its metadata does not use them itself."""


def filterable_metadata(node: BaseNode) -> dict[str, Any]:
    """Mapping that filters are evaluated on: the node's metadata as JSON, and its source document.

    Dates become ISO strings, tuples and sets lists, NaN and infinities null, as they will be read back from
    any store. `REFERENCE_KEYS` name the source document, unless the metadata has such a key of its own.

    Raises:
        ValueError: A value has no JSON form.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> filterable_metadata(TextNode(text="a", metadata={"tags": ("x",)}))["tags"]
        ['x']
    """
    return filterable_fields(metadata_json(node.metadata), node.ref_doc_id)


def filterable_fields(metadata: str, ref_doc_id: str | None) -> dict[str, Any]:
    """`filterable_metadata` of a node whose metadata is written already, by `metadata_json`."""
    fields: dict[str, Any] = json.loads(metadata)
    for key in REFERENCE_KEYS:
        fields.setdefault(key, ref_doc_id)
    return fields


def metadata_json(metadata: dict[str, Any]) -> str:
    """Write metadata as JSON, in one spelling for every store.

    Raises:
        ValueError: A value has no JSON form (pydantic's ``PydanticSerializationError``).

    Example:
        >>> metadata_json({"score": float("nan"), "tags": {"x"}})
        '{"score":null,"tags":["x"]}'
    """
    return to_json(metadata, inf_nan_mode="null", fallback=_plain).decode()


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays know their plain form; nothing else is guessed."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise ValueError(f"{type(value).__name__} has no JSON form")
