"""Reading order of the items of a page: above before below, but a column before the one beside it.

Two items stand in columns beside each other when a gutter separates them that reaches past both; then the left one
comes first, however low it stands. Of any other two the upper one comes first. This is the order of Breuel, "High
performance document layout analysis", SDIUT 2003, with the gutters that `lines` found in place of his whitespace cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from llama_index_presets.ingest.readers.pdf.lines import Gutter
from llama_index_presets.ingest.readers.pdf.word import Box

__all__ = ["reading_order"]

_ROW: int = 2  # points by which items of one row may stand higher


class Placed(Protocol):
    """Something with a rectangle."""

    @property
    def box(self) -> Box:
        """x0, y0, x1, y1 in points, from the upper left corner."""


def reading_order(
    items: Sequence[Placed], gutters: Sequence[Gutter], *, right_to_left: bool = False
) -> list[int]:
    """Places of the items in the order in which they are read.

    Args:
        items: In any order.
        gutters: Between columns.
        right_to_left: Whether the right column is read first, as in Arabic.

    Example:
        >>> from collections import namedtuple
        >>> item = namedtuple("Item", "box")
        >>> title, left, right = item((0, 0, 99, 9)), item((0, 30, 45, 39)), item((55, 20, 99, 29))
        >>> reading_order([right, left, title], [Gutter(50, 18, 40)])
        [2, 1, 0]
    """
    if len(items) < 2:
        return list(range(len(items)))
    boxes = np.array([item.box for item in items], dtype=float)
    before = _before(boxes, gutters, right_to_left)
    waiting = before.sum(axis=0)
    left = set(range(len(items)))
    order: list[int] = []
    while left:
        free = [place for place in left if waiting[place] == 0]
        place = min(free or left, key=lambda one: (waiting[one], boxes[one, 1], boxes[one, 0]))
        order.append(place)
        left.discard(place)
        waiting = waiting - before[place]
    return order


def _before(boxes: Any, gutters: Sequence[Gutter], right_to_left: bool) -> Any:
    """Square matrix: whether item i must come before item j."""
    x0, x1 = boxes[:, 0], boxes[:, 2]
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    left = x0[:, None] < x0[None, :]
    above = middle[:, None] < middle[None, :] - _ROW
    beside = abs(middle[:, None] - middle[None, :]) <= _ROW
    before = above | (beside & (~left if right_to_left else left))
    for gutter in gutters:
        inside = (middle >= gutter.top) & (middle <= gutter.bottom)
        lefts, rights = inside & (x1 <= gutter.x + 1), inside & (x0 >= gutter.x - 1)
        first, second = (rights, lefts) if right_to_left else (lefts, rights)
        before[np.ix_(first, second)] = True
        before[np.ix_(second, first)] = False
    np.fill_diagonal(before, False)
    return before
