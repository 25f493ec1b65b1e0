"""An immutable block of postings: which rows hold which terms, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Segment"]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Postings grouped by term (compressed sparse columns).

    Attributes:
        terms: Term numbers that occur here, ascending, shape (t,), int32.
        starts: Where each term's postings begin, and the end of the last, shape (t + 1,), int64.
        rows: Row of each posting, ascending within a term, shape (p,), int32.
        counts: How often the term occurs in that row, >= 1, shape (p,), the narrowest unsigned type.
    """

    terms: NDArray[np.int32]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    counts: NDArray[np.unsignedinteger]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, terms: NDArray[np.integer], rows: NDArray[np.integer]) -> Segment:
        """Count occurrences, given as parallel arrays with one entry for each token."""
        keys, counts = np.unique((terms.astype(np.int64) << 32) | rows, return_counts=True)
        return cls._grouped(keys >> 32, (keys & 0xFFFFFFFF).astype(np.int32), counts)

    @classmethod
    def merged(cls, segments: Sequence[Segment], renumber: NDArray[np.int32] | None = None) -> Segment:
        """One segment out of several, whose rows ascend from one segment to the next.

        Args:
            segments: At least one.
            renumber: New row of each old row, -1 for rows to leave out; None keeps all as they are.
        """
        terms = np.concatenate([np.repeat(s.terms, np.diff(s.starts)) for s in segments])
        rows = np.concatenate([s.rows for s in segments])
        counts = np.concatenate([s.counts for s in segments])
        if renumber is not None:
            rows = renumber[rows]
            terms, rows, counts = terms[rows >= 0], rows[rows >= 0], counts[rows >= 0]
        # A stable sort of few ascending runs is a merge, and keeps the rows of each term ascending.
        order = np.argsort(terms, kind="stable")
        return cls._grouped(terms[order], rows[order], counts[order])

    @classmethod
    def _grouped(
        cls, terms: NDArray[np.integer], rows: NDArray[np.int32], counts: NDArray[np.integer]
    ) -> Segment:
        unique, starts = np.unique(terms, return_index=True)
        narrow = np.min_scalar_type(int(counts.max(initial=1)))
        ends = np.append(starts, len(terms)).astype(np.int64)
        return cls(unique.astype(np.int32), ends, rows, counts.astype(narrow))

    def with_terms(self, terms: NDArray[np.int32]) -> Segment:
        """The same postings under other term numbers, ascending as before."""
        return replace(self, terms=terms)

    def postings(self, term: int) -> tuple[NDArray[np.int32], NDArray[np.unsignedinteger]] | None:
        """Rows and counts of one term, or None where it does not occur."""
        place = int(np.searchsorted(self.terms, term))
        if place == len(self.terms) or self.terms[place] != term:
            return None
        start, end = self.starts[place], self.starts[place + 1]
        return self.rows[start:end], self.counts[start:end]
