"""Nodes as rows of a Lance table, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from llama_index.core.schema import BaseNode

from llama_index_presets.errors import StoreError
from llama_index_presets.filters import REFERENCE_KEYS
from llama_index_presets.store.labels import labels_of
from llama_index_presets.store.lancedb_filters import fields_of
from llama_index_presets.store.rows import Row, to_node, to_row

__all__ = ["FINGERPRINT_KEY", "LanceColumns", "filterable", "read_nodes"]

FINGERPRINT_KEY = "llama_index_presets.fingerprint"
"""Where the vector column keeps the fingerprint of the model that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanceColumns:
    """Columns of a table; three of them bear names that the caller may choose.

    ``metadata`` is the metadata as it was written, ``fields`` its strings and numbers as Lance JSON and
    ``labels`` all of it as index terms, for filters; ``kind`` and ``node`` are the rest of the node.

    Attributes:
        vector: float32 vector, as the caller gave it.
        text: Text of the node, indexed for text search.
        doc_id: Id of the source document; NULL where there is none.
    """

    vector: str = "vector"
    text: str = "text"
    doc_id: str = "doc_id"

    @property
    def of_nodes(self) -> list[str]:
        """Columns that `read_nodes` needs, without the vector."""
        return ["id", self.doc_id, self.text, "metadata", "kind", "node"]

    def schema(self, dim: int, fingerprint: str | None) -> pa.Schema:
        """Schema of a new table."""
        return pa.schema(
            [
                pa.field("id", pa.string(), nullable=False),
                pa.field(self.doc_id, pa.string()),
                pa.field(self.text, pa.string()),
                pa.field("metadata", pa.string()),
                pa.field("kind", pa.string()),
                pa.field("node", pa.string()),
                pa.field("fields", pa.json_(pa.utf8())),
                pa.field("labels", pa.list_(pa.string())),
                pa.field(
                    self.vector,
                    pa.list_(pa.float32(), dim),
                    metadata={FINGERPRINT_KEY: fingerprint} if fingerprint else None,
                ),
            ]
        )

    def fingerprint(self, schema: pa.Schema) -> str | None:
        """Read what made the vectors of a table; None where nobody said."""
        stored = (schema.field(self.vector).metadata or {}).get(FINGERPRINT_KEY.encode())
        return stored.decode() if stored else None

    def check(self, schema: pa.Schema, table_name: str) -> None:
        """Refuse a table that this class did not make.

        Raises:
            StoreError: Names the columns that are missing.
        """
        missing = [
            name for name in [*self.of_nodes, "fields", "labels", self.vector] if name not in schema.names
        ]
        if missing:
            raise StoreError(
                f"Table '{table_name}' has no column {', '.join(missing)}: it was made by another program, "
                "such as the official adapter. Load its nodes into a table of another name."
            )

    def dim(self, schema: pa.Schema) -> int:
        """Length of the vectors of a table."""
        return int(schema.field(self.vector).type.list_size)

    def table(
        self, nodes: Sequence[BaseNode], vectors: npt.NDArray[np.float32], schema: pa.Schema
    ) -> pa.Table:
        """Make rows of nodes.

        Args:
            nodes: Unique by id.
            vectors: Their embeddings, (n, dim) float32.
            schema: From `schema`.

        Raises:
            NodeRejectedError: A node has no JSON form.
        """
        rows = [to_row(node) for node in nodes]
        metadata = [filterable(row) for row in rows]
        storage = pa.array([json.dumps(fields_of(one), ensure_ascii=False) for one in metadata], pa.string())
        arrays = [
            *(pa.array([getattr(row, name) for row in rows], pa.string()) for name in _ROW_FIELDS),
            pa.ExtensionArray.from_storage(pa.json_(pa.utf8()), storage),
            pa.array([labels_of(one) for one in metadata], pa.list_(pa.string())),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        ]
        return pa.Table.from_arrays(arrays, schema=schema)


_ROW_FIELDS = ("node_id", "ref_doc_id", "text", "metadata", "kind", "node")


def filterable(row: Row) -> dict[str, Any]:
    """Give the mapping that filters see, as `filters.filterable_metadata` does, from a row."""
    metadata: dict[str, Any] = json.loads(row.metadata)
    for key in REFERENCE_KEYS:
        metadata.setdefault(key, row.ref_doc_id)
    return metadata


def read_nodes(rows: pa.Table, columns: LanceColumns) -> list[BaseNode]:
    """Put nodes together from rows; with their embeddings where the vector column is there."""
    stored = map(Row, *(rows[name].to_pylist() for name in columns.of_nodes))
    if columns.vector not in rows.column_names:
        return [to_node(row) for row in stored]
    return [
        to_node(row, vector) for row, vector in zip(stored, rows[columns.vector].to_pylist(), strict=True)
    ]
