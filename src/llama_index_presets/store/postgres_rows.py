"""Nodes as Postgres' binary COPY format, and rows as nodes again."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_index.core.schema import BaseNode

from llama_index_presets.errors import NodeRejectedError
from llama_index_presets.filters import REFERENCE_KEYS
from llama_index_presets.store.postgres_filters import fields_of, folded_of, unstorable
from llama_index_presets.store.rows import Row, to_node, to_row

__all__ = ["COLUMNS", "NODE_COLUMNS", "copy_stream", "read_nodes"]

NODE_COLUMNS = ("node_id", "ref_doc_id", "text", "metadata", "kind", "node")
"""Columns of a node, in the order of `Row`."""

COLUMNS = (*NODE_COLUMNS, "fields", "folded", "embedding")
"""All columns: `fields` and `folded` are the metadata for filters, `metadata` as it was written."""

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_LENGTH = struct.Struct(">i")
_COUNT = struct.pack(">h", len(COLUMNS))


def copy_stream(nodes: Sequence[BaseNode], vectors: npt.NDArray[np.float32], *, half: bool) -> io.BytesIO:
    """Write nodes as a stream for ``COPY … FROM STDIN (FORMAT binary)``.

    Args:
        nodes: Unique by id; their order is the order of the rows.
        vectors: Their embeddings, (n, dim) float32.
        half: Whether the column is a halfvec.

    Raises:
        NodeRejectedError: A node has no JSON form, or a NUL character, which Postgres cannot store.

    Source: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
    """
    parts = [_SIGNATURE]
    header = struct.pack(">hh", vectors.shape[1], 0)
    numbers = vectors.astype(">f2" if half else ">f4")
    for node, vector in zip(nodes, numbers, strict=True):
        parts.append(_COUNT)
        parts += _values(to_row(node))
        payload = header + vector.tobytes()
        parts += (_LENGTH.pack(len(payload)), payload)
    parts.append(_END)
    return io.BytesIO(b"".join(parts))


def _values(row: Row) -> list[bytes]:
    metadata: dict[str, Any] = json.loads(row.metadata)
    for key in REFERENCE_KEYS:
        metadata.setdefault(key, row.ref_doc_id)
    plain = (row.node_id, row.ref_doc_id, row.text, row.metadata, row.kind, row.node)
    fields = json.dumps(fields_of(metadata), ensure_ascii=False)
    if any("\0" in one for one in plain if one) or ("\\u0000" in fields and unstorable(fields_of(metadata))):
        raise NodeRejectedError(
            f"Node '{row.node_id}' has a NUL character in its id, text or metadata, which Postgres cannot store. "
            "Remove it (`ingest` cleans text of it). Nothing was written.",
            [row.node_id],
        )
    folded = json.dumps(folded_of(metadata), ensure_ascii=False)
    values: list[bytes] = []
    for one in plain:
        values += _sized(one.encode()) if one is not None else (_NULL,)
    values += _sized(b"\x01" + fields.encode())
    values += _sized(b"\x01" + folded.encode())
    return values


def _sized(value: bytes) -> tuple[bytes, bytes]:
    return _LENGTH.pack(len(value)), value


def read_nodes(rows: Sequence[Sequence[Any]]) -> list[BaseNode]:
    """Put nodes together from rows of `NODE_COLUMNS`, with an embedding where the row has one more value."""
    width = len(NODE_COLUMNS)
    return [to_node(Row(*row[:width]), json.loads(row[width]) if len(row) > width else None) for row in rows]
