"""Sheets of an OpenDocument spreadsheet: cells, comments, and the charts and boxes above the cells."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Set
from typing import Any, Final

from llama_index_presets.ingest.readers.office.packages import attribute, local_name, parse_xml
from llama_index_presets.ingest.readers.office.sheets import Sheet
from llama_index_presets.ingest.readers.tables import Cell

__all__ = ["count_of", "sheet_of_table"]

_WIDEST: Final = 16_384  # columns of a sheet
_MOST_REPEATED: Final = 1_000  # copies of a row with content
_NUMBERS: Final = frozenset({"float", "percentage", "currency", "date", "time"})


def sheet_of_table(table: Any, archive: zipfile.ZipFile, hidden_styles: Set[str]) -> Sheet:
    """A table of a spreadsheet.

    Args:
        table: The element.
        archive: The file, which holds the charts.
        hidden_styles: Names of the styles of sheets that are not shown.
    """
    rows, numbers, notes = list[list[Cell]](), set[tuple[int, int]](), list[str]()
    for at, row in enumerate(table.iter()):
        if local_name(row.tag) != "table-row":
            continue
        cells, figures, comments = _cells(row, at)
        times = count_of(row, "number-rows-repeated", _MOST_REPEATED if cells else 2)
        notes += (f"Comment on {_column(place)}{len(rows) + 1}: {text}" for place, text in comments)
        for _ in range(times):
            numbers |= {(len(rows), place) for place in figures}
            rows.append(cells)
    notes += filter(None, _drawn(table, archive))
    return Sheet(
        attribute(table, "name"),
        rows,
        frozenset(numbers),
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


def _drawn(table: Any, archive: zipfile.ZipFile) -> Iterator[str]:
    """Texts of the charts and boxes that stand above the cells."""
    charts = set(archive.namelist())
    for one in table.iter():
        name = local_name(one.tag)
        if name == "object":
            part = f"{attribute(one, 'href').removeprefix('./').rstrip('/')}/content.xml"
            if part in charts:
                charts.remove(part)  # each once: a small file could name one of a megabyte thousands of times
                titles = (
                    _paragraphs(title)
                    for title in parse_xml(archive.read(part)).iter()
                    if local_name(title.tag) in ("title", "subtitle")
                )
                texts = list(dict.fromkeys(filter(None, titles)))
                yield f"Chart: {'; '.join(texts)}" if texts else ""
        elif name in ("text-box", "custom-shape", "rect", "ellipse"):
            yield _paragraphs(one)
