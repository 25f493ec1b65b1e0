"""Plain text with positions of headings and pages: output of every reader, input of the chunker."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["LineBox", "Mark", "PlainText", "Section", "TableSpan", "is_table_caption"]

Mark = tuple[int, str]
"""Character offset at which a heading path or a page begins, and its label."""


_LONGEST_CAPTION = 400  # characters; the pattern below takes long on a line of a megabyte
_CAPTION = re.compile(r"^(?:Table|TABLE|Exhibit|Schedule)\s+[\dA-Z][\w.-]*\s*[.:–—-]?\s*[^!?]{0,120}$")


def is_table_caption(line: str) -> bool:
    """Whether a line, or the last part of a heading path, names a table.

    Example:
        >>> is_table_caption("Table 3: Borrowings"), is_table_caption("Tables were set.")
        (True, False)
    """
    return len(line) <= _LONGEST_CAPTION and bool(_CAPTION.match(line))


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of text under one heading.

    Attributes:
        heading: Path of headings, such as ``"Botulism > Treatment"``; empty above the first.
        start: Offset of ``text`` in the whole, in characters.
        text: The stretch.
        own_start: Offset from which on it stands under its heading, where lines under the title above come first.
    """

    heading: str
    start: int
    text: str
    own_start: int | None = None


@dataclass(frozen=True, slots=True)
class TableSpan:
    """A table in the text.

    Attributes:
        start: Offset of its first character.
        end: Offset after its last character.
        name: Caption, or a number such as ``"Table 2"``.
        header: Line of column names that stands again at the top of each part when the table is cut; may be empty.
    """

    start: int
    end: int
    name: str = ""
    header: str = ""


@dataclass(frozen=True, slots=True)
class LineBox:
    """Rectangle of a line of text on its page.

    Attributes:
        start: Offset of the line's first character.
        end: Offset after its last character.
        page: Label of the page, as in `PlainText.pages`.
        box: x0, y0, x1, y1 in points, from the upper left corner of the page.
    """

    start: int
    end: int
    page: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class PlainText:
    """Text without markup.

    Attributes:
        text: The whole text.
        headings: Where each heading path begins, ascending.
        pages: Where each page begins, ascending; empty for formats without pages.
        tables: Tables in the text, ascending.
        lines: Rectangles of the lines, ascending; empty for formats without pages.
        warnings: What a reader of the document should know, such as a guessed encoding or a page without text.
        encoding: Of the bytes, such as ``"cp1251"``; empty where the format fixes it.
    """

    text: str
    headings: Sequence[Mark] = ()
    pages: Sequence[Mark] = ()
    tables: Sequence[TableSpan] = ()
    lines: Sequence[LineBox] = ()
    warnings: Sequence[str] = ()
    encoding: str = ""

    @property
    def length(self) -> int:
        """Characters of the text."""
        return len(self.text)

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing but white space."""
        return not self.text.strip()

    @property
    def root_headings(self) -> Sequence[str]:
        """First parts of the heading paths, such as ``"Botulism"``, at most two of them."""
        roots = dict.fromkeys(label.split(" > ")[0] for _, label in self.headings if label)
        return list(roots)[:2]

    def stretch(self, start: int, end: int) -> str:
        """Characters of the text from one offset to another."""
        return self.text[start:end]

    def whole(self) -> PlainText:
        """The text, independent of the file that it was read from."""
        return self

    def sections(self) -> Iterator[Section]:
        """The text cut at its headings and pages, in order; stretches of white space are left out."""
        cuts = sorted({0, *(offset for offset, _ in (*self.headings, *self.pages)), len(self.text)})
        for start, end in itertools.pairwise(cuts):
            if self.text[start:end].strip():
                yield Section(_label(self.headings, start) or "", start, self.text[start:end])

    def tables_in(self, start: int, end: int) -> Iterator[TableSpan]:
        """Tables that share a character with a stretch of the text, in order."""
        first = bisect_left(self.tables, start + 1, key=lambda table: table.end)
        return itertools.takewhile(
            lambda table: table.start < end, itertools.islice(self.tables, first, None)
        )

    def page(self, offset: int) -> str | None:
        """Label of the page that holds a character offset, or None where there are no pages."""
        return _label(self.pages, offset)

    def lines_in(self, start: int, end: int) -> Sequence[LineBox]:
        """Lines that a stretch of the text touches."""
        first = bisect_right(self.lines, start, key=lambda line: line.end)
        last = bisect_left(self.lines, end, key=lambda line: line.start)
        return self.lines[first:last]


def _label(marks: Sequence[Mark], offset: int) -> str | None:
    """The label of the last mark at or before an offset."""
    place = bisect_right(marks, offset, key=lambda mark: mark[0]) - 1
    return marks[place][1] if place >= 0 else None
