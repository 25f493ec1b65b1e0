"""Query checks and composed query modes: HYBRID from a vector and a text search, MMR from a wide vector search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets._options import expect, refuse_unknown
from llama_index_presets.errors import QueryError
from llama_index_presets.filters.values import check
from llama_index_presets.ranking.fusion import convex_combination
from llama_index_presets.ranking.mmr import maximal_marginal_relevance
from llama_index_presets.text.utf8 import has_utf8, printable

__all__ = [
    "ADD_OPTIONS",
    "SELECTING",
    "Diversity",
    "answer",
    "check_query",
    "diversity",
    "empty_result",
    "hybrid_ranking",
    "mmr",
    "text_limit",
    "weight_of_vectors",
    "with_mode",
]

ADD_OPTIONS = ("bulk",)
"""Keywords of `add`: ``bulk=True`` leaves building indexes to `finish_load`, where a store has indexes to build."""

SELECTING = ("node_ids", "filters")
"""Arguments of `get_nodes` and `delete_nodes`."""

_MMR_OPTIONS = ("mmr_threshold", "mmr_prefetch_factor", "mmr_prefetch_k")
"""Keywords of a query in mode MMR, as in `VectorIndexRetriever`'s ``vector_store_kwargs``."""

_THRESHOLD, _FACTOR, _ALPHA = 0.5, 4.0, 0.5
_WORDLESS = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
_LIMITS = ("similarity_top_k", "sparse_top_k", "hybrid_top_k")


def with_mode(query: VectorStoreQuery) -> VectorStoreQuery:
    """The same query, its mode a member of the enumeration where the caller gave its name.

    Raises:
        QueryError: There is no such mode.

    Example:
        >>> with_mode(VectorStoreQuery(mode="mmr")).mode
        <VectorStoreQueryMode.MMR: 'mmr'>
    """
    mode: Any = query.mode
    if isinstance(mode, VectorStoreQueryMode):
        return query
    try:
        return replace(query, mode=VectorStoreQueryMode(mode))
    except ValueError:
        names = ", ".join(sorted(one.value for one in VectorStoreQueryMode))
        raise QueryError(f"There is no mode {mode!r}. Use one of: {names}.") from None


def check_query(
    store: str,
    query: VectorStoreQuery,
    mode: VectorStoreQueryMode,
    options: Mapping[str, Any],
    *,
    modes: frozenset[VectorStoreQueryMode],
    known: Sequence[str] = (),
) -> None:
    """Refuse a query that a store could not answer, whatever it holds.

    Args:
        store: Class of the store, for messages.
        query: What is asked.
        mode: Its mode, as the store reads it.
        options: Keywords beside the query.
        modes: Those that the store answers.
        known: Keywords that the store takes beside `_MMR_OPTIONS`.

    Raises:
        UnknownOptionError: A keyword is not known; names the nearest.
        QueryError: The mode is not one of `modes`, or lacks its words; a limit, ``alpha`` or an option of MMR is out of
            range, or has no effect in the mode; a text has no UTF-8 form.
        FilterError: A filter's value does not fit its operator, or has no UTF-8 form.
    """
    if mode not in modes:
        names = ", ".join(sorted(one.value for one in modes))
        raise QueryError(f"{store} has no mode '{mode.value}'. Use one of: {names}.")
    for name in _LIMITS:
        if (getattr(query, name) or 0) < 0:
            raise QueryError(f"{name} is {getattr(query, name)}. Ask for 0 nodes or more.")
    if options:
        _check_options(store, query, options, known)
    if mode not in _WORDLESS:
        _check_words(query, mode)
    elif mode is VectorStoreQueryMode.MMR:
        diversity(query, options)
    _check_texts(query)


def _check_options(
    store: str, query: VectorStoreQuery, options: Mapping[str, Any], known: Sequence[str]
) -> None:
    refuse_unknown(f"{store}.query", options, [*_MMR_OPTIONS, *known])
    idle = [name for name in _MMR_OPTIONS if options.get(name) is not None]
    if idle and query.mode is not VectorStoreQueryMode.MMR:
        raise QueryError(
            f"{', '.join(idle)} has no effect in mode '{query.mode.value}'. Ask in mode 'mmr' "
            "(vector_store_query_mode='mmr'), or leave it out."
        )


def _check_words(query: VectorStoreQuery, mode: VectorStoreQueryMode) -> None:
    if mode is VectorStoreQueryMode.HYBRID and weight_of_vectors(query) == 1:
        return
    if not query.query_str:
        raise QueryError(f"The mode '{mode.value}' needs query_str. Give it the words to look for.")


def _check_texts(query: VectorStoreQuery) -> None:
    """Refuse a query whose ids or filters, or whose words where its mode reads them, have no UTF-8 form.

    Raises:
        QueryError: Names the field and shows the text, escaped.
        FilterError: The same of a filter, or its value does not fit its operator.
    """
    if query.filters is not None:
        expect("filters", query.filters, MetadataFilters, "MetadataFilters")
        _check_filters(query.filters)
    reads_words = query.mode not in _WORDLESS and query.query_str is not None
    for name, values in (
        ("query_str", [query.query_str or ""] if reads_words else None),
        ("node_ids", query.node_ids),
        ("doc_ids", query.doc_ids),
    ):
        if not values:
            continue
        bad = [value for value in values if not has_utf8(value)]
        if bad:
            raise QueryError(
                f"{name} of the query has '{printable(bad[0])}', with a lone surrogate, which has no UTF-8 form. "
                "Nothing in a store can match it: leave it out, or repair the text."
            )


def _check_filters(filters: MetadataFilters) -> None:
    for part in filters.filters:
        if isinstance(part, MetadataFilters):
            _check_filters(part)
        else:
            check(part)


@dataclass(frozen=True, slots=True)
class Diversity:
    """How a query in mode MMR chooses.

    Attributes:
        threshold: From 0 (only unlike each other) to 1 (only like the question).
        candidates: How many of the nearest nodes it chooses from.
    """

    threshold: float
    candidates: int


def diversity(query: VectorStoreQuery, options: Mapping[str, Any]) -> Diversity:
    """Read the options of MMR; the query's own ``mmr_threshold`` comes first.

    Args:
        query: ``similarity_top_k`` nodes are chosen.
        options: ``mmr_threshold``, 0.5 by default; ``mmr_prefetch_factor`` times top_k candidates, 4 by default, or
            ``mmr_prefetch_k`` candidates; never fewer than top_k.

    Raises:
        QueryError: A value is out of range, or both ways to count the candidates are given.

    Example:
        >>> diversity(VectorStoreQuery(similarity_top_k=3), {"mmr_threshold": 0.2, "mmr_prefetch_factor": 2})
        Diversity(threshold=0.2, candidates=6)
    """
    factor, candidates = options.get("mmr_prefetch_factor"), options.get("mmr_prefetch_k")
    if factor is not None and candidates is not None:
        raise QueryError(
            "mmr_prefetch_factor and mmr_prefetch_k both say how many candidates; give one of them."
        )
    threshold = options.get("mmr_threshold") if query.mmr_threshold is None else query.mmr_threshold
    threshold = _THRESHOLD if threshold is None else threshold
    if not 0 <= threshold <= 1:
        raise QueryError(f"mmr_threshold is {threshold}; it must be from 0 (diverse) to 1 (relevant).")
    for name, value in (("mmr_prefetch_factor", factor), ("mmr_prefetch_k", candidates)):
        if value is not None and not 0 < value < 2**31:
            raise QueryError(f"{name} is {value}; it must be above 0.")
    top_k = query.similarity_top_k
    wanted = candidates if candidates is not None else top_k * (_FACTOR if factor is None else factor)
    return Diversity(float(threshold), max(top_k, int(wanted)))


def empty_result() -> VectorStoreQueryResult:
    """Give an answer without nodes."""
    return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])


def answer(
    query: VectorStoreQuery,
    mode: VectorStoreQueryMode,
    options: Mapping[str, Any],
    *,
    nearest: Callable[[int, bool], VectorStoreQueryResult],
    words: Callable[[int], VectorStoreQueryResult],
) -> VectorStoreQueryResult:
    """Answer a query in its mode by the two searches of a store; only those that the mode needs are run.

    Args:
        query: Checked by `check_query`.
        mode: As the store reads it.
        options: Keywords beside the query.
        nearest: Takes a limit and whether to give embeddings; the nodes with the largest cosine.
        words: Takes a limit; the nodes that match ``query_str`` best, scores >= 0.
    """
    if mode is VectorStoreQueryMode.DEFAULT:
        return nearest(query.similarity_top_k, False)
    if mode is VectorStoreQueryMode.MMR:
        choice = diversity(query, options)
        return mmr(query, choice, nearest(choice.candidates, True))
    if mode is VectorStoreQueryMode.HYBRID:
        alpha = weight_of_vectors(query)
        dense = nearest(query.similarity_top_k, False) if alpha > 0 else empty_result()
        return _hybrid(query, dense, words(text_limit(query)) if alpha < 1 else empty_result())
    return words(text_limit(query))


def text_limit(query: VectorStoreQuery) -> int:
    """How many nodes a text search gives: ``sparse_top_k``, else ``similarity_top_k``."""
    return query.similarity_top_k if query.sparse_top_k is None else query.sparse_top_k


def weight_of_vectors(query: VectorStoreQuery) -> float:
    """``alpha`` of a query in mode HYBRID: 1 is vectors alone, 0 text alone, 0.5 by default.

    Raises:
        QueryError: It is not in [0, 1].
    """
    alpha = _ALPHA if query.alpha is None else query.alpha
    if not 0 <= alpha <= 1:
        raise QueryError(
            f"alpha is {alpha}. Give 1 for vectors alone, 0 for text alone, or a number between."
        )
    return alpha


def hybrid_ranking(
    query: VectorStoreQuery, dense: Sequence[tuple[str, float]], sparse: Sequence[tuple[str, float]]
) -> list[tuple[str, float]]:
    """Fuse the ids and scores of a vector and a text search into those of the HYBRID answer.

    Cosine is stretched from -1, the text score from 0, each to its best hit (TM2C2, see
    `ranking.fusion.convex_combination`), and averaged with weights ``alpha`` and ``1 - alpha``. Scores are in
    [0, 1], higher is better.

    Args:
        query: ``hybrid_top_k`` limits the answer, else ``similarity_top_k`` does.
        dense: Cosine similarities; empty where ``alpha`` is 0.
        sparse: Scores >= 0, higher is better; empty where ``alpha`` is 1.
    """
    alpha = weight_of_vectors(query)
    ranking = convex_combination([dense, sparse], weights=[alpha, 1 - alpha], floors=[-1.0, 0.0])
    return ranking[: query.similarity_top_k if query.hybrid_top_k is None else query.hybrid_top_k]


def _hybrid(
    query: VectorStoreQuery, dense: VectorStoreQueryResult, sparse: VectorStoreQueryResult
) -> VectorStoreQueryResult:
    legs = [list(zip(leg.ids or [], leg.similarities or [], strict=True)) for leg in (dense, sparse)]
    best = hybrid_ranking(query, *legs)
    nodes = {node.node_id: node for leg in (dense, sparse) for node in leg.nodes or []}
    return VectorStoreQueryResult(
        nodes=[nodes[node_id] for node_id, _ in best],
        similarities=[score for _, score in best],
        ids=[node_id for node_id, _ in best],
    )


def mmr(
    query: VectorStoreQuery, choice: Diversity, candidates: VectorStoreQueryResult
) -> VectorStoreQueryResult:
    """Select nodes that are close to the query and unlike each other; see `maximal_marginal_relevance`.

    Args:
        query: With its embedding.
        choice: How to choose; see `diversity`.
        candidates: The nearest nodes, with embeddings, which are taken off.

    Returns:
        ``similarity_top_k`` nodes in the order of choice; their similarities are still the cosine.
    """
    nodes, similarities = list(candidates.nodes or []), list(candidates.similarities or [])
    if not nodes:
        return empty_result()
    vectors = [node.get_embedding() for node in nodes]
    order = maximal_marginal_relevance(
        similarities, vectors, query.similarity_top_k, threshold=choice.threshold
    )
    for node in nodes:
        node.embedding = None
    return VectorStoreQueryResult(
        nodes=[nodes[i] for i in order],
        similarities=[similarities[i] for i in order],
        ids=[nodes[i].node_id for i in order],
    )
