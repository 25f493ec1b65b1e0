"""Rich text to plain text: markup is parsed by a library, headings become marks, nothing else of it is kept."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from llama_index_presets._extras import require
from llama_index_presets.ingest.plain import Mark, PlainText

__all__ = ["plain_from_html", "plain_from_markdown", "plain_from_pages", "plain_from_rows", "plain_from_text"]

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
_LINES = {"li", "dt", "dd", "br", "figcaption", "caption"}
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)\s*")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")


def plain_from_text(text: str) -> PlainText:
    """Text as it is, without control characters.

    Example:
        >>> plain_from_text("a\\x00b\\r\\nc").text
        'ab\\nc'
    """
    return PlainText(_CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def plain_from_markdown(text: str) -> PlainText:
    """Markdown, tables included, without its syntax.

    Example:
        >>> plain = plain_from_markdown("# Title\\n\\nSome *bold* text.")
        >>> plain.text.strip(), plain.headings[0][1]
        ('Some bold text.', 'Title')
    """
    markdown_it = require("markdown_it", extra="readers")
    return plain_from_html(
        markdown_it.MarkdownIt("commonmark").enable("table").render(_without_front_matter(text))
    )


def plain_from_html(html: str) -> PlainText:
    """HTML without tags, scripts, navigation and forms; table cells carry their column's name.

    Example:
        >>> plain_from_html("<h1>A</h1><p>b <b>c</b></p><script>x()</script>").text.strip()
        'b c'
    """
    bs4 = require("bs4", extra="readers")
    walker = _Walker(bs4)
    walker.walk(bs4.BeautifulSoup(html, "html.parser"))
    return PlainText(walker.text, tuple(walker.headings))


def plain_from_rows(text: str, delimiter: str = ",") -> PlainText:
    """Delimited rows under a header line: a paragraph a row, ``column: value; …``.

    Example:
        >>> plain_from_rows("name,age\\nAda,36\\n").text
        'name: Ada; age: 36'
    """
    rows = csv.DictReader(
        io.StringIO(_CONTROL.sub("", text)), delimiter=delimiter, restkey="more", restval=""
    )
    return PlainText("\n\n".join(_row_text(row) for row in rows))


def plain_from_pages(pages: list[tuple[str, str]]) -> PlainText:
    """Pages as (label, text), joined; a sentence that runs over a page break belongs to the page where it begins.

    Example:
        >>> plain_from_pages([("1", "a"), ("2", "b")]).page(2)
        '2'
    """
    text, marks = "", list[Mark]()
    for label, page in pages:
        page = plain_from_text(page).text.strip()
        marks.append((len(text) + _carried_over(text, page), label))
        text += page + "\n"
    return PlainText(text, pages=tuple(marks))


def _carried_over(before: str, page: str) -> int:
    """Length of the end of the last page's sentence at the beginning of a page."""
    runs_on = before.rstrip()[-1:] not in (*".!?:;", "") and page[:1].islower()
    end = _SENTENCE_END.search(page) if runs_on else None
    return end.end() if end else 0


def _row_text(row: dict[str | Any, str | Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in row.items() if value)


def _without_front_matter(text: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", text.replace("\r\n", "\n"), count=1, flags=re.DOTALL)


class _Walker:
    """Walks a parsed page depth first and writes its text."""

    def __init__(self, bs4: Any) -> None:
        self._bs4 = bs4
        self._parts: list[str] = []
        self._length = 0
        self._path: list[tuple[int, str]] = []
        self.headings: list[Mark] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def walk(self, element: Any) -> None:
        for child in element.children:
            if isinstance(child, self._bs4.Tag):
                self._tag(child)
            elif type(child) is self._bs4.NavigableString:  # not comments, doctypes, CDATA
                self._words(str(child), verbatim=element.name in ("pre", "code"))

    def _tag(self, tag: Any) -> None:
        if tag.name in _SKIPPED:
            return
        if tag.name in _HEADINGS:
            self._heading(_HEADINGS[tag.name], " ".join(tag.get_text(" ").split()))
        elif tag.name == "table":
            self._table(tag)
        else:
            gap = "\n\n" if tag.name in _BLOCKS else "\n" if tag.name in _LINES else ""
            self._gap(gap)
            self.walk(tag)
            self._gap(gap)

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
        text = _CONTROL.sub("", text)
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
