"""Positions of tokens: the order in which each row holds its terms, for word pairs and exact phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AFTER_GAP", "FIELD_END", "Positions", "in_order", "pair_counts", "phrase_counts", "row_starts"]

FIELD_END = "|"
"""Token between two fields, so that no pair and no phrase runs from one into the next; no word is spelled so."""

AFTER_GAP = 1 << 30
"""Bit of a term before which stop words were left out."""

_NUMBER = AFTER_GAP - 1

Terms = NDArray[np.int32]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Terms of every row in their order, each marked where stop words were left out before it. Immutable.

    Attributes:
        blocks: Term numbers, row after row, with `AFTER_GAP` added where there was a gap; a row lies in one block.
        starts: Where each row begins in all blocks taken together, and the end of the last, shape (rows + 1,).
    """

    blocks: Sequence[Terms]
    starts: Places

    def of(self, rows: NDArray[np.integer]) -> tuple[Terms, Places]:
        """Terms of some rows, one row after another, and where each row ends among them."""
        begins, ends = self.starts[rows], self.starts[rows + 1]
        places = zip(begins.tolist(), ends.tolist(), strict=True)
        if len(self.blocks) == 1:
            block = self.blocks[0]
            parts = [block[begin:end] for begin, end in places]
        else:
            parts = [self._slice(begin, end) for begin, end in places]
        terms = np.concatenate(parts) if parts else np.empty(0, np.int32)
        return terms, np.cumsum(ends - begins)

    def _slice(self, begin: int, end: int) -> Terms:
        for block in self.blocks:
            if begin < len(block):
                return block[begin:end]
            begin, end = begin - len(block), end - len(block)
        return np.empty(0, np.int32)

    def kept(self, alive: NDArray[np.bool_], renumber: Terms) -> Positions:
        """One block with the rows that are alive, under other term numbers."""
        lengths = np.diff(self.starts)
        whole = np.concatenate(self.blocks) if self.blocks else np.empty(0, np.int32)
        old = whole[np.repeat(alive, lengths)]
        terms = renumber[old & _NUMBER] | (old & AFTER_GAP)
        return Positions([terms], row_starts(lengths[alive]))


def row_starts(lengths: NDArray[np.integer]) -> Places:
    """Where each row begins, and the end of the last, given how many tokens each has."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def in_order(
    terms: Terms, lengths: NDArray[np.integer], gap: int | None, extra: int | None
) -> tuple[Terms, NDArray[np.int32]]:
    """Terms that have a place of their own, each marked with `AFTER_GAP` where a gap is before it.

    Args:
        terms: Term numbers as an analyzer gives tokens, marks included, row after row.
        lengths: How many each row has.
        gap: Number of `GAP`; None where no row holds it.
        extra: Number of `EXTRA`; None where no row holds it.

    Returns:
        The terms without marks, and without those after `EXTRA`; and how many each row has.
    """
    gaps, extras = (
        (terms == mark) if mark is not None else np.zeros(len(terms), np.bool_) for mark in (gap, extra)
    )
    dropped = gaps | extras | _shifted(extras)
    if not dropped.any():
        return terms, lengths.astype(np.int32)
    rows = np.repeat(np.arange(len(lengths)), lengths)[~dropped]
    kept = terms[~dropped] | np.where(_shifted(gaps)[~dropped], np.int32(AFTER_GAP), np.int32(0))
    return kept.astype(np.int32), np.bincount(rows, minlength=len(lengths)).astype(np.int32)


def _shifted(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What stands directly after."""
    return np.concatenate([[False], mask[:-1]]) if len(mask) else mask


def phrase_counts(terms: Terms, ends: Places, wanted: Sequence[int]) -> Places:
    """How often each row holds some terms directly after one another.

    Args:
        terms: As of `Positions.of`.
        ends: As of `Positions.of`.
        wanted: Terms in their order, at least two, marked as in `Positions`; the first without a mark.

    Returns:
        Counts, one for each row.

    Example:
        >>> phrase_counts(np.array([7, 8, 7, 8]), np.array([3, 4]), [7, 8])
        array([1, 0])
    """
    last = len(wanted) - 1
    found = np.flatnonzero(terms[: max(len(terms) - last, 0)] & _NUMBER == wanted[0])
    for step, term in enumerate(wanted[1:], start=1):
        found = found[terms[found + step] == term]
    owners = np.searchsorted(ends, found, "right")
    inside = found + last < ends[owners]
    return np.bincount(owners[inside], minlength=len(ends))


def pair_counts(
    terms: Terms, ends: Places, pairs: Sequence[tuple[int, int]], vocabulary: int
) -> NDArray[np.int64]:
    """How often each row holds two terms next to one another; gaps between them do not count.

    Args:
        terms: As of `Positions.of`.
        ends: As of `Positions.of`.
        pairs: Term numbers; the last of equal pairs is counted.
        vocabulary: How many terms there are.

    Returns:
        Counts, shape (rows, pairs).

    Example:
        >>> pair_counts(np.array([7, 8, 7, 8]), np.array([3, 4]), [(7, 8)], 9)
        array([[1],
               [0]])
    """
    code_of: dict[int, int] = {}
    for pair in pairs:
        for term in pair:
            code_of.setdefault(term, len(code_of) + 1)
    base = len(code_of) + 1
    codes = np.zeros(vocabulary, np.uint16)
    codes[list(code_of)] = np.arange(1, base)
    pair_of = np.full(base * base, len(pairs))
    pair_of[[code_of[one] * base + code_of[two] for one, two in pairs]] = np.arange(len(pairs))
    seen = codes[terms & np.int32(_NUMBER)]
    found = np.flatnonzero(seen)
    found = found[found < len(seen) - 1]
    which = pair_of[seen[found].astype(np.int64) * base + seen[found + 1]]
    found, which = found[which < len(pairs)], which[which < len(pairs)]
    owners = np.searchsorted(ends, found, "right")
    inside = found + 1 < ends[owners]
    keys = owners[inside] * len(pairs) + which[inside]
    return np.bincount(keys, minlength=len(ends) * len(pairs)).reshape(len(ends), len(pairs))
