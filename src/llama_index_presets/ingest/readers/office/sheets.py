"""Spreadsheets: a sheet is a page, its tables stand between blank rows and columns, cells are as they are shown."""

from __future__ import annotations

import io
import itertools
import re
import warnings
import zipfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.clean import without_controls
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText, TableSpan
from llama_index_presets.ingest.readers.office.number_formats import shown
from llama_index_presets.ingest.readers.office.packages import (
    OLD_OFFICE,
    check_package,
    core_properties,
    is_encrypted,
)
from llama_index_presets.ingest.readers.office.sheet_drawings import (
    WITHOUT_RESULT,
    drawing_lines,
    links_without_result,
    sheet_parts,
)
from llama_index_presets.ingest.readers.parts import joined_parts
from llama_index_presets.ingest.readers.tables import Cell, table_text
from llama_index_presets.packages.extras import require

__all__ = ["Sheet", "plain_from_sheets", "read_xls", "read_xlsb", "read_xlsx"]

_LONGEST_NAME: Final = 120  # characters of a column's name
_NO_RESULT: Final = re.compile(WITHOUT_RESULT)
_PASSWORD: Final = "The file has a password. Save it without one."
_WITHOUT_FORMATS: Final = "Its numbers and dates are as stored, not as shown ({reason})."


@dataclass(frozen=True, slots=True)
class Sheet:
    """One sheet.

    Attributes:
        name: On its tab.
        rows: Cells from the first column on; rows may differ in length.
        numbers: Places (row, column) of the cells that hold a number or a date.
        notes: Comments, each with the address of its cell, and texts of charts and boxes above the cells.
        hidden: Whether who opens the file does not see it.
    """

    name: str
    rows: Sequence[Sequence[Cell]]
    numbers: Container[tuple[int, int]] = frozenset()
    notes: Sequence[str] = ()
    hidden: bool = False


def read_xlsx(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Sheets of an Excel workbook, cells as they are shown.

    Raises:
        IngestError: It has a password, is no workbook, or expands beyond `limit`.
    """
    with path.open("rb") as file:
        if file.read(8) == OLD_OFFICE and not is_encrypted(path):  # an old workbook under a new name
            return read_xls(path, limit)
    check_package(path, limit, "Excel")
    with zipfile.ZipFile(path) as archive:
        about = core_properties(archive)
    openpyxl = require("openpyxl", extra="readers-all")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pictures and extensions, which hold no cells
            book = openpyxl.load_workbook(path, data_only=True)
    except Exception as error:
        # it refuses styles and filters that Excel opens; the values are there all the same
        return _values_alone(path, limit, f"{type(error).__name__} of openpyxl"), about
    if not book.worksheets:  # it does not follow every kind of path to a sheet
        return _values_alone(path, limit, "openpyxl finds no sheet"), about
    with zipfile.ZipFile(path) as archive:
        parts, warned, unread = sheet_parts(archive), _write_links(book, archive), set(archive.namelist())
        sheets = (
            _of_openpyxl(
                book[name], limit, drawing_lines(archive, parts[name], unread) if name in parts else []
            )
            for name in book.sheetnames
        )
        plain = plain_from_sheets(sheets, limit)
    return replace(plain, warnings=(*plain.warnings, *warned)), about


def _write_links(book: Any, archive: zipfile.ZipFile) -> list[str]:
    """Write texts of links into the cells whose formula was never computed, and warn of the other such cells."""
    count = 0
    for name, part in sheet_parts(archive).items():
        raw = archive.read(part)
        missing = len(_NO_RESULT.findall(raw))
        cells = getattr(book[name], "_cells", {}) if name in book.sheetnames else {}
        for at, text in (links_without_result(raw) if missing else {}).items():
            words = text if isinstance(text, str) else getattr(cells.get(text), "value", None)
            if words is not None and hasattr(cells.get(at), "internal_value"):  # not under a merged cell
                cells[at].value = words
                missing -= 1
        count += missing
    held = counted(count, "cell", "hold")
    advice = "Open the file in a spreadsheet program and save it."
    return [f"{held} formulas without a result. {advice}"] if count else []


def read_xlsb(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Sheets of a binary Excel workbook, with their values as they are stored."""
    check_package(path, limit, "Excel")
    return _values_alone(path, limit, "the format is xlsb"), {}


def read_xls(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Sheets of an Excel workbook from before 2007, cells as they are shown."""
    limit.check_file(path)
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":  # a new workbook under an old name
            return read_xlsx(path, limit)
    xlrd = require("xlrd", extra="readers-all")
    if is_encrypted(path):
        raise IngestError(_PASSWORD)
    try:
        book = xlrd.open_workbook(path, formatting_info=True, ragged_rows=True, logfile=io.StringIO())
    except Exception as error:  # it asserts what some writers do not keep to
        if "encrypted" in str(error).lower():
            raise IngestError(_PASSWORD) from error
        return _values_alone(path, limit, f"{type(error).__name__} of xlrd"), {}
    sheets = (_of_xlrd(xlrd, book, sheet, limit) for sheet in book.sheets())
    return plain_from_sheets(sheets, limit), {}


def _of_openpyxl(sheet: Any, limit: SizeLimit, above: Sequence[str]) -> Sheet:
    hidden = getattr(sheet, "sheet_state", "visible") != "visible"
    if not hasattr(sheet, "_cells"):  # a sheet that is a chart
        return Sheet(str(sheet.title), [], notes=above, hidden=hidden)
    merged = {
        (row, column): (area.min_row, area.min_col)
        for area in sheet.merged_cells.ranges
        for row, column in itertools.islice(
            itertools.product(range(area.min_row, area.max_row + 1), range(area.min_col, area.max_col + 1)),
            10_000,
        )
    }
    rows, numbers, notes = list[list[Cell]](), set[tuple[int, int]](), list[str]()
    last = characters = 0
    for row, width in _used_rows(sheet, merged):
        if last and row > last + 1:
            rows.append([])  # one blank row cuts tables as a million of them do
        last = row
        cells = list[Cell]()
        for one in next(sheet.iter_rows(min_row=row, max_row=row, max_col=width)):
            at = (one.row, one.column)
            source = sheet.cell(*merged[at]) if at in merged else one
            if not isinstance(source.value, str | bool | None):
                numbers.add((len(rows), len(cells)))
            text = without_controls(shown(source.value, source.number_format or "General"))
            cells.append(Cell(text, key=merged.get(at, at)))
            characters += len(text)
            limit.check_text(characters)  # many cells may share one long text
            if getattr(one, "comment", None):
                notes.append(f"Comment on {one.coordinate}: {_comment(one.comment.text)}")
        rows.append(cells)
    return Sheet(str(sheet.title), rows, frozenset(numbers), [*notes, *above], hidden)


def _used_rows(sheet: Any, merged: Mapping[tuple[int, int], tuple[int, int]]) -> list[tuple[int, int]]:
    """Rows that hold a value or a comment, each with the last column that does; others may go on for a million."""
    widths: dict[int, int] = {}
    cells = sheet._cells  # the public ways make every cell up to the last one
    for (row, column), cell in cells.items():
        source = cells.get(merged.get((row, column), (row, column)), cell)
        if getattr(source, "value", None) is not None or getattr(cell, "comment", None):
            widths[row] = max(widths.get(row, 0), column)
    return sorted(widths.items())


def _comment(text: Any) -> str:
    """A comment without what Excel writes into it for its older versions."""
    words = " ".join(str(text).split())
    return words.partition(" Comment: ")[2] if words.startswith("[Threaded comment]") else words


def _of_xlrd(xlrd: Any, book: Any, sheet: Any, limit: SizeLimit) -> Sheet:
    merged = {
        (row, column): (top, left)
        for top, bottom, left, right in sheet.merged_cells
        for row, column in itertools.islice(itertools.product(range(top, bottom), range(left, right)), 10_000)
    }
    rows, numbers, characters = list[list[Cell]](), set[tuple[int, int]](), 0
    for row in range(sheet.nrows):
        cells = list[Cell]()
        for column in range(sheet.row_len(row)):
            at = merged.get((row, column), (row, column))
            value, is_number = _xls_value(xlrd, book, sheet, *at)
            if is_number:
                numbers.add((row, column))
            cells.append(Cell(without_controls(value), key=at))
            characters += len(value)
            limit.check_text(characters)
        rows.append(cells)
    return Sheet(str(sheet.name), rows, frozenset(numbers), hidden=bool(getattr(sheet, "visibility", 0)))


def _xls_value(xlrd: Any, book: Any, sheet: Any, row: int, column: int) -> tuple[str, bool]:
    """A cell as it is shown, and whether it is a number or a date."""
    cell = sheet.cell(row, column)
    form = book.format_map.get(book.xf_list[cell.xf_index].format_key) if cell.xf_index is not None else None
    code = (form.format_str if form is not None else "") or "General"
    if cell.ctype == xlrd.XL_CELL_DATE:
        try:
            return shown(xlrd.xldate_as_datetime(cell.value, book.datemode), code), True
        except (xlrd.XLDateError, OverflowError, ValueError):
            return shown(cell.value), True
    if cell.ctype == xlrd.XL_CELL_BOOLEAN:
        return shown(bool(cell.value)), False
    if cell.ctype == xlrd.XL_CELL_ERROR:
        return str(xlrd.error_text_from_code.get(cell.value, "")), False
    return shown(cell.value, code), cell.ctype == xlrd.XL_CELL_NUMBER


def _values_alone(path: Path, limit: SizeLimit, reason: str) -> PlainText:
    """Sheets with their values as they are stored, and a warning."""
    plain = _by_calamine(path, limit)
    return replace(plain, warnings=(*plain.warnings, _WITHOUT_FORMATS.format(reason=reason)))


def _by_calamine(path: Path, limit: SizeLimit) -> PlainText:
    book = require("python_calamine", extra="readers-all").CalamineWorkbook.from_path(str(path))

    def sheets() -> Iterator[Sheet]:
        seen = {one.name: str(one.visible).endswith(".Visible") for one in book.sheets_metadata}
        for name in book.sheet_names:
            values = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
            numbers = {
                (at, place)
                for at, row in enumerate(values)
                for place, value in enumerate(row)
                if not isinstance(value, str | bool)
            }
            cells = [
                [Cell(without_controls(shown(value)), key=(at, n)) for n, value in enumerate(row)]
                for at, row in enumerate(values)
            ]
            yield Sheet(name, cells, frozenset(numbers), hidden=not seen.get(name, True))

    return plain_from_sheets(sheets(), limit)


def plain_from_sheets(sheets: Iterable[Sheet], limit: SizeLimit) -> PlainText:
    """Text of sheets, a page each, under the name of the sheet; hidden ones are left out, with a warning.

    Raises:
        IngestError: There is text on hidden sheets alone; it is longer than `limit`.
    """
    hidden = list[str]()

    def seen() -> Iterator[Sheet]:
        for sheet in sheets:
            if not sheet.hidden:
                yield sheet
            elif sheet.notes or any(cell.text for row in sheet.rows for cell in row):
                hidden.append(f"'{sheet.name}'")

    plain = joined_parts(((sheet.name, _plain(sheet, limit)) for sheet in seen()), limit)
    if not hidden:
        return plain
    names = ", ".join(hidden)
    if not plain.text.strip():
        raise IngestError(f"All text of the file is on hidden sheets ({names}). Unhide what is to be read.")
    warning = f"Hidden sheets were left out: {names}. Unhide what is to be read."
    return replace(plain, warnings=(*plain.warnings, warning))


def _plain(sheet: Sheet, limit: SizeLimit) -> PlainText:
    parts, length = list[str](), 0
    headings, tables = [(0, sheet.name)], list[TableSpan]()

    def write(text: str) -> None:
        nonlocal length
        parts.append(text + "\n\n")
        length += len(text) + 2
        limit.check_text(length)

    above = ""  # a lone text over a blank row is the title of the table below it
    blocks = list(_blocks(sheet))
    for block, after in itertools.zip_longest(blocks, blocks[1:]):
        if _is_title(block) and after and len(after[0]) > 1:
            above = block[0][0].text
            continue
        found = table_text(block, limit)
        titles = [*filter(None, [above]), *found.titles]
        title = titles.pop(0) if titles and len(titles[0]) <= _LONGEST_NAME and found.rows else ""
        above = ""
        headings += _title_mark(sheet, title, length)
        start = length
        for line in (*titles, *found.rows):
            write(line)
        if found.rows and len(block[0]) > 1:
            tables.append(TableSpan(start, length, title or f"Table {len(tables) + 1}", found.header))
    if sheet.notes:
        headings.append((length, sheet.name))
        for note in sheet.notes:
            write(without_controls(note))
    return PlainText("".join(parts), headings, tables=tables)


def _is_title(block: Sequence[Sequence[Cell]]) -> bool:
    return len(block) == len(block[0]) == 1 and len(block[0][0].text) <= _LONGEST_NAME


def _title_mark(sheet: Sheet, title: str, at: int) -> list[Mark]:
    if title and title != sheet.name:
        return [(at, f"{sheet.name} > {title}")]
    return [(at, sheet.name)] if at else []


def _blocks(sheet: Sheet) -> Iterator[list[list[Cell]]]:
    """Tables of a sheet: areas between blank rows and columns, each with its column names marked."""
    width = max(map(len, sheet.rows), default=0)
    for filled, group in itertools.groupby(
        enumerate(sheet.rows), key=lambda row: any(cell.text for cell in row[1])
    ):
        if not filled:
            continue
        members = list(group)
        for first, last in _areas([row for _, row in members], width):
            rows = [
                (at, [row[n] if n < len(row) else Cell() for n in range(first, last)]) for at, row in members
            ]
            rows = [(at, row) for at, row in rows if any(cell.text for cell in row)]
            pairs = _pairs_above(rows, sheet, first)
            if pairs:
                yield _with_names([(at, row[:2]) for at, row in rows[:pairs]], sheet, first)
            yield _with_names(rows[pairs:], sheet, first)


def _pairs_above(rows: Sequence[tuple[int, list[Cell]]], sheet: Sheet, first: int) -> int:
    """Number of rows of a name and its value that stand right above the names of the columns.

    Figures below words tell these names; so do two pairs.
    """
    filled = [[bool(cell.text) for cell in row] for _, row in rows]
    names = next((at for at, cells in enumerate(filled) if sum(cells) > 2), 0)
    above, below = filled[:names], rows[names + 1 :]
    if (
        not names
        or any(not cells[0] or any(cells[2:]) for cells in above)
        or not any(cells[1] for cells in above)
        or 2 * sum(sum(cells) > 2 for cells in filled[names + 1 :]) <= len(below)
        or not _may_name(rows[names], sheet, first, [Cell()] * len(filled[0]))
    ):
        return 0
    has_figures = any((at, first + place) in sheet.numbers for at, row in below for place in range(len(row)))
    return names if has_figures or sum(cells[1] for cells in above) > 1 else 0


def _areas(rows: Sequence[Sequence[Cell]], width: int) -> Iterator[tuple[int, int]]:
    """Column ranges of tables beside each other; a blank column inside a table, or before a single one, is a space."""
    used = [any(at < len(row) and row[at].text for row in rows) for at in range(width)]
    areas = list[tuple[int, int]]()
    for filled, group in itertools.groupby(range(width), key=lambda at: used[at]):
        places = list(group)
        first, last = places[0], places[-1] + 1
        if not filled:
            continue
        if areas and (
            min(last - first, areas[-1][1] - areas[-1][0]) == 1 or _is_one(rows, areas[-1], (first, last))
        ):
            areas[-1] = (areas[-1][0], last)
        else:
            areas.append((first, last))
    yield from areas


def _is_one(rows: Sequence[Sequence[Cell]], left: tuple[int, int], right: tuple[int, int]) -> bool:
    """Whether two areas with a single blank column between them are one table: no name of a column stands in both."""
    top = [{cell.text for cell in rows[0][first:last] if cell.text} for first, last in (left, right)]
    return right[0] - left[1] == 1 and all(top) and not top[0] & top[1]


def _with_names(rows: Sequence[tuple[int, list[Cell]]], sheet: Sheet, first: int) -> list[list[Cell]]:
    """The rows, of which the lone texts at the top span the table, and the next row names the columns if it can."""
    body = [row for _, row in rows]
    width, at = len(body[0]), 0
    while (
        at + 1 < len(body)
        and width > 1
        and sum(bool(cell.text) for cell in body[at]) == 1
        and body[at][0].text
    ):
        body[at] = [body[at][0]] * width
        at += 1
    names, above = 0, [Cell()] * width
    while names < 3 and at + names + 1 < len(body) and _may_name(rows[at + names], sheet, first, above):
        above = body[at + names]
        names += 1
        keys = [cell.key for cell in body[at + names - 1] if cell.text]
        if len(set(keys)) == len(keys):  # a row of merged cells has the names of single columns below it
            break
    if (
        names
        and width == 2
        and not _figures_below([number for number, _ in rows[at + names :]], sheet, first)
    ):
        names = 0
    for place in range(at, at + names):
        body[place] = [replace(cell, is_name=True) for cell in body[place]]
    return body


def _may_name(row: tuple[int, list[Cell]], sheet: Sheet, first: int, above: Sequence[Cell]) -> bool:
    """Different short texts, or years, and few gaps; below different names of groups the same may come again."""
    number, cells = row
    filled = [(at, cell) for at, cell in enumerate(cells) if cell.text]
    texts = {cell.key: cell.text for _, cell in filled}
    pairs = {cell.key: (above[at].text, cell.text) for at, cell in filled}
    numeric = [cell.text for at, cell in filled if (number, first + at) in sheet.numbers]
    return (
        len(filled) > 1
        and len(filled) * 2 >= len(cells)
        and len(set(pairs.values())) == len(texts)
        and all(len(text) <= _LONGEST_NAME for text in texts.values())
        and all(len(text) == 4 and text[:2] in ("19", "20") for text in numeric)
        and len(numeric) < len(filled) + (len(cells) > len(filled))
    )


def _figures_below(numbers: Sequence[int], sheet: Sheet, first: int) -> bool:
    """Whether a second column holds figures only, as it does below a name and not beside keys."""
    return len(numbers) > 1 and all((number, first + 1) in sheet.numbers for number in numbers)
