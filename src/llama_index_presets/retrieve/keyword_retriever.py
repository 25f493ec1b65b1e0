"""A keyword index as a LlamaIndex retriever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from llama_index_presets._options import strict
from llama_index_presets.errors import SettingsError
from llama_index_presets.provenance import RankedNode, StageRank
from llama_index_presets.retrieve.found import Found
from llama_index_presets.retrieve.queries import both_filters, filters_of

if TYPE_CHECKING:
    from llama_index_presets.retrieve.keyword import BM25Index

__all__ = ["KeywordRetriever"]

dispatcher = get_dispatcher(__name__)


class _Retrieval:
    """What `BaseRetriever` calls.

    Apart from it, because LlamaIndex puts a span around every method of a retriever that replaces an abstract one:
    it would lie inside that of `retrieve`, say the same, and take a fifth of the search.
    """

    index: BM25Index
    top_k: int
    filters: MetadataFilters | None

    def _find(self, query: QueryBundle, top_k: int) -> Found:
        return self.index.find(query.query_str, top_k, both_filters(self.filters, filters_of(query)))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._find(query_bundle, self.top_k)
        nodes = found.nodes()
        return [
            RankedNode(node=nodes[name], score=score, stages={"bm25": StageRank(rank, score)})
            for rank, (name, score) in enumerate(found.pairs, start=1)
            if name in nodes
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


@strict()
class KeywordRetriever(_Retrieval, BaseRetriever):
    """Hits of a `BM25Index`, best first; each carries its rank and score under the stage ``"bm25"``.

    Args:
        index: The keyword index.
        top_k: How many hits at most, >= 0.
        filters: What hits must satisfy; a `FilteredQuery` can narrow them further.
        **options: What `BaseRetriever` takes.

    Raises:
        SettingsError: top_k is negative.
    """

    def __init__(
        self, index: BM25Index, *, top_k: int = 10, filters: MetadataFilters | None = None, **options: Any
    ) -> None:
        if top_k < 0:
            raise SettingsError(f"top_k is {top_k}; it must be 0 or more.")
        super().__init__(**options)
        self.index = index
        self.top_k = top_k
        self.filters = filters

    @dispatcher.span
    def find(self, query: QueryBundle, top_k: int | None = None) -> Found:
        """Ids and scores first, nodes when asked for; cheaper than `retrieve` where few nodes are wanted."""
        return self._find(query, self.top_k if top_k is None else top_k)

    def _handle_recursive_retrieval(
        self, query_bundle: QueryBundle, nodes: list[NodeWithScore]
    ) -> list[NodeWithScore]:
        """Follow index nodes; where there are none, ids are unique already and there is nothing to do."""
        if any(isinstance(hit.node, IndexNode) for hit in nodes):
            return super()._handle_recursive_retrieval(query_bundle, nodes)
        return nodes
