"""DuckDB table: schema, stored metadata, reads and writes of rows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from llama_index.core.schema import BaseNode
from numpy.typing import NDArray

from llama_index_presets.counting import counted
from llama_index_presets.errors import StoreCorruptError, StoreError
from llama_index_presets.filters import Condition
from llama_index_presets.store.duckdb.connect import quote
from llama_index_presets.store.duckdb.database import Database
from llama_index_presets.store.node_codec import Row, to_row
from llama_index_presets.store.vectors import checked_vectors
from llama_index_presets.text.utf8 import check_ids

__all__ = ["COLUMNS", "REGISTER", "Incoming", "State", "Table", "as_numpy", "numbers", "row_of", "strings"]

# Arrow arrays of Python strings and numpy numbers, and back, without importing pandas.
#
# ``pyarrow.array`` and ``Array.to_numpy`` import pandas where it is installed, to see whether they have to do with
# a Series: a second and more in the first call of a process.


def strings(values: Sequence[str | None]) -> pa.LargeStringArray:
    """An array of strings.

    Raises:
        UnicodeEncodeError: A string has no UTF-8 form (a lone surrogate).

    Example:
        >>> strings(["a", None, "é"]).to_pylist()
        ['a', None, 'é']
    """
    given = [value or "" for value in values]
    data = "".join(given)
    if data.isascii():
        lengths = list(map(len, given))
    else:
        lengths = [len(value) if value.isascii() else len(value.encode()) for value in given]
    ends = np.zeros(len(given) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    valid = None
    if None in values:
        present = np.array([value is not None for value in values])
        valid = pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.LargeStringArray.from_buffers(
        len(given), pa.py_buffer(ends), pa.py_buffer(data.encode()), valid
    )


def numbers(values: NDArray[Any]) -> pa.Array:
    """An array of numbers, sharing their memory where they are contiguous.

    Example:
        >>> numbers(np.array([1, 2])).to_pylist()
        [1, 2]
    """
    dense = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(dense.dtype), len(dense), [None, pa.py_buffer(dense)])


def as_numpy(array: pa.Array) -> NDArray[Any]:
    """The numbers of an array without nulls, sharing its memory; not to be written into.

    Example:
        >>> as_numpy(numbers(np.array([1, 2]))).tolist()
        [1, 2]
    """
    found: NDArray[Any] = np.from_dlpack(array)
    return found


# -- rows to write, taken apart while DuckDB compresses those before ------------------------------------------


_ROWS = 4096
"""Rows taken apart at a time: enough for DuckDB to work on, few enough to stay in the processor's cache."""


class Incoming:
    """Nodes to write, each id once.

    Args:
        nodes: At least one.
        dim: Length of their vectors, None for that of the first.

    Attributes:
        dim: Length of their vectors.
        failure: Why `stream` ended early: DuckDB wraps what is raised there beyond recognition.

    Raises:
        NodeRejectedError: One of the first nodes cannot be stored.
    """

    def __init__(self, nodes: Sequence[BaseNode], dim: int | None) -> None:
        check_ids((node.node_id for node in nodes), "node")
        self._nodes = nodes
        self._first = self._batch(0, dim)
        self.dim: int = self._first.schema.field("embedding").type.list_size
        self.failure: BaseException | None = None

    def __len__(self) -> int:
        return len(self._nodes)

    def ids(self) -> pa.Table:
        """The ids, in the column ``node_id``."""
        return pa.table({"node_id": strings([node.node_id for node in self._nodes])})

    def stream(self, first_seq: int) -> pa.RecordBatchReader:
        """The rows, numbered from `first_seq` on, each batch made when it is asked for."""
        schema = self._first.schema.append(pa.field("seq", pa.int64()))
        return pa.RecordBatchReader.from_batches(schema, self._numbered(first_seq))

    def _numbered(self, first_seq: int) -> Iterator[pa.RecordBatch]:
        try:
            for start in range(0, len(self._nodes), _ROWS):
                batch = self._batch(start, self.dim) if start else self._first
                seqs = numbers(np.arange(first_seq + start, first_seq + start + len(batch)))
                yield batch.append_column("seq", seqs)
        except GeneratorExit:
            raise  # DuckDB stopped reading, for a reason that it will give
        except BaseException as error:
            self.failure = error
            raise

    def _batch(self, start: int, dim: int | None) -> pa.RecordBatch:
        nodes = self._nodes[start : start + _ROWS]
        columns = zip(*[to_row(node) for node in nodes], strict=True)
        vectors = checked_vectors(nodes, dim)
        embeddings = pa.FixedSizeListArray.from_arrays(numbers(vectors.reshape(-1)), vectors.shape[1])
        return pa.RecordBatch.from_arrays(
            [*map(strings, columns), embeddings], names=[*Row._fields, "embedding"]
        )


# ruff: noqa: S608 -- identifiers are quoted, values are bound, and nothing else is put into the SQL.


_Result = TypeVar("_Result")
REGISTER = "llama_index_presets_stores"
_FORMAT = 1
_ATTEMPTS = 20

COLUMNS = Row._fields
"""Columns that a `Row` becomes, in its order."""

_SELECT = ", ".join(COLUMNS)


def row_of(values: Sequence[Any]) -> Row:
    """Make a `Row` of the values of `COLUMNS`."""
    return Row(*values)


@dataclass(frozen=True, slots=True)
class State:
    """Metadata that a table keeps of itself.

    Attributes:
        dim: Length of its vectors.
        fingerprint: What made them; None where it is not known.
        version: Counts the changes.
        removals: Counts the changes that took rows away, from a number that no earlier table of this name had.
        next_seq: The number that the next row gets; rows are numbered in the order in which they came.
        count: Rows now.
    """

    dim: int
    fingerprint: str | None
    version: int
    removals: int
    next_seq: int
    count: int


def _begin_again(cursor: duckdb.DuckDBPyConnection) -> None:
    """A failed statement ends a transaction; as it was the first, nothing is lost by another one."""
    try:
        cursor.execute("ROLLBACK")
    except duckdb.TransactionException:
        return  # there was none
    cursor.execute("BEGIN TRANSACTION")


class Table:
    """SQL of one table. Independent of LlamaIndex queries and of the matrix in memory.

    Args:
        database: Where it is.
        name: Any name; it is quoted.
    """

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.name = name
        self.sql = f"{database.schema}.{quote(name)}"
        self._register = f"{database.schema}.{REGISTER}"
        self._remembered: tuple[object, State | None] | None = None

    # ---- what it remembers --------------------------------------------------------------------------------

    def state_now(self) -> State | None:
        """Like `state`, without asking DuckDB where nothing can have changed.

        Planning the question takes DuckDB as long as a search takes us.
        """
        mark = self.database.mark()
        if mark is not None and self._remembered is not None and self._remembered[0] == mark:
            return self._remembered[1]
        with self.database.cursor() as cursor:
            state = self.state(cursor)
        self._remembered = (mark, state)
        return state

    def state(self, cursor: duckdb.DuckDBPyConnection) -> State | None:
        """Read the table's metadata, or None where it does not exist yet.

        In a transaction this is the first statement, or the table is known to exist.

        Raises:
            StoreError: A table of this name was made by something else.
        """
        try:
            return self._read_state(cursor)
        except duckdb.CatalogException:
            _begin_again(cursor)
        if not self._exists(cursor):
            return None
        try:
            return self._read_state(cursor)  # it was made between the two looks
        except duckdb.CatalogException:
            raise self._foreign() from None

    def _read_state(self, cursor: duckdb.DuckDBPyConnection) -> State:
        found = cursor.execute(
            "SELECT dim, fingerprint, version, removals, next_seq, format, "
            f"(SELECT count(*) FROM {self.sql}) FROM {self._register} WHERE name = $name",
            {"name": self.name},
        ).fetchall()
        if not found:
            raise self._foreign()
        dim, fingerprint, version, removals, next_seq, format_, count = found[0]
        if format_ != _FORMAT:
            raise StoreCorruptError(
                f"The table '{self.name}' has format {format_}, this version reads {_FORMAT}. "
                "Upgrade llama-index-presets."
            )
        return State(dim, fingerprint, version, removals, next_seq, count)

    def _exists(self, cursor: duckdb.DuckDBPyConnection) -> bool:
        try:
            cursor.execute(f"SELECT 1 FROM {self.sql} LIMIT 0").fetchall()
        except duckdb.CatalogException:
            _begin_again(cursor)
            return False
        return True

    def _foreign(self) -> StoreError:
        return StoreError(
            f"The table '{self.name}' was not made by this store and is left alone. Give another table name."
        )

    def create(self, cursor: duckdb.DuckDBPyConnection, dim: int, fingerprint: str | None) -> State:
        """Make the table, inside the caller's transaction."""
        # Counting on from the clock, a table that is made anew never repeats the numbers of the old one: not
        # those of its rows, and not the removals, by which a copy in memory knows that rows are gone.
        now = time.time_ns()
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._register} (name VARCHAR, dim INTEGER, metric VARCHAR, "
            "fingerprint VARCHAR, version BIGINT, removals BIGINT, next_seq BIGINT, format INTEGER)"
        )
        cursor.execute(
            f"CREATE TABLE {self.sql} (seq BIGINT NOT NULL, node_id VARCHAR NOT NULL, ref_doc_id VARCHAR, "
            f"text VARCHAR, metadata JSON NOT NULL, kind VARCHAR NOT NULL, node VARCHAR NOT NULL, "
            f"embedding FLOAT[{dim}] NOT NULL)"
        )
        cursor.execute(f"DELETE FROM {self._register} WHERE name = $name", {"name": self.name})
        cursor.execute(
            f"INSERT INTO {self._register} VALUES ($name, $dim, 'cosine', $fingerprint, $now, $now, $now, {_FORMAT})",
            {"name": self.name, "dim": dim, "fingerprint": fingerprint, "now": now},
        )
        return State(dim, fingerprint, now, now, now, 0)

    def drop(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Drop the table and its metadata, inside the caller's transaction."""
        cursor.execute(f"DROP TABLE {self.sql}")
        cursor.execute(f"DELETE FROM {self._register} WHERE name = $name", {"name": self.name})

    def adopt(self, state: State, fingerprint: str | None) -> None:
        """Store the fingerprint where none is stored."""
        if fingerprint is None or state.fingerprint is not None:
            return
        if not self.database.read_only:
            self.writing(
                lambda cursor: cursor.execute(
                    f"UPDATE {self._register} SET fingerprint = $fingerprint WHERE name = $name "
                    "AND fingerprint IS NULL",
                    {"fingerprint": fingerprint, "name": self.name},
                )
            )

    # ---- changing it --------------------------------------------------------------------------------------

    def writing(self, change: Callable[[duckdb.DuckDBPyConnection], _Result]) -> _Result:
        """Run a change in one transaction, again where it conflicted with another connection's."""
        attempt = 0
        with self.database.write_access():
            while True:
                attempt += 1
                try:
                    with self.database.transaction() as cursor:
                        done = change(cursor)
                    self.database.changes += 1
                    return done
                except duckdb.TransactionException as error:
                    if attempt == _ATTEMPTS:
                        raise StoreError(
                            f"The change of table '{self.name}' met others {counted(attempt, 'time')}: {error}. "
                            "Write through one store, or retry."
                        ) from error
                time.sleep(random.uniform(0.001, 0.02) * attempt)

    def replace(self, cursor: duckdb.DuckDBPyConnection, state: State, incoming: Incoming) -> int:
        """Write rows, in place of those with the same ids; gives how many were replaced."""
        replaced = 0
        if state.count:
            cursor.register("incoming_ids", incoming.ids())
            replaced = self._rows_changed(
                cursor.execute(f"DELETE FROM {self.sql} WHERE node_id IN (SELECT node_id FROM incoming_ids)")
            )
            cursor.unregister("incoming_ids")
        cursor.register("incoming", incoming.stream(state.next_seq))
        try:
            cursor.execute(f"INSERT INTO {self.sql} SELECT seq, {_SELECT}, embedding FROM incoming")
        except duckdb.Error:
            if incoming.failure is not None:
                raise incoming.failure from None
            raise
        cursor.unregister("incoming")
        self._changed(cursor, removed=replaced, next_seq=state.next_seq + len(incoming))
        return replaced

    def remove(self, cursor: duckdb.DuckDBPyConnection, condition: Condition) -> int:
        """Delete the rows that a condition selects; gives how many."""
        removed = self._rows_changed(
            cursor.execute(f"DELETE FROM {self.sql} WHERE {condition.sql}", condition.parameters)
        )
        if removed:
            self._changed(cursor, removed=removed)
        return removed

    @staticmethod
    def _rows_changed(result: duckdb.DuckDBPyConnection) -> int:
        return sum(count for (count,) in result.fetchall())

    def _changed(
        self, cursor: duckdb.DuckDBPyConnection, *, removed: int, next_seq: int | None = None
    ) -> None:
        # Two writers meet here, in this one row, and the later one starts again: ids stay unique.
        cursor.execute(
            f"UPDATE {self._register} SET version = version + 1, removals = removals + $removed, "
            "next_seq = coalesce($next_seq, next_seq) WHERE name = $name",
            {"removed": int(removed > 0), "next_seq": next_seq, "name": self.name},
        )

    # ---- reading it ---------------------------------------------------------------------------------------

    def select(
        self, cursor: duckdb.DuckDBPyConnection, condition: Condition
    ) -> list[tuple[Row, list[float]]]:
        """Rows with their vectors, in the order in which they came.

        The numbers of the rows are found first: otherwise DuckDB reads the texts and vectors of many rows beside
        those that it looks for (92 MB for the first thousand of 100,000 x 384, instead of 5).
        """
        chosen = f"SELECT rowid FROM {self.sql} WHERE {condition.sql}"
        found = cursor.execute(
            f"SELECT {_SELECT}, embedding FROM {self.sql} WHERE rowid IN ({chosen}) ORDER BY seq",
            condition.parameters,
        ).fetchall()
        return [(row_of(values[:-1]), list(values[-1])) for values in found]

    def node_ids(self, cursor: duckdb.DuckDBPyConnection) -> list[str]:
        """Ids of all rows, in the order in which they came."""
        found = cursor.execute(f"SELECT node_id FROM {self.sql} ORDER BY seq").fetchall()
        return [node_id for (node_id,) in found]

    def kinds(self, cursor: duckdb.DuckDBPyConnection, node_ids: Sequence[str]) -> dict[str, str]:
        """Id -> kind of those of the nodes that are stored."""
        return dict(
            cursor.execute(
                f"SELECT node_id, kind FROM {self.sql} WHERE node_id IN (SELECT unnest($ids))",
                {"ids": list(node_ids)},
            ).fetchall()
        )

    def bytes_of_rows(self, cursor: duckdb.DuckDBPyConnection) -> int:
        """Size of all columns but the vectors, in bytes."""
        sizes = " + ".join(f"coalesce(sum(strlen({name}::VARCHAR)), 0)" for name in COLUMNS)
        found = cursor.execute(f"SELECT {sizes} FROM {self.sql}").fetchall()
        return int(found[0][0])

    def numbers(self, cursor: duckdb.DuckDBPyConnection, below: int) -> NDArray[np.int64]:
        """The `seq` of every row under a bound, ascending."""
        found = cursor.execute(
            f"SELECT seq FROM {self.sql} WHERE seq < $below", {"below": below}
        ).fetchnumpy()
        return np.sort(np.asarray(found["seq"], np.int64))

    def batches(self, cursor: duckdb.DuckDBPyConnection, first_seq: int) -> pa.RecordBatchReader:
        """Every row from a number on, with `seq`, `COLUMNS` and `embedding`; the order is not promised."""
        relation = cursor.sql(
            f"SELECT seq, {_SELECT.replace('metadata', 'metadata::VARCHAR AS metadata')}, embedding "
            f"FROM {self.sql} WHERE seq >= {int(first_seq)}"
        )
        return pa.RecordBatchReader.from_stream(relation)

    def scan(
        self,
        cursor: duckdb.DuckDBPyConnection,
        question: NDArray[np.float64],
        limit: int,
        condition: Condition,
    ) -> list[tuple[Row, list[float]]]:
        """The rows nearest to a direction, with their vectors, by DuckDB's own float32 arithmetic."""
        found = cursor.execute(
            f"SELECT {_SELECT}, embedding FROM {self.sql} WHERE {condition.sql} ORDER BY "
            f"array_cosine_similarity(embedding, $question::FLOAT[{len(question)}]) DESC, node_id LIMIT $limit",
            {"question": question.tolist(), "limit": limit, **condition.parameters},
        ).fetchall()
        return [(row_of(values[:-1]), list(values[-1])) for values in found]
