"""HTML pages: words that a reader of the page sees, headings as paths, table cells with the names of their columns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llama_index_presets._extras import require
from llama_index_presets.ingest.clean import whole_characters, without_controls
from llama_index_presets.ingest.document_metadata import about_html
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file

__all__ = ["closed_html", "plain_from_html", "read_html"]

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SKIPPED = {"script", "style", "noscript", "template", "head", "svg", "nav", "button", "form"}
_BLOCKS = {
    "p",
    "div",
    "section",
    "article",
    "ul",
    "ol",
    "table",
    "blockquote",
    "pre",
    "dl",
    "figure",
    "main",
    "hr",
}
_LINES = {
    "li",
    "dt",
    "dd",
    "br",
    "figcaption",
    "caption",
    "tr",
    "td",
    "th",
}  # cells: of a table around tables
_LONGEST_TITLE = (
    500  # characters; a longer "heading" is prose, and would stand in the label of each section below it
)
_UNCLOSED = (
    (re.compile("<(?=!--)"), "-->"),
    (re.compile(r"<(?=!\[\s*(?:cdata|temp|ignore|include|rcdata))", re.IGNORECASE), "]]>"),
    (re.compile(r"<(?=!\[)"), "]>"),
    (re.compile("<"), ">"),
)


def read_html(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text and meta tags of an HTML file."""
    decoded = read_text_file(path, limit)
    plain = plain_from_html(decoded.text, limit)
    return decoded.of(plain), about_html(decoded.text)


def plain_from_html(html: str, limit: SizeLimit = DEFAULT_LIMIT) -> PlainText:
    """HTML without tags, scripts, navigation and forms; table cells carry their column's name.

    Example:
        >>> plain_from_html("<h1>A</h1><p>b <b>c</b></p><script>x()</script>").text.strip()
        'b c'
    """
    bs4 = require("bs4", extra="readers")
    walker = _Walker(bs4, limit)
    walker.walk(bs4.BeautifulSoup(closed_html(html), "html.parser"))
    return PlainText(walker.text, tuple(walker.headings))


def closed_html(html: str) -> str:
    """HTML whose last comments, sections and tags are text where nothing closes them.

    Python's parser looks for the end of each from its beginning to the end of the file, which takes minutes for some
    hundred kilobytes of ``<!--``.

    Example:
        >>> closed_html("<p>a</p> 1 <b")
        '<p>a</p> 1 &lt;b'
    """
    for opening, closing in _UNCLOSED:
        end = html.rfind(closing) + 1
        html = html[:end] + opening.sub("&lt;", html[end:])
    return html


def _title(tag: Any) -> str | None:
    """Words of a heading; None when they are too many for one."""
    title = ""
    for words in tag.stripped_strings:
        title += whole_characters(words) + " "
        if len(title) > _LONGEST_TITLE:
            return None
    return " ".join(title.split())


class _Walker:
    """Walks a parsed page depth first and writes its text."""

    def __init__(self, bs4: Any, limit: SizeLimit) -> None:
        self._bs4 = bs4
        self._limit = limit
        self._parts: list[str] = []
        self._length = 0
        self._path: list[tuple[int, str]] = []
        self.headings: list[Mark] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def walk(self, page: Any) -> None:
        """With a stack of its own: tags that are never closed nest deeper than Python recurses."""
        stack = [(iter(page.children), page.name, "")]
        while stack:
            children, name, gap = stack[-1]
            child = next(children, None)
            if child is None:
                self._gap(gap)
                stack.pop()
            elif isinstance(child, self._bs4.Tag):
                if (around := self._enter(child)) is not None:
                    self._gap(around)
                    stack.append((iter(child.children), child.name, around))
            elif type(child) is self._bs4.NavigableString:  # not comments, doctypes, CDATA
                self._words(str(child), verbatim=name in ("pre", "code"))

    def _enter(self, tag: Any) -> str | None:
        """The gap around a tag whose children are to be walked; None when there is nothing more to do with it."""
        if tag.name in _SKIPPED:
            return None
        if tag.name in _HEADINGS:
            title = _title(tag)
            if title is None:
                return "\n\n"
            self._heading(_HEADINGS[tag.name], title)
            return None
        if tag.name == "table" and not tag.find("table"):
            self._table(tag)
            return None
        return "\n\n" if tag.name in _BLOCKS else "\n" if tag.name in _LINES else ""

    def _heading(self, level: int, title: str) -> None:
        if not title:
            return
        self._gap("\n\n")
        self._path = [(depth, text) for depth, text in self._path if depth < level] + [(level, title)]
        self.headings.append((self._length, " > ".join(text for _, text in self._path)))

    def _table(self, table: Any) -> None:
        rows = [
            [" ".join(cell.get_text(" ").split()) for cell in row.find_all(["th", "td"])]
            for row in table.find_all("tr")
        ]
        header = rows[0] if len(rows) > 1 and all(rows[0]) else None
        caption = table.find("caption")
        title = " ".join(caption.get_text(" ").split()) if caption else ""
        self._gap("\n\n")
        above = " > ".join(text for _, text in self._path)
        if title:
            self.headings.append((self._length, " > ".join(filter(None, (above, title)))))
        for row in rows[1:] if header else rows:
            named = header is not None and len(header) == len(row)
            cells = (
                [f"{name}: {cell}" for name, cell in zip(header or [], row, strict=True)] if named else row
            )
            self._write("; ".join(cell for cell in cells if cell))
            self._gap("\n\n")
        if title:
            self.headings.append((self._length, above))

    def _words(self, text: str, *, verbatim: bool) -> None:
        text = without_controls(text)
        if not verbatim:
            text = re.sub(r"\s+", " ", text)
            if not self._parts or self._parts[-1].endswith(("\n", " ")):
                text = text.lstrip()
        self._write(text)

    def _gap(self, gap: str) -> None:
        """Make sure that the text so far ends with this gap, unless nothing was written yet."""
        tail = "".join(self._parts[-2:])[-2:]
        missing = len(gap) - (len(tail) - len(tail.rstrip("\n")))
        if self._length and missing > 0:
            self._write("\n" * missing)

    def _write(self, text: str) -> None:
        if text:
            self._parts.append(text)
            self._length += len(text)
            self._limit.check_text(self._length)
