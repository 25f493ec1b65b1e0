"""PDF pages as text in which a table's row stays one line that names its columns."""

from __future__ import annotations

import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from llama_index_presets._extras import require
from llama_index_presets.ingest.clean import plain_from_pages
from llama_index_presets.ingest.document_metadata import about_pdf
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText, is_table_caption

__all__ = ["find_sections", "read_pdf", "table_rows"]

_CELL: Final = re.compile(r"^[($€£¥+−-]*\s?\d[\d.,']*\s?[)%xX]*$|^[-–—]$|^n/?[am]$", re.IGNORECASE)
_GAP: Final = re.compile(r"\s{2,}")
_OPENS, _CLOSES = ("$", "€", "£", "¥", "("), ("%", ")")
_LONGEST_CELL: Final = 40  # characters; longer ones are a column of prose

_NAMES: Final = (
    "abstract|introduction|background|related work|methods?|methodology|materials and methods|experiments|evaluation|"
    "results|results and discussion|discussion|limitations|conclusions?|references|bibliography|acknowledge?ments?|"
    "appendix|executive summary|risk factors"
)
_SECTION: Final = re.compile(
    rf"^(?:(?:\d{{1,2}}(?:\.\d{{1,2}})*\.?\s+)?(?i:{_NAMES})"
    r"|\d{1,2}\.\d{1,2}(?:\.\d{1,2})?\s+[A-Z][A-Za-z][^\d.;:!?]{2,70}"
    r"|(?:Item|ITEM|Part|PART|Note|NOTE)\s+(?:\d{1,2}[A-Z]?|[IVX]{1,4})\b[.:]?\s*[^.!?]{0,90})\.?$"
)
_END_OF_TABLE: Final = "\n\n"


def read_pdf(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text and own metadata of a PDF.

    Headings are the lines that name a section (``Abstract``, ``2.1 Data``, ``Item 7. …``) or a table (``Table 3: …``),
    below the file's title where its information gives one. A page without a table is read in the order of its content,
    one with a table as it is laid out. pypdf bounds each stream that it unpacks.

    Raises:
        IngestError: The pages together have more text than `limit`.
    """
    pypdf = require("pypdf", extra="readers")
    logging.getLogger("pypdf").setLevel(
        logging.CRITICAL
    )  # it warns of every odd object; the error says enough
    reader = pypdf.PdfReader(path)
    if reader.is_encrypted:
        reader.decrypt("")
    labels = reader.page_labels
    texts = list(limit.texts(map(_page_text, reader.pages)))
    about = about_pdf(reader.metadata, texts[0] if texts else "")
    plain = plain_from_pages(zip(labels, texts, strict=False))
    return PlainText(plain.text, tuple(find_sections(plain.text, about.get("title", ""))), plain.pages), about


def find_sections(text: str, title: str = "") -> Iterator[Mark]:
    """Starts of sections and tables, by the look of their lines.

    Args:
        text: With one line a line.
        title: Stands first in every path.

    Example:
        >>> list(find_sections("Abstract\\nWe add.\\nTable 1: Sums\\na; b\\n", "On Sums"))
        [(0, 'On Sums'), (0, 'On Sums > Abstract'), (17, 'On Sums > Abstract > Table 1: Sums')]
    """
    section, offset, in_table = title, 0, False
    if title:
        yield 0, title
    for line in text.splitlines(keepends=True):
        name = " ".join(line.split())
        if _SECTION.match(name):
            section, in_table = " > ".join(filter(None, (title, name.rstrip(".")))), False
            yield offset, section
        elif is_table_caption(name):
            in_table = True
            yield offset, " > ".join(filter(None, (section, name.rstrip("."))))
        elif in_table and name and not _is_row(name):
            in_table = False
            yield offset, section
        offset += len(line)


def _is_row(line: str) -> bool:
    """A row as `table_rows` writes it, or a caption's second line."""
    return "; " in line


def _page_text(page: Any) -> str:
    plain = str(page.extract_text())
    if not _may_hold_table(plain):
        return plain
    try:
        laid_out = str(page.extract_text(extraction_mode="layout"))
    except Exception:  # the layout of odd fonts cannot be computed; the words are there all the same
        return plain
    rows = list(table_rows(laid_out.splitlines()))
    return "\n".join(rows) if any(row.endswith(_END_OF_TABLE) for row in rows) else plain


def _may_hold_table(text: str) -> bool:
    """Whether some lines are nothing but a figure, or end in two of them."""
    lines = [line.split() for line in text.splitlines()]
    alone = sum(len(words) == 1 and bool(_CELL.match(words[0])) for words in lines)
    pairs = sum(len(words) > 2 and all(_CELL.match(word) for word in words[-2:]) for words in lines)
    return alone >= 4 or pairs >= 2


def table_rows(lines: Sequence[str]) -> Iterator[str]:
    """Lines of a laid-out page; those of a table as paragraphs ``name: cell; name: cell``.

    Example:
        >>> print(*table_rows(["($m)      2024   2023", "Revenue    7.2    6.1", "Costs     (5.0)  (4.4)"]), sep="")
        ($m): Revenue; 2024: 7.2; 2023: 6.1
        <BLANKLINE>
        ($m): Costs; 2024: (5.0); 2023: (4.4)
        <BLANKLINE>
        <BLANKLINE>
    """
    for is_table, members in itertools.groupby(_runs(lines), key=lambda run: run[0]):
        for _, run in members:
            yield from _table(run) if is_table else map(_line, run)


def _line(line: str) -> str:
    """A line of prose; a caption is a paragraph of its own, since it ends without a full stop."""
    text = " ".join(line.split())
    return text + "\n" if is_table_caption(text) else text


def _runs(lines: Sequence[str]) -> Iterator[tuple[bool, list[str]]]:
    """Stretches of lines that are a table, or are not; the line above the first row may be its head."""
    run: list[str] = []
    for is_row, group in itertools.groupby(lines, key=lambda line: len(_cells(line)) > 1):
        members = list(group)
        if is_row and sum(_has_figures(line) for line in members) >= 2:
            yield False, run
            yield True, members
            run = []
        else:
            run += members
    yield False, run


def _has_figures(line: str) -> bool:
    """A row: short cells, and all but the first are figures, as far as they are there."""
    cells = _cells(line)
    return (
        len(cells) > 1 and all(_CELL.match(cell) for cell in cells[1:]) and len(cells[0]) <= 3 * _LONGEST_CELL
    )


def _cells(line: str) -> list[str]:
    """Cells of a line, a lone currency sign or bracket joined to its figure."""
    found: list[str] = []
    for cell in _GAP.split(line.strip()):
        if found and (found[-1] in _OPENS or cell in _CLOSES):
            found[-1] += cell
        elif cell:
            found.append(cell)
    return found


def _table(lines: Sequence[str]) -> Iterator[str]:
    rows = [_cells(line) for line in lines]
    head: Sequence[str] = rows[0] if _is_head(rows) else ()
    body = rows[1:] if head else rows
    width = Counter(map(len, body)).most_common(1)[0][0]
    names = [""] * (width - len(head)) + list(head)
    for row in body:  # one with a gap has no certain names
        cells = zip(names if len(row) == len(names) else [""] * len(row), row, strict=True)
        yield "; ".join(f"{name}: {cell}" if name else cell for name, cell in cells) + _END_OF_TABLE


def _is_head(rows: Sequence[Sequence[str]]) -> bool:
    """The first row names the columns: years or words, where the rows below have figures."""
    if len(rows) < 2:
        return False
    first, width = rows[0], Counter(map(len, rows[1:])).most_common(1)[0][0]
    cells = first if len(first) == width - 1 else first[1:]
    return width - len(first) in (0, 1) and all(
        re.fullmatch(r"(19|20)\d\d[A-Z*]?", cell) or not _CELL.match(cell) for cell in cells
    )
