"""Running heads and feet: lines at the edge of a page that repeat on other pages, and page numbers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["EdgeLine", "line_pattern", "running_lines"]

_PLACE: Final = 6.0  # points by which the same head may stand higher on another page
_LONGEST_COUNT: Final = 12  # digits of a number that may count pages, such as that of a stamp
_NUMBER: Final = re.compile(r"\d+")
_ROMAN: Final = re.compile(r"^[ivxlc]{1,7}$", re.IGNORECASE)
_PAGE_NUMBER: Final = re.compile(
    r"^(?:[-–—|\[(]?\s*)?(?:p(?:age|ágina|\.)?|seite|pagina|стр\.?|sivu|sida|s\.)?\s*#(?:\s*(?:/|of|von|de|sur|di|из|\|)\s*#)?"
    r"(?:\s*[-–—|\])])?$",
    re.IGNORECASE,
)


class EdgeLine(NamedTuple):
    """A line near the upper or lower edge of a page.

    Attributes:
        page: Place of the page in the document, from 0.
        place: Place of the line among the page's lines.
        text: Its words.
        distance: Of its baseline from the nearer edge of the page; negative from the lower one, in points.
    """

    page: int
    place: int
    text: str
    distance: float


def running_lines(lines: Sequence[EdgeLine], pages: int) -> set[tuple[int, int]]:
    """(page, place) of the lines that are no part of the text.

    A line runs when its words stand at the same height on another page near by: on half of the pages of a short
    document, on three of any. Its numbers may differ only as page numbers do. A lone number runs when it counts the
    pages.

    Example:
        >>> lines = [EdgeLine(page, 0, f"Annual report {page + 1}", 30) for page in range(3)]
        >>> sorted(running_lines([*lines, EdgeLine(1, 9, "The end of a text", -30)], 3))
        [(0, 0), (1, 0), (2, 0)]
    """
    found: set[tuple[int, int]] = set()
    needed = max(2, min(3, (pages + 1) // 2))
    for members in _alike(lines).values():
        for group in _same_height(members):
            steady = _steady(group)
            if len({line.page for line in steady}) >= needed and _is_running(steady):
                found |= {(line.page, line.place) for line in steady}
    return found | _counting(lines, pages)


def _alike(lines: Sequence[EdgeLine]) -> dict[str, list[EdgeLine]]:
    groups: dict[str, list[EdgeLine]] = defaultdict(list)
    for line in lines:
        groups[line_pattern(line.text)].append(line)
    return groups


def line_pattern(text: str) -> str:
    """A line, whatever its numbers are."""
    text = " ".join(_NUMBER.sub("#", text.casefold()).split())
    return "#" if _ROMAN.match(text) else text


def _same_height(members: Sequence[EdgeLine]) -> list[list[EdgeLine]]:
    groups: list[list[EdgeLine]] = []
    for line in sorted(members, key=lambda line: line.distance):
        if groups and line.distance - groups[-1][0].distance <= _PLACE:
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


def _steady(group: Sequence[EdgeLine]) -> list[EdgeLine]:
    """Lines whose numbers stand in another one, too, or count the pages: "Section 12" above "Section 40" is text."""
    values = [_NUMBER.findall(line.text) for line in group]
    same = Counter(pair for found in values for pair in enumerate(found))
    counted = Counter(
        (place, int(value) - line.page)
        for line, found in zip(group, values, strict=True)
        for place, value in enumerate(found)
        if len(value) <= _LONGEST_COUNT
    )
    return [
        line
        for line, found in zip(group, values, strict=True)
        if all(
            same[place, value] > 1
            or (len(value) <= _LONGEST_COUNT and counted[place, int(value) - line.page] > 1)
            for place, value in enumerate(found)
        )
    ]


def _is_running(group: Sequence[EdgeLine]) -> bool:
    """Words that repeat; figures alone must count pages, which `_counting` sees."""
    pattern = line_pattern(group[0].text)
    words = sum(char.isalpha() for char in pattern)
    return words >= 3 and (len({line.text for line in group}) < len(group) or "#" in pattern)


def _counting(lines: Sequence[EdgeLine], pages: int) -> set[tuple[int, int]]:
    """Page numbers: at the same edge, each as much higher than another as its page is later."""
    found: set[tuple[int, int]] = set()
    numbers = [(line, value) for line in lines if (value := _page_number(line.text)) is not None]
    for sign in (1, -1):
        side = [(line, value) for line, value in numbers if line.distance * sign > 0]
        offsets = Counter(value - line.page for line, value in side)
        for offset, count in offsets.items():
            if count >= 2 and count >= min(3, pages):
                found |= {(line.page, line.place) for line, value in side if value - line.page == offset}
    return found


def _page_number(text: str) -> int | None:
    text = " ".join(text.split())
    if _ROMAN.match(text):
        return _roman(text.lower())
    if not _PAGE_NUMBER.match(_NUMBER.sub("#", text)):
        return None
    return int(number[0]) if (number := _NUMBER.search(text)) and len(number[0]) <= 5 else None


def _roman(text: str) -> int:
    values = [{"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}[letter] for letter in text]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))
