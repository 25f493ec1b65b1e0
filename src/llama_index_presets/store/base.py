"""Base of every vector store: the input is checked here, once and in the same words; a store says how rows move."""

from __future__ import annotations

import asyncio
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import NoneType, TracebackType
from typing import Any, ClassVar, Final, Self

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets._options import Limits, expect, expect_each, refuse_unknown
from llama_index_presets.concurrency.closing import close_behind
from llama_index_presets.errors import FingerprintError
from llama_index_presets.store.query_modes import ADD_OPTIONS, SELECTING, check_query, with_mode
from llama_index_presets.text.utf8 import check_ids

__all__ = ["CLOSED", "FIXED_LIMITS", "NodeQuery", "StoreBase", "agreed_fingerprint"]

CLOSED: Final = "The store is closed. Open a new one to go on."
"""What a store says that does not open again by itself."""

FIXED_LIMITS: Final[Limits] = {
    "stores_text": ((None, True), "the store keeps the text of its nodes."),
    "is_embedding_query": ((None, True), "a query brings its embedding, or its words."),
}
"""Fields of every LlamaIndex vector store that have one value here."""


def agreed_fingerprint(stored: str | None, given: str | None, *, place: str, kind: str) -> str | None:
    """Agree on the fingerprint of an index: the first caller who knows it sets it.

    Args:
        stored: What the index remembers; None where it was never told.
        given: What the caller says; None where it does not know.
        place: The index, such as ``"Table 'chunks'"``.
        kind: What to take another one of, such as ``"table"``.

    Raises:
        FingerprintError: Both know, and differ.

    Example:
        >>> agreed_fingerprint(None, "model=a", place="Table 'chunks'", kind="table")
        'model=a'
    """
    if stored and given and stored != given:
        raise FingerprintError(
            f"{place} holds vectors of '{stored}', not of '{given}'. Use the model that made it, or another {kind}.",
            stored=stored,
            given=given,
        )
    return stored or given


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuery:
    """Selection of nodes: those that satisfy every restriction.

    Attributes:
        node_ids: Nodes with one of these ids; None for any.
        doc_ids: Nodes of one of these documents; None for any.
        filters: Nodes whose metadata these select; None, or a group without filters, for any.

    Raises:
        NodeRejectedError: An id has no UTF-8 form.
        WrongTypeError: Ids are no list of texts, or filters no `MetadataFilters`.
    """

    node_ids: Sequence[str] | None = None
    doc_ids: Sequence[str] | None = None
    filters: MetadataFilters | None = None

    def __post_init__(self) -> None:
        check_ids(self.node_ids, "node")
        check_ids(self.doc_ids, "document")
        expect("filters", self.filters, (MetadataFilters, NoneType), "MetadataFilters")

    @property
    def filtered(self) -> bool:
        """Whether the selection depends on metadata."""
        return self.filters is not None and bool(self.filters.filters)


class StoreBase:
    """Mix-in before a LlamaIndex vector store class, official or not: all public methods over six private ones.

    A store implements `_upsert`, `_delete`, `_select`, `_search`, `_clear` and `node_ids`, has a `fingerprint` and a
    `close`, and overrides what its database can do better: `node_count`, `finish_load`, the methods of a bulk copy.
    Each blocking method has an async twin that runs it in a worker thread: no event loop is blocked, and none is
    remembered.
    """

    _modes: ClassVar[frozenset[VectorStoreQueryMode]]
    """Query modes that the store answers; every other one is refused."""

    _query_options: ClassVar[tuple[str, ...]] = ()
    """Keywords of `query` beside those of MMR."""

    # ---- what a store implements -------------------------------------------------------------------------

    @abstractmethod
    def _upsert(self, nodes: list[BaseNode], *, replacing: Sequence[str] = (), bulk: bool = False) -> None:
        """Write nodes, replacing those of the same ids and all that the `replacing` documents had.

        Args:
            nodes: At least one, each id once; not checked beyond that.
            replacing: Ids of documents, checked.
            bulk: Whether the caller will call `finish_load`.
        """

    @abstractmethod
    def _delete(self, selection: NodeQuery) -> None:
        """Delete the nodes of a selection; an unknown id is no error."""

    @abstractmethod
    def _select(self, selection: NodeQuery) -> list[BaseNode]:
        """Read the nodes of a selection with their embeddings, in any order."""

    @abstractmethod
    def _search(
        self, query: VectorStoreQuery, mode: VectorStoreQueryMode, options: Mapping[str, Any]
    ) -> VectorStoreQueryResult:
        """Answer a query that `check_query` has passed; best first, ties by id."""

    @abstractmethod
    def _clear(self) -> None:
        """Delete every node, and the fingerprint with them."""

    @abstractmethod
    def node_ids(self) -> list[str]:
        """Ids of all nodes, sorted; without reading the nodes."""

    @abstractmethod
    def close(self) -> Any:
        """Close what the store opened; closing twice is fine."""

    def _check_usable(self, *, write: bool = False) -> None:
        """Refuse a use that the store's state does not allow, such as a write when it was opened read-only."""

    def _mode(self, query: VectorStoreQuery, options: Mapping[str, Any]) -> VectorStoreQueryMode:
        """The mode of a query, where keywords can say it too."""
        return query.mode

    # ---- writing -----------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Insert nodes, replacing those of the same id; all are checked before anything is written.

        Args:
            nodes: With embeddings. Where an id comes twice, the last one wins.
            **add_kwargs: ``bulk=True`` leaves building indexes to `finish_load`, which the caller promises; a store
                without indexes ignores it.

        Returns:
            Their ids, in the order given.

        Raises:
            NodeRejectedError: A node cannot be stored; nothing was written.
            FingerprintError: The index was made by another model meanwhile.
            StoreWriteError: The disk is full, or the store was opened read-only; nothing was written.
            StoreError: The database cannot be reached, or refuses. A managed service may have taken some of the nodes:
                calling again is safe.
        """
        refuse_unknown(f"{type(self).__name__}.add", add_kwargs, ADD_OPTIONS)
        self._check_usable(write=True)
        nodes = expect_each("nodes", nodes, BaseNode, "a list of nodes with embeddings")
        unique = {node.node_id: node for node in nodes}
        if unique:
            self._upsert(list(unique.values()), bulk=bool(add_kwargs.get("bulk")))
        return [node.node_id for node in nodes]

    def replace_documents(self, ref_doc_ids: Sequence[str], nodes: Sequence[BaseNode]) -> list[str]:
        """Replace all nodes of some documents by new ones.

        DuckDB, LanceDB and Postgres do it in one transaction: a reader, and a process that is killed at any moment,
        sees all the old nodes or all the new ones. A managed service takes the new nodes first: a reader may see both,
        never none, and calling again after a failure finishes the work.

        Args:
            ref_doc_ids: Documents whose nodes go; unknown ones are fine.
            nodes: What comes instead; may be empty, may belong to any document.

        Returns:
            Ids of the new nodes, in the order given.

        Raises:
            NodeRejectedError: A node cannot be stored; nothing was changed.
            StoreError: As `add`.
        """
        expect("ref_doc_ids", ref_doc_ids, Iterable, "a list of ids of documents")
        check_ids(ref_doc_ids, "document")
        self._check_usable(write=True)
        nodes = expect_each("nodes", nodes, BaseNode, "a list of nodes with embeddings")
        unique = {node.node_id: node for node in nodes}
        if unique:
            self._upsert(list(unique.values()), replacing=list(ref_doc_ids))
        elif ref_doc_ids:
            self._delete(NodeQuery(doc_ids=list(ref_doc_ids)))
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of one document; an unknown id is no error."""
        refuse_unknown(f"{type(self).__name__}.delete", delete_kwargs, ["ref_doc_id"])
        self._check_usable(write=True)
        self._delete(NodeQuery(doc_ids=[ref_doc_id]))

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete the nodes that have one of the ids and match the filters.

        Called with neither, it deletes nothing and warns.
        """
        refuse_unknown(f"{type(self).__name__}.delete_nodes", delete_kwargs, SELECTING)
        self._check_usable(write=True)
        selection = NodeQuery(node_ids=node_ids, filters=filters)
        if node_ids is None and not selection.filtered:
            warnings.warn(
                "delete_nodes() got neither node_ids nor filters and deleted nothing. "
                "Give it one of them, or call clear() to delete everything.",
                stacklevel=2,
            )
            return
        self._delete(selection)

    def clear(self) -> None:
        """Delete every node; what is added next may be the work of another model."""
        self._check_usable(write=True)
        self._clear()

    def finish_load(self) -> None:
        """Call once after a bulk load: build what the store builds of indexes. Safe at any time."""
        self._check_usable(write=True)

    # ---- reading -----------------------------------------------------------------------------------------

    def get_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> list[BaseNode]:
        """Nodes, with their embeddings, that have one of the ids and match the filters.

        Args:
            node_ids: None for any id; unknown ones are left out.
            filters: None for any metadata.

        Returns:
            Each node once, in the order of `node_ids` where they are given, else by id.
        """
        refuse_unknown(f"{type(self).__name__}.get_nodes", kwargs, SELECTING)
        self._check_usable()
        selected = self._select(NodeQuery(node_ids=node_ids, filters=filters))
        nodes = {node.node_id: node for node in selected}
        order = sorted(nodes) if node_ids is None else dict.fromkeys(node_ids)
        return [nodes[node_id] for node_id in order if node_id in nodes]

    def document_nodes(self, ref_doc_ids: Sequence[str]) -> list[BaseNode]:
        """Nodes of some documents with their embeddings, by id, whatever their metadata says of a source document.

        A filter on ``ref_doc_id`` finds those alone whose metadata has no such key of its own.

        Example:
            >>> from llama_index_presets import DuckDBVectorStore
            >>> DuckDBVectorStore().document_nodes(["handbook.pdf"])
            []
        """
        self._check_usable()
        check_ids(ref_doc_ids, "document")
        if not ref_doc_ids:
            return []
        nodes = {node.node_id: node for node in self._select(NodeQuery(doc_ids=list(ref_doc_ids)))}
        return [nodes[node_id] for node_id in sorted(nodes)]

    def node_count(self) -> int:
        """Number of nodes."""
        return len(self.node_ids())

    def check_ready(self) -> None:
        """Refuse when the store cannot be read now; a cheap question to the database, for a server's readiness.

        Raises:
            StoreError: The database cannot be reached, or its files are gone.

        Example:
            >>> from llama_index_presets import DuckDBVectorStore
            >>> DuckDBVectorStore().check_ready()
        """
        self._check_usable()
        self.node_count()

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the nodes closest to a query.

        Modes, where the store has them: DEFAULT (cosine), MMR (cosine, diverse), TEXT_SEARCH and SPARSE (the words of
        ``query_str``), HYBRID (both, weighted by ``alpha``: 1 vectors, 0 words).

        Args:
            query: ``filters``, ``doc_ids`` and ``node_ids`` restrict every mode. An empty ``doc_ids`` selects nothing;
                an empty ``node_ids`` selects every node, as LlamaIndex always sends one (see
                `node_codec.restricting_ids`).
            **kwargs: In mode MMR ``mmr_threshold`` and ``mmr_prefetch_factor`` or ``mmr_prefetch_k`` (see
                `query_modes.diversity`); the class may name more.

        Returns:
            Nodes without embeddings, their scores and ids, best first, ties by id.

        Raises:
            QueryError: The mode is not supported, or the query lacks what its mode needs.
            FilterError: A filter's value does not fit its operator, or the store cannot say it.
            StoreError: The database cannot be reached or read.
        """
        expect(
            "query",
            query,
            VectorStoreQuery,
            "a VectorStoreQuery; for a text, VectorStoreIndex.as_retriever()",
        )
        query = with_mode(query)
        mode = self._mode(query, kwargs)
        name = type(self).__name__
        check_query(name, query, mode, kwargs, modes=self._modes, known=self._query_options)
        self._check_usable()
        return self._search(query, mode, kwargs)

    # ---- a bulk copy reads this store --------------------------------------------------------------------

    def ids_as_stored(self) -> list[str]:
        """Ids of all nodes in the order in which they are read fastest."""
        return self.node_ids()

    @contextmanager
    def frugal_reads(self, threads: int) -> Iterator[None]:
        """While in the block, read with few threads, as each has buffers of its own."""
        yield

    def drop_cache(self) -> None:
        """Give back the memory that holds copies of the files."""

    # ---- life --------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self  # a copy would be the same table over the same connection, or lose what is in memory

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return cls.__name__

    def persist(self, persist_path: str = "", fs: Any = None) -> None:
        """Do nothing: what `add` wrote is kept when it returns."""

    def __enter__(self) -> Self:
        """Give the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what goes wrong there never replaces the block's own error."""
        close_behind(self.close, error, f"closing the {type(self).__name__}")

    async def __aenter__(self) -> Self:
        """Give the store itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what goes wrong there never replaces the block's own error."""
        what = f"closing the {type(self).__name__}"
        await asyncio.to_thread(close_behind, self.close, error, what)

    # ---- async twins -------------------------------------------------------------------------------------

    async def async_add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """See `add`."""
        return await asyncio.to_thread(self.add, nodes, **add_kwargs)

    async def areplace_documents(self, ref_doc_ids: Sequence[str], nodes: Sequence[BaseNode]) -> list[str]:
        """See `replace_documents`."""
        return await asyncio.to_thread(self.replace_documents, ref_doc_ids, nodes)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """See `delete`."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """See `delete_nodes`."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """See `clear`."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> list[BaseNode]:
        """See `get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters, **kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """See `query`."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    async def aclose(self) -> None:
        """See `close`."""
        await asyncio.to_thread(self.close)
