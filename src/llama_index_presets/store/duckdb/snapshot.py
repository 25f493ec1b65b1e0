"""Snapshot of a table at one version: vector matrix, rows, and row selection by filter."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa
from llama_index.core.vector_stores.types import MetadataFilters
from numpy.typing import NDArray

from llama_index_presets.ranking.bm25 import Analyzer, Postings, View
from llama_index_presets.store.duckdb.database import Database
from llama_index_presets.store.duckdb.filter_masks import FilterMasks, positions_in
from llama_index_presets.store.duckdb.snapshot_file import ROWS_SCHEMA, SnapshotFile
from llama_index_presets.store.duckdb.table import COLUMNS, State, Table, as_numpy, numbers
from llama_index_presets.store.duckdb.vector_matrix import Matrix, Positions
from llama_index_presets.store.node_codec import Row, restricting_ids

__all__ = ["Keywords", "Rows", "Snapshot", "SnapshotCache"]

# -- BM25 over the rows of snapshots, kept up to date row by row ----------------------------------------------


class Rows(Protocol):
    """Protocol of a snapshot that `Keywords` reads."""

    @property
    def seqs(self) -> NDArray[np.int64]:
        """Number of each row, ascending."""
        ...

    @property
    def rows(self) -> pa.Table:
        """With the columns ``node_id`` and ``text``."""
        ...

    @property
    def dead(self) -> NDArray[np.intp]:
        """Ascending positions of deleted rows."""
        ...


class Keywords:
    """The keyword index of a line of snapshots, each made of the one before by adding and removing rows.

    Row i of the postings is position i of the snapshot, so a selection of positions is a mask over postings.

    Args:
        analyzer: Turns texts and questions into tokens.
        postings: Already in step with the first `done` positions, without any that are dead.
        done: How many positions that are.
    """

    def __init__(self, analyzer: Analyzer, postings: Postings | None = None, done: int = 0) -> None:
        self.analyzer = analyzer
        self._lock = threading.Lock()
        self._postings = postings or Postings()
        self._done = done
        self._removed = np.empty(0, np.intp)
        self._stale = False

    def view(self, snapshot: Rows) -> View | None:
        """The index as of a snapshot; None where it has gone on to a later one, which the caller then takes."""
        with self._lock:
            if self._stale or len(snapshot.seqs) < self._done or len(snapshot.dead) < len(self._removed):
                return None
            self._follow(snapshot)
            return self._postings.view()

    def _follow(self, snapshot: Rows) -> None:
        count = len(snapshot.seqs)
        if count > self._done:
            fresh = snapshot.rows.select(["text"]).slice(self._done)["text"].to_pylist()
            tokens = [self.analyzer.tokens(text or "") for text in fresh]
            self._postings.add(_names(snapshot, np.arange(self._done, count)), tokens)
            self._done = count
        gone = np.setdiff1d(snapshot.dead, self._removed, assume_unique=True)
        if len(gone):
            self._postings.remove(_names(snapshot, gone))
            self._removed = snapshot.dead

    def closed_up(self, snapshot: Rows) -> Keywords:
        """The index for the same rows without the dead ones; this one is of no use afterwards."""
        with self._lock:
            if self._stale or not self._done:
                return Keywords(self.analyzer)
            self._follow(snapshot)
            self._stale = True
            self._postings.compact()
            return Keywords(self.analyzer, self._postings, self._done - len(snapshot.dead))


def _names(snapshot: Rows, positions: NDArray[np.intp]) -> Sequence[str]:
    """A name for each row that no other row has and that sorts as its node id does."""
    node_ids = snapshot.rows["node_id"].take(numbers(positions)).to_pylist()
    seqs = snapshot.seqs[positions].tolist()
    return [f"{node_id}\x00{seq}" for node_id, seq in zip(node_ids, seqs, strict=True)]


_CHUNKS = 64
"""Pieces that may hold the rows before they are put together."""

_DEAD_SHARE, _DEAD_FEW = 0.05, 1000
"""Removed rows are skipped over until they are more than this; then the matrix is closed up."""

_KEPT_SELECTIONS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All rows of a table as of one version; nothing in it changes.

    Attributes:
        state: What the table remembered then.
        seqs: Number of each row, ascending, shape (n,).
        matrix: Their vectors.
        rows: Their other columns.
        dead: Ascending positions of rows that are gone.
        masks: Which rows a filter selects.
        keywords: The keyword index, shared with the snapshots before and after.
    """

    state: State
    seqs: np.ndarray
    matrix: Matrix
    rows: pa.Table
    dead: Positions
    masks: FilterMasks
    keywords: Keywords
    _selections: OrderedDict[tuple[str, tuple[str, ...] | None], Positions] = field(
        default_factory=OrderedDict
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def selected(
        self,
        database: Database,
        filters: MetadataFilters | None,
        doc_ids: Sequence[str] | None,
        node_ids: Sequence[str] | None,
    ) -> Positions | None:
        """Ascending positions that a restriction allows; None for all of them.

        Raises:
            FilterError: A filter's value does not fit its operator.
        """
        chosen = self._selected(database, filters, doc_ids)
        if node_ids:
            named = self._positions_of(node_ids)
            kinds = self.rows.select(["node_id", "kind"]).take(numbers(named)).to_pydict()
            ids = restricting_ids(node_ids, dict(zip(kinds["node_id"], kinds["kind"], strict=True)))
            if ids is not None:
                chosen = named if chosen is None else np.intersect1d(chosen, named, assume_unique=True)
        return chosen

    def _selected(
        self, database: Database, filters: MetadataFilters | None, doc_ids: Sequence[str] | None
    ) -> Positions | None:
        if (filters is None or not filters.filters) and doc_ids is None:
            return None
        key = (filters.model_dump_json() if filters else "", None if doc_ids is None else tuple(doc_ids))
        with self._lock:
            if key in self._selections:
                self._selections.move_to_end(key)
                return self._selections[key]
        mask = self.masks.of_filters(database, filters)
        if doc_ids is not None:
            mask &= self.masks.of_documents(doc_ids)
        mask[self.dead] = False
        chosen = np.flatnonzero(mask)
        with self._lock:
            self._selections[key] = chosen
            while len(self._selections) > _KEPT_SELECTIONS:
                self._selections.popitem(last=False)
        return chosen

    def _positions_of(self, node_ids: Sequence[str]) -> Positions:
        return np.setdiff1d(positions_in(self.rows["node_id"], node_ids), self.dead, assume_unique=True)

    def at(self, positions: Positions) -> list[Row]:
        """The rows at these positions, in this order."""
        columns = self._taken(COLUMNS, positions)
        return [Row(*values) for values in zip(*columns, strict=True)]

    def names_at(self, positions: Positions) -> list[str]:
        """The node ids at these positions, in this order."""
        (names,) = self._taken(("node_id",), positions)
        return names

    def _taken(self, columns: Sequence[str], positions: Positions) -> list[list[Any]]:
        """The values of each column at these positions, in this order."""
        # Piece by piece: asked for ten strings of a column in two pieces, Arrow puts all of it together first.
        pieces = self.rows.select(list(columns)).to_batches()
        ends = np.cumsum([len(piece) for piece in pieces])
        found: list[list[Any]] = [[None] * len(positions) for _ in columns]
        owners = np.searchsorted(ends, positions, side="right")
        for owner in np.unique(owners).tolist():
            places = np.flatnonzero(owners == owner)
            piece = pieces[owner]
            taken = piece.take(numbers(positions[places] - (ends[owner] - len(piece))))
            for values, column in zip(found, taken.columns, strict=True):
                for place, value in zip(places.tolist(), column.to_pylist(), strict=True):
                    values[place] = value
        return found


class SnapshotCache:
    """The newest snapshot of a table, as long as it fits.

    Args:
        table: Whose rows.
        budget_bytes: What matrix and rows may take together.
        analyzer: For text search.
    """

    def __init__(self, table: Table, budget_bytes: int, analyzer: Analyzer) -> None:
        self._table = table
        database = table.database
        self._file: SnapshotFile = database.shared.setdefault(
            f"{table.name}\x00file", SnapshotFile(database, table.name)
        )
        self._analyzer = analyzer
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._too_large: int | None = None

    def current(self, state: State) -> Snapshot | None:
        """The rows of this state or a later one; None where they do not fit into the budget."""
        snapshot = self._snapshot
        if snapshot is not None and _same(snapshot.state, state):
            return snapshot
        with self._lock:
            snapshot = self._snapshot
            if snapshot is None or not _same(snapshot.state, state):
                self._snapshot = self._refreshed(snapshot)
            return self._snapshot

    def forget(self) -> None:
        """Delete the snapshot file: it has rows that are to be gone from the disk."""
        self._file.delete()

    def confirm(self) -> None:
        """Note that the snapshot file belongs to the database's file as it is now."""
        self._file.confirm()

    def keep(self) -> None:
        """Write the snapshot file where one is worth it and there is none, or one that much has changed since."""
        database = self._table.database
        if database.read_only or not database.changes or not self._file.possible:
            return
        with self._lock, database.transaction() as cursor:
            state, kept = self._table.state(cursor), self._file.state()
            if state is None:
                self._file.delete()
            elif (
                _worth_keeping(state)
                and not (kept is not None and _nearly(kept, state))
                and self._fits(cursor, state, None)
            ):
                self._file.write(state, self._table.batches(cursor, 0))

    def _refreshed(self, old: Snapshot | None) -> Snapshot | None:
        if old is None:
            old = self._loaded()
        with self._table.database.transaction() as cursor:
            state = self._table.state(cursor)
            if state is None or not self._fits(cursor, state, old):
                return None
            if old is not None and _same(old.state, state):
                return old
            if old is not None and _grew_from(old.state, state):
                return self._read(cursor, state, old)
            written = (
                _worth_keeping(state)
                and self._file.possible
                and self._file.write(state, self._table.batches(cursor, 0))
            )
            if not written:
                return self._read(cursor, state, None)
        self._table.database.release_memory()
        return self._loaded() or self._refreshed_without_file()

    def _refreshed_without_file(self) -> Snapshot | None:
        """For the case that the file just written cannot be mapped."""
        with self._table.database.transaction() as cursor:
            state = self._table.state(cursor)
            return None if state is None else self._read(cursor, state, None)

    def _loaded(self) -> Snapshot | None:
        kept = self._file.load()
        if kept is None:
            return None
        none = np.empty(0, np.intp)
        masks, keywords = FilterMasks(kept.rows), Keywords(self._analyzer)
        return Snapshot(kept.state, kept.seqs, kept.matrix, kept.rows, none, masks, keywords)

    def _fits(self, cursor: duckdb.DuckDBPyConnection, state: State, old: Snapshot | None) -> bool:
        if self._too_large is not None and state.count >= self._too_large * 0.9:
            return False
        self._too_large = None
        needed = state.count * (state.dim * 5 + 64)
        if needed <= self._budget_bytes:
            needed += old.rows.nbytes if old is not None else self._table.bytes_of_rows(cursor)
        if needed > self._budget_bytes:
            self._too_large = state.count
        return needed <= self._budget_bytes

    def _read(self, cursor: duckdb.DuckDBPyConnection, state: State, old: Snapshot | None) -> Snapshot:
        first = 0 if old is None else old.state.next_seq
        seqs, vectors, rows = _rows_of(
            self._table.batches(cursor, first), state, state.count if old is None else 0
        )
        if old is None:
            matrix = Matrix.of(vectors, capacity=len(vectors) + len(vectors) // 8)
            return Snapshot(
                state, seqs, matrix, rows, np.empty(0, np.intp), FilterMasks(rows), Keywords(self._analyzer)
            )
        dead = old.dead
        if state.removals != old.state.removals:
            dead = _missing(old.seqs, self._table.numbers(cursor, first))
        return _joined(old, state, seqs, vectors, rows, dead)


_WORTH_BYTES = 8 * 2**20
"""Vectors and codes of smaller tables are read faster than a file of them is worth."""

_NEARLY = 0.1
"""Share of rows that may have come or gone since a snapshot file was written, before it is written again."""


def _worth_keeping(state: State) -> bool:
    return state.count * state.dim * 5 >= _WORTH_BYTES


def _nearly(kept: State, state: State) -> bool:
    if not (_same(kept, state) or _grew_from(kept, state)):
        return False
    fresh = state.next_seq - kept.next_seq
    gone = kept.count + fresh - state.count
    return fresh + gone <= _NEARLY * state.count


def _same(mine: State, theirs: State) -> bool:
    return mine.version == theirs.version and mine.count == theirs.count


def _grew_from(old: State, new: State) -> bool:
    # A change by hand changes the count, not the version: then nothing that is remembered can be trusted.
    return old.dim == new.dim and old.version < new.version and old.next_seq <= new.next_seq


def _rows_of(
    reader: pa.RecordBatchReader, state: State, expected: int
) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    vectors = np.empty((expected, state.dim), np.float32)
    batches, seqs, filled = [], [], 0
    for batch in reader:
        chunk = as_numpy(batch.column("embedding").flatten()).reshape(-1, state.dim)
        if filled + len(chunk) > len(vectors):
            vectors = np.concatenate([vectors[:filled], chunk])
        else:
            vectors[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
        seqs.append(as_numpy(batch.column("seq")))
        batches.append(batch.select([*COLUMNS]))
    numbered = np.concatenate(seqs) if seqs else np.empty(0, np.int64)
    schema = batches[0].schema if batches else pa.schema([(name, pa.string()) for name in COLUMNS])
    rows = pa.Table.from_batches(batches, schema).cast(ROWS_SCHEMA).combine_chunks()
    vectors = vectors[:filled]
    if np.any(numbered[1:] < numbered[:-1]):
        order = np.argsort(numbered, kind="stable")
        numbered, vectors, rows = numbered[order], vectors[order], rows.take(numbers(order))
    return numbered, vectors, rows


def _missing(old: np.ndarray, living: np.ndarray) -> Positions:
    if not len(living):
        return np.arange(len(old))
    places = np.minimum(np.searchsorted(living, old), len(living) - 1)
    return np.flatnonzero(living[places] != old)


def _joined(
    old: Snapshot, state: State, seqs: np.ndarray, vectors: np.ndarray, rows: pa.Table, dead: Positions
) -> Snapshot:
    matrix = old.matrix.append(vectors) if len(vectors) else old.matrix
    table = pa.concat_tables([old.rows, rows])
    if table.column(0).num_chunks > _CHUNKS:
        table = table.combine_chunks()
    joined = Snapshot(
        state, np.concatenate([old.seqs, seqs]), matrix, table, dead, FilterMasks(table), old.keywords
    )
    many = len(dead) > max(_DEAD_FEW, _DEAD_SHARE * len(joined.seqs))
    return _closed_up(joined) if many else joined


def _closed_up(snapshot: Snapshot) -> Snapshot:
    living = np.setdiff1d(np.arange(len(snapshot.seqs)), snapshot.dead, assume_unique=True)
    rows = snapshot.rows.take(numbers(living)).combine_chunks()
    return Snapshot(
        snapshot.state,
        snapshot.seqs[living],
        snapshot.matrix.select(living),
        rows,
        np.empty(0, np.intp),
        FilterMasks(rows),
        snapshot.keywords.closed_up(snapshot),
    )
