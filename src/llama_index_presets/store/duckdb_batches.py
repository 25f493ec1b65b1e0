"""Nodes as batches to write: checked, taken apart, and made ahead while DuckDB writes the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from llama_index.core.schema import BaseNode
from numpy.typing import NDArray

from llama_index_presets.store.rows import Row, to_row
from llama_index_presets.store.vectors import checked_vectors

__all__ = ["Batch", "batches_of"]

_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to write: each id once.

    Attributes:
        rows: In the order in which they came.
        vectors: float32, shape (len(rows), dim).
    """

    rows: Sequence[Row]
    vectors: NDArray[np.float32]

    def arrow(self, first_seq: int) -> pa.Table:
        """The batch as a table whose rows are numbered from `first_seq` on."""
        columns = dict(zip(Row._fields, zip(*self.rows, strict=True), strict=True))
        numbers = np.arange(first_seq, first_seq + len(self.rows))
        flat = pa.array(self.vectors.reshape(-1))
        return pa.table(
            {
                "seq": pa.array(numbers),
                **{name: pa.array(values, pa.string()) for name, values in columns.items()},
                "embedding": pa.FixedSizeListArray.from_arrays(flat, self.vectors.shape[1]),
            }
        )


def batches_of(nodes: Sequence[BaseNode], dim: int | None) -> tuple[int, Iterator[Batch]]:
    """Cut nodes into batches.

    Args:
        nodes: At least one; no id twice.
        dim: Length of the vectors, None for that of the first.

    Returns:
        The length of the vectors, and the batches.

    Raises:
        NodeRejectedError: A node cannot be stored; at once, or when its batch is due.
    """
    chunks = [nodes[i : i + _ROWS] for i in range(0, len(nodes), _ROWS)]
    first = _batch(chunks[0], dim)
    dim = first.vectors.shape[1]
    return dim, _ahead(first, chunks[1:], dim)


def _batch(nodes: Sequence[BaseNode], dim: int | None) -> Batch:
    return Batch([to_row(node) for node in nodes], checked_vectors(nodes, dim))


def _ahead(batch: Batch, chunks: Sequence[Sequence[BaseNode]], dim: int) -> Iterator[Batch]:
    with ThreadPoolExecutor(1, thread_name_prefix="node-rows") as worker:
        for chunk in chunks:
            upcoming = worker.submit(_batch, chunk, dim)
            yield batch
            batch = upcoming.result()
        yield batch
