"""Numbers of list items and headings in Word documents, where Word counts them.

They stand nowhere in the file: a paragraph or its style names a list and a depth, and the list says how it counts.
mammoth reads which paragraphs are items; what stands before them is put in its way, and taken out of its HTML.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape, unescape
from typing import Any, Final, NamedTuple

from llama_index_presets.ingest.readers.html.list_markers import MARKER, counter
from llama_index_presets.ingest.readers.office.packages import attribute, child_of, local_name, parse_xml

__all__ = ["Level", "Numbering", "marked_items", "read_numbering", "write_numbers"]

_NUMBERING: Final = "word/numbering.xml"
_STYLES: Final = "word/styles.xml"
_BEGIN, _END = "\ue000", "\ue001"  # around a marker, between Word's XML and the HTML that mammoth makes of it
_MARKED: Final = re.compile(rf"(<li>)?{_BEGIN}([^{_BEGIN}{_END}<]*){_END}")
_PLACE: Final = re.compile(r"%([1-9])")
_PRIVATE: Final = re.compile(r"[\ue000-\uf8ff]")  # signs of fonts such as Wingdings
_KINDS: Final = {
    "lowerLetter": "lower-alpha", "upperLetter": "upper-alpha", "lowerRoman": "lower-roman",
    "upperRoman": "upper-roman", "decimalZero": "decimal-leading-zero",
}  # fmt: skip
_CONTENT: Final = frozenset(("t", "drawing", "pict", "object", "sym"))
_DEEPEST: Final = 8  # level, from 0
_DEEPEST_LIST: Final = 5  # of mammoth, which makes plain paragraphs of deeper items
_LONGEST: Final = 60  # characters of a marker
_MOST_BASES: Final = 10  # styles that a style may take after


class Level(NamedTuple):
    """How a level of a list counts.

    Attributes:
        together: Name of its count: lists of one kind go on with each other's numbers.
        start: Its first number.
        format: As Word names it: ``decimal``, ``bullet``, …
        text: Its marker, with the numbers of levels as ``%1``, ``%2``, …
        style: Style of the paragraphs that are on it, where it names one.
        restart: Depth above which a paragraph sets it back, from 1; 0 for none.
        is_legal: Whether all numbers in the marker are digits.
    """

    together: str
    start: int
    format: str
    text: str
    style: str = ""
    restart: int = 99
    is_legal: bool = False


@dataclass(frozen=True, slots=True)
class Numbering:
    """Lists of a document.

    Attributes:
        levels: Levels by the number of their list and their depth, from 0.
        styles: List and depth of paragraphs by their style; the key is empty for those without one.
    """

    levels: dict[tuple[str, int], Level] = field(default_factory=dict)
    styles: dict[str, tuple[str, int]] = field(default_factory=dict)


def read_numbering(archive: zipfile.ZipFile) -> Numbering:
    """How the lists of a document count, and which styles are items or numbered headings."""
    names = archive.namelist()
    if _NUMBERING not in names:
        return Numbering()
    styles = {}
    if _STYLES in names:
        root = parse_xml(archive.read(_STYLES))
        styles = {attribute(one, "styleId"): one for one in root if local_name(one.tag) == "style"}
    levels = _levels(parse_xml(archive.read(_NUMBERING)), styles)
    numbered: dict[str, tuple[str, int]] = {}
    for name, style in styles.items():
        if attribute(style, "type") != "numbering" and (place := _place_of_style(name, styles, levels)):
            numbered[name] = place
            if attribute(style, "default") in ("1", "true"):
                numbered[""] = place
    return Numbering(levels, numbered)


def _levels(root: Any, styles: dict[str, Any]) -> dict[tuple[str, int], Level]:
    kinds = {attribute(one, "abstractNumId"): one for one in root if local_name(one.tag) == "abstractNum"}
    read: dict[str, tuple[str, dict[int, Level]]] = {}  # by the kind that a list names
    lists = {attribute(one, "numId"): one for one in root if local_name(one.tag) == "num"}
    found: dict[tuple[str, int], Level] = {}
    for name, one in lists.items():
        named = _value(one, "abstractNumId")
        if named not in read:
            kind = _kind_of(named, kinds, lists, styles)
            read[named] = kind, dict(_levels_of(kinds.get(kind), kind))
        kind, levels = read[named]
        own = dict(levels)
        begins = False
        for part in one:
            if local_name(part.tag) != "lvlOverride":
                continue
            depth = _number(attribute(part, "ilvl"))
            own |= dict(_levels_of(part, kind))
            if (anew := _value(part, "startOverride")) and depth in own:
                begins, own[depth] = True, own[depth]._replace(start=_number(anew))
        for depth, level in own.items():  # one that begins anew counts by itself
            found[name, depth] = level._replace(together=f"{kind} {name}") if begins else level
    return found


def _kind_of(kind: str, kinds: dict[str, Any], lists: dict[str, Any], styles: dict[str, Any]) -> str:
    """Kind of a list that names one, which may name a style that names another list."""
    for _ in range(_MOST_BASES):
        link = _value(kinds.get(kind), "numStyleLink")
        style = styles.get(link) if link else None
        target = lists.get(_value(child_of(child_of(style, "pPr"), "numPr"), "numId"))
        if target is None:
            break
        kind = _value(target, "abstractNumId")
    return kind


def _levels_of(kind: Any, name: str) -> Iterator[tuple[int, Level]]:
    for level in kind if kind is not None else ():
        depth = _number(attribute(level, "ilvl"))
        if local_name(level.tag) == "lvl" and depth <= _DEEPEST:
            text, legal = child_of(level, "lvlText"), child_of(level, "isLgl")
            yield (
                depth,
                Level(
                    name,
                    _number(_value(level, "start"), 1),
                    _value(level, "numFmt") or "decimal",
                    f"%{depth + 1}." if text is None else attribute(text),
                    _value(level, "pStyle"),
                    _number(_value(level, "lvlRestart"), 99),
                    legal is not None and attribute(legal) not in ("0", "false", "off"),
                ),
            )


def _place_of_style(
    name: str, styles: dict[str, Any], levels: dict[tuple[str, int], Level]
) -> tuple[str, int] | None:
    """List and depth of paragraphs of a style, which takes after its base; None for those of no list."""
    chain = [name]
    while len(chain) < _MOST_BASES and (base := _value(styles.get(chain[-1]), "basedOn")) in styles:
        chain.append(base)
    numbers = [child_of(child_of(styles[one], "pPr"), "numPr") for one in chain]
    number = next(filter(None, (_value(one, "numId") for one in numbers)), "")
    depth = next(filter(None, (_value(one, "ilvl") for one in numbers)), "")
    linked = ((at, levels.get((number, at))) for at in range(_DEEPEST + 1))
    links = {level.style: at for at, level in linked if level is not None and level.style}
    place = next((links[one] for one in chain if one in links), _number(depth))
    return (number, place) if (number, place) in levels else None


def write_numbers(root: Any, numbering: Numbering) -> None:
    """Put what stands before each numbered paragraph in front of its text, for `marked_items`."""
    counts: dict[str, dict[int, int]] = {}
    for paragraph in [one for one in root.iter() if local_name(one.tag) == "p"]:
        properties = child_of(paragraph, "pPr")
        place = _place_of(properties, numbering)
        level = numbering.levels.get(place)
        has_content = any(
            local_name(one.tag) in _CONTENT and (local_name(one.tag) != "t" or (one.text or "").strip())
            for one in paragraph.iter()
        )
        if level is None or (not has_content and _is_deleted(properties)):
            continue
        marker = _count(place, level, numbering, counts)
        if level.format == "bullet":
            marker = "-" if place[1] >= _DEEPEST_LIST else None
        if has_content:
            _put(paragraph, properties, place, marker)


def _place_of(properties: Any, numbering: Numbering) -> tuple[str, int]:
    numbers = child_of(properties, "numPr")
    list_, depth = _value(numbers, "numId"), _value(numbers, "ilvl")
    if list_:
        return list_, _number(depth)
    of_style, at = numbering.styles.get(_value(properties, "pStyle"), ("", 0))
    return of_style, _number(depth, at)


def _is_deleted(properties: Any) -> bool:
    """Whether the end of a paragraph is a deletion that was tracked: it is no item any more."""
    marks = child_of(properties, "rPr")
    return marks is not None and any(local_name(one.tag) in ("del", "moveFrom") for one in marks)


def _count(
    place: tuple[str, int], level: Level, numbering: Numbering, counts: dict[str, dict[int, int]]
) -> str | None:
    """Count a paragraph, and give its marker."""
    name, depth = place
    own = counts.setdefault(level.together, {})
    for above in range(depth):  # a level that is left out counts as begun: 1.1, and the next above it is 2
        if above not in own and (skipped := numbering.levels.get((name, above))) is not None:
            own[above] = skipped.start
    own[depth] = own.get(depth, level.start - 1) + 1
    for below in [one for one in own if one > depth]:
        deeper = numbering.levels.get((name, below))
        if deeper is None or depth < deeper.restart:
            del own[below]

    def shown(found: re.Match[str]) -> str:
        at = int(found[1]) - 1
        one = numbering.levels.get((name, at))
        if one is None or one.format in ("bullet", "none"):
            return ""
        value = own.get(at, one.start)
        kind = "decimal" if level.is_legal else _KINDS.get(one.format, one.format)
        return counter(value, kind, doubled=True)

    text = _PRIVATE.sub("", _PLACE.sub(shown, level.text[:_LONGEST]))
    return " ".join(text.split())[:_LONGEST]


def _put(paragraph: Any, properties: Any, place: tuple[str, int], marker: str | None) -> None:
    """Write a marker, and the list that a style names where mammoth looks for it."""
    space = paragraph.tag[:-1]
    if properties is None:
        properties = paragraph.makeelement(f"{space}pPr")
        paragraph.insert(0, properties)
    numbers = child_of(properties, "numPr")
    if not _value(numbers, "numId"):
        if numbers is not None:
            properties.remove(numbers)
        numbers = properties.makeelement(f"{space}numPr")
        for name, value in (("ilvl", str(place[1])), ("numId", place[0])):
            numbers.append(numbers.makeelement(space + name, {f"{space}val": value}))
        properties.append(numbers)
    if marker is not None:
        run = paragraph.makeelement(f"{space}r")
        text = paragraph.makeelement(f"{space}t")
        text.text = f"{_BEGIN}{marker}{_END}"
        run.append(text)
        properties.addnext(run)


def marked_items(html: str) -> str:
    """HTML of mammoth with the markers that `write_numbers` gave: of items as an attribute, else before the words."""

    def marked(found: re.Match[str]) -> str:
        if found[1]:
            return f'<li {MARKER}="{escape(unescape(found[2]))}">'
        return f"{found[2]} " if found[2] else ""

    return _MARKED.sub(marked, html)


def _value(element: Any, name: str) -> str:
    child = child_of(element, name)
    return "" if child is None else attribute(child)


def _number(text: str, default: int = 0) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else default
