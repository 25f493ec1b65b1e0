"""Tables as text: each cell beside the name of its row and of its column, a row a paragraph; pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit

__all__ = ["Cell", "TableText", "fill_spans", "in_one_line", "mark_bold", "table_text"]

_END_OF_PART: Final = (".", ",", ":", ";", "!", "?", "(", "/", "-", "–")

_MOST_CELLS: Final = (
    1_000_000  # of a table whose spans are filled; a span of 65,534 rows is a dozen bytes of HTML
)
_WIDEST: Final = 1_000  # columns that one cell spans, as browsers do
_LONGEST_ROW: Final = 900  # characters; a longer row is several paragraphs, each with the name of the row
_LONGEST_NAME: Final = 80  # characters of a column name that is not marked as one, and of a group of rows
_LONGEST_REPEATED: Final = 60  # characters of a cell that stands once for each column that it spans
_OPENS: Final = frozenset(("$", "€", "£", "¥", "(", "$(", "€("))
_CLOSES: Final = frozenset((")", "%", "%)", ")%"))
_FIGURE: Final = re.compile(r"\W*\d")
_YEAR: Final = re.compile(r"(?:(?:FY|Q[1-4])[ /]?)?(?:19|20)\d\d(?:[A-Z*]|/\d\d)?")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: In one line.
        is_name: Whether it is marked as the name of a row or a column.
        columns: How many columns it spans.
        rows: How many rows it spans.
        key: Place where it was written: the same in each place that it fills.
    """

    text: str = ""
    is_name: bool = False
    columns: int = 1
    rows: int = 1
    key: tuple[int, int] = (-1, -1)


@dataclass(frozen=True, slots=True)
class TableText:
    """A table as paragraphs.

    Attributes:
        titles: Rows above the column names that span the whole table.
        names: Names of the columns; empty where it has none.
        rows: Paragraphs, in order.
    """

    titles: Sequence[str] = ()
    names: Sequence[str] = ()
    rows: Sequence[str] = field(default_factory=tuple)

    @property
    def header(self) -> str:
        """The column names in one line."""
        return "; ".join(filter(None, self.names))


def fill_spans(rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    """Rows in which a cell stands in each place that it spans, until there are a million cells.

    Example:
        >>> rows = fill_spans([[Cell("a", rows=2), Cell("b")], [Cell("c")]])
        >>> [[cell.text for cell in row] for row in rows]
        [['a', 'b'], ['a', 'c']]
    """
    filled: list[list[Cell]] = []
    # column -> rows that are left, and the cell that reaches into them
    above: dict[int, tuple[int, Cell]] = {}
    left = _MOST_CELLS
    for number, row in enumerate(rows):
        line: list[Cell] = []
        for place, cell in enumerate(row):
            _carry(line, above)
            one = replace(cell, key=(number, place))
            for _ in range(max(1, min(cell.columns, _WIDEST, left - len(line)))):
                if cell.rows > 1:
                    above[len(line)] = (min(cell.rows, len(rows) - number), one)
                line.append(one)
        _carry(line, above)
        left -= len(line)
        above = {at: (rest - 1, cell) for at, (rest, cell) in above.items() if rest > 1 and left > 0}
        filled.append(line)
    return filled


def _carry(line: list[Cell], above: dict[int, tuple[int, Cell]]) -> None:
    """Append the cells of rows above that reach into the next places of this one."""
    while reaching := above.get(len(line)):
        line.append(reaching[1])


def table_text(rows: Sequence[Sequence[Cell]], limit: SizeLimit = DEFAULT_LIMIT) -> TableText:
    """Paragraphs of a table whose spans are filled.

    Whether its first rows are the names of its columns is decided by their look. A table of two columns without marks
    is pairs of key and value, since nothing tells a head from a first pair.

    Args:
        rows: Cells; see `fill_spans`.
        limit: What the paragraphs may come to: names stand in each of them.

    Raises:
        IngestError: The paragraphs are longer than `limit`.

    Example:
        >>> head = [Cell("", True), Cell("2024", True)]
        >>> table_text([head, [Cell("Revenue"), Cell("7.2")]]).rows
        ['Revenue; 2024: 7.2']
        >>> table_text([[Cell("Founded", True), Cell("1987")], [Cell("Seat", True), Cell("Ulm")]]).rows
        ['Founded: 1987', 'Seat: Ulm']
    """
    body = _without_blanks([_with_signs(row) for row in rows])
    titles: list[str] = []
    while len(body) > 1 and len(body[0]) > 1 and (title := _spanning(body[0])):
        titles.append(title)
        body = body[1:]
    count = _name_rows(body)
    names = _names(body[:count], max(map(len, body), default=0))
    paragraphs = itertools.chain(_paragraphs(body[count:], names), _unused(body[count:], names))
    return TableText(titles, names, list(limit.texts(paragraphs)))


def _with_signs(row: Sequence[Cell]) -> Sequence[Cell]:
    """A row whose currency signs and brackets in cells of their own, as filings have them, are put to their figures."""
    if not any(cell.text in _OPENS or cell.text in _CLOSES for cell in row):
        return row
    cells, sign = list(row), ""
    for at, cell in enumerate(row):
        if cell.text in _OPENS:
            sign += cell.text
            cells[at] = replace(cell, text="")
        elif cell.text in _CLOSES and (
            before := next((n for n in range(at - 1, -1, -1) if cells[n].text), 0)
        ):
            cells[before] = replace(cells[before], text=cells[before].text + cell.text)
            cells[at] = replace(cell, text="")
        elif cell.text and sign:
            cells[at], sign = replace(cell, text=sign + cell.text), ""
    return row if sign else cells


def _without_blanks(rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    """Rows and columns that hold a text."""
    kept = [row for row in rows if any(cell.text for cell in row)]
    used = {at for row in kept for at, cell in enumerate(row) if cell.text}
    return [[cell for at, cell in enumerate(row) if at in used] for row in kept]


def _spanning(row: Sequence[Cell]) -> str:
    """Text of a row that is one cell over all columns, or empty."""
    first = row[0]
    return first.text if first.key[0] >= 0 and all(cell.key == first.key for cell in row) else ""


def _name_rows(rows: Sequence[Sequence[Cell]]) -> int:
    marked = len(list(itertools.takewhile(lambda row: _is_all_names(row) and not _only_text(row), rows)))
    if 0 < marked < len(rows):
        return marked
    if marked:
        return 0
    return 2 if _looks_like_groups(rows) else int(_looks_like_names(rows))


def _is_all_names(row: Sequence[Cell]) -> bool:
    return all(cell.is_name or not cell.text for cell in row)


def _looks_like_groups(rows: Sequence[Sequence[Cell]]) -> bool:
    """A first row of cells that span columns, below it different names within each, and figures below these."""
    if (
        len(rows) < 3
        or len({len(row) for row in rows[:3]}) > 1
        or any(cell.is_name for row in rows for cell in row)
    ):
        return False
    groups, names, below = rows[:3]
    spans = [one.key for one, other in itertools.pairwise(groups) if one.text and one.key == other.key]
    pairs = [(group.text, name.text) for group, name in zip(groups, names, strict=True)]
    figures = [name.text for name in names if _FIGURE.match(name.text) and not _YEAR.fullmatch(name.text)]
    return (
        bool(spans)
        and not figures
        and all(one.key != other.key for one, other in itertools.pairwise(names))
        and all(name.text and len(name.text) <= _LONGEST_NAME for name in names[1:])
        and len(set(pairs)) == len(pairs)
        and all(_FIGURE.match(cell.text) for cell in below[1:] if cell.text)
    )


def _looks_like_names(rows: Sequence[Sequence[Cell]]) -> bool:
    """A first row of different short texts; figures among them are years, one for each column but the first or two."""
    if len(rows) < 2 or len(rows[0]) < 3 or any(cell.is_name for row in rows for cell in row):
        return False
    texts = [cell.text for cell in rows[0]]
    years = sum(bool(_YEAR.fullmatch(text)) for text in texts)
    figures = sum(bool(_FIGURE.match(text)) for text in texts) - years
    return (
        all(texts[1:])
        and len(set(texts)) == len(texts)
        and all(len(text) <= _LONGEST_NAME for text in texts)
        and not figures
        and years in (0, len(texts) - 1, len(texts) - 2)
    )


def _names(rows: Sequence[Sequence[Cell]], width: int) -> list[str]:
    """Column names; those of several rows joined, each once."""
    if not rows:
        return []
    columns = ([row[at].text for row in rows if at < len(row)] for at in range(width))
    return [" ".join(dict.fromkeys(filter(None, texts))) for texts in columns]


def _paragraphs(rows: Sequence[Sequence[Cell]], names: Sequence[str]) -> Iterator[str]:
    group = ""
    for row, after in itertools.zip_longest(rows, rows[1:]):
        one = _only_text(row)
        if one and len(one) <= _LONGEST_NAME and after is not None and not _only_text(after):
            group = one
        elif one:
            yield one
        elif names and len(row) > 1 and _is_all_names(row):
            if (new := _names([row], len(row))) != list(names):  # not the same again, as after a page break
                names, group = new, ""
        else:
            yield from _row(row, names, group)


def _unused(rows: Sequence[Sequence[Cell]], names: Sequence[str]) -> Iterator[str]:
    """Names of columns without a cell, as of a form to fill in: no row says them."""
    used = {at for row in rows for at, cell in enumerate(row) if cell.text}
    said = {name for at, name in enumerate(names) if at in used}
    if left := [name for name in dict.fromkeys(names) if name and name not in said]:
        yield "; ".join(left)


def _only_text(row: Sequence[Cell]) -> str:
    """Text of a row that is one cell over all columns of several, or empty."""
    return _spanning(row) if len(row) > 1 else ""


def _row(row: Sequence[Cell], names: Sequence[str], group: str) -> Iterator[str]:
    """A row; one too long for a chunk is several paragraphs that each begin with its first cell."""
    parts = list(_named(row, names) if names else _paired(row))
    lines, line = list[str](), group
    label = "; ".join(filter(None, (group, parts[0] if parts else "")))
    for part in parts:
        if line and len(line) + len(part) > _LONGEST_ROW and line != label:
            lines.append(line)
            line = label if len(label) <= _LONGEST_ROW // 3 else ""
        line = f"{line}; {part}" if line else part
    yield from filter(None, (*lines, line))


def _named(row: Sequence[Cell], names: Sequence[str]) -> Iterator[str]:
    for _, places in itertools.groupby(range(len(row)), key=lambda at: _own_key(row, at)):
        same = list(places)
        text = row[same[0]].text
        if not text:
            continue
        titles = list(dict.fromkeys(filter(None, (names[at] for at in same if at < len(names)))))
        if len(titles) > 1 and len(text) > _LONGEST_REPEATED:
            titles = [" / ".join(titles)]
        yield from (
            (text if title == text else f"{title}: {text}" for title in titles or [""]) if titles else [text]
        )


def _own_key(row: Sequence[Cell], at: int) -> object:
    """The same for neighbours that one cell spans."""
    return row[at].key if row[at].text and row[at].key[0] >= 0 else at


def _paired(row: Sequence[Cell]) -> Iterator[str]:
    """Cells without column names: the name of a row stands before its cell, as does the first of two."""
    places = (next(same) for _, same in itertools.groupby(range(len(row)), key=lambda at: _own_key(row, at)))
    cells = [row[at] for at in places if row[at].text]
    pairs = len(row) == 2 and len(cells) == 2 and len(cells[0].text) <= _LONGEST_NAME
    name = ""
    for place, cell in enumerate(cells):
        names_next = place + 1 < len(cells) and not cells[place + 1].is_name
        if names_next and (cell.is_name or (pairs and not place)):
            if name:
                yield name
            name = cell.text
        else:
            yield f"{name.rstrip(' :')}: {cell.text}" if name else cell.text
            name = ""


def in_one_line(text: str) -> str:
    """Lines of a cell as one, separated by commas where no other mark ends them.

    Example:
        >>> in_one_line("open\\n 9 to 5:\\nMonday")
        'open, 9 to 5: Monday'
    """
    joined = ""
    for line in filter(None, (" ".join(one.split()) for one in text.split("\n"))):
        bare = not joined or line[0] in ",.;:!?)"
        joined += ("" if bare else " " if joined.endswith(_END_OF_PART) else ", ") + line
    return joined


def mark_bold(cells: list[list[Cell]], is_bold: Callable[[int, int], bool]) -> list[list[Cell]]:
    """Names that are marked by bold type alone: all of the first row and no other, or of the first column.

    Args:
        cells: Of each row.
        is_bold: Of the numbers of a row and a column, whether the cell is in bold type.
    """
    if len(cells) < 2 or any(cell.is_name for row in cells for cell in row):
        return cells
    bold = [
        [not cell.text or is_bold(row, column) for column, cell in enumerate(own)]
        for row, own in enumerate(cells)
    ]
    filled = [(row, marks) for row, marks in zip(cells, bold, strict=True) if any(cell.text for cell in row)]
    marks = [of_row for _, of_row in filled]
    if len(marks) > 1 and all(marks[0]) and not any(map(all, marks[1:-1] or marks[1:])):
        return [[replace(cell, is_name=row is filled[0][0]) for cell in row] for row in cells]
    if all(of_row[0] and not all(of_row[1:]) for of_row in marks if len(of_row) > 1):
        return [[replace(cell, is_name=not place) for place, cell in enumerate(row)] for row in cells]
    return cells
