"""Positions of tokens: the order in which each row holds its terms, for word pairs and exact phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AFTER_GAP", "FIELD_END", "Positions", "in_order", "numbers_of", "occurrences", "row_starts"]

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
        """Terms of some rows, one row after another, and for each term its row's place in `rows`."""
        begins = self.starts[rows]
        lengths = self.starts[np.asarray(rows) + 1] - begins
        owners = np.repeat(np.arange(len(rows)), lengths)
        shift = begins - (np.cumsum(lengths) - lengths)
        places = np.arange(len(owners)) + shift[owners]
        if len(self.blocks) == 1:
            return self.blocks[0][places], owners
        terms = np.empty(len(places), np.int32)
        offset = 0
        for block in self.blocks:
            inside = (places >= offset) & (places < offset + len(block))
            terms[inside] = block[places[inside] - offset]
            offset += len(block)
        return terms, owners

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


def numbers_of(terms: Terms) -> Terms:
    """Terms without their marks."""
    return terms & np.int32(_NUMBER)


def occurrences(terms: Terms, owners: Places, wanted: Sequence[int], rows: int) -> Places:
    """How often each row holds some terms directly after one another.

    Args:
        terms: As of `Positions.of`; without marks (`numbers_of`) gaps do not count.
        owners: As of `Positions.of`.
        wanted: Terms in their order, at least two; the first without a mark.
        rows: How many rows there are.

    Returns:
        Counts, shape (rows,).

    Example:
        >>> occurrences(np.array([7, 8, 7, 8]), np.array([0, 0, 0, 1]), [7, 8], 2)
        array([1, 0])
    """
    last = len(wanted) - 1
    found = np.flatnonzero(terms[: max(len(terms) - last, 0)] & _NUMBER == wanted[0])
    for step, term in enumerate(wanted[1:], start=1):
        found = found[terms[found + step] == term]
    found = found[owners[found] == owners[found + last]]
    return np.bincount(owners[found], minlength=rows)
