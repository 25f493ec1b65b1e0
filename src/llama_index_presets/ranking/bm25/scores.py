"""BM25 impacts of postings: computed at the first query, cached until the index changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llama_index_presets.ranking.bm25.positions import Positions

__all__ = ["Impacts", "Segment", "Statistics"]


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


_KEPT_BYTES = 64 * 2**20
"""Worked-out terms are forgotten together when they take more than this."""

_ENTRY_BYTES = 400
"""What a worked-out term or pair takes beside its numbers, about."""

_DENSE_SHARE = 12
"""A term in more than one row of this many is kept as a vector over all rows, which is faster to add."""

Rows = NDArray[np.int64]
Counts = NDArray[np.integer]
Scores = NDArray[np.float32]
_NO_ROWS, _NO_SCORES = np.empty(0, np.int64), np.empty(0, np.float32)
_Impact = tuple[Rows | None, Scores]
"""Rows and what each gets; or None and what every row gets."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """The numbers that BM25 needs of a collection.

    Attributes:
        k1: Saturation of repeated tokens.
        b: How much long documents are discounted.
        documents: Documents present.
        tokens: Tokens of the documents present.
        lengths: Tokens of each row, shape (rows,).
        alive: Which rows' documents are present, shape (rows,); None where all are.
    """

    k1: float
    b: float
    documents: int
    tokens: int
    lengths: NDArray[np.int32]
    alive: NDArray[np.bool_] | None

    @cached_property
    def damping(self) -> NDArray[np.float64]:
        """The part of the denominator that depends on the document only, shape (rows,)."""
        mean = self.tokens / self.documents if self.tokens else 1.0
        return np.asarray(self.k1 * ((1 - self.b) + self.b * self.lengths / mean), np.float64)

    def rarity(self, holders: int) -> np.float32:
        """Inverse document frequency of a term that so many documents hold; > 0. float32, as in bm25s."""
        return np.float32(math.log(1 + (self.documents - holders + 0.5) / (holders + 0.5)))


class Impacts:
    """One state of the index, ready to be scored; never changes but for what it remembers.

    Args:
        statistics: Of this state.
        segments: Of this state.
        vocabulary: term -> number, of these segments.
    """

    def __init__(
        self, statistics: Statistics, segments: tuple[Segment, ...], vocabulary: Mapping[str, int]
    ) -> None:
        self.statistics = statistics
        self._segments = segments
        self._vocabulary = vocabulary
        self._kept: dict[str, _Impact] = {}
        self._kept_pairs: dict[tuple[str, str], tuple[Rows, Scores]] = {}
        self._kept_bytes = 0
        self._rarities: dict[str, float] = {}

    @property
    def rows(self) -> int:
        """Length of a score vector."""
        return len(self.statistics.lengths)

    @property
    def terms(self) -> int:
        """How many terms there are; their numbers are smaller."""
        return len(self._vocabulary)

    def scores(self, tokens: Sequence[str], prefixes: Sequence[str] = ()) -> Scores | None:
        """Score of every row, shape (rows,), 0.0 where no token occurs; None where none occurs anywhere."""
        impacts = [*map(self._impact, tokens), *map(self.prefix, prefixes)]
        found = [impact for impact in impacts if impact is not None]
        if not found:
            return None
        total = np.zeros(self.rows, np.float32)
        for rows, values in found:
            if rows is None:
                total += values
            else:
                np.add.at(total, rows, values)
        return total

    def prefix(self, beginning: str) -> _Impact | None:
        """What each row gets for the tokens that begin so, taken as one token; None where there is none."""
        key = f"{beginning}*"  # no token ends so
        kept = self._kept.get(key)
        if kept is None:
            tokens = [token for token in self._vocabulary if token.startswith(beginning)]
            rows, counts = self._united(tokens)
            kept = self._worked_out(rows, counts)
            if kept is not None:
                self._keep(key, kept)
        return kept

    def pair(self, one: str, two: str, positions: Positions) -> tuple[Rows, Scores]:
        """Rows that hold two tokens next to one another, and what each gets: ``mean idf * f / (f + ...)``."""
        kept = self._kept_pairs.get((one, two))
        if kept is None:
            first, second = self.number(one), self.number(two)
            kept = _NO_ROWS, _NO_SCORES
            if first is not None and second is not None:
                rows, counts = self._present(*positions.pair_counts(first, second))
                worth = (
                    (self.rarity(one) + self.rarity(two))
                    / 2
                    * (counts / (counts + self.statistics.damping[rows]))
                )
                kept = rows, worth.astype(np.float32)
            self._make_room(kept)
            self._kept_pairs[one, two] = kept
        return kept

    def holding_all(self, tokens: Sequence[str]) -> Rows:
        """Rows that hold every one of some tokens, ascending."""
        parts = sorted((self.rows_of(token) for token in dict.fromkeys(tokens)), key=len)
        found = parts[0]
        for part in parts[1:]:
            found = np.intersect1d(found, part, assume_unique=True)
        return found

    def rows_of(self, token: str) -> Rows:
        """Rows that hold a token, ascending."""
        return self._postings(token)[0] if token in self._vocabulary else np.empty(0, np.int64)

    def number(self, token: str) -> int | None:
        """Number of a term, or None where no row ever held it."""
        return self._vocabulary.get(token)

    def rarity(self, token: str) -> float:
        """Inverse document frequency of a token; of one that occurs nowhere, the highest there is."""
        kept = self._rarities.get(token)
        if kept is None:
            kept = self._rarities[token] = float(self.statistics.rarity(len(self.rows_of(token))))
        return kept

    def _united(self, tokens: Sequence[str]) -> tuple[Rows, NDArray[np.integer]]:
        """Rows that hold any of some tokens, and how often they do."""
        parts = [self._postings(token) for token in tokens]
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        rows, places = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
        return rows, np.bincount(places, np.concatenate([counts for _, counts in parts])).astype(np.int64)

    def _impact(self, token: str) -> _Impact | None:
        kept = self._kept.get(token)
        if kept is None and token in self._vocabulary:
            rows, counts = self._postings(token)
            self._rarities[token] = float(self.statistics.rarity(len(rows)))
            kept = self._worked_out(rows, counts)
            if kept is not None:
                self._keep(token, kept)
        return kept

    def _keep(self, token: str, impact: _Impact) -> None:
        self._make_room(impact)
        self._kept[token] = impact

    def _make_room(self, impact: _Impact) -> None:
        if self._kept_bytes > _KEPT_BYTES:
            self._kept.clear()
            self._kept_pairs.clear()
            self._rarities.clear()
            self._kept_bytes = 0
        self._kept_bytes += _ENTRY_BYTES + impact[1].nbytes + (0 if impact[0] is None else impact[0].nbytes)

    def _worked_out(self, rows: Rows, counts: NDArray[np.integer]) -> _Impact | None:
        if not len(rows):
            return None
        of = self.statistics
        frequency = counts.astype(np.float64)
        values = (of.rarity(len(rows)) * (frequency / (of.damping[rows] + frequency))).astype(np.float32)
        if len(rows) * _DENSE_SHARE <= self.rows:
            return rows, values
        dense = np.zeros(self.rows, np.float32)
        dense[rows] = values
        return None, dense

    def _postings(self, token: str) -> tuple[Rows, Counts]:
        """Rows of present documents that hold the token, ascending, and how often they do."""
        number = self._vocabulary[token]
        parts = [part for s in self._segments if (part := s.postings(number)) is not None]
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.uint8)
        rows = np.concatenate([rows for rows, _ in parts]).astype(np.int64)
        counts = np.concatenate([counts for _, counts in parts])
        return self._present(rows, counts)

    def _present(self, rows: Rows, counts: Counts) -> tuple[Rows, Counts]:
        """Without the rows of documents that are gone."""
        if self.statistics.alive is None:
            return rows, counts
        present = self.statistics.alive[rows]
        return rows[present], counts[present]
