"""Nearest rows: from the snapshot in memory, or by DuckDB's scan where it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from numpy.typing import NDArray

from llama_index_presets.errors import QueryError
from llama_index_presets.filters import Condition, DuckDBDialect, render
from llama_index_presets.ranking.mmr import maximal_marginal_relevance
from llama_index_presets.store.base import NodeQuery
from llama_index_presets.store.duckdb.database import Database
from llama_index_presets.store.duckdb.snapshot import Snapshot
from llama_index_presets.store.duckdb.table import Table
from llama_index_presets.store.duckdb.vector_matrix import Found, Positions
from llama_index_presets.store.node_codec import Row, restricting_ids, to_node
from llama_index_presets.store.query_modes import diversity, hybrid_ranking, text_limit, weight_of_vectors
from llama_index_presets.store.vectors import checked_question

__all__ = [
    "MODES",
    "Hits",
    "MemorySearch",
    "Search",
    "SqlSearch",
    "answer",
    "answer_many",
    "condition_of",
]

_SPARE = 64
"""Rows that DuckDB's float32 order may have put too low, scored again in float64."""


@dataclass(frozen=True, slots=True)
class Hits:
    """Hits of a search.

    Attributes:
        rows: Best first.
        scores: Cosine of each, -1 to 1.
        vectors: Of each, shape (n, dim); empty where the search was not asked for them.
    """

    rows: list[Row]
    scores: list[float]
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))


class Search(Protocol):
    """Exact search under the restrictions of a query."""

    def nearest(
        self, question: NDArray[np.float64], k: int, query: VectorStoreQuery, *, vectors: bool = False
    ) -> Hits:
        """The k rows with the largest cosine, ties by id, among those that the query allows."""
        ...


def condition_of(selection: NodeQuery) -> Condition:
    """Render filters, ids and documents as one SQL condition; None restricts nothing, an empty list everything."""
    dialect = DuckDBDialect()
    parts = [render(selection.filters, dialect).sql]
    if selection.node_ids is not None:
        parts.append(f"node_id IN (SELECT unnest({dialect.bind(list(selection.node_ids))}::VARCHAR[]))")
    if selection.doc_ids is not None:
        documents = dialect.bind(list(selection.doc_ids))
        parts.append(f"coalesce(ref_doc_id IN (SELECT unnest({documents}::VARCHAR[])), FALSE)")
    return Condition(dialect.all_of(parts), dialect.parameters)


class SqlSearch:
    """Search by DuckDB, for tables beyond the memory budget.

    Args:
        table: To search.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def nearest(
        self, question: NDArray[np.float64], k: int, query: VectorStoreQuery, *, vectors: bool = False
    ) -> Hits:
        """See `Search.nearest`."""
        with self._table.database.cursor() as cursor:
            node_ids = query.node_ids
            if node_ids:
                node_ids = restricting_ids(node_ids, self._table.kinds(cursor, node_ids))
            selection = NodeQuery(node_ids=node_ids or None, doc_ids=query.doc_ids, filters=query.filters)
            condition = condition_of(selection)
            found = self._table.scan(cursor, question, k + _SPARE, condition)
        stored = np.array([vector for _, vector in found], np.float32).reshape(len(found), len(question))
        exact = stored.astype(np.float64)
        scores = np.einsum("ij,j->i", exact, question) / np.sqrt(np.einsum("ij,ij->i", exact, exact))
        order = sorted(range(len(found)), key=lambda i: (-scores[i], found[i][0].node_id))[:k]
        clipped = np.clip(scores[order], -1.0, 1.0).tolist() if order else []
        return Hits([found[i][0] for i in order], clipped, stored[order])


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

    def nearest(
        self, question: NDArray[np.float64], k: int, query: VectorStoreQuery, *, vectors: bool = False
    ) -> Hits:
        """See `Search.nearest`."""
        among = self.allowed(query)
        without = self.snapshot.dead if among is None else None
        positions, scores = self._ordered(self.snapshot.matrix.nearest(question, k, among, without), k)
        rows = self.snapshot.at(positions)
        if not vectors:
            return Hits(rows, scores.tolist())
        return Hits(rows, scores.tolist(), self.snapshot.matrix.vectors(positions))

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
        return [Hits(list(islice(rows, len(scores))), scores.tolist()) for _, scores in ordered]

    def _ordered(self, found: Found, k: int) -> Found:
        positions, scores = found
        if len(positions) > 1 and np.any(scores[1:] == scores[:-1]):
            names = self.snapshot.names_at(positions)
            order = sorted(range(len(names)), key=lambda i: (-scores[i], names[i]))
            positions, scores = positions[order], scores[order]
        return positions[:k], scores[:k]


# -- query modes ----------------------------------------------------------------------------------------------


def answer(
    search: Search, dim: int, query: VectorStoreQuery, options: Mapping[str, Any]
) -> VectorStoreQueryResult:
    """Answer a query in its mode.

    Args:
        search: Of the table.
        dim: Length of the table's vectors.
        query: Checked by `query_modes.check_query`.
        options: ``mmr_threshold``, ``mmr_prefetch_k``, ``mmr_prefetch_factor``, as other stores take them.

    Raises:
        QueryError: The query lacks what its mode needs.
        FilterError: A filter's value does not fit its operator.
    """
    return MODES[query.mode](search, dim, query, options)


def answer_many(
    search: Search, dim: int, queries: Sequence[VectorStoreQuery], options: Mapping[str, Any]
) -> list[VectorStoreQueryResult]:
    """Answer queries; in memory, those of mode DEFAULT without restrictions share one matrix product."""
    plain = [query for query in queries if _is_plain(query)] if isinstance(search, MemorySearch) else []
    together = iter(_answer_plain(search, dim, plain)) if isinstance(search, MemorySearch) and plain else None
    return [
        next(together) if together and _is_plain(query) else answer(search, dim, query, options)
        for query in queries
    ]


def _is_plain(query: VectorStoreQuery) -> bool:
    unfiltered = query.filters is None or not query.filters.filters
    unrestricted = query.doc_ids is None and not query.node_ids
    return query.mode is VectorStoreQueryMode.DEFAULT and unfiltered and unrestricted


def _answer_plain(
    search: MemorySearch, dim: int, queries: Sequence[VectorStoreQuery]
) -> list[VectorStoreQueryResult]:
    questions = np.stack([checked_question(query.query_embedding, dim) for query in queries])
    found = search.nearest_of_many(questions, max(query.similarity_top_k for query in queries))
    return [
        _result(hits.rows[: query.similarity_top_k], hits.scores[: query.similarity_top_k])
        for hits, query in zip(found, queries, strict=True)
    ]


def _result(rows: Sequence[Row], scores: Sequence[float]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[to_node(row) for row in rows],
        similarities=list(scores),
        ids=[row.node_id for row in rows],
    )


def _default(search: Search, dim: int, query: VectorStoreQuery, options: Any) -> VectorStoreQueryResult:
    question = checked_question(query.query_embedding, dim)
    hits = search.nearest(question, query.similarity_top_k, query)
    return _result(hits.rows, hits.scores)


def _mmr(search: Search, dim: int, query: VectorStoreQuery, options: Any) -> VectorStoreQueryResult:
    """Diverse hits, in the order in which they were chosen, with their cosines."""
    question = checked_question(query.query_embedding, dim)
    k = query.similarity_top_k
    choice = diversity(query, options)
    hits = search.nearest(question, choice.candidates, query, vectors=True)
    chosen = maximal_marginal_relevance(hits.scores, hits.vectors, k, threshold=choice.threshold)
    return _result([hits.rows[place] for place in chosen], [hits.scores[place] for place in chosen])


def _text(search: Search, dim: int, query: VectorStoreQuery, options: Any) -> VectorStoreQueryResult:
    found = _matching(search, query, text_limit(query))
    return _result([row for row, _ in found], [score for _, score in found])


def _matching(search: Search, query: VectorStoreQuery, k: int) -> list[tuple[Row, float]]:
    if not isinstance(search, MemorySearch):
        raise QueryError(
            f"Mode '{query.mode.value}' works in memory, and this table is larger than cache_mb. Raise cache_mb, "
            "or use BM25Index, which keeps its own files."
        )
    return search.matching(query.query_str or "", k, query)


def _hybrid(search: Search, dim: int, query: VectorStoreQuery, options: Any) -> VectorStoreQueryResult:
    """Both legs, each stretched to [0, 1] and weighted: alpha for the vectors, the rest for the words."""
    alpha = weight_of_vectors(query)
    dense: list[tuple[Row, float]] = []
    words: list[tuple[Row, float]] = []
    if alpha > 0:
        hits = search.nearest(checked_question(query.query_embedding, dim), query.similarity_top_k, query)
        dense = list(zip(hits.rows, hits.scores, strict=True))
    if alpha < 1:
        words = _matching(search, query, text_limit(query))
    rows = {row.node_id: row for row, _ in [*dense, *words]}
    legs = [[(row.node_id, score) for row, score in leg] for leg in (dense, words)]
    ranking = hybrid_ranking(query, *legs)
    return _result([rows[name] for name, _ in ranking], [score for _, score in ranking])


_Mode = Callable[[Search, int, VectorStoreQuery, Any], VectorStoreQueryResult]

MODES: dict[VectorStoreQueryMode, _Mode] = {
    VectorStoreQueryMode.DEFAULT: _default,
    VectorStoreQueryMode.TEXT_SEARCH: _text,
    VectorStoreQueryMode.SPARSE: _text,
    VectorStoreQueryMode.HYBRID: _hybrid,
    VectorStoreQueryMode.MMR: _mmr,
}
"""Query mode -> what it does; every other mode is refused."""
