"""Table of readers: file suffix to the function that reads it, imported when the first file needs it."""

from __future__ import annotations

import importlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.plain_text import PlainText

__all__ = ["READERS", "Reader", "ReaderEntry", "reader_for"]


class Reader(Protocol):
    """Reads one file."""

    def __call__(self, path: Path, limit: SizeLimit, /) -> tuple[PlainText, dict[str, Any]]:
        """Plain text of a file, and the metadata that it states.

        Raises:
            IngestError: It is damaged, locked, or expands beyond the limit.
            MissingExtraError: A library is missing; the message carries the install line.
        """


@dataclass(frozen=True, slots=True)
class ReaderEntry:
    """Where a reader is.

    Attributes:
        function: ``module:function`` below this package.
        extra: Extra of llama-index-presets that brings its libraries; empty when it needs none.
        version: Raised by a release that gets another text from the same files; `ingest` then says how many documents
            an older one has read. 0 is what was read before versions were recorded.
    """

    function: str
    extra: str = ""
    version: int = 1

    def load(self) -> Reader:
        """Import the reader."""
        module, _, name = self.function.partition(":")
        return cast(
            Reader, getattr(importlib.import_module(f"llama_index_presets.ingest.readers.{module}"), name)
        )


TEXT: Final = ReaderEntry("text:read_text")


def _table(*rows: tuple[str, str, str] | tuple[str, str, str, int]) -> dict[str, ReaderEntry]:
    return {suffix: ReaderEntry(*entry) for suffixes, *entry in rows for suffix in suffixes.split()}


READERS: Final[dict[str, ReaderEntry]] = _table(
    (".md .markdown", "markdown:read_markdown", "readers", 2),
    (".html .htm .xhtml", "html.reader:read_html", "readers", 2),
    (".rst", "markup:read_rst", "readers"),
    (".org", "markup:read_org", "readers", 2),
    (".tex .latex .ltx", "latex:read_latex", "readers-all", 2),
    (".csv .tsv .tab", "csv:read_csv", "readers", 2),
    (".pdf", "pdf.reader:read_pdf", "readers"),
    (".docx .docm .dotx .dotm", "office.word:read_docx", "readers", 2),
    (".rtf", "office.rtf:read_rtf", "readers", 2),
    (".odt .ott", "office.odf:read_odt", "readers", 2),
    (".ods .ots", "office.odf:read_ods", "readers", 2),
    (".odp .otp", "office.odf:read_odp", "readers", 2),
    (".pptx .pptm .ppsx .ppsm .potx .potm", "office.slides:read_pptx", "readers", 2),
    (".xlsx .xlsm .xltx .xltm", "office.sheets:read_xlsx", "readers", 2),
    (".xls", "office.sheets:read_xls", "readers", 2),
    (".xlsb", "office.sheets:read_xlsb", "readers", 2),
    (".doc .dot .ppt .pps .hwp .pages .numbers", "office.packages:refuse_old", ""),
    (".eml .emlx .mht .mhtml", "mail.eml:read_eml", "readers"),
    (".mbox", "mail.eml:read_mbox", "readers"),
    (".msg", "mail.msg:read_msg", "readers"),
    (".ics .ical .vcf .vcard", "mail.calendar:read_calendar", "", 2),
    (".epub", "epub:read_epub", "readers", 2),
    (".json .geojson", "data:read_json", ""),
    (".jsonl .ndjson", "data:read_json_lines", ""),
    (".xml .rss .atom .svg", "data:read_xml", "readers"),
    (".ipynb", "code:read_notebook", "readers"),
    (
        ".py .pyi .js .jsx .mjs .cjs .ts .tsx .java .kt .kts .scala .go .rs .rb .php .c .h .cc .cpp .cxx .hpp .hh .cs "
        ".swift .sh .bash .zsh .ps1 .pl .pm .lua .r .jl .sql .ex .exs .dart .m .mm .groovy",
        "code:read_code",
        "",
    ),
    (".png .jpg .jpeg .webp .gif .bmp .tif .tiff", "ocr:read_scan", "ocr"),
)
"""Lower-case suffix, with its dot, to the reader; any other is read as plain text."""


def reader_for(path: Path) -> ReaderEntry:
    """The reader of a file: chosen by its suffix, and by its first bytes where these say that the suffix is wrong.

    Programs export web pages and plain tables as ``.xls``, and rich text as ``.doc``.

    Example:
        >>> reader_for(Path("a/Report.PDF")).function, reader_for(Path("notes")).function
        ('pdf.reader:read_pdf', 'text:read_text')
    """
    suffix = path.suffix.lower()
    entry = READERS.get(suffix, TEXT)
    if path.is_file() and (suffix not in READERS or suffix in _OFTEN_WRONG):
        with path.open("rb") as file:
            found = _by_content(file.read(_HEAD), path, suffix)
        return READERS.get(found, TEXT) if found else entry
    return entry


_HEAD: Final = 1024  # bytes
_OLD: Final = (".doc", ".dot", ".ppt", ".pps")
_OFTEN_WRONG: Final = frozenset((".xls", ".xlsx", ".docx", ".pptx", ".txt", *_OLD))
_BEGINNINGS: Final = ((b"%PDF-", ".pdf"), (b"{\\rtf", ".rtf"))
_HTML: Final = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|table|meta)\b", re.I | re.S
)
_XML: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml\s|<!DOCTYPE\s+[\w:-]+\s+(?:PUBLIC|SYSTEM|\[))")
_MEMBERS: Final = {
    "word/document.xml": ".docx",
    "xl/workbook.xml": ".xlsx",
    "xl/workbook.bin": ".xlsb",
    "ppt/presentation.xml": ".pptx",
    "META-INF/container.xml": ".epub",
}
_OPEN_DOCUMENT: Final = {"text": ".odt", "spreadsheet": ".ods", "presentation": ".odp"}


def _by_content(head: bytes, path: Path, suffix: str) -> str:
    """The suffix that the first bytes stand for, or empty where they say nothing."""
    for begin, found in _BEGINNINGS:
        if head.startswith(begin):
            return found
    if head.startswith(b"PK\x03\x04"):
        return _by_members(path)
    if suffix == ".txt":
        return ""
    if _HTML.match(head):
        return ".html"
    if _XML.match(head) and suffix not in READERS:
        return ".xml"
    if suffix in (".xls", ".xlsx"):
        if b"urn:schemas-microsoft-com:office:spreadsheet" in head:
            return ".xml"
        return "" if b"\0" in head else ".csv"
    if suffix in _OLD and head and b"\0" not in head:  # a text, such as a graph in the language of Graphviz
        return ".txt"
    return ""


def _by_members(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            kind = archive.read("mimetype")[:100].decode("ascii", "replace") if "mimetype" in names else ""
    except (zipfile.BadZipFile, OSError, RuntimeError):
        return ""
    if any(name.endswith(".iwa") or name == "index.apxl" for name in names):
        return ".pages"  # a document of Apple's programs, under whatever name: .key is that of a private key, too
    family = kind.rpartition("opendocument.")[2].partition("-")[0]
    return _OPEN_DOCUMENT.get(family, "") or next(
        (found for name, found in _MEMBERS.items() if name in names), ""
    )
