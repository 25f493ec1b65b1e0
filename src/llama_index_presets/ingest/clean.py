"""Cleaning: rich text to plain text; a library parses the markup, headings become marks, the rest is dropped."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

from llama_index_presets._extras import require
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText

__all__ = [
    "closed_html",
    "plain_from_html",
    "plain_from_markdown",
    "plain_from_pages",
    "plain_from_rows",
    "plain_from_text",
    "whole_characters",
]

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
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)\s*")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LONGEST_TITLE = (
    500  # characters; a longer "heading" is prose, and would stand in the label of each section below it
)
_UNCLOSED = (
    (re.compile("<(?=!--)"), "-->"),
    (re.compile(r"<(?=!\[\s*(?:cdata|temp|ignore|include|rcdata))", re.IGNORECASE), "]]>"),
    (re.compile(r"<(?=!\[)"), "]>"),
    (re.compile("<"), ">"),
)


def whole_characters(text: str) -> str:
    """Well-formed Unicode: surrogate pairs are joined to their character, lone ones replaced.

    Example:
        >>> whole_characters("a\\ud83d\\ude00b\\ud800") == "a\\U0001f600b\\ufffd"
        True
    """
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain_from_text(text: str) -> PlainText:
    """Text as it is, without control characters and halves of characters.

    Example:
        >>> plain_from_text("a\\x00b\\r\\nc").text
        'ab\\nc'
    """
    return PlainText(_CONTROL.sub("", whole_characters(text).replace("\r\n", "\n").replace("\r", "\n")))


def plain_from_markdown(text: str, limit: SizeLimit = DEFAULT_LIMIT) -> PlainText:
    """Markdown, tables included, without its syntax.

    Example:
        >>> plain = plain_from_markdown("# Title\\n\\nSome *bold* text.")
        >>> plain.text.strip(), plain.headings[0][1]
        ('Some bold text.', 'Title')
    """
    markdown_it = require("markdown_it", extra="readers").MarkdownIt("commonmark").enable("table")
    # Addresses are no text, and one that is defined once can be used in a million links.
    markdown_it.add_render_rule("link_open", lambda *_: "<a>")
    markdown_it.add_render_rule("image", lambda *_: "")
    return plain_from_html(markdown_it.render(_without_front_matter(text)), limit)


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


def plain_from_rows(text: str, limit: SizeLimit = DEFAULT_LIMIT, *, delimiter: str = ",") -> PlainText:
    """Delimited rows under a header line: a paragraph a row, ``column: value; …``.

    Example:
        >>> plain_from_rows("name,age\\nAda,36\\n").text
        'name: Ada; age: 36'
    """
    rows = csv.DictReader(
        io.StringIO(_CONTROL.sub("", whole_characters(text))), delimiter=delimiter, restkey="more", restval=""
    )
    return PlainText("\n\n".join(limit.texts(map(_row_text, rows))))


def plain_from_pages(pages: Iterable[tuple[str, str]], limit: SizeLimit = DEFAULT_LIMIT) -> PlainText:
    """Pages as (label, text), joined; a sentence that runs over a page break belongs to the page where it begins.

    Example:
        >>> plain_from_pages([("1", "a"), ("2", "b")]).page(2)
        '2'
    """
    parts, length, last, marks = list[str](), 0, "", list[Mark]()
    for label, page in pages:
        page = plain_from_text(page).text.strip()
        marks.append((length + _carried_over(last, page), label))
        parts.append(page + "\n")
        length += len(page) + 1
        last = page[-1:] or last
        limit.check_text(length)
    return PlainText("".join(parts), pages=tuple(marks))


def _carried_over(last: str, page: str) -> int:
    """Length of the end of the last page's sentence, whose last character is given, at the beginning of a page."""
    runs_on = last not in (*".!?:;", "") and page[:1].islower()
    end = _SENTENCE_END.search(page) if runs_on else None
    return end.end() if end else 0


def _row_text(row: dict[str | Any, str | Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in row.items() if value)


def _without_front_matter(text: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", text.replace("\r\n", "\n"), count=1, flags=re.DOTALL)


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
        text = _CONTROL.sub("", whole_characters(text))
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
