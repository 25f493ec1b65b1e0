"""What each query mode of DuckDBVectorStore does with a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets.errors import QueryError
from llama_index_presets.ranking.fusion import convex_combination
from llama_index_presets.ranking.mmr import maximal_marginal_relevance
from llama_index_presets.store.duckdb_search import MemorySearch, Search
from llama_index_presets.store.query_options import check_options, diversity
from llama_index_presets.store.rows import Row, to_node
from llama_index_presets.store.vectors import checked_question

__all__ = ["MODES", "answer", "answer_many", "check_query"]

_EVEN = 0.5


def check_query(query: VectorStoreQuery, options: Mapping[str, Any]) -> None:
    """Refuse a query that no table could answer.

    Raises:
        QueryError: The mode is not one of `MODES`, or a limit is negative.
        UnknownOptionError: A keyword of the query is not known.
    """
    if query.mode not in MODES:
        known = ", ".join(sorted(mode.value for mode in MODES))
        raise QueryError(f"DuckDBVectorStore has no query mode '{query.mode.value}'. Choose one of: {known}.")
    for name in ("similarity_top_k", "sparse_top_k", "hybrid_top_k"):
        limit = getattr(query, name)
        if limit is not None and limit < 0:
            raise QueryError(f"{name} is {limit}; it must be 0 or more.")
    check_options("DuckDBVectorStore", query, options)


def answer(search: Search, dim: int, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
    """Answer a query in its mode.

    Args:
        search: Of the table.
        dim: Length of the table's vectors.
        query: Checked by `check_query`.
        **options: ``mmr_threshold``, ``mmr_prefetch_k``, ``mmr_prefetch_factor``, as other stores take them.

    Raises:
        QueryError: The query lacks what its mode needs.
        FilterError: A filter's value does not fit its operator.
    """
    return MODES[query.mode](search, dim, query, options)


def answer_many(
    search: Search, dim: int, queries: Sequence[VectorStoreQuery], **options: Any
) -> list[VectorStoreQueryResult]:
    """Answer queries; in memory, those of mode DEFAULT without restrictions share one matrix product."""
    plain = [query for query in queries if _is_plain(query)] if isinstance(search, MemorySearch) else []
    together = iter(_answer_plain(search, dim, plain)) if isinstance(search, MemorySearch) and plain else None
    return [
        next(together) if together and _is_plain(query) else answer(search, dim, query, **options)
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
    hits = search.nearest(question, choice.candidates, query)
    chosen = maximal_marginal_relevance(hits.scores, hits.vectors, k, threshold=choice.threshold)
    return _result([hits.rows[place] for place in chosen], [hits.scores[place] for place in chosen])


def _text(search: Search, dim: int, query: VectorStoreQuery, options: Any) -> VectorStoreQueryResult:
    k = query.similarity_top_k if query.sparse_top_k is None else query.sparse_top_k
    found = _matching(search, query, k)
    return _result([row for row, _ in found], [score for _, score in found])


def _matching(search: Search, query: VectorStoreQuery, k: int) -> list[tuple[Row, float]]:
    if query.query_str is None:
        raise QueryError(f"A query in mode '{query.mode.value}' needs query_str, the words to look for.")
    if not isinstance(search, MemorySearch):
        raise QueryError(
            f"Mode '{query.mode.value}' works in memory, and this table is larger than cache_mb. Raise cache_mb, "
            "or use BM25Index, which keeps its own files."
        )
    return search.matching(query.query_str, k, query)


def _hybrid(search: Search, dim: int, query: VectorStoreQuery, options: Any) -> VectorStoreQueryResult:
    """Both legs, each stretched to [0, 1] and weighted: alpha for the vectors, the rest for the words."""
    alpha = _EVEN if query.alpha is None else query.alpha
    if not 0 <= alpha <= 1:
        raise QueryError(f"alpha is {alpha}; it must be from 0 (words only) to 1 (vectors only).")
    dense: list[tuple[Row, float]] = []
    words: list[tuple[Row, float]] = []
    if alpha > 0:
        hits = search.nearest(checked_question(query.query_embedding, dim), query.similarity_top_k, query)
        dense = list(zip(hits.rows, hits.scores, strict=True))
    if alpha < 1:
        k = query.similarity_top_k if query.sparse_top_k is None else query.sparse_top_k
        words = _matching(search, query, k)
    rows = {row.node_id: row for row, _ in [*dense, *words]}
    rankings = [[(row.node_id, score) for row, score in leg] for leg in (dense, words)]
    fused = convex_combination(rankings, weights=[alpha, 1 - alpha], floors=[-1.0, 0.0])
    limit = query.similarity_top_k if query.hybrid_top_k is None else query.hybrid_top_k
    return _result([rows[name] for name, _ in fused[:limit]], [score for _, score in fused[:limit]])


_Mode = Callable[[Search, int, VectorStoreQuery, Any], VectorStoreQueryResult]

MODES: dict[VectorStoreQueryMode, _Mode] = {
    VectorStoreQueryMode.DEFAULT: _default,
    VectorStoreQueryMode.TEXT_SEARCH: _text,
    VectorStoreQueryMode.SPARSE: _text,
    VectorStoreQueryMode.HYBRID: _hybrid,
    VectorStoreQueryMode.MMR: _mmr,
}
"""Query mode -> what it does; every other mode is refused."""
