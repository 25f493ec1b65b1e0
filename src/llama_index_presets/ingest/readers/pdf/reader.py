"""A PDF file to plain text: pages in reading order, tables by rows, headings, and the rectangle of each line."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.clean import plain_from_text, without_controls
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import about_pdf
from llama_index_presets.ingest.plain_text import LineBox, Mark, PlainText, TableSpan, is_table_caption
from llama_index_presets.ingest.readers.ocr import HOW_TO_READ, recognized
from llama_index_presets.ingest.readers.pdf.headers_footers import EdgeLine, line_pattern, running_lines
from llama_index_presets.ingest.readers.pdf.headings import heading_marks, outline_marks
from llama_index_presets.ingest.readers.pdf.lines import Line, page_lines
from llama_index_presets.ingest.readers.pdf.order import reading_order
from llama_index_presets.ingest.readers.pdf.paragraphs import WordCounts, joint, word_counts
from llama_index_presets.ingest.readers.pdf.streams import check_streams
from llama_index_presets.ingest.readers.pdf.tables import Table, aligned_tables, drawn_tables
from llama_index_presets.ingest.readers.pdf.word import Box
from llama_index_presets.ingest.readers.pdf.words import Frame, PageWords, is_right_to_left, page_words
from llama_index_presets.packages.extras import require

__all__ = ["PDFIUM_LOCK", "open_pdf", "read_pdf"]

PDFIUM_LOCK: Final = threading.Lock()
"""pdfium is not thread-safe; one page at a time is read in a process."""
_EDGE: Final = 0.14  # of the page's height, in which running heads stand
_EDGE_LINES: Final = 4
_LISTED_PAGES: Final = 10
_SCAN: Final = "it is an image (a scan)"
_DAMAGED: Final = "it is damaged"
_HIDDEN: Final = (
    "words that it does not show are left out (white on white, too small, beside it, or not drawn)"
)
_DPI: Final = 300  # at which tesseract reads best
_MOST_PIXELS: Final = 40_000_000

Item = Line | Table


@dataclass(slots=True)
class _Page:
    label: str
    items: list[tuple[Frame, Item]]
    size: tuple[float, float]
    display: Frame
    problem: str = ""
    recognized: str = ""
    kept: list[tuple[Frame, Item]] = field(default_factory=list)


def read_pdf(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text and own metadata of a PDF.

    Columns are read one after the other, tables row by row, each cell with the name of its column. Heads and feet that
    repeat are left out. Headings are those of the outline, or the lines that are larger than the text or name a
    section (``Abstract``, ``2.1 Data``, ``Item 7. …``) or a table, below the file's title.

    Raises:
        IngestError: It is damaged, wants a password, has no page with text (the reason is named), or expands to more
            than `limit`.
    """
    pdfium = require("pypdfium2", extra="readers")
    check_streams(path, limit)
    with PDFIUM_LOCK:
        document = open_pdf(pdfium, path)
        try:
            pages = list(_pages(document, limit))
            outline = list(_outline(document))
            info = {f"/{key}": value for key, value in document.get_metadata_dict().items()}
        finally:
            document.close()
    _drop_running(pages)
    if not any(page.kept or page.recognized for page in pages):
        raise IngestError(_no_text(pages))
    writer = _Writer(pages, limit)
    writer.write()
    first = "\n".join(next(filter(None, (list(_texts(page.kept)) for page in pages)), ()))
    about = about_pdf(info, first)
    text = "".join(writer.parts)
    starts = dict(writer.pages_at)
    title = about.get("title", "")
    marks = (
        outline_marks(outline, writer.spans, starts, title) if outline else heading_marks(writer.spans, title)
    )
    return (
        PlainText(text, marks, writer.pages, writer.tables, writer.lines, warnings=_warnings(pages)),
        about,
    )


def open_pdf(pdfium: Any, path: Path) -> Any:
    """Document of pdfium; for a holder of `PDFIUM_LOCK`, who closes it.

    Raises:
        IngestError: It is damaged, or wants a password.
    """
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise IngestError(
                "The PDF is locked by a password. Remove it, and ingest the file again."
            ) from error
        if "security" in str(error).lower():
            raise IngestError(
                "The PDF is encrypted in a way that cannot be read. Save it without encryption."
            ) from error
        raise IngestError(f"The file cannot be read: it is no PDF or is damaged ({error}).") from error
    if document.get_formtype() is not None:
        document.init_forms()  # before a page is loaded: what was filled in is no part of the pages
    return document


def _pages(document: Any, limit: SizeLimit) -> Iterator[_Page]:
    characters = 0
    for place in range(len(document)):
        label = document.get_page_label(place) or str(place + 1)
        try:
            page = document[place]
        except Exception as error:  # one damaged page must not take the others with it
            yield _damaged(label, error)
            continue
        try:
            read, more = _read_page(page, label, limit)
        except (
            ArithmeticError,
            LookupError,
            ValueError,
            RuntimeError,
        ) as error:  # what it holds is out of all bounds
            read, more = _damaged(label, error), 0
        finally:
            page.close()
        yield read
        characters += more
        limit.check_text(characters)


def _damaged(label: str, error: Exception) -> _Page:
    return _Page(label, [], (0, 0), Frame((0, 0, 0, 0), 0), f"{_DAMAGED} ({error})")


def _read_page(page: Any, label: str, limit: SizeLimit) -> tuple[_Page, int]:
    """A page, and its characters."""
    found = page_words(page)
    read = _laid_out(label, found)
    if read.problem == _SCAN and limit.ocr:
        read.recognized = _recognized(page, limit.ocr)
        read.problem = f"its text is recognized from a picture ({limit.ocr})"
    words = (word for words in found.words.values() for word in words)
    return read, len(read.recognized) + sum(len(word.text) + 1 for word in words)


def _recognized(page: Any, languages: str) -> str:
    width, height = page.get_size()
    scale = min(_DPI / 72, (_MOST_PIXELS / max(width * height, 1)) ** 0.5)
    text = recognized(page.render(scale=scale).to_pil(), languages)
    return plain_from_text(text).text.strip()


def _laid_out(label: str, found: PageWords) -> _Page:
    """Items of a page in reading order; text that stands sideways comes after the rest."""
    ordered: list[tuple[Frame, Item]] = []
    main = next(iter(found.words))
    for frame, words in found.words.items():
        tables, rest = drawn_tables(words, found.rulings) if frame is main else ([], words)
        lines, gutters = page_lines(rest)
        more, lines = aligned_tables(lines)
        items: list[Item] = [*tables, *more, *lines]
        mirrored = is_right_to_left("".join(word.text for word in words))
        ordered += [(frame, items[place]) for place in reading_order(items, gutters, right_to_left=mirrored)]
    characters = sum(len(word.text) for words in found.words.values() for word in words)
    problem = ""
    if not characters:
        problem = _SCAN if found.image_share > 0.02 else "it has no text"
    elif found.unmapped > characters // 3:
        problem = "its fonts do not say which characters they draw"
    elif found.hidden:
        problem = _HIDDEN
    return _Page(label, ordered, (found.width, found.height), found.display, problem)


def _drop_running(pages: Sequence[_Page]) -> None:
    """Fill `kept` of each page with its items but for running heads and feet.

    Pages that are the same from head to foot count as one: otherwise what is at the edges of a page that occurs twice
    would be lost. Where nothing would be left, all is kept.
    """
    edges = [edge for number, page in enumerate(pages) for edge in _edge_lines(number, page)]
    firsts: dict[str, int] = {}
    for number, page in enumerate(pages):
        firsts.setdefault("\n".join(_texts(page.items)), number)
    running = running_lines(edges, len(pages)) if len(firsts) > 1 else set()
    if len(firsts) < len(pages):
        once = [edge for edge in edges if edge.page in set(firsts.values())]
        among = running_lines(once, len(firsts)) if running else set()
        patterns = {line_pattern(edge.text) for edge in once if (edge.page, edge.place) in among}
        running &= {(edge.page, edge.place) for edge in edges if line_pattern(edge.text) in patterns}
    if len(running) == sum(len(page.items) for page in pages):
        running = set()
    for number, page in enumerate(pages):
        page.kept = [item for place, item in enumerate(page.items) if (number, place) not in running]


def _edge_lines(number: int, page: _Page) -> Iterator[EdgeLine]:
    height = page.size[1]
    lines = [
        (place, item)
        for place, (frame, item) in enumerate(page.items)
        if isinstance(item, Line) and frame is page.items[0][0]
    ]
    by_height = sorted(lines, key=lambda pair: pair[1].baseline)
    for place, line in by_height[: 2 * _EDGE_LINES]:
        if line.baseline < _EDGE * height:
            yield EdgeLine(number, place, line.text, line.baseline)
    for place, line in by_height[-2 * _EDGE_LINES :]:
        if line.baseline > (1 - _EDGE) * height:
            yield EdgeLine(number, place, line.text, line.baseline - height - 1)


def _texts(items: Iterable[tuple[Frame, Item]]) -> Iterator[str]:
    for _, item in items:
        if isinstance(item, Line):
            yield item.text


def _no_text(pages: Sequence[_Page]) -> str:
    if not pages:
        return "The PDF has no pages."
    if any(page.problem == _SCAN for page in pages):
        count = sum(page.problem == _SCAN for page in pages)
        return f"The PDF holds no text: {count} of {counted(len(pages), 'page', 'are')} images (a scan). {HOW_TO_READ}"
    if damaged := [page for page in pages if page.problem.startswith(_DAMAGED)]:
        return f"The PDF holds no text: {_warning(damaged[0].problem, [page.label for page in damaged])}"
    return f"The PDF holds no text on its {counted(len(pages), 'page')}."


def _warnings(pages: Sequence[_Page]) -> tuple[str, ...]:
    """One line for each reason why pages could not be read, with the pages."""
    reasons: dict[str, list[str]] = {}
    for page in pages:
        if page.problem:
            reasons.setdefault(page.problem, []).append(page.label)
    return tuple(_warning(problem, labels) for problem, labels in reasons.items())


def _warning(problem: str, labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _LISTED_PAGES} more" if len(labels) > _LISTED_PAGES else ""
    advice = f" {HOW_TO_READ}" if problem == _SCAN else ""
    pages = "Page" if len(labels) == 1 else "Pages"
    return f"{pages} {', '.join(labels[:_LISTED_PAGES])}{more}: {problem}.{advice}"


def _outline(document: Any) -> Iterator[tuple[int, str, int, float]]:
    """Level, title, page and height of each entry of the outline."""
    for bookmark in document.get_toc():
        dest = bookmark.get_dest()
        page = dest.get_index() if dest else None
        if page is not None:
            _, view = dest.get_view()
            yield (
                bookmark.level,
                " ".join(bookmark.get_title().split()),
                page,
                view[1] if len(view) > 1 else 0.0,
            )


class _Writer:
    """Writes the pages as one text and keeps where everything stands."""

    def __init__(self, pages: Sequence[_Page], limit: SizeLimit) -> None:
        self._pages_read = pages
        self._limit = limit
        self._length = 0
        self._words: WordCounts = word_counts(text for page in pages for text in _texts(page.kept))
        self._last: Line | None = None
        self.parts: list[str] = []
        self.pages: list[Mark] = []
        self.pages_at: list[tuple[int, int]] = []
        self.tables: list[TableSpan] = []
        self.lines: list[LineBox] = []
        self.spans: list[tuple[int, int, Line, int]] = []

    def write(self) -> None:
        for number, page in enumerate(self._pages_read):
            parts = len(self.parts)
            self.pages_at.append((number, self._length))
            for frame, item in page.kept:
                if isinstance(item, Table):
                    self._table(item, frame, page)
                else:
                    self._line(item, frame, page, number)
            if page.recognized:
                self._put(("\n\n" if self._length else "") + page.recognized)
                self._last = None
            self.pages.append((self._page_start(parts), page.label))
        self._put("\n")

    def _page_start(self, first: int) -> int:
        """Where the page begins: behind the gap, and behind the end of a sentence of the page before."""
        text = "".join(self.parts[first:])
        start = self._length - len(text)
        if text.startswith("\n"):
            return start + len(text) - len(text.lstrip())
        return start + self._carried(text)

    def _carried(self, text: str) -> int:
        if not self.pages or not text:
            return 0
        ends = [end for mark in (". ", "! ", "? ", ".\n", "!\n", "?\n") if (end := text.find(mark)) >= 0]
        return min(ends) + 2 if ends and min(ends) < 2_000 else 0

    def _line(self, line: Line, frame: Frame, page: _Page, number: int) -> None:
        gap, cut = joint(self._last, line, self._words) if self._last else ("\n\n", 0)
        if self._length:
            if is_table_caption(line.text) or (self._last and is_table_caption(self._last.text)):
                gap, cut = "\n\n", 0
            if cut:
                self.parts[-1] = self.parts[-1][:-1]
                self._length -= 1
                if self.lines:
                    last = self.lines[-1]
                    self.lines[-1] = LineBox(last.start, self._length, last.page, last.box)
            self._put(gap)
        start = self._length
        self._put(without_controls(line.text))
        self._box(start, line.box, frame, page)
        if frame is page.items[0][0]:  # text that stands sideways is no heading
            self.spans.append((start, self._length, line, number))
        self._last = line

    def _table(self, table: Table, frame: Frame, page: _Page) -> None:
        name = (
            self._last.text
            if self._last and is_table_caption(self._last.text)
            else f"Table {len(self.tables) + 1}"
        )
        if self._length:
            self._put("\n\n")
        start = self._length
        for place, (row, box) in enumerate(table.rows()):
            if place:
                self._put("\n\n")
            row_start = self._length
            self._put(without_controls(row))
            self._box(row_start, box, frame, page)
        self.tables.append(TableSpan(start, self._length, name))
        self._last = None

    def _box(self, start: int, box: Box, frame: Frame, page: _Page) -> None:
        placed = frame.box(box, page.display)
        rounded = (round(placed[0], 1), round(placed[1], 1), round(placed[2], 1), round(placed[3], 1))
        self.lines.append(LineBox(start, self._length, page.label, rounded))

    def _put(self, text: str) -> None:
        self.parts.append(text)
        self._length += len(text)
        self._limit.check_text(self._length)
