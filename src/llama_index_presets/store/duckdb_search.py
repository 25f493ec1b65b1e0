"""Where the nearest rows come from: the snapshot in memory, or DuckDB's scan where it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery
from numpy.typing import NDArray

from llama_index_presets._utf8 import check_ids
from llama_index_presets.filters import Condition, DuckDBDialect, render
from llama_index_presets.store.duckdb_file import Database
from llama_index_presets.store.duckdb_table import Table
from llama_index_presets.store.matrix import Found, Positions
from llama_index_presets.store.rows import Row, restricting_ids
from llama_index_presets.store.snapshot import Snapshot

__all__ = ["Hits", "MemorySearch", "Search", "SqlSearch", "condition_of"]

_SPARE = 64
"""Rows that DuckDB's float32 order may have put too low, scored again in float64."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found.

    Attributes:
        rows: Best first.
        scores: Cosine of each, -1 to 1.
        vectors: Of each, shape (n, dim).
    """

    rows: list[Row]
    scores: list[float]
    vectors: NDArray[np.float32]


class Search(Protocol):
    """Exact search under the restrictions of a query."""

    def nearest(self, question: NDArray[np.float64], k: int, query: VectorStoreQuery) -> Hits:
        """The k rows with the largest cosine, ties by id, among those that the query allows."""
        ...


def condition_of(
    filters: MetadataFilters | None,
    node_ids: Sequence[str] | None = None,
    doc_ids: Sequence[str] | None = None,
) -> Condition:
    """Render filters, ids and documents as one SQL condition; None restricts nothing, an empty list everything."""
    check_ids(node_ids, "node")
    check_ids(doc_ids, "document")
    dialect = DuckDBDialect()
    parts = [render(filters, dialect).sql]
    if node_ids is not None:
        parts.append(f"node_id IN (SELECT unnest({dialect.bind(list(node_ids))}::VARCHAR[]))")
    if doc_ids is not None:
        parts.append(
            f"coalesce(ref_doc_id IN (SELECT unnest({dialect.bind(list(doc_ids))}::VARCHAR[])), FALSE)"
        )
    return Condition(dialect.all_of(parts), dialect.parameters)


class SqlSearch:
    """Search by DuckDB, for tables beyond the memory budget.

    Args:
        table: To search.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def nearest(self, question: NDArray[np.float64], k: int, query: VectorStoreQuery) -> Hits:
        """See `Search.nearest`."""
        with self._table.database.cursor() as cursor:
            node_ids = query.node_ids
            if node_ids:
                node_ids = restricting_ids(node_ids, self._table.kinds(cursor, node_ids))
            condition = condition_of(query.filters, node_ids or None, query.doc_ids)
            found = self._table.scan(cursor, question, k + _SPARE, condition)
        vectors = np.array([vector for _, vector in found], np.float32).reshape(len(found), len(question))
        exact = vectors.astype(np.float64)
        scores = np.einsum("ij,j->i", exact, question) / np.sqrt(np.einsum("ij,ij->i", exact, exact))
        order = sorted(range(len(found)), key=lambda i: (-scores[i], found[i][0].node_id))[:k]
        clipped = np.clip(scores[order], -1.0, 1.0).tolist() if order else []
        return Hits([found[i][0] for i in order], clipped, vectors[order])


class MemorySearch:
    """Search of a snapshot.

    Args:
        database: Where its table is.
        snapshot: To search.
        newer: Gives the snapshot of now.
    """

    def __init__(self, database: Database, snapshot: Snapshot, newer: Callable[[], Snapshot]) -> None:
        self._database = database
        self.snapshot = snapshot
        self._newer = newer

    def nearest(self, question: NDArray[np.float64], k: int, query: VectorStoreQuery) -> Hits:
        """See `Search.nearest`."""
        among = self.allowed(query)
        without = self.snapshot.dead if among is None else None
        return self.hits(self.snapshot.matrix.nearest(question, k, among, without), k)

    def allowed(self, query: VectorStoreQuery) -> Positions | None:
        """Positions that the query's restrictions allow; None for all."""
        return self.snapshot.selected(self._database, query.filters, query.doc_ids, query.node_ids)

    def matching(self, words: str, k: int, query: VectorStoreQuery) -> list[tuple[Row, float]]:
        """The k rows whose text matches words best by BM25, ties by id; scores > 0, without an upper limit."""
        among, keywords = self.allowed(query), self.snapshot.keywords
        view = keywords.view(self.snapshot)
        while view is None:  # another thread has taken the index on to a later version
            self.snapshot = self._newer()
            among, keywords = self.allowed(query), self.snapshot.keywords
            view = keywords.view(self.snapshot)
        mask = None
        if among is not None:
            mask = np.zeros(view.rows, np.bool_)
            mask[among] = True
        found = view.best(keywords.analyzer.tokens(words), k, mask)
        rows = self.snapshot.at(np.array([position for position, _ in found], np.intp))
        return [(row, float(score)) for row, (_, score) in zip(rows, found, strict=True)]

    def nearest_of_many(self, questions: NDArray[np.float64], k: int) -> list[Hits]:
        """`nearest` for each question, unrestricted."""
        many = self.snapshot.matrix.nearest_of_many(questions, k, self.snapshot.dead)
        ordered = [self._ordered(found, k) for found in many]
        # All rows in one go: fetching them takes Arrow much the same time for ten as for a thousand.
        rows = iter(self.snapshot.at(np.concatenate([positions for positions, _ in ordered])))
        return [
            Hits(list(islice(rows, len(scores))), scores.tolist(), self.snapshot.matrix.vectors(positions))
            for positions, scores in ordered
        ]

    def hits(self, found: Found, k: int) -> Hits:
        """Break ties by id and fetch the rows."""
        positions, scores = self._ordered(found, k)
        return Hits(self.snapshot.at(positions), scores.tolist(), self.snapshot.matrix.vectors(positions))

    def _ordered(self, found: Found, k: int) -> Found:
        positions, scores = found
        if len(positions) > 1 and np.any(scores[1:] == scores[:-1]):
            names = self.snapshot.names_at(positions)
            order = sorted(range(len(names)), key=lambda i: (-scores[i], names[i]))
            positions, scores = positions[order], scores[order]
        return positions[:k], scores[:k]
