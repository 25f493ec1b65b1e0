"""Composed query modes: HYBRID from a vector and a text search, MMR from a wide vector search."""

from __future__ import annotations

from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets.errors import QueryError
from llama_index_presets.ranking.fusion import convex_combination
from llama_index_presets.ranking.mmr import maximal_marginal_relevance
from llama_index_presets.store.query_options import Diversity

__all__ = ["check_query", "empty_result", "hybrid", "mmr"]


def empty_result() -> VectorStoreQueryResult:
    """Give an answer without nodes."""
    return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])


def check_query(
    query: VectorStoreQuery, mode: VectorStoreQueryMode, modes: frozenset[VectorStoreQueryMode], store: str
) -> None:
    """Refuse a query that a store cannot answer.

    Raises:
        QueryError: The mode is not one of `modes`, it needs a text and there is none, or a limit is below 0.
    """
    if mode not in modes:
        known = ", ".join(sorted(one.value for one in modes))
        raise QueryError(f"{store} has no mode '{mode.value}'. Use one of: {known}.")
    for name in ("similarity_top_k", "sparse_top_k", "hybrid_top_k"):
        if (getattr(query, name) or 0) < 0:
            raise QueryError(f"{name} is {getattr(query, name)}. Ask for 0 nodes or more.")
    if mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR) and not query.query_str:
        raise QueryError(f"The mode '{mode.value}' needs query_str. Give it the words to look for.")


def hybrid(
    query: VectorStoreQuery, dense: VectorStoreQueryResult, sparse: VectorStoreQueryResult
) -> VectorStoreQueryResult:
    """Fuse a vector and a text search into the HYBRID answer.

    Cosine is stretched from -1, the text score from 0, each to its best hit (TM2C2, see
    `ranking.fusion.convex_combination`), and averaged with weights ``alpha`` and ``1 - alpha``. Scores are in
    [0, 1], higher is better.

    Args:
        query: ``alpha`` 1 is vectors alone, 0 text alone, None means 0.5; ``hybrid_top_k`` limits the answer,
            else ``similarity_top_k`` does.
        dense: Cosine similarities.
        sparse: Scores >= 0, higher is better.

    Raises:
        QueryError: ``alpha`` is not in [0, 1].
    """
    alpha = 0.5 if query.alpha is None else query.alpha
    if not 0 <= alpha <= 1:
        raise QueryError(
            f"alpha is {alpha}. Give 1 for vectors alone, 0 for text alone, or a number between."
        )
    legs = [list(zip(leg.ids or [], leg.similarities or [], strict=True)) for leg in (dense, sparse)]
    ranking = convex_combination(legs, weights=[alpha, 1 - alpha], floors=[-1.0, 0.0])
    top_k = query.similarity_top_k if query.hybrid_top_k is None else query.hybrid_top_k
    best = ranking[:top_k]
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
        choice: How to choose; see `query_options.diversity`.
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
