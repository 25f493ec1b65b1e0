"""Postgres table: columns, indexes and stored metadata."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_index.core.schema import BaseNode

from llama_index_presets.errors import NodeRejectedError, SettingsError, StoreError
from llama_index_presets.store.base import agreed_fingerprint
from llama_index_presets.store.node_codec import Row, to_node, to_row
from llama_index_presets.store.postgres.connection import quoted
from llama_index_presets.store.postgres.filters import fields_of, folded_of, unstorable

__all__ = [
    "COLUMNS",
    "DEFAULT_LANGUAGE",
    "INDEX_CHOICES",
    "NODE_COLUMNS",
    "IndexOptions",
    "PostgresTable",
    "copy_stream",
    "read_nodes",
    "vacuum",
]

# -- rows in Postgres' binary COPY format ---------------------------------------------------------------------


NODE_COLUMNS = Row._fields
"""Columns of a node, in the order of `Row`."""

COLUMNS = (*NODE_COLUMNS, "fields", "folded", "embedding")
"""All columns: `fields` and `folded` are the metadata for filters, `metadata` as it was written."""

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_LENGTH = struct.Struct(">i")
_COUNT = struct.pack(">h", len(COLUMNS))


def copy_stream(nodes: Sequence[BaseNode], vectors: npt.NDArray[np.float32], *, half: bool) -> io.BytesIO:
    """Write nodes as a stream for ``COPY … FROM STDIN (FORMAT binary)``.

    Args:
        nodes: Unique by id; their order is the order of the rows.
        vectors: Their embeddings, (n, dim) float32.
        half: Whether the column is a halfvec.

    Raises:
        NodeRejectedError: A node has no JSON form, or a NUL character, which Postgres cannot store.

    Source: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
    """
    parts = [_SIGNATURE]
    header = struct.pack(">hh", vectors.shape[1], 0)
    numbers = vectors.astype(">f2" if half else ">f4")
    for node, vector in zip(nodes, numbers, strict=True):
        parts.append(_COUNT)
        parts += _values(to_row(node))
        payload = header + vector.tobytes()
        parts += (_LENGTH.pack(len(payload)), payload)
    parts.append(_END)
    return io.BytesIO(b"".join(parts))


def _values(row: Row) -> list[bytes]:
    metadata = row.filterable()
    plain = (row.node_id, row.ref_doc_id, row.text, row.metadata, row.kind, row.node)
    fields = json.dumps(fields_of(metadata), ensure_ascii=False)
    if any("\0" in one for one in plain if one) or ("\\u0000" in fields and unstorable(fields_of(metadata))):
        raise NodeRejectedError(
            f"Node '{row.node_id}' has a NUL character in its id, text or metadata, which Postgres cannot store. "
            "Remove it (`ingest` cleans text of it). Nothing was written.",
            [row.node_id],
        )
    folded = json.dumps(folded_of(metadata), ensure_ascii=False)
    values: list[bytes] = []
    for one in plain:
        values += _sized(one.encode()) if one is not None else (_NULL,)
    values += _sized(b"\x01" + fields.encode())
    values += _sized(b"\x01" + folded.encode())
    return values


def _sized(value: bytes) -> tuple[bytes, bytes]:
    return _LENGTH.pack(len(value)), value


def read_nodes(rows: Sequence[Sequence[Any]]) -> list[BaseNode]:
    """Put nodes together from rows of `NODE_COLUMNS`, with an embedding where the row has one more value."""
    width = len(NODE_COLUMNS)
    return [to_node(Row(*row[:width]), json.loads(row[width]) if len(row) > width else None) for row in rows]


# ruff: noqa: S608 -- statements are made of quoted identifiers and rendered conditions; values are bound.


INDEX_CHOICES = ("auto", "none", "hnsw", "ivfflat")

INDEX_FROM_ROWS = 10_000
"""Below this a scan is about as fast as an index, and exact."""

DEFAULT_LANGUAGE = "english"
"""Text search configuration of a table without one of its own."""

HALFVEC_INDEX_DIM = 4_000
"""Longest halfvec that pgvector indexes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """The vector index of a table.

    Attributes:
        choice: One of `INDEX_CHOICES`; ``"auto"`` is HNSW from 10,000 rows on, the others index from the first.
        m: HNSW links of a node, 2 to 100.
        ef_construction: HNSW candidates while building, at least 2 * m.
        ef_search: HNSW candidates while searching, 1 to 1000; raised to the number of rows asked for.
    """

    choice: str = "auto"
    m: int = 16
    ef_construction: int = 64
    ef_search: int = 100

    def __post_init__(self) -> None:
        if self.choice not in INDEX_CHOICES:
            raise SettingsError(
                f"index='{self.choice}' is not known. Choose one of: {', '.join(INDEX_CHOICES)}."
            )
        if not (2 <= self.m <= 100 and 2 * self.m <= self.ef_construction <= 1000):
            raise SettingsError(
                f"HNSW with m={self.m}, ef_construction={self.ef_construction} is not possible: "
                "give m from 2 to 100 and ef_construction from 2 * m to 1000."
            )

    def wanted(self, rows: int, dim: int) -> bool:
        """Whether a table of this size gets an index."""
        if self.choice == "none" or dim > HALFVEC_INDEX_DIM or not rows:
            return False
        return self.choice != "auto" or rows >= INDEX_FROM_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresTable:
    """One table in one schema.

    Attributes:
        schema: Name of the schema.
        name: Name of the table.
        dim: Length of the vectors.
        half: Whether vectors are stored at half precision.
        language: Text search configuration, such as ``"english"``.
        index: Its vector index.
    """

    schema: str
    name: str
    dim: int
    half: bool
    language: str
    index: IndexOptions

    @property
    def sql(self) -> str:
        """Qualified and quoted name."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def vector_type(self) -> str:
        """Type of the vector column."""
        return f"{'halfvec' if self.half else 'vector'}({self.dim})"

    @property
    def indexed_vector(self) -> str:
        """What the vector index holds: half precision, as longer vectors fit and builds are faster; candidates are
        scored again on the column itself."""
        return "embedding" if self.half else f"(embedding::halfvec({self.dim}))"

    @property
    def words(self) -> str:
        """Expression of the text index."""
        return f"to_tsvector('{self.language}'::regconfig, coalesce(text, ''))"

    @property
    def words_index(self) -> str:
        """Name of the text-search index: one for each language."""
        return f"words_{zlib.crc32(self.language.encode()):08x}"

    def index_name(self, kind: str) -> str:
        """Quoted name of an index of this table, cut to what Postgres keeps."""
        return quoted(f"{self.name.encode()[:48].decode(errors='ignore')}_{kind}")

    # ---- opening -----------------------------------------------------------------------------------------

    def exists(self, cursor: Any) -> bool:
        """Whether the table is there."""
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (self.sql,))
        return bool(cursor.fetchone()[0])

    def create(self, cursor: Any) -> None:
        """Make schema, extension and table where they are missing; processes take turns."""
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('llama-index-presets'))")
        cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self.schema,))
        if not cursor.fetchone():
            cursor.execute(f"CREATE SCHEMA {quoted(self.schema)}")
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        cursor.execute(
            f'CREATE TABLE IF NOT EXISTS {self.sql} (node_id text COLLATE "C" PRIMARY KEY, ref_doc_id text, '
            f"text text, metadata text NOT NULL, kind text NOT NULL, node text NOT NULL, fields jsonb NOT NULL, "
            f"folded jsonb NOT NULL, embedding {self.vector_type} NOT NULL)"
        )
        cursor.execute(f"ALTER TABLE {self.sql} ALTER COLUMN embedding SET STORAGE EXTERNAL")
        cursor.execute(f"CREATE INDEX IF NOT EXISTS {self.index_name('doc')} ON {self.sql} (ref_doc_id)")

    def check(self, cursor: Any) -> None:
        """Compare the table that is there with what is expected.

        Raises:
            StoreError: It has other columns, or vectors of another length and rows that have them.
        """
        cursor.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (self.sql,),
        )
        types = dict(cursor.fetchall())
        missing = [name for name in COLUMNS if name not in types]
        if missing:
            raise StoreError(
                f"Table {self.sql} has no column {', '.join(missing)}: it was made by another program, such as the "
                "official adapter. Use another table_name."
            )
        if types["embedding"] != self.vector_type:
            if not self.is_empty(cursor):
                raise StoreError(
                    f"Table {self.sql} stores {types['embedding']}, not {self.vector_type}. "
                    "Open it with the embed_dim and use_halfvec that made it, or use another table_name."
                )
            cursor.execute(f"DROP TABLE {self.sql}")
            self.create(cursor)

    def is_empty(self, cursor: Any) -> bool:
        """Whether there is no row."""
        cursor.execute(f"SELECT NOT EXISTS (SELECT FROM {self.sql})")
        return bool(cursor.fetchone()[0])

    def agree_on_fingerprint(self, cursor: Any, given: str | None) -> str | None:
        """Compare, or store, the fingerprint of the vectors; an empty table takes the caller's.

        Raises:
            FingerprintError: The table remembers another model.
        """
        cursor.execute(
            "SELECT col_description(attrelid, attnum) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attname = 'embedding'",
            (self.sql,),
        )
        stored: str | None = cursor.fetchone()[0]
        if given is None or stored == given:
            return stored
        if stored is not None and not self.is_empty(cursor):
            agreed_fingerprint(stored, given, place=f"Table {self.sql}", kind="table")
        cursor.execute(f"COMMENT ON COLUMN {self.sql}.embedding IS %s", (given,))
        return given

    def agree_on_language(self, cursor: Any, given: str | None) -> str:
        """Language of text search: as passed, else as stored in the table: the first one set.

        Raises:
            StoreError: Postgres has no such configuration.
        """
        cursor.execute(
            "SELECT col_description(attrelid, attnum) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attname = 'text'",
            (self.sql,),
        )
        stored: str | None = cursor.fetchone()[0]
        if given is None or given == stored:
            return stored or DEFAULT_LANGUAGE
        cursor.execute("SELECT %s::regconfig", (given,))
        if stored is None:
            cursor.execute(f"COMMENT ON COLUMN {self.sql}.text IS %s", (given,))
        return given

    # ---- indexes -----------------------------------------------------------------------------------------

    def has_index(self, cursor: Any, kind: str) -> bool:
        """Whether this index of the table is there."""
        cursor.execute(
            "SELECT to_regclass(%s) IS NOT NULL", (f"{quoted(self.schema)}.{self.index_name(kind)}",)
        )
        return bool(cursor.fetchone()[0])

    def count(self, cursor: Any) -> int:
        """Count the rows."""
        cursor.execute(f"SELECT count(*) FROM {self.sql}")
        return int(cursor.fetchone()[0])

    def build_indexes(self, cursor: Any) -> None:
        """Build what is wanted and missing: vectors, metadata, statistics."""
        rows = self.count(cursor)
        if self.index.wanted(rows, self.dim):
            cursor.execute("SET LOCAL statement_timeout = 0")
            if not self.has_index(cursor, "fields"):
                name = self.index_name("fields")
                cursor.execute(f"CREATE INDEX {name} ON {self.sql} USING gin (fields jsonb_path_ops)")
            if not self.has_index(cursor, "vectors"):
                self._build_vector_index(cursor, rows)
        cursor.execute(f"ANALYZE {self.sql}")

    def _build_vector_index(self, cursor: Any, rows: int) -> None:
        # A graph that fits is built in memory; a vector takes 2 bytes a number, the links some 300 bytes.
        needed_mb = rows * (self.dim * 2 + 400) * 1.3 / 2**20
        cursor.execute(f"SET LOCAL maintenance_work_mem = '{int(min(4096, max(64, needed_mb)))}MB'")
        if self.index.choice == "ivfflat":
            lists = max(1, rows // 1000 if rows <= 1_000_000 else int(rows**0.5))
            method = f"ivfflat ({self.indexed_vector} halfvec_cosine_ops) WITH (lists = {lists})"
        else:
            options = f"m = {self.index.m}, ef_construction = {self.index.ef_construction}"
            method = f"hnsw ({self.indexed_vector} halfvec_cosine_ops) WITH ({options})"
        cursor.execute(f"CREATE INDEX {self.index_name('vectors')} ON {self.sql} USING {method}")

    def index_text(self, cursor: Any) -> None:
        """Build the text index where it is missing."""
        if not self.has_index(cursor, self.words_index):
            cursor.execute("SET LOCAL statement_timeout = 0")
            name = self.index_name(self.words_index)
            cursor.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {self.sql} USING gin ({self.words})")


# -- removal of what Postgres still holds of deleted rows -----------------------------------------------------


def vacuum(execute: Callable[[str], Any], table: str, *, own_server: bool) -> None:
    """Write a table and its indexes afresh, and clean what else a server of one's own remembers of its rows.

    Args:
        execute: Runs one statement, each in a transaction of its own.
        table: Quoted name.
        own_server: Whether statistics and write-ahead log may be cleaned; needs a superuser.
    """
    execute("SET statement_timeout = 0")
    if own_server:
        # ANALYZE keeps the samples of a table that has become empty.
        literal = table.replace("'", "''")
        execute(f"DELETE FROM pg_catalog.pg_statistic WHERE starelid = '{literal}'::regclass")
    execute(f"VACUUM (FULL, ANALYZE) {table}")
    if own_server:
        execute("VACUUM FULL pg_catalog.pg_statistic")
        _clean_log(execute)


def _clean_log(execute: Callable[[str], Any]) -> None:
    """Delete the segments of the write-ahead log instead of renaming them for later, which keeps their content.

    Those that were renamed earlier are used up first: what is left of a segment is filled with zeros at a switch.
    """
    execute("ALTER SYSTEM SET wal_recycle = off")
    try:
        execute("SELECT pg_reload_conf()")
        segments = execute("SELECT count(*) FROM pg_ls_waldir()").scalar()
        for _ in range(segments + 1):
            execute("SELECT pg_logical_emit_message(false, 'llama-index-presets', 'compact')")
            execute("SELECT pg_switch_wal()")
        execute("CHECKPOINT")
    finally:
        execute("ALTER SYSTEM RESET wal_recycle")
        execute("SELECT pg_reload_conf()")
