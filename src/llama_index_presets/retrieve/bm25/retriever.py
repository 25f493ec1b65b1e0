"""Keyword retriever: a BM25 index as a LlamaIndex retriever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.schema import BaseNode, IndexNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from llama_index_presets._options import strict
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.filters import filterable_metadata, predicate
from llama_index_presets.provenance import BM25, RankedIds, RankedNode, StageRank
from llama_index_presets.ranking.bm25 import QueryScores
from llama_index_presets.retrieve.bm25.documents import DocumentTable
from llama_index_presets.retrieve.bm25.official import persist_retriever
from llama_index_presets.retrieve.filtered_query import both_filters, filters_of
from llama_index_presets.retrieve.node_sources import NodeSource, fetch_nodes

__all__ = ["KeywordHits", "KeywordRetriever", "Searcher"]

_log = logging.getLogger(__name__)


class KeywordHits(RankedIds):
    """Hits of one search. Not a dataclass: tracers write out dataclasses whole, and this one refers to every text.

    Args:
        pairs: (node id, score), best first, ties by id.
        rows: Row of each hit in the document table.
        document_table: What was known of the nodes when the search ran.
        source: Who holds the nodes; None where the document table does.
        filters: What the search was asked to respect.
        scores: Scores of the query; None where nothing beyond the hits is known.
    """

    __slots__ = ("_document_table", "_filters", "_rows", "_scores", "_source")

    def __init__(
        self,
        pairs: list[tuple[str, float]],
        rows: list[int],
        document_table: DocumentTable,
        source: NodeSource | None,
        filters: MetadataFilters | None,
        scores: QueryScores | None = None,
    ) -> None:
        self.pairs = pairs
        self._rows, self._document_table, self._source, self._filters = rows, document_table, source, filters
        self._scores = scores

    @property
    def ceiling(self) -> float | None:
        """Score of a node that holds every word asked for, and nothing else; None where it is not known."""
        return self._scores.ceiling if self._scores is not None else None

    def scores_of(self, ids: Iterable[str]) -> dict[str, float]:
        """Scores of given nodes by id, 0.0 where nothing of the query occurs; nodes not in the index are absent."""
        return self._scores.of_ids(ids) if self._scores is not None else {}

    def __repr__(self) -> str:
        return f"KeywordHits({self.pairs})"

    def nodes(self, ids: Iterable[str] | None = None) -> dict[str, BaseNode]:
        """Nodes by id, of all hits or of some.

        A node that its store no longer holds, or that no longer satisfies the filters, is absent, and logged:
        `check_consistency` repairs the index.

        Raises:
            StoreCorruptError: A node is not as it was written down.
            RetrievalError: The store that holds the nodes cannot read them.
        """
        wanted = {name: row for (name, _), row in zip(self.pairs, self._rows, strict=True)}
        if ids is not None:
            wanted = {name: wanted[name] for name in ids}
        if self._source is None:
            return {name: self._document_table.node(row) for name, row in wanted.items()}
        return self._fetched(list(wanted), self._source) if wanted else {}

    def _fetched(self, names: list[str], source: NodeSource) -> dict[str, BaseNode]:
        found = fetch_nodes(source, names)
        if self._filters is not None:
            test = predicate(self._filters)
            found = {name: node for name, node in found.items() if test(filterable_metadata(node))}
        if len(found) < len(names):
            _log.warning(
                "%d of %s are not in the store as they were indexed. Where nothing was ingested or "
                "removed meanwhile, run check_consistency(..., repair=True).",
                len(names) - len(found),
                counted(len(names), "keyword hit"),
            )
        return found


class Searcher(Protocol):
    """A keyword index, as far as its retriever knows it; `BM25Index` is one."""

    def find(self, query: str, top_k: int, filters: MetadataFilters | None = None) -> KeywordHits:
        """Search: ids and scores at once, nodes when asked for."""
        ...


dispatcher = get_dispatcher(__name__)


class _Retrieval:
    """Adapter that `BaseRetriever` calls.

    Apart from it, because LlamaIndex puts a span around every method of a retriever that replaces an abstract one:
    it would lie inside that of `retrieve`, say the same, and take a fifth of the search.
    """

    index: Searcher
    top_k: int
    filters: MetadataFilters | None

    def _find(self, query: QueryBundle, top_k: int) -> KeywordHits:
        return self.index.find(query.query_str, top_k, both_filters(self.filters, filters_of(query)))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._find(query_bundle, self.top_k)
        nodes = found.nodes()
        return [
            RankedNode(node=nodes[name], score=score, stages={BM25: StageRank(rank, score)})
            for rank, (name, score) in enumerate(found.pairs, start=1)
            if name in nodes
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


@strict()
class KeywordRetriever(_Retrieval, BaseRetriever):
    """Retriever over a keyword index, best first; each hit carries its rank and score under the stage ``"bm25"``.

    Args:
        index: The keyword index, such as a `BM25Index`.
        top_k: How many hits at most, >= 0.
        filters: What hits must satisfy; a `FilteredQuery` can narrow them further.
        **options: What `BaseRetriever` takes.

    Raises:
        SettingsError: top_k is negative.
    """

    def __init__(
        self, index: Searcher, *, top_k: int = 10, filters: MetadataFilters | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.index = index
        self.top_k = _checked_top_k(top_k)
        self.filters = filters

    @property
    def similarity_top_k(self) -> int:
        """The name that `top_k` has in `BM25Retriever`."""
        return self.top_k

    @similarity_top_k.setter
    def similarity_top_k(self, value: int) -> None:
        self.top_k = _checked_top_k(value)

    def as_retriever(
        self, top_k: int | None = None, filters: MetadataFilters | None = None, **options: Any
    ) -> KeywordRetriever:
        """Another retriever over the same index; see `BM25Index.as_retriever`."""
        return KeywordRetriever(
            self.index,
            top_k=self.top_k if top_k is None else top_k,
            filters=both_filters(self.filters, filters),
            **options,
        )

    def persist(self, path: str | Path) -> None:
        """Write the index and `top_k` to a folder; `BM25Index.from_persist_dir` opens it.

        Raises:
            SettingsError: The folder holds an index already, or the index cannot be written out.
            StoreWriteError: The folder cannot be written.
        """
        persist_retriever(self.index, self.top_k, Path(path))

    @dispatcher.span
    def find(self, query: QueryBundle, top_k: int | None = None) -> KeywordHits:
        """Ids and scores first, nodes when asked for; cheaper than `retrieve` where few nodes are wanted."""
        return self._find(query, self.top_k if top_k is None else top_k)

    def _handle_recursive_retrieval(
        self, query_bundle: QueryBundle, nodes: list[NodeWithScore]
    ) -> list[NodeWithScore]:
        """Follow index nodes; where there are none, ids are unique already and there is nothing to do."""
        if any(isinstance(hit.node, IndexNode) for hit in nodes):
            return super()._handle_recursive_retrieval(query_bundle, nodes)
        return nodes


def _checked_top_k(top_k: int) -> int:
    if top_k < 0:
        raise SettingsError(f"top_k is {top_k}; it must be 0 or more.")
    return top_k
