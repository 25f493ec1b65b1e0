"""Where each two neighbouring terms stand: a table of places that is looked up instead of reading rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["AFTER_GAP", "NUMBER", "PairTable", "TermBlock"]

AFTER_GAP = 1 << 30
"""Bit of a term before which stop words were left out."""

NUMBER = AFTER_GAP - 1
"""Bits of a term's number."""

_PER_BUCKET = 4
_MOST_BITS = 24
_FIRST, _SPREAD = 0x9E3779B1, 0x85EBCA6B

Terms = NDArray[np.int32]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PairTable:
    """Places of a block of terms, grouped by a hash of the term there and the next one.

    About 5 bytes a token. What stands at a place is in the block itself, so that a bucket needs not say which of its
    pairs each place is of.

    Attributes:
        places: Where each pair begins, ascending within a bucket, shape (tokens - 1,), unsigned.
        starts: Where each bucket begins, and the end of the last, shape (2 ** bits + 1,), unsigned.
    """

    places: NDArray[np.unsignedinteger]
    starts: NDArray[np.unsignedinteger]

    @classmethod
    def of(cls, terms: Terms) -> PairTable:
        """Group the places of a block."""
        count = max(len(terms) - 1, 0)
        bits = min(max((count // _PER_BUCKET).bit_length(), 1), _MOST_BITS)
        buckets = _buckets(terms[:count], terms[1:]) >> np.uint32(32 - bits)
        # Two passes over halves of 16 bits: numpy sorts those by counting, and both passes keep equal ones in order.
        order = np.argsort(buckets.astype(np.uint16), kind="stable")
        order = order[np.argsort((buckets >> 16).astype(np.uint16)[order], kind="stable")]
        ends = np.cumsum(np.bincount(buckets, minlength=1 << bits))
        wide = np.uint32 if count < 2**32 else np.uint64
        return cls(order.astype(wide), np.concatenate([[0], ends]).astype(wide))

    def find(self, terms: Terms, first: int, second: int) -> Places:
        """Places of the block at which a pair begins, ascending."""
        bucket = _bucket(first, second) >> (33 - len(self.starts).bit_length())
        places: Places = self.places[self.starts[bucket] : self.starts[bucket + 1]].astype(np.int64)
        same: Places = places[(terms[places] & NUMBER == first) & (terms[places + 1] & NUMBER == second)]
        return same


class TermBlock:
    """Terms of some rows in their order, and their pairs as soon as a search asks for them. Immutable."""

    def __init__(self, terms: Terms, pairs: PairTable | None = None) -> None:
        self.terms = np.asarray(terms)  # not a memory map, which is slow to slice
        if pairs is not None:
            self.pairs = pairs

    def __len__(self) -> int:
        return len(self.terms)

    @cached_property
    def pairs(self) -> PairTable:
        """Their pairs."""
        return PairTable.of(self.terms)

    @classmethod
    def joined(cls, blocks: Sequence[TermBlock]) -> TermBlock:
        """One block out of several."""
        return cls(np.concatenate([block.terms for block in blocks]) if blocks else np.empty(0, np.int32))


def _bucket(first: int, second: int) -> int:
    """Multiplicative hash of a pair, 32 bits."""
    return ((first * _FIRST + second) * _SPREAD) & 0xFFFFFFFF


def _buckets(first: Terms, second: Terms) -> NDArray[np.uint32]:
    """`_bucket` of many pairs; marks of gaps are left out."""
    one, two = ((terms & NUMBER).astype(np.uint32) for terms in (first, second))
    return (one * np.uint32(_FIRST) + two) * np.uint32(_SPREAD)
