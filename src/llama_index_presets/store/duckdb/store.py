"""DuckDB vector store: exact search at memory speed over a durable table."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import duckdb
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets._options import expect, refuse_values, strict
from llama_index_presets.counting import counted
from llama_index_presets.errors import (
    FingerprintError,
    QueryError,
    SettingsError,
    StoreError,
    StoreWriteError,
)
from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.store.base import CLOSED, FIXED_LIMITS, NodeQuery, StoreBase, agreed_fingerprint
from llama_index_presets.store.duckdb.connect import MEMORY, check_picklable
from llama_index_presets.store.duckdb.database import Database, open_database
from llama_index_presets.store.duckdb.official import OFFICIAL, own_options, search_config
from llama_index_presets.store.duckdb.search import (
    MODES,
    MemorySearch,
    Search,
    SqlSearch,
    answer,
    answer_many,
    condition_of,
)
from llama_index_presets.store.duckdb.shared import open_shared
from llama_index_presets.store.duckdb.snapshot import Snapshot, SnapshotCache
from llama_index_presets.store.duckdb.snapshot_file import delete_snapshot_files
from llama_index_presets.store.duckdb.table import REGISTER, Incoming, State, Table
from llama_index_presets.store.node_codec import to_node
from llama_index_presets.store.query_modes import check_query, empty_result, with_mode
from llama_index_presets.text.utf8 import check_name

__all__ = ["DuckDBVectorStore"]

_MANY = 100_000
_USUAL = {"path": MEMORY, "table": "vectors", "dim": None, "connection": None, "text_language": "english"}


@strict(also=OFFICIAL)
class DuckDBVectorStore(StoreBase, BasePydanticVectorStore):
    """Nodes in a DuckDB table, searched exactly.

    The table is the truth: every call is one transaction, and the file can be read with SQL. A copy of it in
    memory, kept in step by the table's version, answers the queries; a table too large for `cache_mb` is
    scanned by DuckDB instead. Scores are cosine similarity, -1 to 1, higher is closer, ties by id.

    Thread safe. One process can write a file; with ``read_only=True`` any number can read it; with ``shared=True``
    any number can read it while they take turns to write it. Stores of one process that name the same file share it.

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
        shared: Whether other processes read and write the file, too. Each then opens it only while it reads (together)
            or writes (alone), some 30 ms a time; questions that the copy in memory answers open nothing. All of them
            must say so.
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
    shared: bool = False

    _modes: ClassVar[frozenset[VectorStoreQueryMode]] = frozenset(MODES)
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
        shared: bool = False,
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
        _check_settings(own["table"], own["dim"], cache_mb)
        super().__init__(  # type: ignore[call-arg]  # pydantic makes its signature of the fields, mypy does not see it
            path=str(own["path"]),
            table=own["table"],
            read_only=read_only,
            cache_mb=cache_mb,
            text_language=own["text_language"],
            shared=shared,
        )
        self._dim, self._fingerprint = own["dim"], fingerprint
        self._options = {"encryption_key": encryption_key, "connection": own["connection"]}
        self._database = open_database(
            own["path"], read_only=read_only, shared=open_shared if shared else None, **self._options
        )
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
        if self._cache is made:
            self._database.before_close.append(made.keep)
            self._database.after_close.append(made.confirm)
        state = self._state()
        if state is not None:
            self._table.adopt(state, self._fingerprint)
        elif self._dim is not None and not self.read_only:
            self._table.writing(self._state_for_writing)

    @classmethod
    def from_params(cls, path: str | Path = MEMORY, **options: Any) -> DuckDBVectorStore:
        """Make a store; the arguments are those of the class."""
        return cls(path, **options)

    @classmethod
    def from_local(
        cls, path: str | Path | None = None, *, database_path: str | Path | None = None, **options: Any
    ) -> DuckDBVectorStore:
        """Open a file that exists already, or a store in memory.

        Args:
            path: The file; ``":memory:"`` is an empty store in memory, as in the constructor.
            database_path: The same under its official name; then the table is ``documents`` by default.
            **options: As in the constructor.

        Raises:
            StoreError: There is no such file.
        """
        if path is None:
            path = Path(_needed(database_path))
            options |= {"database_name": path.name, "persist_dir": path.parent}
        expect("path", path, (str, os.PathLike), "the path of a file")
        if str(path) != MEMORY and not Path(path).is_file():
            raise StoreError(
                f"There is no file '{path}'. Check the path, or make it with DuckDBVectorStore(path)."
            )
        return cls(**options) if "database_name" in options else cls(path, **options)

    @property
    def client(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection; read with it, write through the store.

        Raises:
            StoreError: The store is shared, so that no connection lasts.
        """
        if self.shared:
            raise StoreError("A shared store keeps no connection. Open it with shared=False to get one.")
        self._database.lent = True
        return self._database.connection

    @property
    def database_name(self) -> str:
        """Name of the file, under its official name."""
        return self.path if self.path == MEMORY else Path(self.path).name

    @property
    def persist_dir(self) -> str:
        """Folder of the file, under its official name."""
        return "" if self.path == MEMORY else str(Path(self.path).parent)

    @property
    def table_name(self) -> str:
        """Name of the table, under its official name."""
        return self.table

    @property
    def embed_dim(self) -> int | None:
        """Length of the vectors, under its official name."""
        return self.dim

    @property
    def text_search_config(self) -> dict[str, Any]:
        """How text is searched, under its official name."""
        return search_config(self.text_language)

    @property
    def fingerprint(self) -> str | None:
        """What made the vectors: as the table remembers it, else as given."""
        self._check_usable()
        state = self._state()
        return self._fingerprint if state is None else state.fingerprint

    @property
    def dim(self) -> int | None:
        """Length of the vectors: as the table remembers it, else as given."""
        self._check_usable()
        state = self._state()
        return self._dim if state is None else state.dim

    # ---- writing ------------------------------------------------------------------------------------------

    def _upsert(self, nodes: list[BaseNode], *, replacing: Sequence[str] = (), bulk: bool = False) -> None:
        """One transaction; without indexes, `bulk` changes nothing."""

        def change(cursor: duckdb.DuckDBPyConnection) -> int:
            if replacing and self._checked(self._table.state(cursor)) is not None:
                self._table.remove(cursor, condition_of(NodeQuery(doc_ids=replacing)))
            return self._write(cursor, nodes)

        count = self._table.writing(change)
        if count > _MANY and not self._warned:
            self._warned = True
            _warn_of_many(self.table, self.path, count)

    def _write(self, cursor: duckdb.DuckDBPyConnection, nodes: list[BaseNode]) -> int:
        """Insert or replace nodes; gives how many the table has then."""
        known = self._checked(self._table.state(cursor))
        incoming = Incoming(nodes, self._dim if known is None else known.dim)
        state = known or self._table.create(cursor, incoming.dim, self._fingerprint)
        replaced = self._table.replace(cursor, state, incoming)
        return state.count - replaced + len(nodes)

    def _state_for_writing(self, cursor: duckdb.DuckDBPyConnection) -> State:
        state = self._checked(self._table.state(cursor))
        return state or self._table.create(cursor, self._dim or 0, self._fingerprint)

    def _delete(self, selection: NodeQuery) -> None:
        condition = condition_of(selection)
        if self._state() is not None:
            self._table.writing(lambda cursor: self._table.remove(cursor, condition))

    def _clear(self) -> None:
        if self._state() is not None:
            self._table.writing(self._table.drop)
            self._cache.forget()

    def compact(self) -> None:
        """Rewrite the file, so that nothing of deleted nodes is left in it. Needs space for a second copy.

        Other stores of this process wait meanwhile and go on with the new file; a kill leaves the old or the new one.

        Raises:
            StoreError: The store has no file of its own, or this process has another connection to it.
            StoreWriteError: It was opened read-only, or the disk is full.
        """
        self._check_usable(write=True)
        self._cache.forget()
        delete_snapshot_files(self.path)
        self._database.compact()

    # ---- reading ------------------------------------------------------------------------------------------

    def _select(self, selection: NodeQuery) -> list[BaseNode]:
        condition = condition_of(selection)
        with self._database.cursor() as cursor:
            if self._checked(self._table.state(cursor)) is None:
                return []
            rows = self._table.select(cursor, condition)
        return [to_node(row, vector) for row, vector in rows]

    def node_ids(self) -> list[str]:
        """Ids of all nodes, sorted; without reading the nodes."""
        return sorted(self.ids_as_stored())

    def node_count(self) -> int:
        """Number of nodes; without reading them."""
        self._check_usable()
        state = self._state()
        return 0 if state is None else state.count

    def _search(
        self, query: VectorStoreQuery, mode: VectorStoreQueryMode, options: Mapping[str, Any]
    ) -> VectorStoreQueryResult:
        state = self._state()
        return empty_result() if state is None else answer(self._searcher(state), state.dim, query, options)

    def query_many(self, queries: Sequence[VectorStoreQuery], **kwargs: Any) -> list[VectorStoreQueryResult]:
        """Answer several queries at once; those of mode DEFAULT without restrictions share their work.

        Returns:
            What `query` would return for each.
        """
        queries = [with_mode(query) for query in queries]
        for query in queries:
            check_query(type(self).__name__, query, query.mode, kwargs, modes=self._modes)
        self._check_usable()
        state = self._state()
        if state is None:
            return [empty_result() for _ in queries]
        return answer_many(self._searcher(state), state.dim, queries, kwargs)

    def _searcher(self, state: State) -> Search:
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

    def persist(self, persist_path: str = "", fs: Any = None) -> None:
        """Part of ``StorageContext.persist``: nothing is written, since a file has every node already.

        Warns:
            UserWarning: The store is in memory, and its nodes end with the process.
        """
        if self.path == MEMORY:
            warnings.warn(
                "A DuckDBVectorStore in memory keeps nothing on the disk: its nodes are gone when the process ends. "
                'Make it with a path, DuckDBVectorStore("vectors.duckdb"), which needs no persist.',
                UserWarning,
                stacklevel=3,
            )

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """What `from_dict` opens the same store with; in memory a `StoreError`, as the nodes would stay behind."""
        if self.path == MEMORY and not self._closed and self.node_count():
            raise StoreError("A store in memory with nodes cannot be a dict. Pickle it, or give it a file.")
        return super().to_dict(**kwargs)

    def __reduce__(self) -> Any:
        check_picklable(**self._options)
        nodes = self.get_nodes() if self.path == MEMORY else []
        return _reopened, (self.model_dump(include=set(_REOPENED)), self._dim, self._fingerprint, nodes)

    def _state(self) -> State | None:
        return self._checked(self._table.state_now())

    def _checked(self, state: State | None) -> State | None:
        """Refuse a table that another model has made since this store was opened."""
        if state is not None:
            place = f"Table '{self.table}'"
            if self._dim is not None and self._dim != state.dim:
                raise FingerprintError(
                    f"{place} keeps vectors of {state.dim} numbers, the caller wants {self._dim}. "
                    "Use the original model, or index into another table.",
                    stored=f"dim={state.dim}",
                    given=f"dim={self._dim}",
                )
            if self._fingerprint is not None and state.fingerprint != self._fingerprint:
                agreed_fingerprint(state.fingerprint, self._fingerprint, place=place, kind="table")
        return state

    def _check_usable(self, *, write: bool = False) -> None:
        if self._closed:
            raise StoreError(CLOSED)
        self._database.check_file()
        if write and self.read_only:
            raise StoreWriteError(
                f"'{self.path}' was opened with read_only=True. Open it without, where no other process has it."
            )

    # ---- a bulk copy reads this store ---------------------------------------------------------------------

    def ids_as_stored(self) -> list[str]:
        """Ids in the order in which the nodes came: neighbours are near each other in the file, and so in a copy."""
        self._check_usable()
        with self._database.cursor() as cursor:
            return [] if self._checked(self._table.state(cursor)) is None else self._table.node_ids(cursor)

    @contextmanager
    def frugal_reads(self, threads: int) -> Iterator[None]:
        """While in the block, DuckDB uses this many threads at most, each with buffers of its own."""
        usual = self._database.setting("threads")
        self._database.set("threads", str(min(threads, int(usual))))
        try:
            yield
        finally:
            self._database.set("threads", usual)

    def drop_cache(self) -> None:
        """Have DuckDB drop the blocks of its file that it caches."""
        self._database.release_memory()


_REOPENED = ("path", "table", "read_only", "cache_mb", "text_language", "shared")


def _needed(database_path: str | Path | None) -> str | Path:
    if database_path is None:
        raise SettingsError("DuckDBVectorStore.from_local needs the path of a file.")
    return database_path


def _reopened(
    fields: dict[str, Any], dim: int | None, fingerprint: str | None, nodes: Sequence[BaseNode] = ()
) -> DuckDBVectorStore:
    """Open the store of a pickle; one in memory brings its nodes along."""
    known = {name: fields[name] for name in _REOPENED}
    store = DuckDBVectorStore(known.pop("path"), dim=dim, fingerprint=fingerprint, **known)
    if nodes:
        store.add(nodes)
    return store


def _check_settings(table: str, dim: int | None, cache_mb: int) -> None:
    """Refuse settings that mean nothing."""
    check_name("The table name", table)
    if table == REGISTER:
        raise SettingsError(
            f"The table '{table}' is where the stores remember their tables. Give another name."
        )
    if dim is not None and dim < 1:
        raise SettingsError(f"dim is {dim}; a vector has at least 1 number.")
    if cache_mb < 0:
        raise SettingsError(f"cache_mb is {cache_mb}; give 0 (scan with DuckDB) or more.")


def _warn_of_many(table: str, path: str, count: int) -> None:
    """Say where a table should move that is larger than exact search is for."""
    warnings.warn(
        f"Table '{table}' has {counted(count, 'vector')}. Every query looks at all of them; beyond {_MANY:,} an index "
        "pays off. LanceDBVectorStore and PostgresVectorStore have one: "
        f"llama-presets move {path} DESTINATION copies the nodes there.",
        UserWarning,
        stacklevel=4,
    )
