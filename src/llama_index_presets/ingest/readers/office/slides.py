"""Slides: each is a page with its title, texts, tables, charts, comments and notes."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.html.image_text import description
from llama_index_presets.ingest.readers.html.list_markers import MARKER
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.office.number_formats import shown
from llama_index_presets.ingest.readers.office.packages import (
    check_package,
    core_properties,
    local_name,
    parse_xml,
)
from llama_index_presets.ingest.readers.office.slide_lists import paragraph_markers
from llama_index_presets.ingest.readers.parts import joined_parts
from llama_index_presets.packages.extras import require

__all__ = ["read_pptx"]

_TYPES: Final = "[Content_Types].xml"
_PRESENTATION: Final = b"application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml"
_SHOW_OR_TEMPLATE: Final = re.compile(
    rb"application/vnd\.(?:openxmlformats-officedocument\.presentationml\.(?:slideshow|template)\.main"
    rb"|ms-powerpoint\.(?:slideshow|template)\.macroEnabled\.main)\+xml"
)
_FIGURE: Final = re.compile(r"[-−+]?\d+")
_ROW: Final = 228_600  # EMU, a quarter of an inch: shapes that begin within it stand beside each other
_SLIDE_NUMBER, _FOOTERS = 13, (15, 16)  # types of placeholders


def read_pptx(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Slides of a PowerPoint file.

    Raises:
        IngestError: It has a password, is no PowerPoint file, or expands beyond `limit`.
    """
    check_package(path, limit, "PowerPoint")
    pptx = require("pptx", extra="readers-all")
    with zipfile.ZipFile(path) as archive:
        about = core_properties(archive)
        deck = pptx.Presentation(_as_presentation(archive) or str(path))
    warnings = list[str]()
    seen: set[str] = set()
    pages = (
        (str(number), plain_from_html("".join(_slide(slide, number, seen, warnings)), limit, keep_menus=True))
        for number, slide in enumerate(deck.slides, start=1)
    )
    plain = joined_parts(pages, limit)
    for number, slide in enumerate(deck.slides, start=1):
        if slide._element.get("show") in ("0", "false"):
            warnings.append(f"Slide {number} is hidden in the show. It was read like the others.")
    return replace(plain, warnings=tuple(warnings)), about


def _as_presentation(archive: zipfile.ZipFile) -> io.BytesIO | None:
    """A show or a template under the type of a presentation, the only one that python-pptx opens; None for one."""
    types = archive.read(_TYPES) if _TYPES in archive.namelist() else b""
    changed = _SHOW_OR_TEMPLATE.sub(_PRESENTATION, types)
    if changed == types:
        return None
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as written:
        for member in archive.infolist():
            written.writestr(
                member.filename, changed if member.filename == _TYPES else archive.read(member.filename)
            )
    copy.seek(0)
    return copy


def _slide(slide: Any, number: int, seen: set[str], warnings: list[str]) -> Iterator[str]:
    title = slide.shapes.title
    if title is not None and title.has_text_frame and title.text_frame.text.strip():
        yield f"<h1>{_escaped(title.text_frame.text)}</h1>"
    for shape in _in_reading_order(slide.shapes):
        if title is not None and shape.shape_id == title.shape_id and shape.has_text_frame:
            continue
        try:
            yield from _shape(shape, seen)
        except Exception as error:  # one odd shape does not cost the deck
            warnings.append(f"A shape of slide {number} cannot be read ({type(error).__name__}).")
    yield from _comments(slide)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text.strip()
        if notes:
            yield f"<p>Notes: {_escaped(notes)}</p>"


def _in_reading_order(shapes: Iterable[Any]) -> list[Any]:
    """Top to bottom, and left to right where they stand beside each other."""
    return sorted(shapes, key=lambda shape: ((_place(shape, "top")) // _ROW, _place(shape, "left")))


def _place(shape: Any, side: str) -> int:
    try:
        return int(getattr(shape, side) or 0)
    except Exception:  # a shape without a place of its own, whose layout has none either
        return 0


def _escaped(text: str) -> str:
    return escape(" ".join(text.replace("\v", "\n").split()))


def _shape(shape: Any, seen: set[str]) -> Iterator[str]:
    if shape.is_placeholder and shape.placeholder_format.type in (_SLIDE_NUMBER, *_FOOTERS):
        text = shape.text_frame.text.strip() if shape.has_text_frame else ""
        if shape.placeholder_format.type != _SLIDE_NUMBER and text and text not in seen:
            seen.add(text)
            yield f"<p>{_escaped(text)}</p>"
        return
    if hasattr(shape, "shapes"):
        for inner in _in_reading_order(shape.shapes):
            yield from _shape(inner, seen)
        return
    if getattr(shape, "has_table", False):
        yield from _table(shape.table)
    if getattr(shape, "has_chart", False):
        yield from _chart(shape.chart)
    if local_name(shape._element.tag) == "pic" and (alt := description(_alternative(shape))):
        yield f"<p>[Image: {_escaped(alt)}]</p>"
    if shape.has_text_frame:
        yield from _paragraphs(shape)
    if local_name(shape._element.tag) == "graphicFrame":
        yield from _diagram(shape)


def _paragraphs(shape: Any) -> Iterator[str]:
    """Paragraphs of a text, those with a bullet or a number as items of lists."""
    in_list = False
    for paragraph, marker in zip(shape.text_frame.paragraphs, paragraph_markers(shape), strict=True):
        lines = [_escaped(line) for line in "".join(_runs(paragraph._p)).split("\v")]
        if bool(marker) != in_list and (marker or any(lines)):
            in_list = bool(marker)
            yield "<ul>" if in_list else "</ul>"
        if in_list and any(lines):
            yield f'<li {MARKER}="{escape(marker)}">{"<br>".join(filter(None, lines))}</li>'
        elif not in_list:
            yield from (f"<p>{line}</p>" for line in lines)
    if in_list:
        yield "</ul>"


def _alternative(shape: Any) -> str:
    """What was written for those who do not see a picture."""
    return next(
        (str(one.get("descr") or "") for one in shape._element.iter() if local_name(one.tag) == "cNvPr"), ""
    )


def _runs(paragraph: Any) -> Iterator[str]:
    for element in paragraph.iter():
        name = local_name(element.tag)
        if name == "t":
            yield _raised(element) + (element.text or "")
        elif name in ("br", "tab"):
            yield "\v" if name == "br" else " "


def _raised(text: Any) -> str:
    """A sign before a figure above the line, which would run into the word before it."""
    properties = next(
        (one for one in text.itersiblings(preceding=True) if local_name(one.tag) == "rPr"), None
    )
    baseline = properties.get("baseline") or "" if properties is not None else ""
    above = re.fullmatch(r"0*[1-9]\d*%?", baseline)
    return "^" if above and _FIGURE.fullmatch(text.text or "") else ""


def _table(table: Any) -> Iterator[str]:
    yield "<table>"
    for at, row in enumerate(table.rows):
        yield "<tr>"
        for place, cell in enumerate(row.cells):
            if cell.is_spanned:
                continue
            is_name = (at == 0 and table.first_row) or (place == 0 and table.first_col)
            tag = "th" if is_name else "td"
            spans = (
                f' colspan="{cell.span_width}" rowspan="{cell.span_height}"' if cell.is_merge_origin else ""
            )
            yield f"<{tag}{spans}>{_escaped(cell.text_frame.text)}</{tag}>"
        yield "</tr>"
    yield "</table>"


def _chart(chart: Any) -> Iterator[str]:
    """A chart as the table behind it."""
    title = chart.chart_title.text_frame.text if chart.has_title and chart.chart_title.has_text_frame else ""
    caption = f"<caption>{_escaped(title)}</caption>" if title.strip() else ""
    for place in range(len(chart.plots)):
        series, named = _plot(chart, place)
        categories = named or [
            str(at) for at in range(1, 1 + max((len(values) for _, values in series), default=0))
        ]
        if not series:
            continue
        yield (
            f"<table>{caption}<tr><th></th>"
            + "".join(f"<th>{_escaped(name)}</th>" for name, _ in series)
            + "</tr>"
        )
        for at, category in enumerate(categories):
            values = (values[at] if at < len(values) else None for _, values in series)
            yield (
                f"<tr><th>{_escaped(category)}</th>"
                + "".join(f"<td>{shown(value)}</td>" for value in values)
                + "</tr>"
            )
        yield "</table>"


def _plot(chart: Any, place: int) -> tuple[list[tuple[str, list[Any]]], list[str]]:
    """Series of a plot, each a name and values, and its categories."""
    try:
        plot = chart.plots[place]
    except ValueError:  # of a kind that python-pptx has no class for, such as columns with depth
        element = list(chart._chartSpace.plotArea.iter_xCharts())[place]
        series = [one for one in element if local_name(one.tag) == "ser"]
        found = [
            (" ".join(_points(one, "tx")), [_number(text) for text in _points(one, "val")]) for one in series
        ]
        return found, _points(series[0], "cat") if series else []
    return (
        [(str(one.name or ""), list(one.values)) for one in plot.series],
        [str(category) for category in plot.categories],
    )


def _points(series: Any, name: str) -> list[str]:
    """Texts of one part of a series in their order; empty ones where a point is missing."""
    texts: dict[int, str] = {}
    for part in series:
        if local_name(part.tag) == name:
            for point in part.iter():
                if local_name(point.tag) == "pt":
                    texts[int(point.get("idx"))] = "".join(point.itertext()).strip()
    return [texts.get(at, "") for at in range(max(texts, default=-1) + 1)]


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text or None


def _diagram(shape: Any) -> Iterator[str]:
    """Texts of SmartArt, which stand in a part of their own."""
    for element in shape._element.iter():
        if local_name(element.tag) == "relIds":
            part = next((value for key, value in element.attrib.items() if local_name(key) == "dm"), "")
            for point in parse_xml(shape.part.related_part(part).blob).iter() if part else ():
                if local_name(point.tag) == "pt":
                    yield f"<p>{_escaped(''.join(_runs(point)))}</p>"


def _comments(slide: Any) -> Iterator[str]:
    for relation in slide.part.rels.values():
        if relation.reltype.endswith("/comments") and not relation.is_external:
            for element in parse_xml(relation.target_part.blob).iter():
                texts = [one.text or "" for one in element.iter() if local_name(one.tag) in ("t", "text")]
                if local_name(element.tag) == "cm" and any(text.strip() for text in texts):
                    yield f"<p>Comment: {_escaped(' '.join(texts))}</p>"
