"""The best few of a long vector of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_rows"]

_BLOCK = 64

_SORTED = 512
"""Up to so many numbers are sorted faster as Python's than as numpy's."""


def best_rows(scores: NDArray[np.float32], ids: Sequence[str | None], k: int) -> list[tuple[int, float]]:
    """The k highest scores above 0.

    Args:
        scores: One score for each row, shape (rows,).
        ids: Id of each row; at least as long as `scores`.
        k: How many at most, >= 1.

    Returns:
        (row, score) pairs, highest first, ties by id; rows without an id are passed over.

    Example:
        >>> best_rows(np.array([0, 2, 3, 2], np.float32), ["a", "d", "c", "b"], 2)
        [(2, 3.0), (3, 2.0)]
    """
    rows = np.flatnonzero(scores >= floor) if (floor := _floor(scores, k)) > 0 else np.flatnonzero(scores > 0)
    values = scores[rows]
    if len(rows) > 4 * k:
        least = np.partition(values, len(rows) - k)[len(rows) - k]
        rows, values = rows[values >= least], values[values >= least]
    # A few pairs are sorted faster as Python's than as numpy's.
    best = [
        (-value, name, row)
        for row, value in zip(rows.tolist(), values.tolist(), strict=True)
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
