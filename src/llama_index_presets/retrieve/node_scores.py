"""Scores of given nodes by a retriever's own measure: what a fusion asks for nodes that only another leg found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.vector_store import VectorIndexRetriever
from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

__all__ = ["ScoreIds", "ScoresIds", "TellsSimilarities", "query_mode", "scorer_of"]

ScoreIds = Callable[[Sequence[str]], dict[str, float]]
"""Node ids -> score by id; nodes that cannot be scored are absent."""


@runtime_checkable
class ScoresIds(Protocol):
    """Retriever that can also score nodes that it did not give, so that a fusion knows every score of every leg."""

    def score_ids(self, query_bundle: QueryBundle, ids: Sequence[str]) -> dict[str, float]:
        """Scores of nodes by id, as `retrieve` would give them; nodes that cannot be scored are absent."""


@runtime_checkable
class TellsSimilarities(Protocol):
    """Vector store that gives the similarities of some nodes at less cost than a search."""

    def similarities(self, embedding: Sequence[float], node_ids: Sequence[str]) -> dict[str, float]:
        """Similarity by id, as `query` gives it; nodes that are not stored are absent."""


def scorer_of(retriever: BaseRetriever, query: QueryBundle) -> ScoreIds | None:
    """How a retriever scores given nodes: as `ScoresIds`, or as an index does; None where it cannot.

    Args:
        retriever: Has answered the query.
        query: The very object that it was asked with, on which it left the embedding.
    """
    if isinstance(retriever, ScoresIds):
        return lambda names: retriever.score_ids(query, names)
    if isinstance(retriever, VectorIndexRetriever) and query_mode(retriever) == VectorStoreQueryMode.DEFAULT:
        return lambda names: _similarities(retriever, query, names)
    return None


def query_mode(retriever: BaseRetriever) -> Any:
    """Query mode of a retriever over a vector store; None of another."""
    return getattr(retriever, "_vector_store_query_mode", None)


def _similarities(
    retriever: VectorIndexRetriever, query: QueryBundle, names: Sequence[str]
) -> dict[str, float]:
    """Similarities of given nodes: from the store itself where it tells them, else with one query to it."""
    if query.embedding is None:
        return {}
    store = retriever._vector_store
    if isinstance(store, TellsSimilarities):
        return store.similarities(query.embedding, names)
    found = store.query(
        VectorStoreQuery(
            query_embedding=query.embedding,
            query_str=query.query_str,
            similarity_top_k=len(names),
            node_ids=list(names),
            mode=VectorStoreQueryMode.DEFAULT,
        )
    )
    ids = found.ids or [node.node_id for node in found.nodes or []]
    wanted = set(names)
    return {name: score for name, score in zip(ids, found.similarities or [], strict=False) if name in wanted}
