"""HTML pages: words that a reader of the page sees, headings as paths, table cells with the names of their columns.

lexbor (through selectolax) parses as browsers do. What is kept and dropped is decided here: a page made of a form, or
of tables for its layout, is text; menus, scripts and what its style hides are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.clean import whole_characters, without_controls
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import about_html
from llama_index_presets.ingest.plain_text import Mark, PlainText, TableSpan
from llama_index_presets.ingest.readers.encoding import read_text_file
from llama_index_presets.ingest.readers.html.image_text import image_text
from llama_index_presets.ingest.readers.html.list_markers import item_marker, list_styles, whole_number
from llama_index_presets.ingest.readers.html.nesting import check_nesting
from llama_index_presets.ingest.readers.html.visibility import (
    MARGINS,
    Rgb,
    colours,
    hidden_by_sheet,
    is_hiding,
    is_menu,
    is_same,
    names_menu,
)
from llama_index_presets.ingest.readers.office.formulas import formula_of_page
from llama_index_presets.ingest.readers.tables import (
    Cell,
    TableText,
    fill_spans,
    in_one_line,
    mark_bold,
    table_text,
)
from llama_index_presets.packages.extras import require

__all__ = ["plain_from_html", "read_html"]

_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_SKIPPED: Final = frozenset([
    "script", "style", "noscript", "template", "head", "svg", "nav", "button", "select", "datalist", "object",
    "embed", "iframe", "canvas", "audio", "video", "map", "annotation", "annotation-xml",
])  # fmt: skip
_BLOCKS: Final = frozenset([
    "p", "div", "section", "article", "ul", "ol", "dl", "table", "blockquote", "pre", "figure", "main", "hr",
    "form", "fieldset", "header", "footer", "aside", "address", "details", "summary", "center", "dir", "menu",
    "hgroup", "dialog", "legend", "body", "search",
])  # fmt: skip
_LINES: Final = frozenset(["li", "br", "figcaption", "caption", "tr", "td", "th", "dt", "dd", "option"])
_VISIBLE_INPUTS: Final = frozenset(
    ("text", "email", "tel", "url", "number", "date", "time", "month", "datetime-local")
)
_NOTE_LINKS: Final = frozenset({"doc-noteref", "noteref", "doc-backlink"})
"""Roles of links to notes, which a style may raise above the line, and of those that lead back."""
_FIGURE: Final = re.compile(r"[-−+]?\d+")
_LONGEST_TITLE: Final = 500  # characters; a longer "heading" is prose, and would stand in each label below it
_LONGEST_CELL: Final = 400  # characters; longer ones, in a table without names, are columns of a layout
_FEWEST_BESIDE: Final = 4  # cells for each that holds a table, in a table of data
_OWN_MARKER: Final = re.compile(
    r"(?:[-–—•◦▪▫●○■□‣⁃∙·]|\(?(?:\d{1,3}|[a-z]|[ivxl]{2,6})[.)])(?:\s|$)"
)  # of an item
_MOST_WASTED: Final = 200_000  # characters that are read twice because their table turned out to be a layout


def read_html(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text and meta tags of an HTML file."""
    decoded = read_text_file(path, limit)
    plain = plain_from_html(decoded.text, limit)
    return decoded.of(plain), about_html(decoded.text)


def plain_from_html(html: str, limit: SizeLimit = DEFAULT_LIMIT, *, keep_menus: bool = False) -> PlainText:
    """HTML without tags, scripts, menus and hidden parts; table cells carry the names of their row and column.

    A page that is nothing but menus is read with them.

    Args:
        html: A page, or a part of one.
        limit: What it may expand to.
        keep_menus: Whether all blocks of links are text.

    Raises:
        IngestError: The text is longer than `limit`, or the page nests too deep to be parsed in seconds.

    Example:
        >>> plain_from_html("<h1>A</h1><p>b <b>c</b></p><script>x()</script>").text.strip()
        'b c'
    """
    check_nesting(html)
    parser = require("selectolax.lexbor", extra="readers").LexborHTMLParser(whole_characters(html))
    has_sheet = "<style" in html.lower()
    hidden = hidden_by_sheet(parser) if has_sheet else set[int]()
    styles = list_styles(parser) if has_sheet and "list-style" in html else {}
    walker = _Walker(limit, keep_menus=keep_menus, hidden=hidden, styles=styles)
    if parser.css_first("h1") is None and (title := parser.css_first("head > title")) is not None:
        walker.title(" ".join(without_controls(title.text()).split()))
    if parser.root is not None:
        walker.walk(parser.root)
    walker.finish()
    if not walker.text.strip() and not keep_menus:
        return plain_from_html(html, limit, keep_menus=True)
    return PlainText(walker.text, tuple(walker.headings), tables=tuple(walker.tables))


@dataclass(slots=True)
class _Frame:
    """A tag whose children are walked."""

    tag: str
    child: Any
    gap: str = ""
    verbatim: bool = False
    in_menu: bool = False  # it looked like a menu and was none: its parts are not looked at again
    node: Any = None
    letters: Rgb | None = None  # their colour; None is what can be read
    behind: Rgb = (255, 255, 255)
    items: int | None = None  # number of the last item of an ordered list

    @property
    def unseen(self) -> bool:
        """Whether its letters have the colour of what is behind them."""
        return is_same(self.letters, self.behind)


class _Walker:
    """Walks a parsed page depth first and writes its text; with a stack of its own, since pages nest very deep."""

    def __init__(
        self,
        limit: SizeLimit,
        *,
        keep_menus: bool,
        in_cell: bool = False,
        hidden: Set[int] = frozenset(),
        frame: _Frame | None = None,
        styles: Mapping[int, str] | None = None,
    ) -> None:
        self._limit = limit
        self._hidden = hidden
        self._styles = styles or {}  # of lists
        self._frame = frame
        self._keep_menus = keep_menus
        self._in_cell = in_cell
        self._parts: list[str] = []
        self._length = 0
        self._wasted = 0  # characters of cells that were read and turned out to be a layout
        self._marker = ""  # of a list item whose first word is still to come
        self._joined = False  # after "term: ", no gap comes before the next words
        self._path: list[tuple[int, str]] = []
        self._bare: tuple[int, str] | None = None  # a heading with nothing below it yet
        self.headings: list[Mark] = []
        self.tables: list[TableSpan] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def walk(self, root: Any) -> None:
        above = self._frame
        stack = [_Frame(root.tag, root.child)]
        if above is not None:
            stack[0].letters, stack[0].behind = above.letters, above.behind
        while stack:
            frame = stack[-1]
            child = frame.child
            if child is None:
                self._leave(stack.pop())
                continue
            frame.child = child.next
            self._frame = frame
            if child.tag == "-text":
                if not frame.unseen:
                    self._words(child.text_content or "", verbatim=frame.verbatim)
            elif child.is_element_node and (below := self._enter(child, frame)) is not None:
                if child.tag == "li" and not self._in_cell:
                    self._item(child, frame, below)
                else:
                    self._gap(below.gap)
                stack.append(below)

    def _item(self, item: Any, above: _Frame, below: _Frame) -> None:
        """Begin an item of a list; those without a mark are paragraphs, or nothing would keep them apart."""
        marker, above.items = item_marker(item, above.node, above.items, self._styles)
        below.gap = below.gap if marker else "\n\n"
        self._gap(below.gap)
        self._marker = marker

    def finish(self) -> None:
        """Write a last heading that has nothing below it."""
        self._write_bare(0)

    def _enter(self, node: Any, above: _Frame) -> _Frame | None:
        """The frame of a tag whose children are to be walked; None when there is nothing more to do with it."""
        tag = node.tag
        if tag in _SKIPPED or (node.attributes and _is_hidden(node)) or node.mem_id in self._hidden:
            return None
        in_menu = above.in_menu
        if not self._keep_menus and not in_menu and (node.attributes or tag in MARGINS):
            if is_menu(node):
                return None
            in_menu = names_menu(node)
        if tag in _HEADINGS and not self._in_cell:
            title = _title(node, self._hidden, _coloured(node, self._frame))
            if title is not None:
                self._heading(_HEADINGS[tag], title)
                return None
        elif (tag == "table" and self._table(node)) or self._special(node, tag):
            return None
        coloured = _coloured(node, above)
        verbatim = above.verbatim or tag in ("pre", "textarea")
        letters, behind = coloured.letters, coloured.behind
        return _Frame(tag, node.child, _gap_of(tag), verbatim, in_menu, node, letters, behind)

    def _special(self, node: Any, tag: str) -> bool:
        """Tags whose text is not what stands between them; whether it was written."""
        if tag == "br" and self._in_cell:
            self._words(" ", verbatim=False)
        elif tag == "input" and self._keep_menus and node.attributes.get("type") == "checkbox":
            self._words("[x] " if "checked" in node.attributes else "[ ] ", verbatim=False)
        elif tag == "input":
            value = str(node.attributes.get("value") or "")
            if (node.attributes.get("type") or "text").lower() in _VISIBLE_INPUTS and value.strip():
                self._words(f" {value} ", verbatim=False)
        elif tag == "sup":
            return self._superscript(node)
        elif tag == "math" and (formula := formula_of_page(node, self._hidden)):
            self._words(formula, verbatim=False)
            return True
        elif tag == "a" and (kinds := _roles(node)) & _NOTE_LINKS:
            text = (node.text(deep=True) or "").strip()
            if "doc-backlink" in kinds and len(text) <= 2:
                return True
            if "doc-backlink" in kinds or not _FIGURE.fullmatch(text):
                return False
            self._words(f"[{text}]", verbatim=False)
            return True
        elif tag == "noframes":  # a parser takes it for text; it is the page of those who see no frames
            self._words(plain_from_html(node.text(deep=True), self._limit).text, verbatim=True)
            return True
        elif tag == "img":
            if alt := image_text(node, described=not self._keep_menus):
                self._words(f" [Image: {alt}] ", verbatim=False)
        else:
            return False
        return True

    def _superscript(self, node: Any) -> bool:
        """A figure above the line does not run into the figure before it: an exponent, or the mark of a footnote."""
        text = " ".join(node.text(deep=True).split())
        if not _FIGURE.fullmatch(text):
            return False
        is_note = node.css_first("a") is not None or (node.parent is not None and node.parent.tag == "a")
        self._words(f"[{text}]" if is_note else f"^{text}", verbatim=False)
        return True

    def _leave(self, frame: _Frame) -> None:
        if frame.tag == "li":
            self._marker = ""  # of an item without a word
        if frame.tag == "dt" and _next_element(frame.node) == "dd" and self._parts:
            self._trim()
            self._write(" " if self._parts[-1].endswith((":", "?", "!", ".")) else ": ")
            self._joined = True
        else:
            self._gap(frame.gap)

    def _trim(self) -> None:
        """Take spaces off the end of the text."""
        if self._parts and self._parts[-1].endswith(" "):
            kept = self._parts[-1].rstrip(" ")
            self._length -= len(self._parts[-1]) - len(kept)
            self._parts[-1] = kept

    def _heading(self, level: int, title: str) -> None:
        if not title:
            return
        self._marker = ""
        self._write_bare(level)
        self._gap("\n\n")
        self._path = [(depth, text) for depth, text in self._path if depth < level] + [(level, title)]
        self.headings.append((self._length, self._label()))
        self._bare = (level, title)

    def title(self, title: str) -> None:
        """Root of all paths: the title of a page that has no heading of the first level."""
        if title and len(title) <= _LONGEST_TITLE:
            self._path = [(0, title)]
            self.headings.append((0, title))

    def _label(self, name: str = "") -> str:
        return " > ".join(filter(None, (*(text for _, text in self._path), name)))

    def _write_bare(self, level: int) -> None:
        """A heading without text or headings below it is text itself, or its words would stand nowhere."""
        if self._bare and level <= self._bare[0]:
            self._write(self._bare[1])

    def _table(self, table: Any) -> bool:
        """Write a table of data; False for one that only lays out text."""
        caption = next((child for child in _elements(table) if child.tag == "caption"), None)
        found = self._data(table, has_caption=caption is not None)
        if found is None:
            return False
        title = self._inline(caption) if caption is not None else ""
        if self._in_cell:
            for line in (*filter(None, [title]), *found.titles, *found.rows):
                self._gap("\n")
                self._write(line)
            self._gap("\n")
            return True
        self._gap("\n\n")
        self._joined, self._marker = False, ""
        if title:
            self.headings.append((self._length, self._label(title)))
        start = self._length
        for line in (*found.titles, *found.rows):
            self._write(line)
            self._gap("\n\n")
        name = title or (found.titles[0] if found.titles else f"Table {len(self.tables) + 1}")
        if self._length > start:
            self.tables.append(TableSpan(start, self._length, name, found.header))
        elif title:
            self._write(title)
        if title:
            self.headings.append((self._length, self._label()))
        return True

    def _data(self, table: Any, *, has_caption: bool) -> TableText | None:
        """Text of a table of data, None where it is a layout."""
        if table.attributes.get("role") in ("presentation", "none") or self._wasted > _MOST_WASTED:
            return None
        rows = [row for row in _own_rows(table) if not row or row[0].parent.mem_id not in self._hidden]
        names = has_caption or any(cell.tag == "th" for row in rows for cell in row)
        if not names and _is_layout(rows):
            return None
        cells = mark_bold(
            [[self._cell(cell) for cell in row] for row in rows],
            lambda row, column: _is_bold(rows[row][column]),
        )
        longest = max((len(cell.text) for row in cells for cell in row), default=0)
        if longest > (_LONGEST_CELL * 10 if names else _LONGEST_CELL):
            self._wasted += sum(len(cell.text) for row in cells for cell in row)
            return None
        return table_text(fill_spans(cells), self._limit)

    def _cell(self, node: Any) -> Cell:
        attributes = node.attributes
        return Cell(
            self._inline(node),
            node.tag == "th",
            _span(attributes.get("colspan")),
            _span(attributes.get("rowspan")) or 1_000_000,  # 0 is all rows below
        )

    def _inline(self, node: Any) -> str:
        """Text of a node in one line; its blocks are separated by commas where no other mark ends them."""
        if node.mem_id in self._hidden or (node.attributes and _is_hidden(node)):
            return ""
        coloured = _coloured(node, self._frame)
        walker = _Walker(self._limit, keep_menus=True, in_cell=True, hidden=self._hidden, frame=coloured)
        walker.walk(node)
        return in_one_line(walker.text)

    def _words(self, text: str, *, verbatim: bool) -> None:
        text = without_controls(text)
        if not verbatim:
            text = re.sub(r"[^\S\u00a0]+|\u00a0", " ", text).replace("\u00ad", "")
            if not self._parts or self._parts[-1].endswith(("\n", " ")):
                text = text.lstrip()
        self._write(text)

    def _gap(self, gap: str) -> None:
        """Make sure that the text so far ends with this gap, unless nothing was written yet."""
        if self._joined or not gap:
            return
        self._trim()
        tail = "".join(self._parts[-3:])[-2:]
        missing = len(gap) - (len(tail) - len(tail.rstrip("\n")))
        if self._length and missing > 0:
            self._write("\n" * missing)

    def _write(self, text: str) -> None:
        if self._marker and text and not text.isspace():
            text = text.lstrip()
            text, self._marker = text if _OWN_MARKER.match(text) else self._marker + text, ""
        if text:
            self._parts.append(text)
            self._length += len(text)
            self._limit.check_text(self._length)
            if not text.isspace():
                self._bare, self._joined = None, False


def _roles(node: Any) -> set[str]:
    return set(f"{node.attributes.get('role') or ''} {node.attributes.get('epub:type') or ''}".split())


def _gap_of(tag: str) -> str:
    return "\n\n" if tag in _BLOCKS or tag in _HEADINGS else "\n" if tag in _LINES else ""


def _elements(node: Any) -> Iterator[Any]:
    child = node.child
    while child is not None:
        if child.is_element_node:
            yield child
        child = child.next


def _next_element(node: Any) -> str:
    after = node.next
    while after is not None and not after.is_element_node:
        after = after.next
    return str(after.tag) if after is not None else ""


def _is_hidden(node: Any) -> bool:
    attributes = node.attributes
    return (
        "hidden" in attributes
        or is_hiding(attributes.get("style") or "")
        or "mw-editsection" in (attributes.get("class") or "")
    )


def _own_rows(table: Any) -> Iterator[list[Any]]:
    """Cells of each row of a table, not of the tables inside it."""
    for part in _elements(table):
        for row in (
            [part] if part.tag == "tr" else _elements(part) if part.tag in ("thead", "tbody", "tfoot") else ()
        ):
            if row.tag == "tr" and not (row.attributes and _is_hidden(row)):
                yield [cell for cell in _elements(row) if cell.tag in ("td", "th")]


def _is_layout(rows: list[list[Any]]) -> bool:
    """Whether a table without names lays out a page: one row or column, or headings, fields or tables in its cells.

    A table inside a few cells of a large one is a part of it.
    """
    if len(rows) < 2 or max(map(len, rows)) < 2:
        return True
    cells = [cell for row in rows for cell in row]
    if any(cell.css_first("h1, h2, h3, h4, h5, h6, form, input") is not None for cell in cells):
        return True
    nested = sum(cell.css_first("table") is not None for cell in cells)
    return nested > 0 and (len(rows) < 3 or nested * _FEWEST_BESIDE > len(cells))


def _is_bold(node: Any) -> bool:
    inner = node
    while True:
        parts = list(_elements(inner))
        if (
            len(parts) != 1
            or (inner.text(deep=True) or "").strip() != (parts[0].text(deep=True) or "").strip()
        ):
            return False
        if parts[0].tag in ("b", "strong"):
            return True
        inner = parts[0]


def _span(value: str | None) -> int:
    number = whole_number(value or "1")
    return 1 if number is None or number < 0 else number


def _coloured(node: Any, above: _Frame | None) -> _Frame:
    """A frame with the colours that a node has inside another."""
    frame = _Frame(node.tag, None)
    if above is not None:
        frame.letters, frame.behind = above.letters, above.behind
    letters, behind = colours(node.attributes.get("style") or "", node.attributes)
    frame.letters = letters or frame.letters
    if behind is not None and min(behind) >= 0:
        frame.behind = behind
    return frame


def _title(node: Any, hidden: Set[int], frame: _Frame) -> str | None:
    """Words of a heading; None when they are too many for one."""
    walker = _Walker(SizeLimit(), keep_menus=True, in_cell=True, hidden=hidden, frame=frame)
    walker.walk(node)
    title = " ".join(walker.text.split()).rstrip("¶ ")
    return title if len(title) <= _LONGEST_TITLE else None
