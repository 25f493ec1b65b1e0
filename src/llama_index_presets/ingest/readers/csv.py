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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from llama_index_presets.ingest.chunking.long_text import PART, Rendered, TextInParts, is_long, survey
from llama_index_presets.ingest.clean import without_controls
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText, TableSpan
from llama_index_presets.ingest.readers.encoding import read_text_file, utf8_start

__all__ = ["CsvDialect", "find_dialect", "plain_from_rows", "read_csv"]

_DELIMITERS: Final = (",", ";", "\t", "|")
_SAMPLE: Final = 65_536  # characters
_SAMPLE_ROWS: Final = 200
_LEAST: Final = 0.5  # share of rows of one width, below which a file has one column
_NUMBER: Final = re.compile(r"[-+(]?[$€£¥]?\s?\d[\d.,'\u00a0 ]*\s?[%€$)]?$")
_YEAR: Final = re.compile(r"(?:FY\s?)?(?:19|20)\d\d[A-Z]?$")
_DATE: Final = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T]\d{1,2}:\d{2}.*)?$")
_SEP_LINE: Final = re.compile(r"\A\ufeff?sep=([^\s\"]|\t)\r?\n")
"""Excel writes and obeys it. Blanks, line ends and quotation marks are no delimiters, and Python 3.13 refuses them."""
_IN_APOSTROPHES: Final = re.compile(r"(?:^|[,;|\t])'[^'\n]*[,;|\t][^'\n]*'(?=[,;|\t\r]|$)", re.M)
"""A cell in apostrophes that holds a delimiter."""
_MANY_LINES: Final = 20
_BETWEEN: Final = "\n\n"  # rows
_UNCLOSED: Final = "A quotation mark is never closed; the quotation marks were read as characters."
_LONGEST_CELL: Final = 8_000_000  # characters, in a file that is read part by part
_MOST_PAIRS: Final = 40  # lines of a name and its value above a header
_FEWEST_ROWS: Final = 12  # of a part, so that the first one holds the names of the columns
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
        return self.rows_of_lines(io.StringIO(text, newline=""))

    def rows_of_lines(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """The same, of lines with their ends; no line is asked for before a row needs it."""
        reader = csv.reader(
            lines,
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
    """Rows of a csv or tsv file; a long one is read part by part."""
    limit.check_file(path)
    prefer = "\t" if path.suffix.lower() in (".tsv", ".tab") else ""
    if is_long(path) and (plain := _long_rows(path, limit, prefer)):
        return plain, {}
    decoded = read_text_file(path, limit)
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
            warnings = (_UNCLOSED,)
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


def _long_rows(path: Path, limit: SizeLimit, prefer: str) -> TextInParts | None:
    """Rows of a long file in UTF-8; None for any other, which is decoded as a whole."""
    start = utf8_start(path)
    if start is None:
        return None
    begin, encoding = start
    with path.open("rb") as file:
        file.seek(begin)
        sample = file.read(4 * _SAMPLE).decode("utf-8", "ignore")
    if stated := _SEP_LINE.match(sample):
        begin, dialect = begin + len(stated[0].encode()), CsvDialect(stated[1])
    else:
        dialect = find_dialect(without_controls(sample), prefer=prefer)
    try:
        try:
            return _surveyed(path, begin, dialect, limit, encoding)
        except _UnclosedQuoteError:
            return _surveyed(path, begin, replace(dialect, quoting=False), limit, encoding, (_UNCLOSED,))
    except (UnicodeDecodeError, csv.Error):
        return None


def _surveyed(
    path: Path,
    begin: int,
    dialect: CsvDialect,
    limit: SizeLimit,
    encoding: str,
    warnings: Sequence[str] = (),
) -> TextInParts | None:
    with path.open("rb") as file, _long_fields(_LONGEST_CELL):
        file.seek(begin)
        top = list(itertools.islice(dialect.rows_of_lines(_Lines(file)), _SAMPLE_ROWS))
    above, header, _ = _parts(top)
    titles = list(map(_line_above, above))
    left_out = len(above) + bool(header)

    def render(raw: bytes, is_first: bool) -> Rendered:
        with _long_fields(_LONGEST_CELL):
            rows = list(dialect.rows(without_controls(raw.decode("utf-8"))))
        texts = [_row_text(header, row) for row in (rows[left_out:] if is_first else rows)]
        between = "" if is_first or not texts else _BETWEEN
        return Rendered(between + _BETWEEN.join([*titles, *texts] if is_first else texts))

    parts = ((raw, render(raw, n == 0)) for n, raw in enumerate(_row_parts(path, begin, dialect)))
    found = survey(parts, begin, limit)
    if found is None:
        return None
    place = sum(len(title) + len(_BETWEEN) for title in titles)
    title = "; ".join(map(_line_above, above))
    tables = (TableSpan(place, found.length, title[:200]),) if place < found.length else ()
    return TextInParts(path, found, render, encoding, tables=tables, warnings=warnings)


class _UnclosedQuoteError(Exception):
    """A cell swallowed the rows behind it."""


class _Lines:
    """Lines of a file as csv cuts them, with the bytes that were read for them."""

    def __init__(self, file: BinaryIO, end: int | None = None) -> None:
        self._file, self._left = file, end
        self._waiting: list[str] = []
        self.raw: list[bytes] = []
        self.size = 0
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._waiting:
            raw = self._file.readline() if self._left is None else self._file.readline(self._left)
            if not raw:
                raise StopIteration
            self._left = None if self._left is None else self._left - len(raw)
            self.raw.append(raw)
            self.size += len(raw)
            self._waiting = list(io.StringIO(without_controls(raw.decode("utf-8")), newline=""))[::-1]
        self.count += 1
        return self._waiting.pop()

    @property
    def is_at_line_feed(self) -> bool:
        """Whether what was read is what was asked for: old Macs end lines by carriage returns alone."""
        return not self._waiting

    def taken(self) -> bytes:
        raw, self.raw, self.size = b"".join(self.raw), [], 0
        return raw


def _row_parts(path: Path, begin: int, dialect: CsvDialect) -> Iterator[bytes]:
    """Bytes of a file in parts that end where a row does.

    Raises:
        _UnclosedQuoteError: A quotation mark is never closed.
    """
    with path.open("rb") as file:
        file.seek(begin)
        lines = _Lines(file, path.stat().st_size - begin)
        rows = dialect.rows_of_lines(lines)
        while _read_part(rows, lines, dialect):
            yield lines.taken()
        if raw := lines.taken():
            yield raw


def _read_part(rows: Iterator[list[str]], lines: _Lines, dialect: CsvDialect) -> bool:
    """Read rows until they make a part; whether there may be more."""
    last, count = lines.count, 0
    with _long_fields(_LONGEST_CELL):
        try:
            for row in rows:
                if dialect.quoting and lines.count - last > _MANY_LINES:
                    _check_quotes([row], dialect)
                last, count = lines.count, count + 1
                if lines.size >= PART and count >= _FEWEST_ROWS and lines.is_at_line_feed:
                    return True
        except csv.Error:  # a cell is too long
            if dialect.quoting:
                _check_quotes([[b"".join(lines.raw).decode("utf-8")]], dialect)
            raise
    return False


def _check_quotes(rows: Sequence[Sequence[str]], dialect: CsvDialect) -> None:
    if _swallowed_rows(rows, dialect.delimiter):
        raise _UnclosedQuoteError


def _written(rows: Sequence[Sequence[str]], limit: SizeLimit) -> PlainText:
    above, header, body = _parts(rows)
    parts, length, start = list[str](), 0, 0
    for place, row in enumerate((*above, *body)):
        line = _line_above(row) if place < len(above) else _row_text(header, row)
        start = length if place == len(above) else start
        parts.append(line)
        length += len(line) + len(_BETWEEN)
        limit.check_text(length)
    text = _BETWEEN.join(parts)
    title = "; ".join(map(_line_above, above))
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
    first = _header_below_pairs(rows, first)
    if len(rows) - first > 1 and _is_header(rows[first]):
        return rows[:first], [" ".join(name.split()) for name in rows[first]], rows[first + 1 :]
    return rows[:first], (), rows[first:]


def _is_title(row: Sequence[str], below: Sequence[str], common: int) -> bool:
    """A line above the header: one or two cells, where the rows have more."""
    filled = sum(map(bool, row))
    return (
        common > filled and filled <= max(common // 3, 1) and sum(map(bool, below)) >= filled and row[0] != ""
    )


def _header_below_pairs(rows: Sequence[Sequence[str]], first: int) -> int:
    """Place of a header that stands below lines of a name and its value; `first` where there are none.

    Rows of figures below words tell a header; so do two lines that end before the rows do.
    """
    top = rows[first : first + _MOST_PAIRS + 1]
    header = next((at for at, row in enumerate(top, first) if sum(map(bool, row)) > 2), first)
    if header == first or not _is_header(rows[header]):
        return first
    body = rows[header + 1 : header + 1 + _SAMPLE_ROWS]
    widths = Counter(len(row) for row in (rows[header], *body))
    width = max(widths, key=lambda one: (widths[one], one))
    filled = [sum(map(bool, row)) > 2 for row in body]
    if width < 3 or len(rows[header]) != width or 2 * sum(filled) <= len(body):
        return first
    ends_early = header - first > 1 and all(len(row) < width for row in rows[first:header])
    return header if ends_early or any(_is_figures(body, at) for at in range(width)) else first


def _is_figures(rows: Sequence[Sequence[str]], column: int) -> bool:
    cells = [row[column] for row in rows if column < len(row) and row[column]]
    return bool(cells) and all(_NUMBER.match(cell) or _DATE.match(cell) for cell in cells)


def _line_above(row: Sequence[str]) -> str:
    """A line above the header; of two cells the first is the name of the second."""
    cells = [cell for cell in row if cell]
    return f"{cells[0].removesuffix(':')}: {cells[1]}" if len(cells) == 2 else "; ".join(cells)


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
            cell = re.sub(r"(?<!\s)[^\S\n]*+\n\s*+", "\n", cell)  # a blank line would end the row
            cells.append(f"{name}: {cell}" if name else cell)
    return "; ".join(cells)
