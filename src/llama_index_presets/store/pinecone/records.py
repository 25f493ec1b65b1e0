"""Pinecone records: nodes to records, and back, and batches that fit into one request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_index.core.schema import BaseNode

from llama_index_presets.counting import counted
from llama_index_presets.errors import NodeRejectedError, StoreCorruptError
from llama_index_presets.store.index_terms import labels_of
from llama_index_presets.store.node_codec import Row, to_node, to_row
from llama_index_presets.store.pinecone.filters import NUMBER

__all__ = ["Record", "batches", "node_id_of", "node_of", "record_id", "record_of"]

METADATA_BYTES = 40_960
ID_BYTES = 512
REQUEST_BYTES = 2_000_000
REQUEST_RECORDS = 1_000
"""Limits of the service: https://docs.pinecone.io/reference/api/database-limits."""

Record = dict[str, Any]

LONG_DOCUMENT_ID = 200
"""A document id with more bytes stands in record ids as its BLAKE2b-128 digest."""


def record_id(ref_doc_id: str | None, node_id: str) -> str:
    """Name the record of a node: ``document#node``, so that a document's records share a prefix of their own.

    Args:
        ref_doc_id: The document; None is written as nothing. ``%`` and ``#`` in it are escaped.
        node_id: The node; empty for the prefix.

    Example:
        >>> record_id("doc1", "n"), record_id("doc1#x", "n"), record_id(None, "n")
        ('doc1#n', 'doc1%23x#n', '#n')
    """
    document = (ref_doc_id or "").replace("%", "%25").replace("#", "%23")
    if len(document.encode()) > LONG_DOCUMENT_ID:
        document = "%" + hashlib.blake2b(document.encode(), digest_size=16).hexdigest()
    return f"{document}#{node_id}"


def node_id_of(record: str) -> str:
    """Give the id of the node of a record.

    Example:
        >>> node_id_of("doc1#chunk#2")
        'chunk#2'
    """
    return record.partition("#")[2]


def record_of(node: BaseNode, vector: npt.NDArray[np.float32]) -> Record:
    """Make the record of a node.

    Raises:
        NodeRejectedError: Its metadata is over 40 kB or its id over 512 bytes; refused before sending.
    """
    row = to_row(node)
    fields = row.filterable()
    metadata: dict[str, Any] = {
        NUMBER + key: float(value) for key, value in fields.items() if isinstance(value, (int, float))
    }
    stored = {
        "id": row.node_id,
        "text": row.text,
        "metadata": row.metadata,
        "kind": row.kind,
        "node": row.node,
    }
    metadata |= {key: value for key, value in {**stored, "ref": row.ref_doc_id}.items() if value is not None}
    metadata["labels"] = ["*", *labels_of(fields)]
    name = record_id(row.ref_doc_id, row.node_id)
    if "\0" in name:
        raise NodeRejectedError(
            f"Node {row.node_id[:80]!a} or its document has a NUL character in its id, which Pinecone refuses. Give it "
            "another id. Nothing was written.",
            [row.node_id],
        )
    size, id_size = len(json.dumps(metadata, ensure_ascii=False).encode()), len(name.encode())
    if size > METADATA_BYTES or not row.node_id or id_size > ID_BYTES:
        raise NodeRejectedError(
            f"Node '{row.node_id[:80]}' has {counted(size, 'byte')} of text and metadata and a record id of "
            f"{counted(id_size, 'byte')}; "
            f"Pinecone takes {METADATA_BYTES:,} and {ID_BYTES}. Use shorter chunks or less metadata. "
            "Nothing was written.",
            [row.node_id],
        )
    return {"id": name, "values": vector.tolist(), "metadata": metadata}


def node_of(name: str, metadata: dict[str, Any], values: Sequence[float] | None) -> BaseNode:
    """Put a node together from a record.

    Raises:
        StoreCorruptError: Another program wrote the record.
    """
    if "id" not in metadata or "node" not in metadata or "metadata" not in metadata or "kind" not in metadata:
        raise StoreCorruptError(
            f"Record '{name}' was written by another program, such as the official adapter. "
            "Use another namespace."
        )
    row = Row(
        metadata["id"],
        metadata.get("ref"),
        metadata.get("text"),
        metadata["metadata"],
        metadata["kind"],
        metadata["node"],
    )
    return to_node(row, list(values) if values else None)


def batches(records: Sequence[Record], limit: int) -> Iterator[list[Record]]:
    """Cut records into requests of at most `limit` records and 2 MB.

    Example:
        >>> [len(one) for one in batches([{"id": "a"}, {"id": "b"}, {"id": "c"}], 2)]
        [2, 1]
    """
    batch: list[Record] = []
    filled = 0
    for record in records:
        size = len(json.dumps(record).encode()) + 2
        if batch and (filled + size > REQUEST_BYTES * 0.95 or len(batch) >= min(limit, REQUEST_RECORDS)):
            yield batch
            batch, filled = [], 0
        batch.append(record)
        filled += size
    if batch:
        yield batch
