"""What a workbook shows above its cells and outside of their values: charts, text boxes, pictures, links."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any, Final

from llama_index_presets.ingest.readers.html.image_text import description
from llama_index_presets.ingest.readers.office.packages import attribute, local_name, parse_xml

__all__ = [
    "WITHOUT_RESULT",
    "chart_text",
    "drawing_lines",
    "links_without_result",
    "related_parts",
    "sheet_parts",
]

WITHOUT_RESULT: Final = rb"(?:</f>|<f[^<>]*/>)(?:<v\s*/>|<v></v>)?</c>"
"""End of a cell with a formula whose result was never computed."""

_WORKBOOK: Final = "xl/workbook.xml"
_CELL: Final = re.compile(
    rb'(?><c\s[^<>]*?\br="([A-Z]{1,3})(\d{1,7})")[^<>]*+><f[^<>]*+>([^<]*+)' + WITHOUT_RESULT
)
_WHOLE: Final = re.compile(r"\s*\d{1,9}\s*")
_LINK: Final = re.compile(
    r'\s*HYPERLINK\(\s*"((?:[^"]|"")*)"\s*(?:,\s*(?:"((?:[^"]|"")*)"|\$?([A-Z]{1,3})\$?(\d{1,7}))\s*)?\)\s*',
    re.I,
)


def sheet_parts(archive: zipfile.ZipFile) -> dict[str, str]:
    """Name of each sheet, with the file in the workbook that holds it."""
    if _WORKBOOK not in archive.namelist():
        return {}
    related = {key: part for key, _, part in related_parts(archive, _WORKBOOK)}
    sheets = [one for one in parse_xml(archive.read(_WORKBOOK)).iter() if local_name(one.tag) == "sheet"]
    return {
        attribute(one, "name"): related[key] for one in sheets if (key := _relation(one, "id")) in related
    }


def related_parts(archive: zipfile.ZipFile, part: str) -> Iterator[tuple[str, str, str]]:
    """Id, kind and file of each part that a part of a package refers to."""
    folder, name = posixpath.split(part)
    relations = posixpath.join(folder, "_rels", f"{name}.rels")
    names = set(archive.namelist())
    if relations not in names:
        return
    for one in parse_xml(archive.read(relations)):
        target = attribute(one, "Target")
        path = target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target)
        path = posixpath.normpath(path)
        if path in names:
            yield attribute(one, "Id"), attribute(one, "Type").rpartition("/")[2], path


def drawing_lines(archive: zipfile.ZipFile, sheet: str, unread: set[str]) -> list[str]:
    """Texts above the cells of a sheet, from its top to its bottom.

    Args:
        archive: The workbook.
        sheet: The part that holds the sheet.
        unread: Parts that may be read, from which those that are read are taken: a small workbook could name one of
            many megabytes thousands of times.
    """
    lines = list[str]()
    for _, kind, drawing in related_parts(archive, sheet):
        if kind != "drawing" or drawing not in unread:
            continue
        unread.remove(drawing)
        related = {key: part for key, _, part in related_parts(archive, drawing)}
        anchors = [one for one in parse_xml(archive.read(drawing)) if local_name(one.tag).endswith("Anchor")]
        for anchor in sorted(anchors, key=_place):
            lines += filter(None, _texts(archive, anchor, related, unread))
    return lines


def chart_text(chart: Any) -> str:
    """Titles of a chart and of its axes in one line; empty where it has none."""
    texts = list(dict.fromkeys(filter(None, map(_title, _outermost(chart, "title")))))
    return f"Chart: {'; '.join(texts)}" if texts else ""


def links_without_result(sheet: bytes) -> dict[tuple[int, int], str | tuple[int, int]]:
    """Cells (row, column) with a formula for a link that was never computed: their text, or the cell that holds it."""
    found: dict[tuple[int, int], str | tuple[int, int]] = {}
    if b"HYPERLINK(" not in sheet.upper():
        return found
    for column, row, formula in _CELL.findall(sheet):
        if link := _LINK.fullmatch(unescape(formula.decode("utf-8", "replace"))):
            address, text, text_column, text_row = link.groups()
            place = int(row), _column(column.decode())
            found[place] = (
                (int(text_row), _column(text_column)) if text_column else (text or address).replace('""', '"')
            )
    return found


def _column(letters: str) -> int:
    """Number of a column, from 1 for A."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - 64
    return number


def _relation(element: Any, name: str) -> str:
    """An attribute that names a related part, in the namespace of relationships."""
    return next(
        (
            str(value)
            for key, value in element.attrib.items()
            if local_name(key) == name and "relationships" in key
        ),
        "",
    )


def _place(anchor: Any) -> tuple[int, int]:
    corner = next((one for one in anchor if local_name(one.tag) == "from"), ())
    at = {local_name(one.tag): int(text) for one in corner if _WHOLE.fullmatch(text := one.text or "")}
    return at.get("row", 0), at.get("col", 0)


def _texts(
    archive: zipfile.ZipFile, element: Any, related: Mapping[str, str], unread: set[str]
) -> Iterator[str]:
    for one in element:
        name = local_name(one.tag)
        if name == "Fallback" or _is_hidden(one):
            continue
        if name == "txBody":
            yield _words(one)
        elif name == "pic":
            described = next((part for part in one.iter() if local_name(part.tag) == "cNvPr"), one)
            alt = description(attribute(described, "descr"))
            yield f"[Image: {alt}]" if alt else ""
        elif name == "chart" and (part := related.get(_relation(one, "id"))) in unread:
            unread.remove(part)
            yield chart_text(parse_xml(archive.read(part)))
        elif name == "relIds" and (part := related.get(_relation(one, "dm"))) in unread:
            unread.remove(part)
            yield from map(_words, _outermost(parse_xml(archive.read(part)), "pt"))
        else:
            yield from _texts(archive, one, related, unread)


def _is_hidden(shape: Any) -> bool:
    """Whether a shape, or a group of them, is one that the workbook hides."""
    named = next((one for one in shape if local_name(one.tag).startswith("nv")), ())
    return any(
        local_name(one.tag) == "cNvPr" and attribute(one, "hidden").lower() in ("1", "true") for one in named
    )


def _outermost(element: Any, name: str) -> Iterator[Any]:
    """Elements with a name that are in no other of that name, so that no text is read twice."""
    for one in element:
        if local_name(one.tag) == name:
            yield one
        else:
            yield from _outermost(one, name)


def _title(title: Any) -> str:
    """Words of a title, typed or kept from the cell that it refers to."""
    kept = (one.text or "" for one in title.iter() if local_name(one.tag) == "v")
    return _words(title) or " ".join(" ".join(kept).split())


def _words(element: Any) -> str:
    words = list[str]()
    for one in element.iter():
        name = local_name(one.tag)
        words.append((one.text or "") if name == "t" else " " if name in ("p", "br", "tab") else "")
    return " ".join("".join(words).split())
