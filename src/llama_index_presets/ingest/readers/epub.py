"""Electronic books: chapters in the order of reading, each read as the HTML that it is.

The package is a zip archive of XHTML; the library for it (EbookLib) is under the AGPL, so its order is read here.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import plain_values
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import decode
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.office.packages import check_package, local_name, parse_xml
from llama_index_presets.ingest.readers.parts import joined_parts

__all__ = ["plain_from_xhtml", "read_epub"]

_EMPTY_TAG: Final = re.compile(
    r"<(title|script|style|a|p|div|span|td|th|li|b|i|em|strong|iframe|textarea|h[1-6])((?:\s[^<>]*)?)/>",
    re.IGNORECASE,
)
_LINK: Final = re.compile(r"<link\s[^<>]*>", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"""\shref\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_BODY: Final = re.compile(r"</head\s*>|<body\b", re.IGNORECASE)
_LONGEST_HEAD: Final = 20_000  # characters
_MOST_OF_SHEETS: Final = 50_000_000  # characters, in all chapters of a book
_CONTAINER: Final = "META-INF/container.xml"


def read_epub(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a book, and its title, authors and date.

    Raises:
        IngestError: It is locked (DRM), no book, or expands beyond `limit`.
    """
    check_package(path, limit, "EPUB")
    with zipfile.ZipFile(path) as archive:
        names = {name.casefold(): name for name in archive.namelist()}
        if _CONTAINER.casefold() not in names:
            raise IngestError("The file cannot be read: it is no EPUB book, or damaged. Save it again.")
        root = parse_xml(archive.read(names[_CONTAINER.casefold()]))
        place = next(
            value
            for one in root.iter()
            for key, value in one.attrib.items()
            if local_name(key) == "full-path"
        )
        book = parse_xml(archive.read(place))
        locked, chapters, missing = _locked(archive), list[tuple[str, PlainText]](), list[str]()
        sheets = _Sheets(archive, {key: name for key, name in names.items() if name not in locked})
        for href in _order(book):
            name = names.get(posixpath.normpath(posixpath.join(posixpath.dirname(place), href)).casefold())
            if name is None:
                missing.append(f"The chapter '{href}' is not in the file.")
            elif name in locked:
                raise IngestError("The book is locked (DRM). Ingest a copy without a lock.")
            else:
                text = decode(archive.read(name)).text
                chapters.append(("", sheets.plain(text, name, limit)))
        if sheets.missing:
            missing.append(
                f"{counted(sheets.missing, 'chapter', 'are')} read without style sheets, which are too long."
            )
    plain = joined_parts(chapters, limit)
    return PlainText(
        plain.text, plain.headings, tables=plain.tables, warnings=(*plain.warnings, *missing)
    ), _about(book)


def plain_from_xhtml(text: str, limit: SizeLimit = DEFAULT_LIMIT) -> PlainText:
    """Text of XHTML, in which a tag may close itself; HTML would read all that follows as its content.

    Example:
        >>> plain_from_xhtml("<html><head><title/></head><body><p>Text.</p></body></html>").text.strip()
        'Text.'
    """
    return plain_from_html(_EMPTY_TAG.sub(r"<\1\2></\1>", text), limit, keep_menus=True)


@dataclass(slots=True)
class _Sheets:
    """Style sheets of a book, which say what is hidden and how lists are marked.

    Attributes:
        archive: The book.
        names: Names of its files by their lower case, without those that are locked.
        left: Characters of sheets that chapters may still get: a small book could link one of many megabytes in
            thousands of places.
        missing: Chapters that were read without them.
    """

    archive: zipfile.ZipFile
    names: Mapping[str, str]
    left: int = _MOST_OF_SHEETS
    missing: int = 0
    _texts: dict[str, str] = field(default_factory=dict)

    def plain(self, text: str, chapter: str, limit: SizeLimit) -> PlainText:
        """A chapter with its sheets; without them where it would take minutes to compare them with it."""
        sheets = [self._text(path) for path in self._linked(text, chapter)]
        self.left -= sum(map(len, sheets))
        begin = _BODY.search(text)
        if begin and sheets and self.left >= 0:
            style = f"<style>{' '.join(sheets)}</style>"
            try:
                return plain_from_xhtml(text[: begin.start()] + style + text[begin.start() :], limit)
            except IngestError:  # where the chapter itself is why, it is so again
                pass
        plain = plain_from_xhtml(text, limit)
        self.missing += bool(sheets)
        return plain

    def _linked(self, text: str, chapter: str) -> dict[str, None]:
        """Sheets that a chapter links, each once."""
        found: dict[str, None] = {}
        for link in _LINK.findall(text[:_LONGEST_HEAD]):
            address = _ADDRESS.search(link) if "stylesheet" in link.lower() else None
            place = unquote(unescape(address[1] or address[2] or "")) if address else ""
            path = posixpath.normpath(posixpath.join(posixpath.dirname(chapter), place)).casefold()
            if path in self.names and path.endswith(".css"):
                found[path] = None
        return found

    def _text(self, path: str) -> str:
        if path not in self._texts:
            self._texts[path] = decode(self.archive.read(self.names[path])).text.replace("</", "<\\/")
        return self._texts[path]


def _order(book: Any) -> list[str]:
    """Addresses of the chapters, in the order of reading, without the table of contents."""
    items = {one.get("id"): one for one in book.iter() if local_name(one.tag) == "item"}
    spine = [
        items[one.get("idref")]
        for one in book.iter()
        if local_name(one.tag) == "itemref" and one.get("idref") in items
    ]
    chapters = [one for one in spine if "nav" not in (one.get("properties") or "").split()] or spine
    return [unquote(one.get("href") or "") for one in chapters]


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """Members that are encrypted; fonts often are, which hides no text."""
    if "META-INF/encryption.xml" not in archive.namelist():
        return set()
    root = parse_xml(archive.read("META-INF/encryption.xml"))
    return {unquote(one.get("URI") or "") for one in root.iter() if local_name(one.tag) == "CipherReference"}


def _about(book: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for one in book.iter():
        name, text = local_name(one.tag), " ".join((one.text or "").split())
        if name in ("title", "date", "language") and text:
            values.setdefault(name, text)
        elif name == "creator" and text:
            values.setdefault("authors", []).append(text)
    return plain_values(values)
