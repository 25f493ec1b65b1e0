"""Plain text, and every ending that no reader knows, with its tables in columns of fixed width.

Headings are those that are numbered: "4.2 Error codes" on a line of its own between blank lines.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_presets.ingest.chunking.long_text import TextInParts, is_long, long_text
from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import about_head_lines
from llama_index_presets.ingest.plain_text import Mark, PlainText, TableSpan, is_table_caption
from llama_index_presets.ingest.readers.encoding import read_text_file, utf8_start

if TYPE_CHECKING:
    from llama_index_presets.ingest.readers.pdf.lines import Line
    from llama_index_presets.ingest.readers.pdf.tables import Table

__all__ = ["numbered_headings", "read_text", "with_tables"]

_TOP: Final = 100_000  # bytes; more than the lines that say something of a document may have
_NEXT_FIGURE: Final = r"(?: {2}|\t)\s*+[$€£(-]*+\s*+\d"  # behind a gap
_FIGURES: Final = re.compile(rf"\S{_NEXT_FIGURE}[\d.,]*+[%)]*+{_NEXT_FIGURE}")
_RULE: Final = re.compile(
    r"(?=.*(?:[-=_]{3}|<[sc]>))(?:[-=_+|: ]|</?(?:table|caption|[sc])>)++\s*+", re.IGNORECASE
)
_TAG: Final = re.compile(r"\s*</?(?:table|caption|page)>\s*", re.IGNORECASE)
_DOTS: Final = re.compile(r"(?<=\S)(?: ?\.){3,}(?=\s)")
_BAR: Final = re.compile(r"(?<!\S)\|(?!\S)")
_APART: Final = re.compile(r"(?<![$€£(])([$€£(]++)( ++)(?=[\d(])")
_CELL: Final = re.compile(r"\S+(?: \S+)*")
_WORD: Final = re.compile(r"\S+")
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
_CODE: Final = re.compile(r"[{}<>=;\\]|\(\)|[-_]{3}|^\W+$")
_TWO_FIGURES: Final = re.compile(r"\d[)%]* [-+$€£(]*\d")  # columns that one space separates
_LONGEST_NAME: Final = 60  # characters
_MOST_ABOVE: Final = 8  # lines
_FARTHEST: Final = 7  # lines between two rows of a table
_LETTER: Final = 7.2  # points, as of a typewriter
_LINE: Final = 12.0
_FEWEST_ROWS: Final = 3
_HEADING: Final = re.compile(
    r"(?:\A|(?<=\n\n))[ \t]{0,3}(?P<number>\d{1,2}(?:\.\d{1,2}){0,4})\.?[ \t]{1,4}"
    r"(?P<title>[\dA-Z\"“(][^\n]{1,70})(?=\n[ \t]*\n)"
)
_ENDS_A_SENTENCE: Final = tuple(".,;:!?…")
_CONTENTS: Final = re.compile(r"\.{3}|\. \. |[ \t]{3,}\d+$")  # a line of a table of contents
_FURTHEST: Final = 3
"""Numbers that may be missing between two headings of a level."""


def read_text(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a file as it is, and the ``Title: …`` lines at its top; a long file is read part by part.

    In a file of less than 2 MB each cell of a table whose columns have names stands with them, and numbered headings
    count as such.
    """
    limit.check_file(path)
    if is_long(path) and (found := _long_text(path)):
        return found
    decoded = read_text_file(path, limit)
    plain = with_tables(plain_from_text(decoded.text).text)
    headed = replace(plain, headings=numbered_headings(plain.text))
    return decoded.of(headed), about_head_lines(decoded.text)


def _long_text(path: Path) -> tuple[TextInParts, dict[str, Any]] | None:
    """A long file in UTF-8 that declares no other encoding; None for any other, which is decoded as a whole."""
    start = utf8_start(path)
    if start is None:
        return None
    with path.open("rb") as file:
        file.seek(start[0])
        top = file.read(_TOP)
    plain = long_text(path, *start)
    return (plain, about_head_lines(top.decode("utf-8", "ignore"))) if plain else None


def with_tables(text: str) -> PlainText:
    """Text in which the rows of tables in columns of fixed width name their columns; all else stays as it is.

    A table is three rows of two figures and more, below names of these columns.

    Example:
        >>> rows = ["Item    High   Low", "Pumps   12.5  10.1", "Valves  13.0  11.0", "Seals   14.2  12.0"]
        >>> plain = with_tables("\\n".join(rows))
        >>> plain.text.split("\\n\\n")[0], plain.tables[0].name
        ('Item: Pumps; High: 12.5; Low: 10.1', 'Table 1')
    """
    lines = text.split("\n")
    spaced = [_BAR.sub(" ", line) for line in lines] if "|" in text else lines
    written, tables, length, place = list[str](), list[TableSpan](), 0, 0
    for start, end, table in _tables(spaced):
        caption = next((line for line in reversed(lines[max(place, start - 3) : start]) if line.strip()), "")
        name = caption.strip() if is_table_caption(caption.strip()) else f"Table {len(tables) + 1}"
        before = "\n".join([*lines[place:start], ""]) + "\n" * (start > 0)
        rows = "\n\n".join(row for row, _ in table.rows())
        tables.append(TableSpan(length + len(before), length + len(before) + len(rows), name))
        written += [before, rows, "\n\n"]
        length += len(before) + len(rows) + 2
        place = end
    return PlainText("".join([*written, "\n".join(lines[place:])]), tables=tables)


def _tables(lines: Sequence[str]) -> Iterator[tuple[int, int, Table]]:
    """First line of each table, the one behind its last, and the table."""
    if sum(1 for line in lines if _FIGURES.search(line)) < _FEWEST_ROWS:
        return
    from llama_index_presets.ingest.readers.pdf.tables import aligned_tables

    for stretch in _stretches(lines):
        for table in aligned_tables([_line(number, lines[number]) for number in stretch])[0]:
            if _is_certain(table):
                start, end = (round(edge / _LINE) for edge in (table.box[1], table.box[3]))
                while start and _is_rule(lines[start - 1]):
                    start -= 1
                while end < len(lines) and _is_rule(lines[end]):
                    end += 1
                yield start, end, table


def _stretches(lines: Sequence[str]) -> Iterator[list[int]]:
    """Numbers of lines that may be a table: rows of figures, what stands between them, and the paragraph above."""
    rows = [number for number, line in enumerate(lines) if _FIGURES.search(line)]
    first = 0
    for row, below in itertools.pairwise([*rows, len(lines) + _FARTHEST]):
        first = first or row + 1
        if below - row < _FARTHEST:
            continue
        above = first - 1
        while above and first - above <= _MOST_ABOVE and (lines[above - 1].strip() or above == first - 1):
            above -= 1
        yield [
            number
            for number in range(above, row + 1)
            if lines[number].strip() and not _is_rule(lines[number])
        ]
        first = 0


def _is_rule(line: str) -> bool:
    return bool(_RULE.fullmatch(line) or _TAG.fullmatch(line))


def _line(number: int, text: str) -> Line:
    """A line as of a page, cut into cells at two spaces and more; an amount takes its sign to itself."""
    from llama_index_presets.ingest.readers.pdf.lines import Cell, Line
    from llama_index_presets.ingest.readers.pdf.word import Word

    text = _DOTS.sub(lambda dots: " " * len(dots[0]), text.expandtabs())
    text = _APART.sub(lambda apart: apart[2] + apart[1], text)
    baseline = (number + 0.85) * _LINE
    words = [
        Word(one[0], one.start() * _LETTER, one.end() * _LETTER, baseline, _LINE)
        for one in _WORD.finditer(text)
    ]
    cells = [Cell(one[0], one.start() * _LETTER, one.end() * _LETTER) for one in _CELL.finditer(text)]
    return Line(words, cells=cells)


def _is_certain(table: Table) -> bool:
    """Whether rows of figures stand below names of their columns: prose, code and drawings do not."""
    from llama_index_presets.ingest.readers.pdf.lines import is_figure

    names, heads = table.header()
    rows = [row.cells for row in table.body[heads:] if row.filled > 1]
    figures = [cells for cells in rows if cells[0] and sum(map(is_figure, filter(None, cells[1:]))) >= 2]
    columns = {
        place for cells in figures for place, cell in enumerate(cells) if place and is_figure(cell or "x")
    }
    given = [name for name in names if name]
    return (
        _FEWEST_ROWS <= len(figures) >= 0.6 * len(rows)
        and len(columns) >= 2
        and all(names and _is_name(names[place]) for place in columns)
        and not any(_CODE.search(name) for name in given)
        and len(set(given)) == len(given)
        and max(map(len, given)) <= _LONGEST_NAME
        and not any(_TWO_FIGURES.search(cell) for cells in rows for cell in cells[1:])
    )


def _is_name(text: str) -> bool:
    """Whether a text names a column of figures: words or a year, no figures."""
    from llama_index_presets.ingest.readers.pdf.lines import is_figure

    words = [word for word in text.split() if not _YEAR.fullmatch(word)]
    return any(map(str.isalnum, text)) and not (words and all(map(is_figure, words)))


class _Heading(NamedTuple):
    start: int
    number: tuple[int, ...]
    text: str


def numbered_headings(text: str) -> Sequence[Mark]:
    """Where the sections of a text begin whose headings count on: 1, 2, 2.1, 2.2, 3; none where it has no such ones.

    A list of numbered lines has no number of several parts. Of several texts in one file the longest has its headings,
    unless more than half of it stands below the last one: that is another text, whose headings are not numbered.

    Args:
        text: Plain text with ``"\\n"`` at line ends.

    Returns:
        Offsets of the headings, which stay in the text, and their paths.

    Example:
        >>> lines = ["1 Scope", "All of it.", "2 Use", "2.1 At home", "Plug it in.", "2.2 Abroad", "Take an adapter."]
        >>> [label for _, label in numbered_headings("\\n\\n".join(lines))]
        ['1 Scope', '2 Use', '2 Use > 2.1 At home', '2 Use > 2.2 Abroad']
    """
    runs = _runs(text)
    starts = [run[0].start for run in runs]
    known = [
        (end - start, run)
        for run, start, end in zip(runs, starts, [*starts[1:], len(text)], strict=False)
        if len(run) > 2
        and any(len(one.number) > 1 for one in run)
        and (end - run[-1].start) * 2 < end - start
    ]
    return _paths(max(known)[1]) if known else ()


def _runs(text: str) -> list[list[_Heading]]:
    """Headings that count on, each run from a first number on; a table of contents is a run of its own."""
    runs: list[list[_Heading]] = []
    for found in _HEADING.finditer(text):
        title = found["title"].strip()
        if title.endswith(_ENDS_A_SENTENCE) or _CONTENTS.search(title) or not re.search("[A-Za-z]{2}", title):
            continue
        number = tuple(map(int, found["number"].split(".")))
        one = _Heading(found.start(), number, f"{found['number']} {' '.join(title.split())}")
        if number in ((0,), (1,)) and (not runs or runs[-1][-1].number != (0,)):
            runs.append([one])
        elif runs and _follows(runs[-1][-1].number, number):
            runs[-1].append(one)
    return runs


def _follows(last: tuple[int, ...], number: tuple[int, ...]) -> bool:
    """Whether a number may be the next one: of the next part, or one that is a little larger on its level or above."""
    level = next((place for place, (a, b) in enumerate(zip(last, number, strict=False)) if a != b), None)
    if level is None:
        return len(number) > len(last) and max(number[len(last) :]) <= _FURTHEST
    return 0 < number[level] - last[level] <= _FURTHEST and all(
        part <= _FURTHEST for part in number[level + 1 :]
    )


def _paths(run: Sequence[_Heading]) -> list[Mark]:
    marks: list[Mark] = []
    above: list[_Heading] = []
    for one in run:
        while above and one.number[: len(above[-1].number)] != above[-1].number:
            above.pop()
        above.append(one)
        marks.append((one.start, " > ".join(part.text for part in above)))
    return marks
