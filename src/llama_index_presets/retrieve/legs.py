"""One leg of a hybrid search: any retriever, asked for candidates, with its scores' bounds."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.vector_store import VectorIndexRetriever
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQueryMode,
)
from llama_index_instrumentation.dispatcher import active_instrument_tags, instrument_tags

from llama_index_presets.errors import SettingsError
from llama_index_presets.provenance import RankedNode, StageRank
from llama_index_presets.retrieve.keyword_retriever import KeywordRetriever
from llama_index_presets.retrieve.queries import both_filters

__all__ = ["Candidates", "Leg", "copied_query", "leg_of"]

_TOP_KS = ("_similarity_top_k", "similarity_top_k", "top_k", "_sparse_top_k", "sparse_top_k")
_TEXT_MODES = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
_FILTERS = ("_filters", "filters")


class Candidates(Protocol):
    """What a leg found: ids and scores now, nodes when they are wanted."""

    @property
    def pairs(self) -> list[tuple[str, float]]:
        """(node id, score), best first."""

    def nodes(self, ids: Iterable[str] | None = None) -> dict[str, BaseNode]:
        """Nodes by id; one that is gone is absent."""


class Hits:
    """`Candidates` of a retriever that gives its nodes at once.

    Args:
        hits: Best first; of two hits of one node the first counts.
    """

    def __init__(self, hits: list[NodeWithScore]) -> None:
        self._by_id: dict[str, NodeWithScore] = {}
        for hit in hits:
            self._by_id.setdefault(hit.node.node_id, hit)
        # A retriever may leave scores out; only the methods that read them will complain.
        self.pairs: list[tuple[str, float]] = [
            (name, hit.score)  # type: ignore[misc]
            for name, hit in self._by_id.items()
        ]

    def nodes(self, ids: Iterable[str] | None = None) -> dict[str, BaseNode]:
        """Nodes by id."""
        names = self._by_id if ids is None else ids
        return {name: self._by_id[name].node for name in names}

    def history(self, node_id: str) -> dict[str, StageRank]:
        """What stages inside the leg said of a node."""
        hit = self._by_id[node_id]
        return hit.stages if isinstance(hit, RankedNode) else {}


@dataclass(frozen=True, slots=True, eq=False)
class Leg:
    """A retriever and what its scores mean.

    Attributes:
        name: Stage name of its ranks.
        retriever: Gives candidates, best first.
        candidates: How many are taken.
        floor: Score of a node that has nothing of the query, where known.
        ceiling: Score of a perfect match, where known.
    """

    name: str
    retriever: BaseRetriever
    candidates: int
    floor: float | None = None
    ceiling: float | None = None

    @property
    def quick(self) -> bool:
        """Whether it answers from memory in less time than a thread takes to start."""
        return isinstance(self.retriever, KeywordRetriever)

    def filtered(self, filters: MetadataFilters | None) -> Leg:
        """The same leg with further filters; the retriever itself is not changed.

        Raises:
            SettingsError: The retriever takes no filters.
        """
        if filters is None:
            return self
        retriever = copy.copy(self.retriever)
        for attribute in _FILTERS:
            if hasattr(retriever, attribute):
                setattr(retriever, attribute, both_filters(getattr(retriever, attribute), filters))
                return replace(self, retriever=retriever)
        raise SettingsError(
            f"Leg '{self.name}' is a {type(retriever).__name__}, which takes no metadata filters. Use a leg with "
            "a `filters` attribute, such as index.as_retriever(...) or BM25Index.as_retriever(...)."
        )

    def run(self, query: QueryBundle) -> Candidates:
        """Ask the retriever, on a copy of the query."""
        own = copied_query(query)
        with self._tagged():
            if isinstance(self.retriever, KeywordRetriever):
                return self.retriever.find(own, self.candidates)
            return Hits(self.retriever.retrieve(own)[: self.candidates])

    async def arun(self, query: QueryBundle) -> Candidates:
        """Like `run`, without blocking the event loop."""
        if isinstance(self.retriever, KeywordRetriever) or _blocks(self.retriever):
            return await asyncio.to_thread(self.run, query)
        with self._tagged():
            hits = await self.retriever.aretrieve(copied_query(query))
        return Hits(hits[: self.candidates])

    def _tagged(self) -> AbstractContextManager[None]:
        """Let every span and event inside say which leg it belongs to."""
        return instrument_tags({**active_instrument_tags.get(), "leg": self.name})


def leg_of(name: str, retriever: BaseRetriever, candidates: int) -> Leg:
    """Make a leg of a copy of a retriever that gives as many candidates as are wanted.

    A retriever without a known top-k setting keeps its own. Cosine has a ceiling of 1, keyword scores a floor
    of 0; nothing is assumed of the scores of other retrievers, but that the leg ``"vector"`` gives cosines.
    """
    asked = copy.copy(retriever)
    for attribute in _TOP_KS:
        if getattr(asked, attribute, None) is not None:
            setattr(asked, attribute, candidates)
    mode = getattr(asked, "_vector_store_query_mode", None)
    by_words = isinstance(asked, KeywordRetriever) or mode in _TEXT_MODES
    cosine = mode == VectorStoreQueryMode.DEFAULT or (mode is None and name == "vector")
    return Leg(name, asked, candidates, floor=0.0 if by_words else None, ceiling=1.0 if cosine else None)


def copied_query(query: QueryBundle) -> QueryBundle:
    """A query of its own for one leg: what the leg writes on it, such as an embedding, stays there."""
    own = copy.copy(query)
    own.custom_embedding_strs = list(query.custom_embedding_strs) if query.custom_embedding_strs else None
    return own


def _blocks(retriever: BaseRetriever) -> bool:
    """Whether `aretrieve` would run the search on the event loop itself."""
    if type(retriever)._aretrieve is BaseRetriever._aretrieve:
        return True
    store = retriever._vector_store if isinstance(retriever, VectorIndexRetriever) else None
    return store is not None and type(store).aquery is BasePydanticVectorStore.aquery
