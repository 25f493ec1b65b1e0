"""OpenDocument texts, sheets and slides: their XML, which states each cell as it is shown, becomes HTML."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import about_properties
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.office.formulas import formula_text
from llama_index_presets.ingest.readers.office.odf_lists import ITEM_TAG, LABEL, mark_numbered
from llama_index_presets.ingest.readers.office.odf_sheets import count_of, sheet_of_table
from llama_index_presets.ingest.readers.office.packages import attribute, check_package, local_name, parse_xml
from llama_index_presets.ingest.readers.office.sheets import plain_from_sheets
from llama_index_presets.ingest.readers.parts import joined_parts

__all__ = ["read_odp", "read_ods", "read_odt"]

_SKIPPED: Final = frozenset(
    [
        "tracked-changes",
        "sequence-decls",
        "forms",
        "annotation-end",
        "bookmark",
        "soft-page-break",
        "page-number",
        "page-count",
        "page-thumbnail",
        "note-citation",
        "image",
    ]
)
_TEXT: Final = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_BLOCKS: Final = frozenset(
    {"list", "list-header", "list-item", "section", "note", "note-body", "numbered-paragraph"}
)
"""Elements of text that hold paragraphs; white space in them is indentation."""
_RAISED: Final = re.compile(r"super|[1-9]")
_NOTE_BEGIN: Final = "[<wbr>"  # so that a note is told from brackets in the text
_NOTE_END: Final = "<wbr>]"
_NOTE: Final = re.compile(r" (\[<wbr>[^<]*+<wbr>\])")
_MARKUP: Final = re.compile(r"<[^<>]*>")
_TAGS: Final = {"p": "p", "list": "ul", "list-item": "li", "notes": "div", "text-box": "div", "frame": "div"}


def read_odt(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of an OpenDocument text: headings, lists, tables, notes and frames."""
    body, about = _body(path, limit, "text")
    above, below = (_margins(path, kind, limit) for kind in ("header", "footer"))
    return plain_from_html(above + "".join(_html(body, limit)) + below, limit, keep_menus=True), about


def _margins(path: Path, kind: str, limit: SizeLimit) -> str:
    """Paragraphs above or below the pages, each text once and without page numbers, as HTML."""
    with zipfile.ZipFile(path) as archive:
        if "styles.xml" not in archive.namelist():
            return ""
        root = parse_xml(archive.read("styles.xml"))
    _drop_hidden_text(root)
    lines: dict[str, None] = {}
    for part in root.iter():
        if (
            local_name(part.tag) in (kind, f"{kind}-left", f"{kind}-first")
            and attribute(part, "display") != "false"
        ):
            for paragraph in (one for one in part.iter() if local_name(one.tag) in ("p", "h")):
                if not any(local_name(one.tag) in ("page-number", "page-count") for one in paragraph.iter()):
                    lines.setdefault("".join(_html(paragraph, limit)).strip())
    return "".join(f"<p>{line}</p>" for line in lines if line)


def read_odp(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Slides of an OpenDocument presentation, a page each, with their notes."""
    body, about = _body(path, limit, "presentation")
    slides = [part for part in body if local_name(part.tag) == "page"]
    pages = (
        (str(number), plain_from_html("".join(_html(slide, limit)), limit, keep_menus=True))
        for number, slide in enumerate(slides, start=1)
    )
    return joined_parts(pages, limit), about


def read_ods(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Sheets of an OpenDocument spreadsheet, cells as they are shown."""
    body, about = _body(path, limit, "spreadsheet")
    unseen = _hidden_styles(body)
    with zipfile.ZipFile(path) as archive:
        unread = set(archive.namelist())
        sheets = (
            sheet_of_table(table, archive, unseen, unread, limit)
            for table in body
            if local_name(table.tag) == "table"
        )
        return plain_from_sheets(sheets, limit), about


def _body(path: Path, limit: SizeLimit, kind: str) -> tuple[Any, dict[str, Any]]:
    check_package(path, limit, "OpenDocument")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "META-INF/manifest.xml" in names and b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise IngestError("The file has a password. Save it without one.")
        if "content.xml" not in names:
            raise IngestError(
                "The file cannot be read: it is no OpenDocument file, or damaged. Save it again."
            )
        root = parse_xml(archive.read("content.xml"))
        if kind != "spreadsheet":  # there an object is a chart of cells that are read
            _embed(root, archive)
        styles = parse_xml(archive.read("styles.xml")) if "styles.xml" in names and kind == "text" else None
        about = _about(parse_xml(archive.read("meta.xml"))) if "meta.xml" in names else {}
    _drop_hidden_text(root)
    _mark_raised(root, styles)
    mark_numbered(root, styles)
    body = next((one for one in root.iter() if local_name(one.tag) == kind), None)
    if body is None:
        raise IngestError(f"The file holds no {kind}. Give it the ending of its kind.")
    return body, about


def _drop_hidden_text(root: Any) -> None:
    """Remove words and paragraphs whose style says that they are not shown."""
    unseen = {
        attribute(part.getparent(), "name")
        for part in root.iter()
        if local_name(part.tag) == "text-properties" and attribute(part, "display") == "none"
    }
    for part in list(root.iter()) if unseen else ():
        if local_name(part.tag) in ("span", "p", "h") and attribute(part, "style-name") in unseen:
            tail, attributes = part.tail, dict(part.attrib)
            part.clear()
            part.tail = tail
            part.attrib.update(attributes)


def _mark_raised(root: Any, styles: Any) -> None:
    """Mark words whose style raises them above the line."""
    raised = {
        attribute(part.getparent(), "name")
        for one in (root, styles)
        for part in (one.iter() if one is not None else ())
        if local_name(part.tag) == "text-properties" and _RAISED.match(attribute(part, "text-position"))
    }
    for part in root.iter() if raised else ():
        if local_name(part.tag) == "span" and attribute(part, "style-name") in raised:
            part.set(ITEM_TAG, "sup")


def _embed(root: Any, archive: zipfile.ZipFile) -> None:
    """Put what stands in files of their own, formulas and charts, where it is first shown.

    Each once: a small file could name one of a megabyte thousands of times.
    """
    names = set(archive.namelist())
    for place in [one for one in root.iter() if local_name(one.tag) == "object"]:
        name = f"{attribute(place, 'href').removeprefix('./').rstrip('/')}/content.xml"
        if name in names:
            names.remove(name)
            place.append(parse_xml(archive.read(name)))


def _formula(frame: Any) -> str:
    """The formula that a frame holds, as it was typed; empty where it holds none."""
    for math in (one for one in frame.iter() if local_name(one.tag) == "math"):
        typed = next((one.text for one in math.iter() if local_name(one.tag) == "annotation"), None)
        return " ".join((typed or formula_text(math)).split())
    return ""


def _hidden_styles(body: Any) -> set[str]:
    """Names of the styles of sheets that are hidden."""
    return {
        attribute(part.getparent(), "name")
        for part in body.getroottree().iter()
        if local_name(part.tag) == "table-properties" and attribute(part, "display") == "false"
    }


def _about(meta: Any) -> dict[str, Any]:
    found = {local_name(element.tag): element.text for element in meta.iter() if element.text}
    return about_properties(found.get("title"), found.get("initial-creator") or found.get("creator"))


def _html(element: Any, limit: SizeLimit) -> Iterator[str]:
    """The children of an element as HTML."""
    is_text = _holds_text(element)
    if element.text and (is_text or local_name(element.tag) in ("title", "desc")):
        yield escape(element.text)
    for part in element:
        yield _part(part, limit)
        if part.tail and is_text:
            yield escape(part.tail)


def _holds_text(element: Any) -> bool:
    """Whether characters stand in an element itself: in paragraphs, and in fields such as numbers of captions."""
    return str(element.tag).startswith(_TEXT) and local_name(element.tag) not in _BLOCKS


def _part(part: Any, limit: SizeLimit) -> str:
    """An element as HTML, without what follows it."""
    name = local_name(part.tag)
    if name in _SKIPPED:
        return ""
    if name in ("s", "tab", "line-break"):
        return "<br>" if name == "line-break" else " "
    if name == "table":
        return "".join(_table(part, limit))
    if name == "object":
        tables = (table for table in part.iter() if local_name(table.tag) == "table")
        return "".join(text for table in tables for text in _table(table, limit))
    is_title = name == "frame" and attribute(part, "class") == "title"
    if name == "frame" and not is_title and (formula := _formula(part)):
        return f" {escape(formula)} "
    inner = "".join(_html(part, limit))
    if name == "number":  # of a list item or a heading, whose marker it is
        return "" if local_name(part.getparent().tag) in ("list-item", "h") else f"{inner} "
    if name == "h":
        level = min(count_of(part, "outline-level", 6), 6)
        label = f"{escape(number)} " if (number := part.get(LABEL)) else ""
        notes = "".join(f"<p>{note}</p>" for note in _NOTE.findall(inner))
        return f"<h{level}>{label}{_NOTE.sub('', inner)}</h{level}>{notes}"
    if is_title:
        return f"<h1>{inner.replace('<p>', ' ').replace('</p>', '')}</h1>"
    if name == "p" and attribute(part, "style-name") == "Title":
        return f"<h1>{inner}</h1>"
    if name in ("note", "annotation"):
        words = " ".join(_MARKUP.sub(" ", inner).split())
        if not words:
            return ""
        words = f" {_NOTE_BEGIN}{'Comment: ' if name == 'annotation' else ''}{words}{_NOTE_END}"
        return f"{words} " if name == "annotation" else words
    note = "<p>Notes:</p>" if name == "notes" and inner.strip() else ""
    tag = part.get(ITEM_TAG) or _TAGS.get(name)
    return f"<{tag}>{note}{inner}</{tag.split()[0]}>" if tag else inner


def _table(table: Any, limit: SizeLimit) -> Iterator[str]:
    yield "<table>"
    for group in table.iter():
        if local_name(group.tag) != "table-row" or _table_of(group) is not table:
            continue
        is_head = local_name(group.getparent().tag) == "table-header-rows"
        yield "<tr>"
        for cell in group:
            if local_name(cell.tag) == "table-cell":
                tag = "th" if is_head else "td"
                columns, rows = (
                    count_of(cell, f"number-{kind}-spanned", 1000) for kind in ("columns", "rows")
                )
                yield f'<{tag} colspan="{columns}" rowspan="{rows}">{"".join(_html(cell, limit))}</{tag}>'
        yield "</tr>"
    yield "</table>"


def _table_of(row: Any) -> Any:
    above = row.getparent()
    while above is not None and local_name(above.tag) != "table":
        above = above.getparent()
    return above
