"""Lines of a page: words of one baseline, cut where a gutter separates columns of prose, with their cells.

A gutter is a strip of white that at least `_FEWEST_ROWS` rows have in common. It separates columns when there is prose
on both sides or when the rows on both sides do not share their baselines; otherwise it separates the cells of a table
or of keys and values, and its rows are read across.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

import numpy as np

from llama_index_presets.ingest.readers.pdf.word import Box, Word
from llama_index_presets.ingest.readers.pdf.words import joined

__all__ = ["Cell", "Gutter", "Line", "is_figure", "page_lines"]

_FEWEST_ROWS: Final = 3
_WIDE: Final = 1.6  # em; a gap that separates cells wherever it is
_NARROW: Final = 0.55  # em; a gap that can be part of a gutter
_SAME_ROW: Final = 0.3  # em between baselines
_PROSE_WORDS: Final = 4
_MOST_CENTRES: Final = 80
_AT_ONCE: Final = 200  # lines compared with all others
_FIGURE: Final = re.compile(
    r"^[($€£¥+−-]*\s?[$€£¥]?\d[\d.,'\u2019\u202f]*\s?[)%xX*]*$|^[-–—−]$|^n/?[am]\.?$|^[$€£¥(]+$|^[)%]+$",
    re.IGNORECASE,
)
_MARKER: Final = re.compile(
    r"^(?:[•▪◦‣·○■□*–—-]|\(?[\dA-Za-z]{1,3}[.)]|\(?[ivxlc]{1,5}[.)]|\d{1,2}(?:\.\d{1,2})*\.?|\[\d{1,3}\])$"
)
_BULLET: Final = re.compile(r"^(?:[•▪◦‣·○■□*–—-]|\(?[\dA-Za-z]{1,2}[.)])$")  # of a list in the second column
_APART: Final = re.compile(r"(?<=^[$€£¥(]) (?=[\d(])| (?=[)%])")
_LEADERS: Final = re.compile(r"(?:\.\s?){4,}|…{2,}|_{4,}")


@lru_cache(maxsize=10_000)
def is_figure(text: str) -> bool:
    """Whether a cell holds a number, an amount, a share or a dash.

    Example:
        >>> is_figure("(1,250.5)"), is_figure("$ 12"), is_figure("2024 was")
        (True, True, False)
    """
    return all(_FIGURE.match(part) for part in text.split())


class Cell(NamedTuple):
    """Words of a line that stand together."""

    text: str
    x0: float
    x1: float


@dataclass
class Line:
    """Words of one baseline in one column; what is asked of it often is found once, since its words stay.

    Attributes:
        words: From left to right.
        column: Left and right edge of the column that it stands in, in points.
        cells: Its words, cut at wide gaps.
        group: Number of the column, counted from the left at its height; lines of a table have the same.
    """

    words: list[Word]
    column: tuple[float, float] = (0.0, 0.0)
    cells: list[Cell] = field(default_factory=list)
    group: int = 0

    @cached_property
    def text(self) -> str:
        """Words with one space between them."""
        return joined(self.words)

    @cached_property
    def _longest(self) -> Word:
        return max(self.words, key=lambda word: len(word.text))

    @property
    def em(self) -> float:
        """Font size of most of its characters."""
        return self._longest.em

    @cached_property
    def bold(self) -> bool:
        """Whether most of its characters are bold."""
        return 2 * sum(len(word.text) for word in self.words if word.bold) > sum(
            len(word.text) for word in self.words
        )

    @property
    def baseline(self) -> float:
        """Distance of the baseline from the upper edge, in points."""
        return self._longest.baseline

    @cached_property
    def box(self) -> Box:
        """Rectangle around its words."""
        return (
            min(word.x0 for word in self.words),
            min(word.top for word in self.words),
            max(word.x1 for word in self.words),
            max(word.bottom for word in self.words),
        )


class Gutter(NamedTuple):
    """A vertical strip of white: where it is, and from where to where it reaches, in points."""

    x: float
    top: float
    bottom: float


def page_lines(words: Sequence[Word]) -> tuple[list[Line], list[Gutter]]:
    """Lines of a page, from top to bottom and left to right, and the gutters between its columns of prose."""
    rows = _rows(words)
    gutters = _gutters(rows)
    columns = _independent([gutter for gutter in gutters if _separates_columns(gutter, rows)], rows)
    columns = [part for gutter in columns for part in _without_tables(gutter, rows)]
    lines = [line for row in rows for line in _cut(row, columns)]
    for line in lines:
        line.cells = _cells(line.words, gutters)
    _set_columns(lines)
    return lines, columns


def _rows(words: Sequence[Word]) -> list[list[Word]]:
    """Words of about one baseline, from left to right; a raised or lowered small word joins its row."""
    rows: list[list[Word]] = []
    baselines: list[float] = []
    for word in sorted(words, key=lambda word: (-word.em > -4, word.baseline, word.x0)):
        place = bisect_left(baselines, word.baseline - 0.5 * word.em)
        best, distance = -1, _SAME_ROW * word.em
        while place < len(baselines) and baselines[place] <= word.baseline + 0.5 * word.em:
            if abs(baselines[place] - word.baseline) <= distance:
                best, distance = place, abs(baselines[place] - word.baseline)
            place += 1
        if best >= 0:
            rows[best].append(word)
        else:
            place = bisect_left(baselines, word.baseline)
            baselines.insert(place, word.baseline)
            rows.insert(place, [word])
    return [sorted(row, key=lambda word: word.x0) for row in _with_scripts(rows)]


def _with_scripts(rows: list[list[Word]]) -> list[list[Word]]:
    """Rows of nothing but small words directly beside a larger word become a part of its row."""
    merged: list[list[Word]] = []
    for place, row in enumerate(rows):
        hosts = [rows[other] for other in (place - 1, place + 1) if 0 <= other < len(rows)]
        host = next((host for host in hosts if all(_is_script(word, host) for word in row)), None)
        if host is None:
            merged.append(row)
        else:
            host.extend(row)
    return merged


def _is_script(word: Word, host: Iterable[Word]) -> bool:
    return len(word.text) <= 4 and any(
        word.em < 0.85 * other.em
        and abs(word.baseline - other.baseline) < 0.6 * other.em
        and (
            -0.3 * other.em < word.x0 - other.x1 < 0.4 * other.em
            or -0.3 * other.em < other.x0 - word.x1 < 0.4 * other.em
        )
        for other in host
    )


def _gaps(row: Sequence[Word]) -> Iterator[tuple[Word, Word, float]]:
    """Neighbours in a row and the white between them, in ems; not behind the bullet or number of a list."""
    right, start, apart = row[0], True, True
    for word in row[1:]:
        em = word.em if word.em < right.em else right.em
        gap = (word.x0 - right.x1) / (em if em > 1.0 else 1.0)
        if gap >= _NARROW:
            marker = (start or apart) and gap < 3 and (_MARKER if start else _BULLET).match(right.text)
            if not marker:
                yield right, word, gap
        start, apart = False, gap >= _WIDE
        right = word if word.x1 >= right.x1 else right


def _gutters(rows: Sequence[Sequence[Word]]) -> list[Gutter]:
    """Vertical strips of white that several rows have in common, each as high as no word stands in it."""
    gaps = [(left.x1, right.x0) for row in rows for left, right, _ in _gaps(row)]
    spans = [_Span(row) for row in rows]
    found: list[Gutter] = []
    for x in (*_indents(rows), *_centres(gaps)):
        run: list[_Span] = []
        for span in (*spans, None):
            if span is not None and span.is_white(x):
                run.append(span)
                continue
            found += _gutter(x, run)
            run = []
    return _distinct(found)


class _Span:
    """Edges of a row's words, for look-ups."""

    def __init__(self, row: Sequence[Word]) -> None:
        self.starts = [word.x0 for word in row]
        self.ends = list(itertools.accumulate((word.x1 for word in row), max))
        self.top, self.bottom = _top(row), _bottom(row)
        self._narrow = _NARROW * min([word.em for word in row])

    def is_white(self, x: float) -> bool:
        """Whether no word stands at x, and no space between two words of one line."""
        place = bisect_left(self.starts, x)
        if place == 0 or place == len(self.starts):
            return place == 0 or self.ends[-1] <= x
        return self.ends[place - 1] <= x and self.starts[place] - self.ends[place - 1] >= self._narrow


def _indents(rows: Sequence[Sequence[Word]]) -> list[float]:
    """Places just left of where several rows begin: of a column whose rows stand between those of its neighbour."""
    counts = Counter((round(row[0].x0), round(0.4 * row[0].em, 1)) for row in rows)
    margin = min(counts, default=(0, 0.0))[0]
    return [x - gap for (x, gap), count in counts.items() if count >= _FEWEST_ROWS and x > margin + 20]


def _centres(gaps: Sequence[tuple[float, float]]) -> Sequence[float]:
    """Middles of the gaps and of what each shares with the others, those in most gaps first."""
    starts, ends = sorted(start for start, _ in gaps), sorted(end for _, end in gaps)
    middles = {round((start + end) / 2) for start, end in gaps}
    shared = {(start + ends[min(bisect_right(ends, start), len(ends) - 1)]) / 2 for start in set(starts)}
    coverage = {
        x: bisect_left(starts, x) - bisect_right(ends, x) for x in {*middles, *(round(x) for x in shared)}
    }
    common = sorted((x for x in coverage if coverage[x] >= _FEWEST_ROWS), key=lambda x: -coverage[x])
    return common[:_MOST_CENTRES]


def _gutter(x: float, run: Sequence[_Span]) -> Iterator[Gutter]:
    """The run as a gutter, if it has enough rows with words on both sides, or on either."""
    left = sum(span.starts[0] < x for span in run)
    right = sum(span.ends[-1] > x for span in run)
    if min(left, right) >= _FEWEST_ROWS:
        yield Gutter(x, min(span.top for span in run), max(span.bottom for span in run))


def _top(row: Sequence[Word]) -> float:
    return min([word.top for word in row])


def _middle(row: Sequence[Word]) -> float:
    return row[0].baseline - 0.35 * row[0].em


def _bottom(row: Sequence[Word]) -> float:
    return max([word.bottom for word in row])


def _distinct(gutters: Sequence[Gutter]) -> list[Gutter]:
    """Without those that another one repeats some points beside."""
    kept: list[Gutter] = []
    for gutter in gutters:
        if not any(
            abs(gutter.x - one.x) < 4 and gutter.top < one.bottom and one.top < gutter.bottom for one in kept
        ):
            kept.append(gutter)
    return kept


def _sides(gutter: Gutter, rows: Sequence[Sequence[Word]]) -> tuple[list[list[Word]], list[list[Word]]]:
    """Words directly left and right of a gutter, row by row, up to the next wide gap."""
    left, right = [], []
    for row in rows:
        middle = _middle(row)
        if not gutter.top <= middle <= gutter.bottom:
            continue
        before = [word for word in row if word.x1 <= gutter.x + 1]
        after = [word for word in row if word.x0 >= gutter.x - 1]
        left.append(_run(before[::-1], back=True)[::-1])
        right.append(_run(after, back=False))
    return left, right


def _run(words: Sequence[Word], *, back: bool) -> list[Word]:
    run = list(words[:1])
    for last, word in itertools.pairwise(words):
        gap = last.x0 - word.x1 if back else word.x0 - last.x1
        if gap > _WIDE * max(word.em, 1.0):
            break
        run.append(word)
    return run


def _separates_columns(gutter: Gutter, rows: Sequence[Sequence[Word]]) -> bool:
    left, right = _sides(gutter, rows)
    lefts, rights = [run for run in left if run], [run for run in right if run]
    if min(len(lefts), len(rights)) < _FEWEST_ROWS:
        return False
    shared = sum(bool(one) and bool(other) for one, other in zip(left, right, strict=True))
    aligned = shared / min(len(lefts), len(rights))
    prose = min(_prose_share(lefts), _prose_share(rights))
    if min(sum(map(_is_prose, lefts)), sum(map(_is_prose, rights))) < 2:
        return False
    return prose >= 0.5 or (aligned < 0.5 and prose >= 0.2)


def _independent(gutters: Sequence[Gutter], rows: Sequence[Sequence[Word]]) -> list[Gutter]:
    """Of gutters side by side, those with prose between them; otherwise the one that has most prose directly beside it.

    A column of figures at the edge of a column of prose has white on both sides.
    """

    def beside(gutter: Gutter) -> int:
        return sum(_is_prose(run) for side in _sides(gutter, rows) for run in side)

    kept: list[Gutter] = []
    for gutter in sorted(gutters, key=beside, reverse=True):
        if all(_is_column(gutter, one, rows) for one in kept if _side_by_side(gutter, one)):
            kept.append(gutter)
    return kept


def _side_by_side(gutter: Gutter, other: Gutter) -> bool:
    return gutter.top < other.bottom and other.top < gutter.bottom


def _is_column(gutter: Gutter, other: Gutter, rows: Sequence[Sequence[Word]]) -> bool:
    """Whether there is a column of prose between two gutters: in half of the rows at least."""
    top, bottom = max(gutter.top, other.top), min(gutter.bottom, other.bottom)
    x0, x1 = sorted((gutter.x, other.x))
    inside = [row for row in rows if top <= _middle(row) <= bottom]
    runs = [run for row in inside if (run := [word for word in row if x0 <= (word.x0 + word.x1) / 2 <= x1])]
    return len(runs) >= max(_FEWEST_ROWS, len(inside) // 3) and _prose_share(runs) >= 0.5


def _prose_share(runs: Sequence[Sequence[Word]]) -> float:
    """Part of the characters that stand in runs of several words."""
    sizes = [(sum(len(word.text) for word in run), _is_prose(run)) for run in runs]
    return sum(size for size, prose in sizes if prose) / max(sum(size for size, _ in sizes), 1)


def _is_prose(run: Sequence[Word]) -> bool:
    return len(run) >= _PROSE_WORDS and sum(not is_figure(word.text) for word in run) > 0.6 * len(run)


def _without_tables(gutter: Gutter, rows: Sequence[Sequence[Word]]) -> Iterator[Gutter]:
    """A gutter without the stretches where both sides are cells of a table that lies across it."""
    top = gutter.top
    run: list[Sequence[Word]] = []
    inside = [row for row in rows if gutter.top <= _middle(row) <= gutter.bottom]
    for row in (*inside, None):
        if row is not None and _is_tabular(row, gutter.x):
            run.append(row)
            continue
        if len(run) >= _FEWEST_ROWS:
            if _top(run[0]) > top:
                yield Gutter(gutter.x, top, _top(run[0]))
            top = _bottom(run[-1])
        run = []
    if top < gutter.bottom:
        yield Gutter(gutter.x, top, gutter.bottom)


def _is_tabular(row: Sequence[Word], x: float) -> bool:
    """Whether a row has three cells or more, short ones on both sides of a gutter."""
    cells: list[list[Word]] = [[row[0]]]
    for left, right, gap in _gaps(row):
        if gap >= 1.0 or left.x1 <= x <= right.x0:
            cells.append([])
        cells[-1].append(right)
    before = [word for word in row if word.x1 <= x]
    after = [word for word in row if word.x0 >= x]
    if len(cells) < 3 or not before or not after:
        return False
    return not any(_is_prose(_run(side, back=back)) for side, back in ((before[::-1], True), (after, False)))


def _cut(row: Sequence[Word], gutters: Sequence[Gutter]) -> Iterator[Line]:
    middle = _middle(row)
    xs = [gutter.x for gutter in gutters if gutter.top <= middle <= gutter.bottom]
    part = [row[0]]
    right = row[0].x1
    for word in row[1:]:
        if any(right <= x + 1 and x - 1 <= word.x0 for x in xs) and word.x0 > right:
            yield Line(part, group=sum(x < part[0].x0 for x in xs))
            part = []
        part.append(word)
        right = max(right, word.x1)
    yield Line(part, group=sum(x < part[0].x0 for x in xs))


def _cells(words: Sequence[Word], gutters: Sequence[Gutter]) -> list[Cell]:
    """Words of a line, cut at wide gaps, and at narrower ones where other rows have them, too."""
    text = "".join([word.text for word in words])
    if (text.count(".") > 3 or "…" in text or "_" in text) and _LEADERS.search(text):
        return [_cell(words)]
    middle = _middle(words)
    xs = [gutter.x for gutter in gutters if gutter.top <= middle <= gutter.bottom]
    cuts = {
        id(right)
        for left, right, gap in _gaps(words)
        if gap >= _WIDE or any(left.x1 <= x + 1 and x - 1 <= right.x0 for x in xs)
    }
    cells: list[list[Word]] = [[]]
    for word in words:
        if id(word) in cuts and not _joins(cells[-1], word):
            cells.append([])
        cells[-1].append(word)
    return [_cell(cell) for cell in cells]


def _joins(cell: Sequence[Word], word: Word) -> bool:
    """A lone currency sign or bracket belongs to its figure."""
    return (len(cell) == 1 and cell[0].text in ("$", "€", "£", "¥", "(", "$(")) or word.text in (
        "%",
        ")",
        ")%",
    )


def _cell(words: Sequence[Word]) -> Cell:
    text = joined(words)
    if text[:1] in "$€£¥(" or " )" in text or " %" in text:
        text = _APART.sub("", text)
    return Cell(text, words[0].x0, max(word.x1 for word in words))


def _set_columns(lines: Sequence[Line]) -> None:
    """Edges of the column of each line: those of the neighbours above and below that overlap with it."""
    places = np.array([(line.baseline, 12 * line.em, line.box[0], line.box[2]) for line in lines])
    for first in range(0, len(lines), _AT_ONCE):
        baseline, reach, x0, x1 = places[first : first + _AT_ONCE].T[:, :, None]
        others, left, right = places[:, 0], places[:, 2], places[:, 3]
        near = (np.abs(others - baseline) < reach) & (np.minimum(right, x1) - np.maximum(left, x0) > 0)
        edges = zip(
            np.where(near, left, np.inf).min(axis=1).tolist(),
            np.where(near, right, -np.inf).max(axis=1).tolist(),
            strict=True,
        )
        for line, column in zip(lines[first : first + _AT_ONCE], edges, strict=True):
            line.column = column
