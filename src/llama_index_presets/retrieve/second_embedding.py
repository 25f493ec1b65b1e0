"""A further leg of a hybrid search: exact search by a second embedding model over the nodes of a keyword index."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters
from numpy.typing import NDArray

from llama_index_presets._options import strict
from llama_index_presets.errors import SettingsError
from llama_index_presets.filters import filterable_metadata, predicate
from llama_index_presets.retrieve.bm25.index import BM25Index
from llama_index_presets.retrieve.filtered_query import both_filters, filters_of
from llama_index_presets.retrieve.node_sources import NodeSource, fetch_nodes

__all__ = ["NodeVectors", "SecondEmbeddingRetriever"]

_BATCH = 256  # nodes that are read and embedded together


class NodeVectors:
    """Vectors of all nodes of a keyword index by another embedding model, in memory; thread safe.

    They follow the keyword index: nodes that are new or changed are embedded at the next `refresh` or question. Give a
    model with a cache on disk (`CachedEmbedding`), and a new process embeds nothing again.

    Args:
        embed_model: The second model; its vectors are made unit length.
        index: Says which nodes there are.
        source: Holds them.
    """

    def __init__(self, embed_model: BaseEmbedding, index: BM25Index, source: NodeSource) -> None:
        self.embed_model = embed_model
        self._index, self._source = index, source
        self._lock = threading.Lock()
        self._mark: object = None
        self._known: dict[str, tuple[str, NDArray[np.float32]]] = {}
        self._table: tuple[list[str], NDArray[np.float32]] = ([], np.empty((0, 0), np.float32))

    @property
    def source(self) -> NodeSource:
        """The store or index that holds the nodes."""
        return self._source

    def refresh(self) -> int:
        """Embed what is new or changed, and forget what is gone.

        Returns:
            How many nodes were embedded.
        """
        with self._lock:
            return self._refreshed()

    def table(self) -> tuple[list[str], NDArray[np.float32]]:
        """Node ids, and their unit vectors in this order, shape (nodes, dim)."""
        with self._lock:
            self._refreshed()
            return self._table

    def _refreshed(self) -> int:
        mark = self._index.mark()
        if mark == self._mark:
            return 0
        digests = self._index.digests()
        kept = {
            name: known
            for name, known in self._known.items()
            if name in digests and known[0] == digests[name]
        }
        missing = [name for name in digests if name not in kept]
        for start in range(0, len(missing), _BATCH):
            nodes = fetch_nodes(self._source, missing[start : start + _BATCH])
            texts = [node.get_content(MetadataMode.EMBED) for node in nodes.values()]
            for name, vector in zip(nodes, self.embed_model.get_text_embedding_batch(texts), strict=True):
                kept[name] = digests[name], _unit(vector)
        # a node that its store lost is logged by the keyword leg
        names = [name for name in digests if name in kept]
        vectors = np.stack([kept[name][1] for name in names]) if names else np.empty((0, 0), np.float32)
        self._known, self._table, self._mark = kept, (names, vectors), mark
        return len(missing)


@strict()
class SecondEmbeddingRetriever(BaseRetriever):
    """Retriever by a second embedding model; give it as ``more={"second": …}`` to `HybridFusionRetriever`.

    Exact: every node is compared, so it is for some 100,000 nodes at most. Scores are cosines, higher is closer. Thread
    safe.

    Args:
        vectors: Of the nodes.
        top_k: How many hits at most, >= 1.
        filters: What hits must satisfy; a `FilteredQuery` can narrow them further.
        **options: What `BaseRetriever` takes.

    Raises:
        SettingsError: top_k is below 1.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.core.storage.docstore import SimpleDocumentStore
        >>> store = SimpleDocumentStore()
        >>> store.add_documents([TextNode(id_="a", text="red fish")])
        >>> vectors = NodeVectors(MockEmbedding(embed_dim=4), BM25Index.from_source(store), store)
        >>> [hit.node.node_id for hit in SecondEmbeddingRetriever(vectors).retrieve("fish")]
        ['a']
    """

    ceiling = 1.0
    """Score of a perfect match."""

    def __init__(
        self, vectors: NodeVectors, *, top_k: int = 10, filters: MetadataFilters | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        if top_k < 1:
            raise SettingsError(f"top_k is {top_k}; it must be 1 or more.")
        self.vectors, self.top_k, self.filters = vectors, top_k, filters

    def score_ids(self, query_bundle: QueryBundle, ids: Sequence[str]) -> dict[str, float]:
        """Cosines of given nodes by id; nodes that are not there are absent."""
        names, table = self.vectors.table()
        rows = {name: row for row, name in enumerate(names)}
        wanted = [name for name in ids if name in rows]
        if not wanted:
            return {}
        scores = table[[rows[name] for name in wanted]] @ self._vector(query_bundle)
        return dict(zip(wanted, map(float, scores), strict=True))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        names, table = self.vectors.table()
        if not names:
            return []
        scores = table @ self._vector(query_bundle)
        order = np.argsort(-scores, kind="stable")
        filters = both_filters(self.filters, filters_of(query_bundle))
        test = predicate(filters) if filters is not None else None
        hits: list[NodeWithScore] = []
        for start in range(0, len(order), self.top_k):
            rows = order[start : start + self.top_k]
            nodes = fetch_nodes(self.vectors.source, [names[row] for row in rows])
            for row in rows:
                node = nodes.get(names[row])
                if node is not None and (test is None or test(filterable_metadata(node))):
                    hits.append(NodeWithScore(node=node, score=float(scores[row])))
            if len(hits) >= self.top_k:
                break
        return hits[: self.top_k]

    def _vector(self, query: QueryBundle) -> NDArray[np.float32]:
        """Vector of a question by this model, never the one that the first model left on the query."""
        return _unit(self.vectors.embed_model.get_agg_embedding_from_queries(query.embedding_strs))


def _unit(vector: Sequence[float]) -> NDArray[np.float32]:
    array = np.asarray(vector, np.float32)
    length = float(np.linalg.norm(array))
    return array / length if length else array
