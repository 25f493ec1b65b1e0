"""Sheets of an OpenDocument spreadsheet: cells, comments, and the charts and boxes above the cells."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, Final, cast

from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.readers.office.packages import attribute, local_name, parse_xml
from llama_index_presets.ingest.readers.office.sheets import Sheet
from llama_index_presets.ingest.readers.tables import Cell

__all__ = ["count_of", "sheet_of_table"]

_WIDEST: Final = 16_384  # columns of a sheet
_MOST_REPEATED: Final = 1_000  # copies of a row with content
_NOT_ON_SCREEN: Final = ("none", "printer")
_EACH_CELL: Final = 8  # characters that a cell counts for beside its text
_NUMBERS: Final = frozenset({"float", "percentage", "currency", "date", "time"})


@dataclass(frozen=True, slots=True)
class _Figures:
    """Places (row, column) of numbers; repeated rows share one set, or a small file would make billions of places."""

    rows: list[frozenset[int]]

    def __contains__(self, place: object) -> bool:
        row, column = cast(tuple[int, int], place)
        return row < len(self.rows) and column in self.rows[row]


def sheet_of_table(
    table: Any, archive: zipfile.ZipFile, hidden_styles: Set[str], unread: set[str], limit: SizeLimit
) -> Sheet:
    """A table of a spreadsheet.

    Args:
        table: The element.
        archive: The file, which holds the charts.
        hidden_styles: Names of the styles of sheets that are not shown.
        unread: Parts that may be read, from which those that are read are taken.
        limit: What the cells may expand to.

    Raises:
        IngestError: Repeated cells come to more than the limit.
    """
    rows, numbers, notes, characters = list[list[Cell]](), list[frozenset[int]](), list[str](), 0
    for at, row in enumerate(table.iter()):
        if local_name(row.tag) != "table-row":
            continue
        cells, figures, comments = _cells(row, at)
        times = count_of(row, "number-rows-repeated", _MOST_REPEATED if cells else 2)
        notes += (f"Comment on {_column(place)}{len(rows) + 1}: {text}" for place, text in comments)
        characters += times * sum(len(cell.text) + _EACH_CELL for cell in cells)
        limit.check_text(characters)
        rows += [cells] * times
        numbers += [frozenset(figures)] * times
    notes += filter(None, _drawn(table, archive, unread))
    return Sheet(
        attribute(table, "name"),
        rows,
        _Figures(numbers),
        notes,
        attribute(table, "style-name") in hidden_styles,
    )


def count_of(element: Any, name: str, most: int) -> int:
    """A number of an element, such as of repetitions; 1 where it states none."""
    text = attribute(element, name)
    return min(int(text), most) if text.isdecimal() and len(text) < 9 else 1


def _cells(row: Any, at: int) -> tuple[list[Cell], list[int], list[tuple[int, str]]]:
    """Cells of a row, places of those that hold a number, and places of comments with their texts."""
    cells, blanks = list[Cell](), 0
    figures, comments = list[int](), list[tuple[int, str]]()
    for cell in row:
        if local_name(cell.tag) not in ("table-cell", "covered-table-cell"):
            continue
        text = _paragraphs(cell)
        place = len(cells) + blanks
        times = count_of(cell, "number-columns-repeated", max(_WIDEST - place, 1))
        comments += (
            (place, said)
            for one in cell
            if local_name(one.tag) == "annotation" and (said := _paragraphs(one))
        )
        if text:
            cells += [Cell()] * blanks
            if attribute(cell, "value-type") in _NUMBERS:
                figures += range(place, place + times)
            cells += [Cell(text, key=(at, place + n)) for n in range(times)]
        blanks = 0 if text else blanks + times
    return cells, figures, comments


def _paragraphs(element: Any) -> str:
    texts = (" ".join("".join(one.itertext()).split()) for one in element if local_name(one.tag) == "p")
    return " ".join(filter(None, texts))


def _column(place: int) -> str:
    """Letters of a column, from 0 for A."""
    letters = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _drawn(element: Any, archive: zipfile.ZipFile, unread: set[str]) -> Iterator[str]:
    """Texts of the charts and boxes that stand above the cells, without those that are hidden."""
    for one in element:
        name = local_name(one.tag)
        if attribute(one, "display") in _NOT_ON_SCREEN:
            continue
        if name == "object":
            part = f"{attribute(one, 'href').removeprefix('./').rstrip('/')}/content.xml"
            if part in unread:
                unread.remove(part)  # each once: a small file could name one of a megabyte thousands of times
                titles = (
                    _paragraphs(title)
                    for title in parse_xml(archive.read(part)).iter()
                    if local_name(title.tag) in ("title", "subtitle")
                )
                texts = list(dict.fromkeys(filter(None, titles)))
                yield f"Chart: {'; '.join(texts)}" if texts else ""
        elif name in ("text-box", "custom-shape", "rect", "ellipse"):
            yield _paragraphs(one)
        else:
            yield from _drawn(one, archive, unread)
