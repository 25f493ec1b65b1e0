"""Nodes on their way into a table: checked and taken apart while DuckDB compresses those before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from llama_index.core.schema import BaseNode

from llama_index_presets._utf8 import check_ids
from llama_index_presets.store.arrow import numbers, strings
from llama_index_presets.store.rows import Row, to_row
from llama_index_presets.store.vectors import checked_vectors

__all__ = ["Incoming"]

_ROWS = 4096
"""Rows taken apart at a time: enough for DuckDB to work on, few enough to stay in the processor's cache."""


class Incoming:
    """Nodes to write, each id once.

    Args:
        nodes: At least one.
        dim: Length of their vectors, None for that of the first.

    Attributes:
        dim: Length of their vectors.
        failure: Why `stream` ended early: DuckDB wraps what is raised there beyond recognition.

    Raises:
        NodeRejectedError: One of the first nodes cannot be stored.
    """

    def __init__(self, nodes: Sequence[BaseNode], dim: int | None) -> None:
        check_ids((node.node_id for node in nodes), "node")
        self._nodes = nodes
        self._first = self._batch(0, dim)
        self.dim: int = self._first.schema.field("embedding").type.list_size
        self.failure: BaseException | None = None

    def __len__(self) -> int:
        return len(self._nodes)

    def ids(self) -> pa.Table:
        """The ids, in the column ``node_id``."""
        return pa.table({"node_id": strings([node.node_id for node in self._nodes])})

    def stream(self, first_seq: int) -> pa.RecordBatchReader:
        """The rows, numbered from `first_seq` on, each batch made when it is asked for."""
        schema = self._first.schema.append(pa.field("seq", pa.int64()))
        return pa.RecordBatchReader.from_batches(schema, self._numbered(first_seq))

    def _numbered(self, first_seq: int) -> Iterator[pa.RecordBatch]:
        try:
            for start in range(0, len(self._nodes), _ROWS):
                batch = self._batch(start, self.dim) if start else self._first
                seqs = numbers(np.arange(first_seq + start, first_seq + start + len(batch)))
                yield batch.append_column("seq", seqs)
        except GeneratorExit:
            raise  # DuckDB stopped reading, for a reason that it will give
        except BaseException as error:
            self.failure = error
            raise

    def _batch(self, start: int, dim: int | None) -> pa.RecordBatch:
        nodes = self._nodes[start : start + _ROWS]
        columns = zip(*[to_row(node) for node in nodes], strict=True)
        vectors = checked_vectors(nodes, dim)
        embeddings = pa.FixedSizeListArray.from_arrays(numbers(vectors.reshape(-1)), vectors.shape[1])
        return pa.RecordBatch.from_arrays(
            [*map(strings, columns), embeddings], names=[*Row._fields, "embedding"]
        )
