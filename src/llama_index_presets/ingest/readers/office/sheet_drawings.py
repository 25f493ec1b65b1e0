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

WITHOUT_RESULT: Final = rb"(?:</f>|<f[^>]*/>)(?:<v\s*/>|<v></v>)?</c>"
"""End of a cell with a formula whose result was never computed."""

_WORKBOOK: Final = "xl/workbook.xml"
_CELL: Final = re.compile(rb'<c\s[^>]*?\br="([A-Z]{1,3}\d{1,7})"[^>]*><f[^>]*>([^<]*)' + WITHOUT_RESULT)
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


def drawing_lines(archive: zipfile.ZipFile, sheet: str) -> list[str]:
    """Texts above the cells of a sheet, from its top to its bottom.

    Args:
        archive: The workbook.
        sheet: The part that holds the sheet.
    """
    lines = list[str]()
    for _, kind, drawing in related_parts(archive, sheet):
        if kind != "drawing":
            continue
        related = {key: part for key, _, part in related_parts(archive, drawing)}
        anchors = [one for one in parse_xml(archive.read(drawing)) if local_name(one.tag).endswith("Anchor")]
        for anchor in sorted(anchors, key=_place):
            lines += filter(None, _texts(archive, anchor, related))
    return lines


def chart_text(chart: Any) -> str:
    """Titles of a chart and of its axes in one line; empty where it has none."""
    titles = (one for one in chart.iter() if local_name(one.tag) == "title")
    texts = list(dict.fromkeys(filter(None, map(_title, titles))))
    return f"Chart: {'; '.join(texts)}" if texts else ""


def links_without_result(sheet: bytes) -> dict[str, str | tuple[str, str]]:
    """Cells with a formula for a link that was never computed: their text, or the cell (column, row) that holds it."""
    found: dict[str, str | tuple[str, str]] = {}
    if b"HYPERLINK(" not in sheet.upper():
        return found
    for cell, formula in _CELL.findall(sheet):
        if link := _LINK.fullmatch(unescape(formula.decode("utf-8", "replace"))):
            address, text, column, row = link.groups()
            found[cell.decode()] = (column, row) if column else (text or address).replace('""', '"')
    return found


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
    at = {local_name(one.tag): int(one.text) for one in corner if (one.text or "").strip().isdecimal()}
    return at.get("row", 0), at.get("col", 0)


def _texts(archive: zipfile.ZipFile, anchor: Any, related: Mapping[str, str]) -> Iterator[str]:
    for one in anchor.iter():
        name = local_name(one.tag)
        if any(local_name(above.tag) == "Fallback" for above in one.iterancestors()):
            continue
        if name == "txBody":
            yield _words(one)
        elif name == "pic":
            described = next((part for part in one.iter() if local_name(part.tag) == "cNvPr"), one)
            alt = description(attribute(described, "descr"))
            yield f"[Image: {alt}]" if alt else ""
        elif name == "chart" and (part := related.get(_relation(one, "id"))):
            yield chart_text(parse_xml(archive.read(part)))
        elif name == "relIds" and (part := related.get(_relation(one, "dm"))):
            points = parse_xml(archive.read(part)).iter()
            yield from (_words(point) for point in points if local_name(point.tag) == "pt")


def _title(title: Any) -> str:
    """Words of a title, typed or kept from the cell that it refers to."""
    kept = (one.text or "" for one in title.iter() if local_name(one.tag) == "v")
    return _words(title) or " ".join(" ".join(kept).split())


def _words(element: Any) -> str:
    lines = []
    for paragraph in element.iter():
        if local_name(paragraph.tag) == "p":
            runs = (
                (one.text or "") if local_name(one.tag) == "t" else " "
                for one in paragraph.iter()
                if local_name(one.tag) in ("t", "br", "tab")
            )
            lines.append(" ".join("".join(runs).split()))
    return " ".join(filter(None, lines))
