"""Positions of tokens: the order in which each row holds its terms, for word pairs and exact phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index_presets.ranking.bm25.pairs import AFTER_GAP, NUMBER, TermBlock

__all__ = ["FIELD_END", "Positions", "in_order", "phrase_counts", "row_starts"]

FIELD_END = "|"
"""Token between two fields, so that no pair and no phrase runs from one into the next; no word is spelled so."""

Terms = NDArray[np.int32]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Terms of every row in their order, each marked where stop words were left out before it. Immutable.

    Attributes:
        blocks: Term numbers, row after row, with `AFTER_GAP` added where there was a gap; a row is in one block.
        starts: Where each row begins in all blocks taken together, and the end of the last, shape (rows + 1,).
    """

    blocks: Sequence[TermBlock]
    starts: Places

    def of(self, rows: NDArray[np.integer]) -> tuple[Terms, Places]:
        """Terms of some rows, one row after another, and where each row ends among them."""
        begins, ends = self.starts[rows], self.starts[rows + 1]
        places = zip(begins.tolist(), ends.tolist(), strict=True)
        if len(self.blocks) == 1:
            block = self.blocks[0].terms
            parts = [block[begin:end] for begin, end in places]
        else:
            parts = [self._slice(begin, end) for begin, end in places]
        terms = np.concatenate(parts) if parts else np.empty(0, np.int32)
        return terms, np.cumsum(ends - begins)

    def _slice(self, begin: int, end: int) -> Terms:
        for block in self.blocks:
            if begin < len(block):
                return block.terms[begin:end]
            begin, end = begin - len(block), end - len(block)
        return np.empty(0, np.int32)

    def pair_counts(self, first: int, second: int) -> tuple[Places, Places]:
        """Rows that hold two terms next to one another, ascending, and how often; gaps between them do not count.

        Example:
            >>> order = Positions([TermBlock(np.array([7, 8, 7, 8], np.int32))], np.array([0, 3, 4]))
            >>> [part.tolist() for part in order.pair_counts(7, 8)]
            [[0], [1]]
        """
        parts, offset = list[Places](), 0
        for block in self.blocks:
            parts.append(block.pairs.find(block.terms, first, second) + offset)
            offset += len(block)
        places = np.concatenate(parts) if parts else np.empty(0, np.int64)
        rows = np.searchsorted(self.starts, places, "right") - 1
        rows = rows[places + 1 < self.starts[rows + 1]]
        edges = np.ones(len(rows) + 1, np.bool_)
        edges[1:-1] = rows[1:] != rows[:-1]
        begins = np.flatnonzero(edges)
        return rows[begins[:-1]], begins[1:] - begins[:-1]

    def kept(self, alive: NDArray[np.bool_], renumber: Terms) -> Positions:
        """One block with the rows that are alive, under other term numbers."""
        lengths = np.diff(self.starts)
        old = TermBlock.joined(self.blocks).terms[np.repeat(alive, lengths)]
        terms = renumber[old & NUMBER] | (old & AFTER_GAP)
        return Positions([TermBlock(terms)], row_starts(lengths[alive]))


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
    found = np.flatnonzero(terms[: max(len(terms) - last, 0)] & NUMBER == wanted[0])
    for step, term in enumerate(wanted[1:], start=1):
        found = found[terms[found + step] == term]
    owners = np.searchsorted(ends, found, "right")
    inside = found + last < ends[owners]
    return np.bincount(owners[inside], minlength=len(ends))
