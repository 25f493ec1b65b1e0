"""Weaviate objects: nodes to objects, and back, and the schema of their collection."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_index.core.schema import BaseNode
from weaviate.classes.data import DataObject

from llama_index_presets.errors import StoreCorruptError
from llama_index_presets.store.index_terms import label, labels_of
from llama_index_presets.store.node_codec import Row, to_node, to_row
from llama_index_presets.store.weaviate.filters import EVERY, number_property

__all__ = ["NODE_PROPERTIES", "document_label", "node_of", "object_id", "object_of", "schema"]

NODE_PROPERTIES = ("node_id", "ref", "text", "metadata", "kind", "node")
"""Properties that a node is put together from."""

_OURS = uuid.UUID("8e5c5f0a-5b3b-5c0e-9b1c-2f6b4f1f7a11")


def object_id(node_id: str) -> str:
    """Name the object of a node: Weaviate takes only UUIDs.

    Example:
        >>> object_id("a") == object_id("a") != object_id("b")
        True
    """
    return str(uuid.uuid5(_OURS, node_id))


def document_label(ref_doc_id: str) -> str:
    """Label of the nodes of a document; no label of metadata begins with ``@``."""
    return "@" + label(ref_doc_id)


def schema(name: str, description: str) -> dict[str, Any]:
    """Make the collection of a store: vectors come from outside, compared by cosine; `text` alone is searched."""
    unindexed = {"dataType": ["text"], "indexFilterable": False, "indexSearchable": False}
    return {
        "class": name,
        "description": description,
        "vectorizer": "none",
        "vectorIndexType": "hnsw",
        "vectorIndexConfig": {"distance": "cosine"},
        "properties": [
            {"name": "text", "dataType": ["text"], "tokenization": "word", "indexFilterable": False},
            *({"name": one, **unindexed} for one in NODE_PROPERTIES if one != "text"),
            {"name": "labels", "dataType": ["text[]"], "tokenization": "field", "indexSearchable": False},
        ],
    }


def _numbers_of(fields: dict[str, Any]) -> dict[str, float]:
    """Give the number properties of one node's metadata."""
    return {
        number_property(key): float(value) for key, value in fields.items() if isinstance(value, (int, float))
    }


def object_of(node: BaseNode, vector: npt.NDArray[np.float32]) -> DataObject[Any, None]:
    """Make the object of a node.

    Raises:
        NodeRejectedError: It has no JSON form.
    """
    row = to_row(node)
    fields = row.filterable()
    stored = dict(
        zip(
            NODE_PROPERTIES,
            (row.node_id, row.ref_doc_id, row.text, row.metadata, row.kind, row.node),
            strict=True,
        )
    )
    documents = [] if row.ref_doc_id is None else [document_label(row.ref_doc_id)]
    properties: dict[str, Any] = {
        **{name: value for name, value in stored.items() if value is not None},
        **_numbers_of(fields),
        "labels": [EVERY, *documents, *labels_of(fields)],
    }
    return DataObject(properties=properties, uuid=object_id(row.node_id), vector=vector.tolist())


def node_of(found: Any) -> BaseNode:
    """Put a node together from an object of an answer, with its embedding where that was asked for.

    Raises:
        StoreCorruptError: Another program wrote the object.
    """
    stored = found.properties
    if any(stored.get(name) is None for name in ("node_id", "metadata", "kind", "node")):
        raise StoreCorruptError(
            f"Object '{found.uuid}' was written by another program, such as the official adapter. "
            "Use another index_name."
        )
    return to_node(Row(*(stored.get(name) for name in NODE_PROPERTIES)), vector_of(found))


def vector_of(found: Any) -> list[float] | None:
    """Give the vector of an object of an answer; None where it was not asked for."""
    vector = (found.vector or {}).get("default")
    return list(vector) if vector else None
