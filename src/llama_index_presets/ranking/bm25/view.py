"""Search in one state of a BM25 index: scores of words, prefixes, phrases and word pairs, and the best rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index_presets.counting import counted
from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.bm25.analyzer import GAP
from llama_index_presets.ranking.bm25.pairs import AFTER_GAP
from llama_index_presets.ranking.bm25.positions import Positions, phrase_counts
from llama_index_presets.ranking.bm25.query import KeywordQuery
from llama_index_presets.ranking.bm25.scores import Impacts

__all__ = ["QueryScores", "View"]

# -- best rows of a long vector -------------------------------------------------------------------------------


_BLOCK = 64

_SORTED = 512
"""Up to so many numbers are sorted faster as Python's than as numpy's."""


def _best_rows(scores: NDArray[np.float32], ids: Sequence[str | None], k: int) -> list[tuple[int, float]]:
    """The k highest scores above 0.

    Args:
        scores: One score for each row, shape (rows,).
        ids: Id of each row; at least as long as `scores`.
        k: How many at most, >= 1.

    Returns:
        (row, score) pairs, highest first, ties by id; rows without an id are passed over.

    Example:
        >>> _best_rows(np.array([0, 2, 3, 2], np.float32), ["a", "d", "c", "b"], 2)
        [(2, 3.0), (3, 2.0)]
    """
    rows = np.flatnonzero(scores >= floor) if (floor := _floor(scores, k)) > 0 else np.flatnonzero(scores > 0)
    if len(rows) > 4 * k:
        values = scores[rows]
        rows = rows[values >= np.partition(values, len(rows) - k)[len(rows) - k]]
    # A few pairs are sorted faster as Python's than as numpy's.
    best = [
        (-value, name, row)
        for row, value in zip(rows.tolist(), scores[rows].tolist(), strict=True)
        if (name := ids[row]) is not None
    ]
    best.sort()
    return [(row, -value) for value, _, row in best[:k]]


def _floor(scores: NDArray[np.float32], k: int) -> float:
    """A number that the k-th highest score is not below, 0.0 where none is known.

    The k-th highest of the maxima of disjoint blocks is such a number, and far cheaper than a partition of
    all scores, most of which are 0.
    """
    blocks = len(scores) // _BLOCK
    if blocks <= k:
        return 0.0
    highest = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    if blocks > _SORTED:
        return float(np.partition(highest, blocks - k)[blocks - k])
    return float(sorted(highest.tolist())[-k])


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Immutable view for a search; later changes of the index do not reach it.

    Attributes:
        impacts: What each posting adds to a score.
        ids: Id of each row, None for a row whose document is gone; may be longer than `rows`.
        positions: Order of the tokens in each row; None where it is not kept.
        row_of: Gives the row of an id, or None, of the index as it is now: only a hint, to be compared with `ids`.
    """

    impacts: Impacts
    ids: Sequence[str | None]
    positions: Positions | None = None
    row_of: Callable[[str], int | None] = lambda name: None

    @property
    def rows(self) -> int:
        """Number of rows: the length of a mask."""
        return self.impacts.rows

    @property
    def documents(self) -> int:
        """Number of documents."""
        return self.impacts.statistics.documents

    def best(
        self, tokens: Sequence[str], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[int, float]]:
        """(row, score) pairs of the best documents, best first, ties by id; see `Postings.search`.

        Raises:
            RankingError: k is negative, or the mask's length is not the number of rows.
        """
        return self.scored(KeywordQuery(tuple(tokens))).best(k, allowed)

    def scored(self, query: KeywordQuery, pair_weight: float = 0.0) -> QueryScores:
        """Scores of a query; see `QueryScores`."""
        return QueryScores(self, query, pair_weight)

    def search(
        self, tokens: Sequence[str], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[str, float]]:
        """(id, score) pairs of the best documents; see `Postings.search`."""
        return [(self.ids[row] or "", score) for row, score in self.best(tokens, k, allowed)]


_PHRASE_ROWS = 4096
"""Rows whose tokens are looked at together for a phrase: bounds the memory that a phrase of common words takes."""


class QueryScores:
    """Scores of one query over one state of the index.

    The score of a row is that of `Postings` over the tokens; each prefix counts as one token that every token with
    that beginning is; a phrase adds ``idf * f / (f + ...)`` with the sum of its tokens' idf and its own count f. Where
    the pairs have a weight, each two neighbouring tokens of the query that are neighbours in the row add
    ``weight * mean idf * f / (f + ...)``.

    Args:
        view: State of the index.
        query: The query.
        pair_weight: Weight of word pairs, >= 0; 0 leaves them out, as does an index without positions.

    Source: Robertson et al., CIKM 2004 (weighted fields); Büttcher et al., SIGIR 2006 (proximity).
    """

    def __init__(self, view: View, query: KeywordQuery, pair_weight: float) -> None:
        self._view, self._query = view, query
        self._total = view.impacts.scores(query.tokens, query.prefixes)
        if pair_weight:
            self._add_pairs(pair_weight)
        for phrase in query.phrases:
            self._add_phrase(phrase)

    @property
    def ceiling(self) -> float:
        """Score that no row reaches by words alone: the sum of the idf of all that is asked for."""
        query, rarity = self._query, self._view.impacts.rarity
        words = [*query.tokens, *(token for phrase in query.phrases for token in phrase if token != GAP)]
        return math.fsum(map(rarity, words)) + math.fsum(map(rarity, query.prefixes))

    def best(self, k: int, allowed: NDArray[np.bool_] | None = None) -> list[tuple[int, float]]:
        """(row, score) pairs of the best rows, best first, ties by id.

        Args:
            k: How many at most, >= 0.
            allowed: Which rows may be returned, shape (rows,); None allows all.

        Raises:
            RankingError: k is negative, or the mask's length is not the number of rows.
        """
        view, scores = self._view, self._total
        if k < 0:
            raise RankingError(f"k is {k}; it must be 0 or more.")
        if allowed is not None and allowed.shape != (view.rows,):
            raise RankingError(
                f"The mask has shape {allowed.shape}, the index {counted(view.rows, 'row')}; give an entry for each "
                "row."
            )
        if scores is None or k == 0:
            return []
        if allowed is not None:
            scores = scores * allowed
        return _best_rows(scores, view.ids, k)

    def of_ids(self, names: Iterable[str]) -> dict[str, float]:
        """id -> score, 0.0 where nothing of the query occurs; ids that the index does not hold are absent."""
        view, rows = self._view, dict[str, int]()
        for name in names:
            row = view.row_of(name)
            if row is not None and row < view.rows and view.ids[row] == name:
                rows[name] = row
        scores = self.of(np.fromiter(rows.values(), np.int64, len(rows)))
        return dict(zip(rows, scores.tolist(), strict=True))

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of given rows, shape as of `rows`, 0.0 where nothing of the query occurs."""
        if self._total is None:
            return np.zeros(len(rows), np.float32)
        return self._total[rows]

    def _phrase_numbers(self, phrase: Sequence[str]) -> list[int]:
        """Terms of a phrase, marked as in `Positions`."""
        numbers, before = list[int](), 0
        for token in phrase:
            number = self._view.impacts.number(token)
            if token != GAP and number is not None:
                numbers.append(number | (before if numbers else 0))
            before = AFTER_GAP if token == GAP else 0
        return numbers

    def _add_pairs(self, weight: float) -> None:
        positions = self._view.positions
        if positions is None or self._total is None:
            return
        for one, two in dict.fromkeys(self._query.pairs):
            rows, scores = self._view.impacts.pair(one, two, positions)
            if len(scores):
                np.add.at(self._total, rows, np.float32(weight) * scores)

    def _add_phrase(self, phrase: Sequence[str]) -> None:
        view, impacts = self._view, self._view.impacts
        words = [token for token in phrase if token != GAP]
        candidates = impacts.holding_all(words)
        if view.positions is None or not len(candidates):
            return
        numbers = self._phrase_numbers(phrase)
        worth = math.fsum(map(impacts.rarity, words))
        total = np.zeros(view.rows, np.float32) if self._total is None else self._total
        for start in range(0, len(candidates), _PHRASE_ROWS):
            rows = candidates[start : start + _PHRASE_ROWS]
            counts = phrase_counts(*view.positions.of(rows), numbers)
            held, rows = counts[counts > 0], rows[counts > 0]
            total[rows] += (worth * held / (held + impacts.statistics.damping[rows])).astype(np.float32)
        self._total = total
