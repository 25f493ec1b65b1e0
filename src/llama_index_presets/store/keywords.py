"""BM25 over the rows of snapshots: built when first asked, then kept in step row by row."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from llama_index_presets.ranking.bm25 import Analyzer, Postings, View
from llama_index_presets.store.arrow import numbers

__all__ = ["Keywords", "Rows"]


class Rows(Protocol):
    """What `Keywords` reads of a snapshot."""

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
        """Ascending positions of rows that are gone."""
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
