"""DuckDB vector store: exact search at memory speed over a durable table."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import duckdb
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from llama_index_presets._options import refuse_unknown, refuse_values, strict
from llama_index_presets.closing import close_behind
from llama_index_presets.errors import (
    QueryError,
    SettingsError,
    StoreError,
    StoreWriteError,
)
from llama_index_presets.filters import Condition
from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.store.base import ThreadedAsync
from llama_index_presets.store.duckdb.checks import (
    check_identity,
    check_picklable,
    check_settings,
    warn_of_many,
)
from llama_index_presets.store.duckdb.database import MEMORY, Database, open_database
from llama_index_presets.store.duckdb.official import OFFICIAL, own_options
from llama_index_presets.store.duckdb.search import (
    MemorySearch,
    Search,
    SqlSearch,
    answer,
    answer_many,
    check_query,
    condition_of,
)
from llama_index_presets.store.duckdb.snapshot import Snapshot, SnapshotCache
from llama_index_presets.store.duckdb.table import Incoming, State, Table
from llama_index_presets.store.node_codec import to_node
from llama_index_presets.store.official import FIXED_LIMITS
from llama_index_presets.store.query_options import ADD_OPTIONS, SELECTING

__all__ = ["DuckDBVectorStore"]

_MANY = 100_000


_USUAL = {"path": MEMORY, "table": "vectors", "dim": None, "connection": None, "text_language": "english"}


@strict(also=OFFICIAL)
class DuckDBVectorStore(ThreadedAsync, BasePydanticVectorStore):
    """Nodes in a DuckDB table, searched exactly.

    The table is the truth: every call is one transaction, and the file can be read with SQL. A copy of it in
    memory, kept in step by the table's version, answers the queries; a table too large for `cache_mb` is
    scanned by DuckDB instead. Scores are cosine similarity, -1 to 1, higher is closer, ties by id.

    Thread safe. One process can write a file; with ``read_only=True`` any number can read it. Stores of one
    process that name the same file share it.

    Args:
        path: File, made when missing, or ``":memory:"``.
        table: Name of the table; a file holds any number of them.
        dim: Length of the vectors; None takes it from the first node.
        read_only: Open for reading only, so that other processes can read too.
        encryption_key: Key of DuckDB's own file encryption (AES-256-GCM). Writing needs DuckDB >= 1.4.2 with
            its httpfs extension (OpenSSL) installed beforehand, reading does not; 1.4.0 and 1.4.1 write
            without it, but not securely, and a warning says so.
        connection: A DuckDB connection to use instead of `path`; it stays the caller's.
        fingerprint: What makes the vectors (see `values.Fingerprint`). A new table remembers it, another one
            is refused.
        cache_mb: What the copy in memory may take, in MiB.
        text_language: Language of stemmer and stop words in text search: see `ranking.bm25.Analyzer`.
        **official: The names of llama-index-vector-stores-duckdb, which mean the same here: ``database_name``, a file
            in ``persist_dir`` (``./storage`` by default), with the table ``documents`` by default; ``table_name``;
            ``embed_dim``; ``client``; ``text_search_config``, of which ``stemmer`` sets the language.

    Raises:
        StoreLockedError: Another process holds the file; names its pid.
        StoreCorruptError: The file cannot be read.
        StoreWriteError: The folder cannot be written.
        StoreError: The table belongs to something else, or the options do not go together.
        SettingsError: An option is unknown (the message names the nearest), or is given twice with two values.
        FingerprintError: The table was made by another model.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> store = DuckDBVectorStore()
        >>> store.add([TextNode(id_="a", text="red", embedding=[1.0, 0.0])])
        ['a']
        >>> store.query(VectorStoreQuery(query_embedding=[3.0, 4.0])).similarities
        [0.6]
    """

    stores_text: bool = True
    flat_metadata: ClassVar[bool] = False
    path: str = MEMORY
    table: str = "vectors"
    read_only: bool = False
    cache_mb: int = 1024
    text_language: str = "english"

    _database: Database = PrivateAttr()
    _table: Table = PrivateAttr()
    _cache: SnapshotCache = PrivateAttr()
    _dim: int | None = PrivateAttr(default=None)
    _fingerprint: str | None = PrivateAttr(default=None)
    _options: dict[str, Any] = PrivateAttr(default_factory=dict)
    _closed: bool = PrivateAttr(default=False)
    _warned: bool = PrivateAttr(default=False)

    def __init__(
        self,
        path: str | Path = MEMORY,
        *,
        table: str = "vectors",
        dim: int | None = None,
        read_only: bool = False,
        encryption_key: str | None = None,
        connection: duckdb.DuckDBPyConnection | None = None,
        fingerprint: str | None = None,
        cache_mb: int = 1024,
        text_language: str = "english",
        **official: Any,
    ) -> None:
        own: dict[str, Any] = {
            "path": path,
            "table": table,
            "dim": dim,
            "connection": connection,
            "text_language": text_language,
        }
        refuse_values("DuckDBVectorStore", official, FIXED_LIMITS)
        own = own_options(own, official, _USUAL)
        check_settings(own["table"], own["dim"], cache_mb)
        super().__init__(  # type: ignore[call-arg]  # pydantic makes its signature of the fields, mypy does not see it
            path=str(own["path"]),
            table=own["table"],
            read_only=read_only,
            cache_mb=cache_mb,
            text_language=own["text_language"],
        )
        self._dim, self._fingerprint = own["dim"], fingerprint
        self._options = {"encryption_key": encryption_key, "connection": own["connection"]}
        self._database = open_database(own["path"], read_only=read_only, **self._options)
        try:
            self._open_table()
        except BaseException:
            self.close()
            raise

    def _open_table(self) -> None:
        self._table = Table(self._database, self.table)
        key = f"{self.table}\x00{self.cache_mb}\x00{self.text_language}"
        made = SnapshotCache(self._table, self.cache_mb * 2**20, Analyzer(language=self.text_language))
        self._cache = self._database.shared.setdefault(key, made)
        state = self._state()
        if state is not None:
            self._table.adopt(state, self._fingerprint)
        elif self._dim is not None and not self.read_only:
            self._table.writing(self._state_for_writing)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "DuckDBVectorStore"

    @classmethod
    def from_params(cls, path: str | Path = MEMORY, **options: Any) -> DuckDBVectorStore:
        """Make a store; the arguments are those of the class."""
        return cls(path, **options)

    @classmethod
    def from_local(
        cls, path: str | Path | None = None, *, database_path: str | Path | None = None, **options: Any
    ) -> DuckDBVectorStore:
        """Open a file that exists already.

        Args:
            path: The file.
            database_path: The same under its official name; then the table is ``documents`` by default.
            **options: As in the constructor.

        Raises:
            StoreError: There is no such file.
        """
        if path is None:
            path = Path(_needed(database_path))
            options |= {"database_name": path.name, "persist_dir": path.parent}
        if not Path(path).is_file():
            raise StoreError(
                f"There is no file '{path}'. Check the path, or make it with DuckDBVectorStore(path)."
            )
        return cls(**options) if "database_name" in options else cls(path, **options)

    @property
    def client(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection; read with it, write through the store."""
        self._database.lent = True
        return self._database.connection

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the vectors: as the table remembers it, else as passed."""
        state = self._state()
        return self._fingerprint if state is None else state.fingerprint

    @property
    def dim(self) -> int | None:
        """Length of the vectors: as the table remembers it, else as given."""
        state = self._state()
        return self._dim if state is None else state.dim

    # ---- writing ------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Write nodes in one transaction; nodes of the same ids are replaced.

        Of two nodes with one id in the same call, the last is kept.

        Args:
            nodes: With embeddings.
            **kwargs: ``bulk``, as other stores take it, changes nothing here.

        Returns:
            The ids of the nodes, in their order.

        Raises:
            NodeRejectedError: A node has no embedding, or an unusable one, or a value without a JSON form;
                nothing was written.
            FingerprintError: The table was made by another model meanwhile.
            StoreWriteError: The disk is full, or the store was opened read-only; nothing was written.
        """
        refuse_unknown("DuckDBVectorStore.add", kwargs, ADD_OPTIONS)
        self._check_writable()
        ids = [node.node_id for node in nodes]
        if ids:
            kept = list({node.node_id: node for node in nodes}.values())
            count = self._table.writing(lambda cursor: self._write(cursor, kept))
            if count > _MANY and not self._warned:
                self._warned = True
                warn_of_many(self.table, self.path, count, _MANY)
        return ids

    def replace_documents(self, ref_doc_ids: Sequence[str], nodes: Sequence[BaseNode]) -> list[str]:
        """Put nodes in the place of everything that these source documents had, in one transaction.

        Args:
            ref_doc_ids: Ids of the documents; unknown ones are fine.
            nodes: What they consist of now; none deletes the documents.

        Returns:
            The ids of the nodes, in their order.

        Raises:
            NodeRejectedError: A node cannot be stored; the documents are as they were.
        """
        self._check_writable()
        kept = list({node.node_id: node for node in nodes}.values())

        def change(cursor: duckdb.DuckDBPyConnection) -> None:
            if self._checked(self._table.state(cursor)) is not None:
                self._table.remove(cursor, condition_of(None, doc_ids=list(ref_doc_ids)))
            if kept:
                self._write(cursor, kept)

        self._table.writing(change)
        return [node.node_id for node in nodes]

    def _write(self, cursor: duckdb.DuckDBPyConnection, nodes: list[BaseNode]) -> int:
        dim = None if (known := self._checked(self._table.state(cursor))) is None else known.dim
        incoming = Incoming(nodes, self._dim if dim is None else dim)
        state = known or self._table.create(cursor, incoming.dim, self._fingerprint)
        replaced = self._table.replace(cursor, state, incoming)
        return state.count - replaced + len(nodes)

    def _state_for_writing(self, cursor: duckdb.DuckDBPyConnection) -> State:
        state = self._checked(self._table.state(cursor))
        return state or self._table.create(cursor, self._dim or 0, self._fingerprint)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a source document; none is fine."""
        refuse_unknown("DuckDBVectorStore.delete", delete_kwargs, ["ref_doc_id"])
        self._remove(condition_of(None, doc_ids=[ref_doc_id]))

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete nodes by id, by filter, or those that are named and selected.

        Without a choice nothing is deleted, and a warning says so; `clear` deletes everything.
        """
        refuse_unknown("DuckDBVectorStore.delete_nodes", delete_kwargs, SELECTING)
        if node_ids is None and (filters is None or not filters.filters):
            warnings.warn(
                "delete_nodes() got neither node_ids nor filters and deleted nothing. Use clear() for all nodes.",
                UserWarning,
                stacklevel=2,
            )
            return
        self._remove(condition_of(filters, node_ids))

    def _remove(self, condition: Condition) -> None:
        self._check_writable()
        if self._state() is not None:
            self._table.writing(lambda cursor: self._table.remove(cursor, condition))

    def clear(self) -> None:
        """Delete all nodes and the fingerprint: the next `add` may use another model."""
        self._check_writable()
        if self._state() is not None:
            self._table.writing(self._table.drop)

    def compact(self) -> None:
        """Rewrite the file, so that nothing of deleted nodes is left in it. Needs space for a second copy.

        Other stores of this process wait meanwhile and go on with the new file; a kill leaves the old or the new one.

        Raises:
            StoreError: The store has no file of its own, or this process has another connection to it.
            StoreWriteError: It was opened read-only, or the disk is full.
        """
        self._check_writable()
        self._database.compact()

    # ---- reading ------------------------------------------------------------------------------------------

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **kwargs: Any
    ) -> list[BaseNode]:
        """Read nodes with their embeddings.

        Args:
            node_ids: Only these, in this order; unknown ones are left out.
            filters: Only those selected.

        Returns:
            Nodes; without `node_ids` in the order in which they were last written.
        """
        refuse_unknown("DuckDBVectorStore.get_nodes", kwargs, SELECTING)
        with self._database.cursor() as cursor:
            if self._checked(self._table.state(cursor)) is None:
                return []
            found = self._table.select(cursor, condition_of(filters, node_ids))
        if node_ids is not None:
            place = {node_id: i for i, node_id in enumerate(node_ids)}
            found.sort(key=lambda pair: place[pair[0].node_id])
        return [to_node(row, vector) for row, vector in found]

    def node_count(self) -> int:
        """Number of nodes, without reading them."""
        state = self._state()
        return 0 if state is None else state.count

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes.

        Modes: DEFAULT (cosine), MMR (cosine, diverse), TEXT_SEARCH and SPARSE (BM25 over the text), HYBRID
        (both, weighted by ``alpha``: 1 vectors, 0 words). ``filters``, ``doc_ids`` and ``node_ids`` restrict
        every mode; an empty ``doc_ids`` selects nothing, an empty ``node_ids`` restricts nothing (see
        `rows.restricting_ids`).

        Args:
            query: What to find.
            **kwargs: In mode MMR ``mmr_threshold`` and ``mmr_prefetch_factor`` or ``mmr_prefetch_k`` (see
                `query_options.diversity`).

        Returns:
            Nodes without embeddings, their scores and ids, best first.

        Raises:
            QueryError: The mode is not known here, or the query lacks what it needs.
            FilterError: A filter's value does not fit its operator.
        """
        check_query(query, kwargs)
        state = self._state()
        if state is None:
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        return answer(self._search(state), state.dim, query, **kwargs)

    def query_many(self, queries: Sequence[VectorStoreQuery], **kwargs: Any) -> list[VectorStoreQueryResult]:
        """Answer several queries at once; those of mode DEFAULT without restrictions share their work.

        Returns:
            What `query` would return for each.
        """
        for query in queries:
            check_query(query, kwargs)
        state = self._state()
        if state is None:
            return [VectorStoreQueryResult(nodes=[], similarities=[], ids=[]) for _ in queries]
        return answer_many(self._search(state), state.dim, queries, **kwargs)

    def _search(self, state: State) -> Search:
        snapshot = self._cache.current(state)
        if snapshot is None:
            return SqlSearch(self._table)
        return MemorySearch(self._database, snapshot, self._newer)

    def _newer(self) -> Snapshot:
        state = self._state()
        snapshot = None if state is None else self._cache.current(state)
        if snapshot is None:
            raise QueryError("The table outgrew cache_mb during the query. Raise cache_mb.")
        return snapshot

    # ---- async --------------------------------------------------------------------------------------------

    async def aquery_many(
        self, queries: Sequence[VectorStoreQuery], **kwargs: Any
    ) -> list[VectorStoreQueryResult]:
        """`query_many`, without blocking the event loop."""
        return await asyncio.to_thread(self.query_many, queries, **kwargs)

    # ---- life ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._database.close()

    def __enter__(self) -> DuckDBVectorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_behind(self.close, error, "closing the DuckDBVectorStore")

    def __reduce__(self) -> Any:
        check_picklable(self.path, **self._options)
        return _reopened, (self.model_dump(include=set(_REOPENED)), self._dim, self._fingerprint)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> DuckDBVectorStore:
        return self  # a copy would be the same file, or lose what is in memory

    def _state(self) -> State | None:
        if self._closed:
            raise StoreError("The store is closed. Open a new one to go on.")
        return self._checked(self._table.state_now())

    def _checked(self, state: State | None) -> State | None:
        """Refuse a table that another model has made since this store was opened."""
        if state is not None:
            check_identity(self.table, state, self._dim, self._fingerprint)
        return state

    def _check_writable(self) -> None:
        if self._closed:
            raise StoreError("The store is closed. Open a new one to go on.")
        if self.read_only:
            raise StoreWriteError(
                f"'{self.path}' was opened with read_only=True. Open it without, where no other process has it."
            )


_REOPENED = ("path", "table", "read_only", "cache_mb", "text_language")


def _needed(database_path: str | Path | None) -> str | Path:
    if database_path is None:
        raise SettingsError("DuckDBVectorStore.from_local needs the path of a file.")
    return database_path


def _reopened(fields: dict[str, Any], dim: int | None, fingerprint: str | None) -> DuckDBVectorStore:
    known = {name: fields[name] for name in _REOPENED}
    return DuckDBVectorStore(known.pop("path"), dim=dim, fingerprint=fingerprint, **known)
