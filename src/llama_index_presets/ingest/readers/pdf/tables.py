"""Tables of a page: those with a drawn grid, and runs of lines whose cells stand below each other.

A row becomes one paragraph that names its columns, ``Revenue; 2024: 7.2``: see `Table.rows`.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from llama_index_presets.ingest.plain_text import is_table_caption
from llama_index_presets.ingest.readers.pdf.lines import Cell, Line, is_figure, page_lines
from llama_index_presets.ingest.readers.pdf.word import Box, Word
from llama_index_presets.ingest.readers.pdf.words import Ruling, is_right_to_left, joined

__all__ = ["Table", "aligned_tables", "drawn_tables"]

_CLOSE: Final = 3.0  # points between rulings that are one line, or that meet
_LONGEST_CELL: Final = 60  # characters of a cell in a table without a grid
_MOST_HEADS: Final = 3
_LARGE_CELL: Final = 100  # characters
_MOST_RULINGS: Final = 1_500


@dataclass(slots=True)
class Row:
    """A row: its cells by column, empty where there is nothing, and its rectangle."""

    cells: list[str]
    box: Box
    bold: bool = False

    @property
    def filled(self) -> int:
        """Number of cells with text."""
        return sum(map(bool, self.cells))


@dataclass(slots=True)
class Table:
    """A table of a page.

    Attributes:
        body: Its rows from top to bottom, those of the header included.
        box: Its rectangle.
    """

    body: list[Row]
    box: Box

    def rows(self) -> Iterator[tuple[str, Box]]:
        """Each row as text in which every cell stands with the name of its column, with its rectangle."""
        if is_right_to_left(" ".join(cell for row in self.body for cell in row.cells)):
            self.body = [Row(row.cells[::-1], row.box, row.bold) for row in self.body]
        names, heads = self.header()
        group = ""
        for row in self.body[heads:]:
            if row.filled == 1 and row.cells[0] and len(row.cells) > 1:
                group = row.cells[0]
                yield group, row.box
            elif row.filled:
                yield _row_text(names, row.cells), row.box

    def header(self) -> tuple[list[str], int]:
        """Names of the columns, and how many rows they take; neither where no row is below them."""
        heads = self._heads()
        names = _names([row.cells for row in self.body[:heads]], len(self.body[0].cells))
        return (names, heads) if heads < len(self.body) else ([], 0)

    def _heads(self) -> int:
        """Rows above the first one with figures; of words alone, a bold first row, or the first of three columns."""
        figures = [
            any(is_figure(cell) for cell in row.cells[1:] if cell and not _is_year(cell)) for row in self.body
        ]
        if len(self.body[0].cells) == 2 and self.body[0].cells[0].endswith(":"):
            return 0  # keys and values
        if any(figures):
            first = figures.index(True)
            if first > 1 and len(self.body[0].cells) == 2:
                return 0
            return first if first <= _MOST_HEADS else 1
        years = [any(_is_year(cell) for cell in row.cells[1:]) for row in self.body]
        if years[0] and not all(years):
            return 1
        bold = self.body[0].bold and not all(row.bold for row in self.body)
        return int(bold or len(self.body[0].cells) > 2 or self.body[0].filled == 1)


def _is_year(cell: str) -> bool:
    return len(cell) == 4 and cell.isdigit() and cell[:2] in ("19", "20")


def _names(heads: Sequence[Sequence[str]], columns: int) -> list[str]:
    """Name of each column: what stands above it in every row of the header."""
    stacked = ([head[column] for head in heads if head[column]] for column in range(columns))
    return [" ".join(dict.fromkeys(parts)) for parts in stacked]


def _row_text(names: Sequence[str], cells: Sequence[str]) -> str:
    if not any(names) and len(cells) == 2 and all(cells):
        return f"{cells[0].rstrip(':')}: {cells[1]}"
    pairs = itertools.zip_longest(names, cells, fillvalue="")
    return "; ".join(f"{name.rstrip(':')}: {cell}" if name else cell for name, cell in pairs if cell)


def drawn_tables(words: Sequence[Word], rulings: Sequence[Ruling]) -> tuple[list[Table], list[Word]]:
    """Tables with a grid of lines, and the words outside of them."""
    if len(rulings) > _MOST_RULINGS:
        return [], list(words)
    tables: list[Table] = []
    left = list(words)
    for grid in _grids(rulings):
        xs, ys = _edges(grid)
        inside = [word for word in left if _is_inside(word, xs, ys)] if min(len(xs), len(ys)) > 2 else []
        if len(inside) < 2 or _is_layout(inside, xs, ys):
            continue
        table = _grid_table(inside, xs, ys, [line for line in grid if not line.horizontal])
        if table is not None:
            tables.append(table)
            taken = set(map(id, inside))
            left = [word for word in left if id(word) not in taken]
    return tables, left


def _edges(grid: Sequence[Ruling]) -> tuple[list[float], list[float]]:
    """Edges of the columns and of the rows of a grid; none where its lines cannot be those of cells."""
    flat = [line for line in grid if line.horizontal]
    upright = [line for line in grid if not line.horizontal]
    if not flat or len(upright) < 2:
        return [], []
    columns = (*(line.x0 for line in upright), min(line.x0 for line in flat), max(line.x1 for line in flat))
    rows = (*(line.y0 for line in flat), min(line.y0 for line in upright), max(line.y1 for line in upright))
    return _merged(columns), _merged(rows)


def _grids(rulings: Sequence[Ruling]) -> Iterator[list[Ruling]]:
    """Rulings that meet, directly or through others."""
    waiting = [ruling for ruling in rulings if max(ruling.x1 - ruling.x0, ruling.y1 - ruling.y0) > 4]
    while waiting:
        grid, edge = [waiting.pop()], 0
        while edge < len(grid):
            one, edge = grid[edge], edge + 1
            meeting = [other for other in waiting if _meet(one, other)]
            if meeting:
                grid += meeting
                waiting = [other for other in waiting if not _meet(one, other)]
        yield grid


def _meet(one: Ruling, other: Ruling) -> bool:
    return (
        one.x0 <= other.x1 + _CLOSE
        and other.x0 <= one.x1 + _CLOSE
        and one.y0 <= other.y1 + _CLOSE
        and other.y0 <= one.y1 + _CLOSE
    )


def _merged(places: Sequence[float]) -> list[float]:
    kept: list[float] = []
    for place in sorted(places):
        if not kept or place - kept[-1] > _CLOSE:
            kept.append(place)
    return kept


def _is_inside(word: Word, xs: Sequence[float], ys: Sequence[float]) -> bool:
    return xs[0] <= (word.x0 + word.x1) / 2 <= xs[-1] and ys[0] <= (word.top + word.bottom) / 2 <= ys[-1]


def _is_layout(words: Sequence[Word], xs: Sequence[float], ys: Sequence[float]) -> bool:
    """Whether the lines only frame parts of the page: a few large cells hold most of the text."""
    sizes = Counter[tuple[int, int]]()
    for word in words:
        sizes[_cell_of(word, xs, ys)] += len(word.text) + 1
    large = [size for size in sizes.values() if size > _LARGE_CELL]
    rows = len({row for row, _ in sizes})
    return sum(large) > sum(sizes.values()) / 2 and (rows <= 4 or len(large) >= 0.4 * len(sizes))


def _cell_of(word: Word, xs: Sequence[float], ys: Sequence[float]) -> tuple[int, int]:
    row = bisect_right(ys, (word.top + word.bottom) / 2) - 1
    column = bisect_right(xs, (word.x0 + word.x1) / 2) - 1
    return min(row, len(ys) - 2), min(column, len(xs) - 2)


def _grid_table(
    words: Sequence[Word], xs: Sequence[float], ys: Sequence[float], verticals: Sequence[Ruling]
) -> Table | None:
    """Cells between the lines; None where there is only one column."""
    cells: dict[tuple[int, int], list[Word]] = {}
    for word in words:
        cells.setdefault(_cell_of(word, xs, ys), []).append(word)
    used = sorted({column for _, column in cells})
    rows: list[Row] = []
    for place, (top, bottom) in enumerate(itertools.pairwise(ys)):
        members = {column: cells[place, column] for column in used if (place, column) in cells}
        if members:
            spans = _joined(members, xs, (top + bottom) / 2, verticals)
            rows += _grid_rows([spans.get(column, []) for column in used])
    if len(used) < 2 or len(rows) < 2:
        return None
    return Table(_filled_down(rows), (xs[0], ys[0], xs[-1], ys[-1]))


def _grid_rows(cells: Sequence[Sequence[Word]]) -> Iterator[Row]:
    """A row of the grid; several where its cells hold as many figures below each other, without a line between."""
    lines = [page_lines(cell)[0] for cell in cells]
    counts = Counter(len(one) for one in lines if len(one) > 1 and all(is_figure(line.text) for line in one))
    parts = counts.most_common(1)[0][0] if counts else 1
    if parts > 1 and counts[parts] > 1 and all(len(one) in (0, 1, parts) for one in lines):
        for part in range(parts):
            chosen = [one[min(part, len(one) - 1)].words if one else [] for one in lines]
            yield _row([joined(words) for words in chosen], chosen)
    else:
        yield _row([" ".join(line.text for line in one) for one in lines], cells)


def _row(texts: list[str], cells: Sequence[Sequence[Word]]) -> Row:
    every = [word for cell in cells for word in cell]
    box = (
        min(w.x0 for w in every),
        min(w.top for w in every),
        max(w.x1 for w in every),
        max(w.bottom for w in every),
    )
    return Row(texts, box, all(word.bold for word in every))


def _joined(
    members: dict[int, list[Word]], xs: Sequence[float], middle: float, verticals: Sequence[Ruling]
) -> dict[int, list[Word]]:
    """Cells of a row, those joined that no line separates; the joined text stands in each of their columns."""
    walls = [line.x0 for line in verticals if line.y0 - _CLOSE <= middle <= line.y1 + _CLOSE]
    joined: dict[int, list[Word]] = {}
    group: list[int] = []
    for column in range(len(xs) - 1):
        if group and any(abs(wall - xs[column]) <= _CLOSE for wall in walls):
            _spread(group, members, joined)
            group = []
        group.append(column)
    _spread(group, members, joined)
    return joined


def _spread(group: Sequence[int], members: dict[int, list[Word]], joined: dict[int, list[Word]]) -> None:
    filled = [column for column in group if column in members]
    if len(filled) == 1 and len(group) > 1:
        joined |= dict.fromkeys(group, members[filled[0]])
    else:
        joined |= {column: members[column] for column in filled}


def _filled_down(rows: list[Row]) -> list[Row]:
    """Rows in which a cell that spans the whole width stands once."""
    for row in rows:
        if len(row.cells) > 2 and len(set(row.cells)) == 1:
            row.cells[1:] = [""] * (len(row.cells) - 1)
    return rows


def aligned_tables(lines: Sequence[Line]) -> tuple[list[Table], list[Line]]:
    """Tables without a grid, and the lines outside of them; the lines are those of one page, in any order."""
    tables: list[Table] = []
    left: list[Line] = []
    ordered = sorted(lines, key=lambda line: (line.group, line.baseline))
    for _, members in itertools.groupby(ordered, key=lambda line: line.group):
        for run in _runs(list(members)):
            table = _aligned(run)
            if table is None:
                left += run
                continue
            heads = _heads_above(table, run, left)
            if heads:
                table = _aligned([*heads, *run]) or table
                left = [line for line in left if line not in heads]
            tables.append(table)
    return tables, left


def _heads_above(table: Table, run: Sequence[Line], lines: Sequence[Line]) -> list[Line]:
    """Lines directly above a table without a header that are one: wide gaps between words, no sentence."""
    if table._heads():
        return []
    heads: list[Line] = []
    top = run[0]
    above = [line for line in lines if line.group == top.group and line.baseline < top.baseline]
    for line in sorted(above, key=lambda line: -line.baseline)[:_MOST_HEADS]:
        wide = sum(b.x0 - a.x1 > 0.9 * line.em for a, b in itertools.pairwise(line.words))
        loose = wide >= max((len(table.body[0].cells) - 1) // 2, 1)
        if top.baseline - line.baseline > 3.5 * line.em or not loose or is_table_caption(line.text):
            break
        heads.insert(0, line)
        top = line
    return heads


def _runs(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Stretches of lines close below each other that have cells, or have none."""
    run: list[Line] = []
    tabular = False
    for line in lines:
        near = bool(run) and line.baseline - run[-1].baseline < 2.6 * max(line.em, run[-1].em)
        if tabular and len(run) > 1 and _is_new_head(line, run):
            yield run
            run = []
        if (
            run
            and (not near or (len(line.cells) > 1) != tabular)
            and not (near and tabular and _continues(line, run))
        ):
            yield run
            run = []
        if not run:
            tabular = len(line.cells) > 1
        run.append(line)
    if run:
        yield run


def _is_new_head(line: Line, run: Sequence[Line]) -> bool:
    """A bold line of words below a plain row: the name or the header of the next table."""
    plain = not run[-1].bold and line.em >= run[-1].em - 0.5
    return line.bold and plain and not any(is_figure(cell.text) for cell in line.cells)


def _continues(line: Line, run: Sequence[Line]) -> bool:
    """A short line within a table: the name of a group of rows, or the second line of a cell."""
    table = (
        run[0].box
        if len(run) == 1
        else (min(one.box[0] for one in run), 0, max(one.box[2] for one in run), 0)
    )
    x0, _, x1, _ = line.box
    return len(line.text) <= _LONGEST_CELL and x0 >= table[0] - 2 and x1 - x0 < 0.6 * (table[2] - table[0])


def _aligned(run: Sequence[Line]) -> Table | None:
    """A table of a run of lines, or None where they only look like one."""
    if not _looks_tabular(run):
        return None
    edges = _column_edges(run)
    if len(edges) < 2:
        return None
    rows: list[Row] = []
    for line in run:
        cells = [""] * len(edges)
        # words of a header whose gaps are too narrow to see stand each above its column
        words = [Cell(word.text, word.x0, word.x1) for word in line.words]
        for cell in line.cells if len(line.cells) > 1 or rows else words:
            spanned = _columns_of(cell.x0, cell.x1, edges)
            for column in spanned if len(rows) < _MOST_HEADS and len(line.cells) > 1 else spanned[:1]:
                cells[column] = f"{cells[column]} {cell.text}".strip()
        if rows and not cells[0] and _is_rest(cells, rows[-1]):
            rows[-1].cells = [
                f"{above} {cell}".strip() for above, cell in zip(rows[-1].cells, cells, strict=True)
            ]
            rows[-1].box = _around(rows[-1].box, line.box)
        else:
            rows.append(Row(cells, line.box, line.bold))
    box = rows[0].box
    for row in rows:
        box = _around(box, row.box)
    return Table(rows, box) if len(rows) > 1 else None


def _around(one: Box, other: Box) -> Box:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _is_rest(cells: Sequence[str], above: Row) -> bool:
    """A row without a first cell and without figures goes on with the words of the row above."""
    return (
        bool(above.cells[0])
        and all(not cell or not is_figure(cell) for cell in cells)
        and any(cell and up and not is_figure(up) for cell, up in zip(cells, above.cells, strict=True))
    )


def _looks_tabular(run: Sequence[Line]) -> bool:
    rows = [line for line in run if len(line.cells) > 1]
    if len(rows) < 2 or any(len(cell.text) > 3 * _LONGEST_CELL for line in rows for cell in line.cells):
        return False
    if len(rows) == 2 and len(run) == 2 and len(rows[0].cells) == len(rows[1].cells) > 2:
        first, second = ([is_figure(cell.text) for cell in row.cells] for row in rows)
        return not any(first) and any(second)
    figures = sum(all(is_figure(cell.text) for cell in line.cells[1:]) for line in rows)
    if figures >= 2 and figures >= len(rows) // 3:
        return True
    short = all(len(cell.text) <= _LONGEST_CELL for line in rows for cell in line.cells[:-1])
    columns = [len(line.cells) for line in rows]
    return (
        short
        and len(rows) >= 3
        and (min(columns) > 2 or sum(count == columns[0] for count in columns) > 0.7 * len(columns))
    )


def _column_edges(run: Sequence[Line]) -> list[tuple[float, float]]:
    """Left and right edge of each column: cells that overlap, the narrow ones first; wider ones span columns."""
    cells = [cell for line in run if len(line.cells) > 1 for cell in line.cells]
    edges: list[tuple[float, float]] = []
    for cell in sorted(cells, key=lambda cell: cell.x1 - cell.x0):
        over = [place for place, (x0, x1) in enumerate(edges) if cell.x0 < x1 - 1 and x0 < cell.x1 - 1]
        if not over:
            edges.append((cell.x0, cell.x1))
        elif len(over) == 1:
            x0, x1 = edges[over[0]]
            edges[over[0]] = (min(x0, cell.x0), max(x1, cell.x1))
    return sorted(edges)


def _columns_of(x0: float, x1: float, edges: Sequence[tuple[float, float]]) -> list[int]:
    """Columns whose middle a cell covers; otherwise the one with which it overlaps most, or the nearest."""
    covered = [place for place, (left, right) in enumerate(edges) if x0 <= (left + right) / 2 <= x1]
    if covered:
        return covered
    return [max(range(len(edges)), key=lambda place: min(x1, edges[place][1]) - max(x0, edges[place][0]))]
