"""A table in memory, as of one version: the matrix, the rows, and which rows a restriction selects."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from llama_index.core.vector_stores.types import MetadataFilters

from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.store.arrow import as_numpy, numbers, strings
from llama_index_presets.store.duckdb_file import Database
from llama_index_presets.store.duckdb_table import COLUMNS, State, Table
from llama_index_presets.store.keywords import Keywords
from llama_index_presets.store.masks import Masks
from llama_index_presets.store.matrix import Matrix, Positions
from llama_index_presets.store.rows import Row, restricting_ids

__all__ = ["Snapshot", "SnapshotCache"]

_CHUNKS = 64
"""Pieces that the rows may lie in before they are put together."""

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
    masks: Masks
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
        found = pc.is_in(self.rows["node_id"], value_set=strings(list(node_ids)))
        positions = as_numpy(pc.indices_nonzero(found)).astype(np.intp)
        return np.setdiff1d(positions, self.dead, assume_unique=True)

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

    def _refreshed(self, old: Snapshot | None) -> Snapshot | None:
        with self._table.database.transaction() as cursor:
            state = self._table.state(cursor)
            if state is None or not self._fits(cursor, state, old):
                return None
            if old is None or not _grew_from(old.state, state):
                return self._read(cursor, state, None)
            return self._read(cursor, state, old)

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
                state, seqs, matrix, rows, np.empty(0, np.intp), Masks(rows), Keywords(self._analyzer)
            )
        dead = old.dead
        if state.removals != old.state.removals:
            dead = _missing(old.seqs, self._table.numbers(cursor, first))
        return _joined(old, state, seqs, vectors, rows, dead)


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
    rows = pa.Table.from_batches(batches, schema).cast(_SCHEMA).combine_chunks()
    vectors = vectors[:filled]
    if np.any(numbered[1:] < numbered[:-1]):
        order = np.argsort(numbered, kind="stable")
        numbered, vectors, rows = numbered[order], vectors[order], rows.take(numbers(order))
    return numbered, vectors, rows


_SCHEMA = pa.schema([(name, pa.large_string()) for name in COLUMNS])


def _missing(old: np.ndarray, living: np.ndarray) -> Positions:
    if not len(living):
        return np.arange(len(old))
    places = np.minimum(np.searchsorted(living, old), len(living) - 1)
    return np.flatnonzero(living[places] != old)


def _joined(
    old: Snapshot, state: State, seqs: np.ndarray, vectors: np.ndarray, rows: pa.Table, dead: Positions
) -> Snapshot:
    matrix = old.matrix.extended(vectors) if len(vectors) else old.matrix
    table = pa.concat_tables([old.rows, rows])
    if table.column(0).num_chunks > _CHUNKS:
        table = table.combine_chunks()
    joined = Snapshot(
        state, np.concatenate([old.seqs, seqs]), matrix, table, dead, Masks(table), old.keywords
    )
    many = len(dead) > max(_DEAD_FEW, _DEAD_SHARE * len(joined.seqs))
    return _closed_up(joined) if many else joined


def _closed_up(snapshot: Snapshot) -> Snapshot:
    living = np.setdiff1d(np.arange(len(snapshot.seqs)), snapshot.dead, assume_unique=True)
    rows = snapshot.rows.take(numbers(living)).combine_chunks()
    return Snapshot(
        snapshot.state,
        snapshot.seqs[living],
        snapshot.matrix.taken(living),
        rows,
        np.empty(0, np.intp),
        Masks(rows),
        snapshot.keywords.closed_up(snapshot),
    )
