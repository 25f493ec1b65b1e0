"""Delimited rows under a header line: a paragraph a row, each cell with the name of its column.

Delimiter and header are found by how the rows come out; decision 0137 has the comparison with csv.Sniffer and DuckDB.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.clean import without_controls
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText, TableSpan
from llama_index_presets.ingest.readers.encoding import read_text_file

__all__ = ["CsvDialect", "find_dialect", "plain_from_rows", "read_csv"]

_DELIMITERS: Final = (",", ";", "\t", "|")
_SAMPLE: Final = 65_536  # characters
_SAMPLE_ROWS: Final = 200
_LEAST: Final = 0.5  # share of rows of one width, below which a file has one column
_NUMBER: Final = re.compile(r"[-+(]?[$€£¥]?\s?\d[\d.,'\u00a0 ]*\s?[%€$)]?$")
_YEAR: Final = re.compile(r"(?:FY\s?)?(?:19|20)\d\d[A-Z]?$")
_DATE: Final = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T]\d{1,2}:\d{2}.*)?$")
_SEP_LINE: Final = re.compile(r"\A\ufeff?sep=(.)\r?\n")  # Excel writes and obeys it
_IN_APOSTROPHES: Final = re.compile(r"(?:^|[,;|\t])'[^'\n]*[,;|\t][^'\n]*'(?=[,;|\t\r]|$)", re.M)
"""A cell in apostrophes that holds a delimiter."""
_MANY_LINES: Final = 20
_FIELD_LIMIT_LOCK: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How a file's rows are written.

    Attributes:
        delimiter: Character between cells; ``"\\0"`` where the file has one column.
        quote: The quotation mark.
        quoting: Whether cells may stand in quotation marks.
        escape: Character before a quotation mark inside quotation marks, or None where it is doubled.
    """

    delimiter: str
    quote: str = '"'
    quoting: bool = True
    escape: str | None = None

    def rows(self, text: str) -> Iterator[list[str]]:
        """Rows of a text, cells without white space around them; empty rows are left out."""
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=self.delimiter,
            quotechar=self.quote,
            quoting=csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE,
            escapechar=self.escape,
            skipinitialspace=self.delimiter != "\t",
        )
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield cells


def read_csv(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Rows of a csv or tsv file."""
    decoded = read_text_file(path, limit)
    prefer = "\t" if path.suffix.lower() in (".tsv", ".tab") else ""
    return decoded.of(plain_from_rows(decoded.text, limit, delimiter=prefer)), {}


def plain_from_rows(text: str, limit: SizeLimit = DEFAULT_LIMIT, *, delimiter: str = "") -> PlainText:
    """Delimited rows: a paragraph a row, ``column: value; …``.

    Args:
        text: Rows, the first of the common width being the names of the columns.
        limit: What the rows may come to.
        delimiter: The likely one, taken if it cuts the rows evenly; otherwise, and when empty, it is found.

    Example:
        >>> plain_from_rows("name;price\\nPump;1.234,50\\n").text
        'name: Pump; price: 1.234,50'
    """
    text = without_controls(text)
    if stated := _SEP_LINE.match(text):
        text, dialect = text[stated.end() :], CsvDialect(stated[1])
    else:
        dialect = find_dialect(text, prefer=delimiter)
    with _long_fields(limit.units):
        rows = list(dialect.rows(text))
        warnings: tuple[str, ...] = ()
        if dialect.quoting and _swallowed_rows(rows, dialect.delimiter):
            rows = list(replace(dialect, quoting=False).rows(text))
            warnings = ("A quotation mark is never closed; the quotation marks were read as characters.",)
    return replace(_written(rows, limit), warnings=warnings)


def find_dialect(text: str, *, prefer: str = "") -> CsvDialect:
    """The dialect that cuts the first rows into the same number of cells most often.

    Example:
        >>> find_dialect("a;b\\n1,5;2,5\\n").delimiter, find_dialect("I came, saw\\nand\\nwon\\n").delimiter
        (';', '\\x00')
    """
    sample = text[:_SAMPLE]
    if len(text) > _SAMPLE and "\n" in sample:
        sample = sample[: sample.rindex("\n") + 1]
    quotes = "\"'" if '"' not in sample and _IN_APOSTROPHES.search(sample) else '"'
    escape = "\\" if '\\"' in sample and '""' not in sample.replace(',""', "") else None
    scores = {}
    for delimiter, quote in itertools.product(_DELIMITERS, quotes):
        dialect = CsvDialect(delimiter, quote, escape=escape)
        with _long_fields(_SAMPLE):
            scores[dialect] = _evenness(sample, dialect)
    preferred = CsvDialect(prefer, escape=escape)
    best = preferred if scores.get(preferred, 0) >= _LEAST else max(scores, key=lambda one: scores[one])
    return best if scores[best] >= _LEAST else CsvDialect("\0", escape=escape)


def _evenness(sample: str, dialect: CsvDialect) -> float:
    """Share of rows that have the common width, a shorter one counting half, weighed by how clean their cells are."""
    rows = [row for _, row in zip(range(_SAMPLE_ROWS), dialect.rows(sample), strict=False)]
    widths = Counter(len(row) for row in rows if len(row) > 1)
    if not widths:
        return 0.0
    common = max(widths, key=lambda width: (widths[width], width))
    even = sum(1.0 if len(row) == common else 0.5 if len(row) > 1 else 0.0 for row in rows) / len(rows)
    others = "".join(set(_DELIMITERS) - {dialect.delimiter, ","})
    cells = [cell for row in rows for cell in row if cell]
    dirty = sum(any(mark in cell for mark in others) for cell in cells) / max(len(cells), 1)
    return even * (1 - dirty / 2)


def _swallowed_rows(rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    """Whether one cell holds many lines that look like rows: a quotation mark was opened and never closed."""
    for row in rows:
        for cell in row:
            lines = cell.split("\n") if cell.count("\n") >= _MANY_LINES else []
            counts = Counter(line.count(delimiter) for line in lines if line.strip())
            if counts and (top := counts.most_common(1)[0])[0] > 0 and top[1] > 0.8 * len(lines):
                return True
    return False


@contextmanager
def _long_fields(characters: int) -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a cell, which is one for the whole process."""
    with _FIELD_LIMIT_LOCK:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, characters))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _written(rows: Sequence[Sequence[str]], limit: SizeLimit) -> PlainText:
    above, header, body = _parts(rows)
    parts, length, start = list[str](), 0, 0
    for place, row in enumerate((*above, *body)):
        line = "; ".join(filter(None, row)) if place < len(above) else _row_text(header, row)
        start = length if place == len(above) else start
        parts.append(line)
        length += len(line) + 2
        limit.check_text(length)
    text = "\n\n".join(parts)
    title = " ".join(cell for row in above for cell in row if cell)
    tables = (TableSpan(start, len(text), title[:200]),) if body else ()
    return PlainText(text, tables=tables)


def _parts(
    rows: Sequence[Sequence[str]],
) -> tuple[Sequence[Sequence[str]], Sequence[str], Sequence[Sequence[str]]]:
    """Lines above the table, names of its columns, its rows."""
    if not rows:
        return (), (), ()
    widths = Counter(len(row) for row in rows[:_SAMPLE_ROWS])
    common = max(widths, key=lambda width: (widths[width], width))
    first = 0
    while first < min(len(rows) - 1, 10) and _is_title(rows[first], rows[first + 1], common):
        first += 1
    if len(rows) - first > 1 and _is_header(rows[first]):
        return rows[:first], [" ".join(name.split()) for name in rows[first]], rows[first + 1 :]
    return rows[:first], (), rows[first:]


def _is_title(row: Sequence[str], below: Sequence[str], common: int) -> bool:
    """A line above the header: one or two cells, where the rows have more."""
    filled = sum(map(bool, row))
    return (
        common > filled and filled <= max(common // 3, 1) and sum(map(bool, below)) >= filled and row[0] != ""
    )


def _is_header(row: Sequence[str]) -> bool:
    """Words, or years beside words."""
    figures = [
        bool(_NUMBER.match(cell) or _DATE.match(cell)) and not _YEAR.match(cell) for cell in row if cell
    ]
    years = [bool(_YEAR.match(cell)) for cell in row if cell]
    return bool(figures) and not any(figures) and not all(years)


def _row_text(header: Sequence[str], row: Sequence[str]) -> str:
    cells = []
    for place, cell in enumerate(row):
        name = header[place] if place < len(header) else ""
        if cell:
            name = name or (f"column {place + 1}" if len(row) > 1 or header else "")
            cell = re.sub(r"\s*\n\s*", "\n", cell)  # a blank line would end the row
            cells.append(f"{name}: {cell}" if name else cell)
    return "; ".join(cells)
