"""Readers: a file of any supported kind to plain text, every fault as one error."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from llama_index_presets._extras import require
from llama_index_presets.errors import IngestError, MissingExtraError
from llama_index_presets.ingest.chunk import SourceText
from llama_index_presets.ingest.clean import (
    plain_from_html,
    plain_from_markdown,
    plain_from_pages,
    plain_from_rows,
    plain_from_text,
)
from llama_index_presets.ingest.document_metadata import (
    about_front_matter,
    about_head_lines,
    about_html,
    about_pdf,
    about_sidecar,
    sidecar_of,
)
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText, is_table_caption

__all__ = ["file_hash", "find_sections", "read_file", "read_pdf", "table_rows"]

# PDF pages as text in which a table's row stays one line that names its columns.


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


_PARSED_AS_TEXT: dict[str, Callable[[str, SizeLimit], PlainText]] = {
    ".md": plain_from_markdown,
    ".markdown": plain_from_markdown,
    ".html": plain_from_html,
    ".htm": plain_from_html,
    ".csv": plain_from_rows,
    ".tsv": lambda text, limit: plain_from_rows(text, limit, delimiter="\t"),
}
_ABOUT: dict[str, Callable[[str], dict[str, Any]]] = {
    ".md": about_front_matter,
    ".markdown": about_front_matter,
    ".html": about_html,
    ".htm": about_html,
    ".csv": lambda _: {},
    ".tsv": lambda _: {},
}
_READ_BY_LLAMA_INDEX = {".docx", ".pptx", ".epub", ".ipynb", ".rtf", ".xlsx", ".xls", ".mbox", ".hwp"}


def file_hash(path: Path) -> str:
    """Hash of the raw bytes and the sidecar's: a check for changes must not parse the document."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    sidecar = sidecar_of(path)
    if sidecar is not None:
        digest.update(b"\0" + sidecar.read_bytes())
    return digest.hexdigest()


def read_file(path: Path, content_hash: str, limit: SizeLimit = DEFAULT_LIMIT) -> SourceText:
    """Read one file of any supported kind.

    Args:
        path: Absolute path; it becomes the document's id and its ``source``.
        content_hash: See `file_hash`.
        limit: What it may expand to.

    Raises:
        IngestError: It is empty, binary, damaged, or holds no text; it expands too far.
        MissingExtraError: The reader of this kind of file is not installed.
    """
    if path.stat().st_size == 0:
        raise IngestError("The file is empty (0 bytes).")
    try:
        plain, own = _read_plain(path, limit)
        about = {**own, **about_sidecar(path)}
    except (IngestError, MissingExtraError):
        raise
    except Exception as error:  # any reader may fail in any way on a damaged file
        cause = error.__cause__ or error
        raise IngestError(f"The file cannot be read ({type(cause).__name__}: {_one_line(cause)}).") from error
    limit.check_text(len(plain.text))
    if not plain.text.strip():
        raise IngestError("The file holds no text (a scan, or images only?).")
    return SourceText(
        doc_id=path.as_posix(),
        plain=plain,
        metadata={**about, "source": path.as_posix(), "file_name": path.name},
        hidden_from_embedding=("file_name", *about),
        content_hash=content_hash,
    )


def _read_plain(path: Path, limit: SizeLimit) -> tuple[PlainText, dict[str, Any]]:
    """Text of a file, and the metadata in it."""
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        return read_pdf(path, limit)
    if suffix in _READ_BY_LLAMA_INDEX:
        limit.check_archive(path)
        return plain_from_pages(_pages(path), limit), {}
    limit.check_file(path)
    text = _decode(path.read_bytes())
    about = _ABOUT.get(suffix, about_head_lines)
    parse = _PARSED_AS_TEXT.get(suffix)
    return parse(text, limit) if parse else plain_from_text(text), about(text)


def _pages(path: Path) -> Iterator[tuple[str, str]]:
    _import_readers()
    from llama_index.core import SimpleDirectoryReader

    try:
        documents = SimpleDirectoryReader.load_file(path, lambda _: {}, {}, raise_on_error=True)
    except ImportError as error:
        raise MissingExtraError(
            f"The reader for {path.suffix} files ({_one_line(error)})", "readers"
        ) from error
    for number, document in enumerate(documents, start=1):
        yield str(document.metadata.get("page_label", number)), document.text


def _import_readers() -> None:
    """Import the readers; one of them configures logging when it is imported, which is the application's to do."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    require("llama_index.readers.file", extra="readers")
    root.handlers[:] = handlers
    root.setLevel(level)


def _decode(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16")
    if b"\x00" in raw[:8192]:
        raise IngestError("The file is binary, not text.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    if text.count("\ufffd") + sum(not (char.isprintable() or char.isspace()) for char in text[:4096]) > 64:
        raise IngestError("The file is neither UTF-8 nor Western text. Convert it to UTF-8.")
    return text


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
