"""Postgres vector store with pgvector: transactions, rows and vectors in one database, many writers."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar, cast

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets._options import Limits, expect, refuse_unknown, refuse_values, strict
from llama_index_presets.errors import SettingsError, StoreError
from llama_index_presets.packages.extras import require

require("llama_index.vector_stores.postgres", extra="postgres")
from llama_index.vector_stores.postgres import PGVectorStore as OfficialStore  # noqa: E402
from sqlalchemy.engine import URL, Engine  # noqa: E402

from llama_index_presets.store.base import FIXED_LIMITS, NodeQuery, StoreBase  # noqa: E402
from llama_index_presets.store.postgres.connection import Done, Transactions, make_engine, parse_url, quoted  # noqa: E402
from llama_index_presets.store.postgres.embedded import revive  # noqa: E402
from llama_index_presets.store.postgres.search import MODES, OPTIONS, PostgresSearch, select_where  # noqa: E402
from llama_index_presets.store.postgres.table import (  # noqa: E402
    COLUMNS,
    DEFAULT_LANGUAGE,
    NODE_COLUMNS,
    IndexOptions,
    PostgresTable,
    copy_stream,
    read_nodes,
    vacuum,
)
from llama_index_presets.store.vectors import checked_vectors  # noqa: E402

__all__ = ["PostgresVectorStore"]

# -- options of the official adapter --------------------------------------------------------------------------


_IGNORED: dict[str, Any] = {
    "hybrid_search": False,
    "cache_ok": False,
    "perform_setup": True,
    "debug": False,
    "use_jsonb": True,
    "initialization_fail_on_error": True,
    "indexed_metadata_keys": None,
}
"""Options of the official adapter that have one meaning here: every mode works, every key is indexed."""

_LIMITS: Limits = {
    **FIXED_LIMITS,
    "customize_query_fn": ((None,), "the statement is another one. Use filters, or read the table with SQL."),
}


def _check(language: str, embed_dim: int, table_name: str, schema_name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", language):
        raise SettingsError(f"text_search_config='{language}' is no name. Give one like 'english'.")
    if embed_dim < 1 or embed_dim > 16_000:
        raise SettingsError(f"embed_dim is {embed_dim}; pgvector stores 1 to 16,000 numbers.")
    quoted(table_name), quoted(schema_name)


def _url_of(engine: Any | None, connection_string: str | URL | None) -> URL:
    """Address of the server, with its login."""
    if engine is not None:
        if not hasattr(engine, "url"):
            expect("engine", engine, Engine, "what sqlalchemy.create_engine() gives")
        return cast("URL", engine.url)
    if connection_string is None:
        raise SettingsError("PostgresVectorStore needs a connection URL: postgresql://user:password@host/db.")
    return parse_url(connection_string)


def _index_options(choice: str, hnsw: dict[str, Any]) -> IndexOptions:
    """Read `index` and the official ``hnsw_kwargs``.

    Raises:
        SettingsError: One is unknown, or out of range.
    """
    known = {"hnsw_m": "m", "hnsw_ef_construction": "ef_construction", "hnsw_ef_search": "ef_search"}
    refuse_unknown("hnsw_kwargs", hnsw, [*known, "hnsw_dist_method"])
    if "cosine" not in hnsw.get("hnsw_dist_method", "cosine"):
        raise SettingsError(
            f"hnsw_dist_method is '{hnsw['hnsw_dist_method']}'; the index is always for cosine. Leave it out."
        )
    return IndexOptions(
        choice=choice, **{known[name]: int(value) for name, value in hnsw.items() if name in known}
    )


# ruff: noqa: S608 -- statements are made of quoted identifiers and rendered conditions; values are bound.


Result = TypeVar("Result")

BULK_ROWS = 50_000
"""An `add` after which a table without an index has more rows than this builds it."""


@strict()
class PostgresVectorStore(StoreBase, OfficialStore):
    """pgvector under the promises that every store of this package keeps.

    Scores are cosine similarity, -1 to 1, higher is closer. `add` replaces nodes of the same id; each call is
    one transaction. Thread safe; any number of processes may read and write. Lost connections are tried again.

    Args:
        connection_string: ``postgresql://user:password@host:port/database``; never shown or serialised with its
            password.
        table_name: Table; made by the first use.
        schema_name: Schema; made by the first use.
        embed_dim: Length of the vectors.
        fingerprint: What makes the vectors (see `values.Fingerprint`); a table adopts it, another one must
            agree.
        index: ``"auto"`` builds HNSW from 10,000 rows on; ``"none"`` always scans (exact); ``"hnsw"`` and
            ``"ivfflat"`` build from the first row on. Built by `finish_load`, or by an `add` that passes 50,000
            rows. The index holds half precision up to 4,000 numbers; scores come from the stored vectors.
        use_halfvec: Store half precision too: half the disk, scores exact to 3 digits.
        text_search_config: Language of text search, as Postgres names it, such as ``"german"``. None takes what the
            table remembers: the first one it was given, else English. Each language that is asked gets an index.
        hnsw_kwargs: ``hnsw_m``, ``hnsw_ef_construction``, ``hnsw_ef_search``, as in the official adapter.
        pool_size: Connections kept open.
        statement_timeout_s: After which Postgres stops a statement, in seconds; 0 never.
        retry_s: For how long, in seconds, a lost connection is tried again; while the server stays away after that,
            each call tries once.
        engine: An SQLAlchemy engine to use instead of a connection string.
        **official: The other options of the official adapter. ``perform_setup=False`` refuses a missing table instead
            of making it, ``debug`` prints the statements. Those that choose its columns and indexes have one value
            here: every mode of query works, every metadata key is indexed.

    Raises:
        SettingsError: An option is unknown (the message names the nearest), out of range, or cannot be honoured.
            Everything else is raised by the first use:
        FingerprintError: The table was made by another model.
        StoreError: The server cannot be reached, or the table is not of this class or dimension.

    `query` takes two keywords more: ``hnsw_ef_search`` and ``ivfflat_probes``, as in the official adapter.

    Example:
        >>> import tempfile
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.core.vector_stores import VectorStoreQuery
        >>> from llama_index_presets import embedded_postgres
        >>> with embedded_postgres(tempfile.mkdtemp()) as url:
        ...     store = PostgresVectorStore.from_url(url, embed_dim=2)
        ...     _ = store.add([TextNode(id_="a", embedding=[1.0, 0.0]), TextNode(id_="b", embedding=[0.0, 1.0])])
        ...     found = store.query(VectorStoreQuery(query_embedding=[3, 4], similarity_top_k=1))
        ...     _ = store.close()
        >>> found.ids, [round(score, 6) for score in found.similarities]
        (['b'], [0.8])
    """

    index: str = "auto"

    _modes: ClassVar[frozenset[VectorStoreQueryMode]] = MODES
    _query_options: ClassVar[tuple[str, ...]] = OPTIONS
    _transactions: Transactions = PrivateAttr()
    _own_engine: bool = PrivateAttr(default=True)
    _place: PostgresTable = PrivateAttr()
    _fingerprint: str | None = PrivateAttr(default=None)
    _language: str | None = PrivateAttr(default=None)
    _opening: Any = PrivateAttr(default_factory=threading.Lock)
    _opened: bool = PrivateAttr(default=False)

    def __init__(
        self,
        connection_string: str | URL | None = None,
        *,
        table_name: str = "chunks",
        schema_name: str = "public",
        embed_dim: int = 1536,
        fingerprint: str | None = None,
        index: str = "auto",
        use_halfvec: bool = False,
        text_search_config: str | None = None,
        hnsw_kwargs: dict[str, Any] | None = None,
        pool_size: int = 5,
        statement_timeout_s: float = 60.0,
        retry_s: float = 30.0,
        engine: Any | None = None,
        create_engine_kwargs: dict[str, Any] | None = None,
        **official: Any,
    ) -> None:
        language = text_search_config or DEFAULT_LANGUAGE
        _check(language, embed_dim, table_name, schema_name)
        refuse_values("PostgresVectorStore", official, _LIMITS)
        url = _url_of(engine, connection_string)
        shown = url.render_as_string(hide_password=True)
        # Not through the official constructor: it keeps the password in a field and builds ORM classes.
        fields: dict[str, Any] = {
            "connection_string": shown,
            "async_connection_string": shown,
            "table_name": table_name,
            "schema_name": schema_name,
            "embed_dim": embed_dim,
            "index": index,
            "use_halfvec": use_halfvec,
            "text_search_config": language,
            "hnsw_kwargs": hnsw_kwargs,
            "create_engine_kwargs": {},
            **{name: official.get(name, default) for name, default in _IGNORED.items()},
        }
        super(OfficialStore, self).__init__(**fields)
        self._place = PostgresTable(
            schema=schema_name,
            name=table_name,
            dim=embed_dim,
            half=use_halfvec,
            language=language,
            index=_index_options(index, hnsw_kwargs or {}),
        )
        self._own_engine = engine is None
        self._engine = engine or make_engine(
            url,
            pool_size=pool_size,
            statement_timeout_s=statement_timeout_s,
            options={"echo": bool(official.get("debug")), **(create_engine_kwargs or {})},
        )
        self._transactions = Transactions(self._engine, retry_s, revive=revive)
        self._fingerprint = fingerprint
        self._language = text_search_config

    @classmethod
    def from_url(
        cls, url: str | URL, *, embed_dim: int, table_name: str = "chunks", **options: Any
    ) -> PostgresVectorStore:
        """Open a store by its URL.

        Args:
            url: ``postgresql://user:password@host:port/database``.
            embed_dim: Length of the vectors.
            table_name: Table.
            **options: As in the constructor.
        """
        return cls(url, embed_dim=embed_dim, table_name=table_name, **options)

    @classmethod
    def from_params(  # type: ignore[override]
        cls,
        host: str | None = None,
        port: str | int | None = None,
        database: str | None = None,
        user: str | None = None,
        password: str | None = None,
        connection_string: str | URL | None = None,
        **options: Any,
    ) -> PostgresVectorStore:
        """Open a store by the official adapter's arguments; any character may stand in the password."""
        options.pop("async_connection_string", None)
        url = connection_string or URL.create(
            "postgresql+psycopg2", user, password, host, int(port) if port else None, database
        )
        return cls(url, **options)

    @property
    def client(self) -> Any:
        """The SQLAlchemy engine."""
        return self._engine

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the vectors, as the table remembers it."""
        self._run(lambda cursor: None)
        return self._fingerprint

    # ---- writing -----------------------------------------------------------------------------------------

    def _upsert(self, nodes: list[BaseNode], *, replacing: Sequence[str] = (), bulk: bool = False) -> None:
        """One transaction; writers of the same document take turns."""
        # In order of id, so that two writers of the same nodes wait for each other instead of deadlocking.
        ordered = sorted(nodes, key=lambda node: node.node_id)
        vectors = checked_vectors(ordered, self._place.dim)
        stream = copy_stream(ordered, vectors, half=self._place.half)
        gone = select_where(NodeQuery(doc_ids=replacing))

        def write(cursor: Any) -> bool:
            stream.seek(0)
            if replacing:
                self._take_turns(cursor, replacing)
                cursor.execute(f"DELETE FROM {self._place.sql} WHERE {gone.sql}", gone.parameters)
            return self._copy_in(cursor, stream)

        if self._run(write) and not bulk:
            self._run(self._place.build_indexes)

    def _clear(self) -> None:
        """Delete every node; the empty table takes the fingerprint of what is added next."""
        self._run(lambda cursor: cursor.execute(f"TRUNCATE {self._place.sql}"))

    def finish_load(self) -> None:
        """Call once after a bulk load: build the indexes that are wanted and missing, gather statistics."""
        self._run(self._place.build_indexes)

    # ---- reading -----------------------------------------------------------------------------------------

    def node_ids(self) -> list[str]:
        """Ids of all nodes, sorted; without reading the nodes."""

        def read(cursor: Any) -> list[str]:
            cursor.execute(f"SELECT node_id FROM {self._place.sql} ORDER BY node_id")
            return [node_id for (node_id,) in cursor.fetchall()]

        return self._run(read)

    def node_count(self) -> int:
        """Number of nodes, without reading them."""
        return self._run(self._place.count)

    def check_ready(self) -> None:
        """Refuse when the server does not answer now; one try, without the patience of other calls."""
        self._transactions.ping()

    def _search(
        self, query: VectorStoreQuery, mode: VectorStoreQueryMode, options: Mapping[str, Any]
    ) -> VectorStoreQueryResult:
        """TEXT_SEARCH scores are ``ts_rank_cd``, >= 0, of any of the words."""
        return self._run(lambda cursor: PostgresSearch(self._place, cursor, query, options).run(mode))

    def compact(self, *, own_server: bool = False) -> None:
        """Rewrite table and indexes, so that nothing of deleted rows is left in them. Other writers wait meanwhile.

        Backups, replicas and the log of a server that others use are their owner's to clean.

        Args:
            own_server: Whether the server serves this store alone: then its write-ahead log and its statistics are
                cleaned, too. Needs a superuser.
        """
        self._run(lambda cursor: None)
        with self._transactions.engine.connect() as connection:
            autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
            vacuum(autocommit.exec_driver_sql, self._place.sql, own_server=own_server)

    # ---- life --------------------------------------------------------------------------------------------

    def close(self) -> Done:
        """Close the connections; any later use opens new ones.

        They are closed when this returns. What it gives back is a coroutine, as the official method is one:
        ``await store.close()`` and ``asyncio.run(store.close())`` work, and need not be.
        """
        if self._own_engine:
            self._transactions.engine.dispose()
        return Done()

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be pickled: the copy would need the password."""
        raise StoreError(
            "A PostgresVectorStore cannot be pickled, as it holds a password. Open one per process."
        )

    def _run(self, work: Callable[[Any], Result]) -> Result:
        """Run work in a transaction, on a table that exists and matches this store."""
        if not self._opened:
            with self._opening:
                if not self._opened:
                    self._fingerprint = self._transactions.run(self._open)
                    self._opened = True
        return self._transactions.run(work)

    def _open(self, cursor: Any) -> str | None:
        if self._place.exists(cursor):
            self._place.check(cursor)
        elif self.perform_setup:
            self._place.create(cursor)
        else:
            raise StoreError(
                f"There is no table {self._place.sql}, and perform_setup=False does not make it. Check table_name and "
                "schema_name, or leave perform_setup out."
            )
        language = self._place.agree_on_language(cursor, self._language)
        self._place = replace(self._place, language=language)
        return self._place.agree_on_fingerprint(cursor, self._fingerprint)

    def _take_turns(self, cursor: Any, documents: Sequence[str]) -> None:
        keys = sorted({f"{self._place.sql}/{document}" for document in documents if "\0" not in document})
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(k, 0)) FROM unnest(%s) k", (keys,))

    def _copy_in(self, cursor: Any, stream: Any) -> bool:
        """Copy the stream in; whether the table has become large and has no index."""
        listed, table = ", ".join(COLUMNS), self._place.sql
        self._place.agree_on_fingerprint(cursor, self._fingerprint)
        cursor.execute(
            f"CREATE TEMP TABLE incoming ON COMMIT DROP AS SELECT {listed} FROM {table} WITH NO DATA"
        )
        cursor.copy_expert(f"COPY incoming ({listed}) FROM STDIN (FORMAT binary)", stream)
        updates = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
        cursor.execute(
            f"INSERT INTO {table} ({listed}) SELECT {listed} FROM incoming "
            f"ON CONFLICT (node_id) DO UPDATE SET {updates}"
        )
        if self._place.index.choice == "none" or self._place.has_index(cursor, "vectors"):
            return False
        cursor.execute(
            f"SELECT count(*) > {BULK_ROWS} FROM (SELECT FROM {table} LIMIT {BULK_ROWS + 1}) AS few"
        )
        return bool(cursor.fetchone()[0])

    def _select(self, selection: NodeQuery) -> list[BaseNode]:
        where = select_where(selection)
        columns = f"{', '.join(NODE_COLUMNS)}, embedding::text"

        def read(cursor: Any) -> list[Any]:
            cursor.execute(f"SELECT {columns} FROM {self._place.sql} WHERE {where.sql}", where.parameters)
            return list(cursor.fetchall())

        return read_nodes(self._run(read))

    def _delete(self, selection: NodeQuery) -> None:
        where = select_where(selection)
        sql = f"DELETE FROM {self._place.sql} WHERE {where.sql}"
        self._run(lambda cursor: cursor.execute(sql, where.parameters))
