"""Rectangles of the lines of a chunk, as its metadata carries them: written by ingest, read for citations.

The value of ``boxes`` is JSON, since some stores take no nested metadata: a list of
``[start, end, page, x0, y0, x1, y1]`` in ascending order. Offsets count characters of the chunk's text; the page is its
label; the rectangle is in points from the upper left corner of the page as it is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["BOXES_KEY", "PageBox", "boxes_within", "packed_boxes"]

BOXES_KEY: Final = "boxes"
"""Metadata of a chunk from a format with pages; neither embedded nor shown to a language model."""


@dataclass(frozen=True, slots=True)
class PageBox:
    """A line, or a part of one, on its page.

    Attributes:
        page: Label of the page.
        box: x0, y0, x1, y1 in points, from the upper left corner of the page as it is shown.
    """

    page: str
    box: tuple[float, float, float, float]


def packed_boxes(lines: Iterable[tuple[int, int, str, tuple[float, float, float, float]]]) -> str:
    """Value of `BOXES_KEY` for lines given as start, end, page and box.

    Example:
        >>> packed_boxes([(0, 5, "3", (72.0, 100.5, 523.0, 112.0))])
        '[[0,5,"3",72,100.5,523,112]]'
    """
    rows = [[start, end, page, *map(_short, box)] for start, end, page, box in lines]
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=False)


def boxes_within(metadata: Mapping[str, Any], start: int, end: int) -> list[PageBox]:
    """Rectangles of the lines that a stretch of a chunk's text touches; of a part of a line, about that part.

    Args:
        metadata: Of the chunk.
        start: Of the stretch in the chunk's text, in characters.
        end: Behind its last character.

    Returns:
        In reading order; empty for formats without pages, and for chunks of before there were boxes.

    Example:
        >>> boxes_within({"boxes": '[[0,10,"3",100,50,200,60]]'}, 5, 10)
        [PageBox(page='3', box=(150.0, 50, 200.0, 60))]
    """
    found = []
    for first, last, page, x0, y0, x1, y1 in json.loads(metadata.get(BOXES_KEY) or "[]"):
        left, right = max(start, first), min(end, last)
        if left < right:
            step = (x1 - x0) / (last - first)
            found.append(PageBox(page, (x0 + step * (left - first), y0, x0 + step * (right - first), y1)))
    return found


def _short(number: float) -> float | int:
    return int(number) if number == int(number) else round(number, 1)
