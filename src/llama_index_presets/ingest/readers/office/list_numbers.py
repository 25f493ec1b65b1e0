"""Numbers of list items in Word documents, where Word counts them: mammoth begins each list anew."""

from __future__ import annotations

import re
import zipfile
from typing import Any, Final, NamedTuple

from llama_index_presets.ingest.readers.office.packages import attribute, local_name, parse_xml

__all__ = ["Level", "list_levels", "marked_items", "write_numbers"]

_NUMBERING: Final = "word/numbering.xml"
_BEGIN, _END = "\ue000", "\ue001"  # around a number, between Word's XML and the HTML that mammoth makes of it
_ITEM: Final = re.compile(rf"<li>{_BEGIN}(-?\d+)([aA]?){_END}")
_LEFT: Final = re.compile(rf"{_BEGIN}-?\d+[aA]?{_END}")
_LETTERS: Final = {"lowerLetter": "a", "upperLetter": "A"}
_UNCOUNTED: Final = ("bullet", "none")


class Level(NamedTuple):
    """How a level of a list counts: which lists count together, from where, and in what."""

    together: str
    start: int
    format: str


def list_levels(archive: zipfile.ZipFile) -> dict[tuple[str, int], Level]:
    """Levels by the number of their list and their depth, from 0."""
    if _NUMBERING not in archive.namelist():
        return {}
    root = parse_xml(archive.read(_NUMBERING))
    kinds = {
        attribute(kind, "abstractNumId"): _levels_of(kind)
        for kind in root
        if local_name(kind.tag) == "abstractNum"
    }
    found: dict[tuple[str, int], Level] = {}
    for one in root:
        if local_name(one.tag) == "num":
            name, kind = attribute(one, "numId"), _value(one, "abstractNumId")
            begins = {
                _number(attribute(part, "ilvl")): _number(anew)
                for part in one
                if local_name(part.tag) == "lvlOverride" and (anew := _value(part, "startOverride"))
            }
            for depth, (start, form) in kinds.get(kind, {}).items():
                # one that begins anew counts by itself
                found[name, depth] = Level(
                    f"{kind} {name}" if begins else kind, begins.get(depth, start), form
                )
    return found


def _levels_of(kind: Any) -> dict[int, tuple[int, str]]:
    levels = (level for level in kind if local_name(level.tag) == "lvl")
    return {
        _number(attribute(level, "ilvl")): (_number(_value(level, "start"), 1), _value(level, "numFmt"))
        for level in levels
    }


def write_numbers(root: Any, levels: dict[tuple[str, int], Level]) -> None:
    """Put the number of each paragraph of a counted list in front of its text, for `marked_items`."""
    counts: dict[str, dict[int, int]] = {}
    for paragraph in [one for one in root.iter() if local_name(one.tag) == "p"]:
        properties = _child(paragraph, "pPr")
        numbers = _child(properties, "numPr")
        depth = _number(_value(numbers, "ilvl"))
        level = levels.get((_value(numbers, "numId"), depth))
        if level is None or level.format in _UNCOUNTED:
            continue
        own = counts.setdefault(level.together, {})
        own[depth] = own.get(depth, level.start - 1) + 1
        for below in [one for one in own if one > depth]:
            del own[below]
        run = properties.makeelement(properties.tag[:-3] + "r")
        text = properties.makeelement(properties.tag[:-3] + "t")
        text.text = f"{_BEGIN}{own[depth]}{_LETTERS.get(level.format, '')}{_END}"
        run.append(text)
        properties.addnext(run)


def marked_items(html: str) -> str:
    """Items with the numbers that `write_numbers` gave them; those of headings and other lists go."""

    def item(found: re.Match[str]) -> str:
        return f'<li value="{found[1]}"' + (f' type="{found[2]}">' if found[2] else ">")

    return _LEFT.sub("", _ITEM.sub(item, html))


def _child(element: Any, name: str) -> Any:
    return (
        next((one for one in element if local_name(one.tag) == name), None) if element is not None else None
    )


def _value(element: Any, name: str) -> str:
    child = _child(element, name)
    return "" if child is None else attribute(child)


def _number(text: str, default: int = 0) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else default
