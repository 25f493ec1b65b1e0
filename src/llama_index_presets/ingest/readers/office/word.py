"""Word documents: mammoth makes HTML of headings, lists, tables and notes, which is read as HTML is.

What mammoth leaves out is put in its way or beside it: text boxes of drawings, formulas, styles of one's own that are
headings, and the letterhead above and below the pages (once, without page numbers).
"""

from __future__ import annotations

import io
import re
import zipfile
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.office.hidden import HiddenText
from llama_index_presets.ingest.readers.office.list_numbers import marked_items, read_numbering, write_numbers
from llama_index_presets.ingest.readers.office.packages import (
    attribute,
    check_package,
    core_properties,
    local_name,
    parse_xml,
)
from llama_index_presets.ingest.readers.office.word_notes import notes_at_marks
from llama_index_presets.packages.extras import require

__all__ = ["read_docx"]

_BODY: Final = "word/document.xml"
_STYLES: Final = "word/styles.xml"
_UNTYPED: Final = re.compile(rb"<(\w+:)style\b(?![^>]*\1type=)")
_UNNAMED: Final = re.compile(rb"<(\w+:)style\b(?![^>]*\1styleId=)")
"""Attributes of a style that mammoth asks for, and that may be left out."""
_MARGIN: Final = re.compile(r"word/(header|footer)\d*\.xml")
_PAGE_FIELD: Final = re.compile(r"\b(?:PAGE|NUMPAGES|SECTIONPAGES)\b")
_REWRITTEN: Final = (b"AlternateContent", b"txbxContent", b"oMath")
_VML: Final = "urn:schemas-microsoft-com:vml"
_HEADING: Final = re.compile(r"heading (\d)", re.IGNORECASE)


def read_docx(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text and properties of a Word document.

    Raises:
        IngestError: It has a password, is no Word document, or expands beyond `limit`.
    """
    check_package(path, limit, "Word")
    mammoth = require("mammoth", extra="readers")
    with zipfile.ZipFile(path) as archive:
        hidden = HiddenText(archive)
        above, below = (_margins(archive, kind, hidden) for kind in ("header", "footer"))
        about = core_properties(archive)
        html = mammoth.convert_to_html(
            _rewritten(path, archive, hidden),
            style_map=_style_map(archive),
            convert_image=mammoth.images.img_element(lambda _: {"src": ""}),
        ).value
    html = marked_items(notes_at_marks(html))
    return plain_from_html(above + html + below, limit, keep_menus=True), about


def _style_map(archive: zipfile.ZipFile) -> str:
    """Styles that are headings, by their name or their level in the outline; below the title where one is used."""
    if _STYLES not in archive.namelist():
        return "comment-reference => sup"
    styles = {style: (name, level) for style, name, level in _styles(parse_xml(archive.read(_STYLES)))}
    titles = {style for style, (name, _) in styles.items() if name.lower() == "title"}
    body = archive.read(_BODY).decode("utf-8", "replace") if _BODY in archive.namelist() else ""
    down = any(re.search(rf'pStyle [^>]*val="{re.escape(style)}"', body) for style in titles)
    lines = ["p[style-name='Title'] => h1:fresh", "comment-reference => sup"]
    for style, (name, level) in styles.items():
        if level is not None and style not in titles and "'" not in style and re.fullmatch(r"[\w -]+", name):
            lines.append(f"p[style-name='{name}'] => h{min(level + 1 + down, 6)}:fresh")
    return "\n".join(lines)


def _styles(root: Any) -> Any:
    """Id, name and level (from 0) of each paragraph style; None for one that is no heading."""
    own: dict[str, tuple[str, int | None, str]] = {}
    for style in root.iter():
        if local_name(style.tag) == "style" and attribute(style, "type") == "paragraph":
            parts = {local_name(part.tag): part for part in style.iter()}
            name, base = (attribute(parts[key]) if key in parts else "" for key in ("name", "basedOn"))
            named = _HEADING.fullmatch(name)
            outline = attribute(parts["outlineLvl"]) if "outlineLvl" in parts else ""
            level = int(named[1]) - 1 if named else int(outline) if outline.isdecimal() else None
            own[attribute(style, "styleId")] = (name, level, base)
    for style, (name, level, base) in own.items():
        for _ in range(10):  # a style takes after its base, which may take after another
            if level is not None or base not in own:
                break
            _, level, base = own[base]
        yield style, name, level if level is not None and level < 9 else None


def _margins(archive: zipfile.ZipFile, kind: str, hidden: HiddenText) -> str:
    """Paragraphs above or below the pages, each text once, as HTML."""
    lines: dict[str, None] = {}
    for name in sorted(archive.namelist()):
        found = _MARGIN.fullmatch(name)
        if found and found[1] == kind:
            root = parse_xml(archive.read(name))
            hidden.clear(root)
            for element in root.iter():
                if local_name(element.tag) == "p" and not _PAGE_FIELD.search(_instructions(element)):
                    lines.setdefault(_text(element))
    return "".join(f"<p>{escape(line)}</p>" for line in lines if line)


def _instructions(paragraph: Any) -> str:
    """Codes of the fields in a paragraph, such as the number of the page."""
    return " ".join(
        (element.text or "") + attribute(element, "instr")
        for element in paragraph.iter()
        if local_name(element.tag) in ("instrText", "fldSimple")
    )


def _text(element: Any) -> str:
    words = {"tab": " ", "br": " "}
    parts = (
        one.text or "" if local_name(one.tag) == "t" else words.get(local_name(one.tag), "")
        for one in element.iter()
    )
    return " ".join("".join(parts).split())


def _rewritten(path: Path, archive: zipfile.ZipFile, hidden: HiddenText) -> io.BytesIO:
    """The document without hidden letters, with text boxes and formulas in the form that mammoth reads."""
    changed: dict[str, bytes] = {}
    numbering = read_numbering(archive)
    for name in hidden.parts:
        part = archive.read(name)
        rewritten = name == _BODY and any(mark in part for mark in _REWRITTEN)
        numbered = name == _BODY and bool(numbering.levels) and (b"numPr" in part or bool(numbering.styles))
        if not rewritten and not numbered and not hidden.may_be_in(part):
            continue
        root = parse_xml(part)
        hidden.clear(root)
        if rewritten:
            _open_boxes(root)
            _drop_alternatives(root)
            _write_formulas(root)
        if numbered:
            write_numbers(root, numbering)
        changed[name] = require("lxml.etree", extra="readers").tostring(root)
    if _STYLES in archive.namelist():
        styles = archive.read(_STYLES)
        whole = _UNNAMED.sub(
            rb'<\1style \1styleId="-"', _UNTYPED.sub(rb'<\1style \1type="paragraph"', styles)
        )
        changed |= {_STYLES: whole} if whole != styles else {}
    if not changed:
        return io.BytesIO(path.read_bytes())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copy:
        for member in archive.infolist():
            if member.filename in changed:
                copy.writestr(member.filename, changed[member.filename])
            elif not member.filename.startswith("word/media/"):
                copy.writestr(member.filename, archive.read(member))
    file.seek(0)
    return file


def _open_boxes(root: Any) -> None:
    """Text boxes of drawings become text boxes of the older kind."""
    etree = require("lxml.etree", extra="readers")
    for drawing in [one for one in root.iter() if local_name(one.tag) == "drawing"]:
        boxes = [one for one in drawing.iter() if local_name(one.tag) == "txbxContent"]
        if boxes and drawing.getparent() is not None:
            space = drawing.tag.rpartition("}")[0] + "}"
            picture = etree.Element(space + "pict")
            for box in boxes:
                shape = etree.SubElement(picture, f"{{{_VML}}}shape")
                etree.SubElement(shape, f"{{{_VML}}}textbox").append(box)
            drawing.getparent().replace(drawing, picture)


def _drop_alternatives(root: Any) -> None:
    """Alternatives for older programs go, where what they stand for is a text box, or there is nothing else."""
    for either in [one for one in root.iter() if local_name(one.tag) == "AlternateContent"]:
        parts = {local_name(part.tag): part for part in either}
        choice = parts.get("Choice")
        has_box = choice is not None and any(local_name(one.tag) == "textbox" for one in choice.iter())
        if choice is not None and (has_box or "Fallback" not in parts) and either.getparent() is not None:
            above, place = either.getparent(), either.getparent().index(either)
            above.remove(either)
            for offset, part in enumerate(list(choice)):
                above.insert(place + offset, part)


def _write_formulas(root: Any) -> None:
    etree = require("lxml.etree", extra="readers")
    space = root.tag.rpartition("}")[0] + "}"
    for formula in [one for one in root.iter() if local_name(one.tag) == "oMath"]:
        above = formula.getparent()
        if above is None:
            continue
        run = etree.Element(space + "r")
        etree.SubElement(run, space + "t").text = _formula(formula)
        run.tail = formula.tail
        if local_name(above.tag) == "oMathPara" and above.getparent() is not None:
            around = above.getparent()
            place = around.index(above)
            inside = local_name(around.tag) == "p"
            around.insert(place, run if inside else _paragraph(etree, space, run))
            above.remove(formula)
        else:
            above.replace(formula, run)


def _paragraph(etree: Any, space: str, run: Any) -> Any:
    paragraph = etree.Element(space + "p")
    paragraph.append(run)
    return paragraph


def _formula(element: Any) -> str:
    """A formula in one line.

    Example: a fraction is ``(a + b)/c``, a power ``x^2``, a root ``√(x)``.
    """
    name = local_name(element.tag)
    if name == "t":
        return element.text or ""
    parts = {local_name(part.tag): part for part in element}
    inner = {key: _formula(part).strip() for key, part in parts.items()}
    if name == "f":
        return f"{_group(inner.get('num', ''))}/{_group(inner.get('den', ''))}"
    if name in ("sSup", "sSub", "sSubSup"):
        below = f"_{_group(inner['sub'])}" if "sub" in inner else ""
        above = f"^{_group(inner['sup'])}" if "sup" in inner else ""
        return f"{_group(inner.get('e', ''))}{below}{above}"
    if name == "rad":
        return f"{inner.get('deg', '')}√({inner.get('e', '')})"
    if name == "nary":
        properties = parts["naryPr"].iter() if "naryPr" in parts else ()
        sign = next((attribute(one) for one in properties if local_name(one.tag) == "chr"), "∫")
        ends = "".join(
            f"{mark}{_group(inner[key])}" for key, mark in (("sub", "_"), ("sup", "^")) if inner.get(key)
        )
        return f"{sign}{ends} {inner.get('e', '')}"
    if name == "func":
        return f"{inner.get('fName', '')}({inner.get('e', '').strip('()')})"
    if name == "d":
        inside = (_formula(part).strip() for part in element if local_name(part.tag) == "e")
        return f"({', '.join(inside)})"
    return "".join(_formula(part) for part in element if not local_name(part.tag).endswith("Pr"))


def _group(text: str) -> str:
    return text if len(text) < 2 or text.isalnum() or (text[0] == "(" and text[-1] == ")") else f"({text})"
