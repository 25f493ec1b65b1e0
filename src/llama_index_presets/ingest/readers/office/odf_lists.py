"""Numbers of list items and headings in OpenDocument, where its styles say how they are counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any, Final, NamedTuple

from llama_index_presets.ingest.readers.html.list_markers import MARKER, OWN, counter
from llama_index_presets.ingest.readers.office.packages import attribute, local_name

__all__ = ["ITEM_TAG", "LABEL", "mark_numbered"]

ITEM_TAG: Final = f"tag-{OWN}"
"""Attribute of items, set here: their tag in HTML."""
LABEL: Final = f"label-{OWN}"
"""Attribute of headings, set here: their number as the document shows it."""

_VALUE: Final = "value"
_KINDS: Final = {"a": "lower-alpha", "A": "upper-alpha", "i": "lower-roman", "I": "upper-roman"}
_LEVELS: Final = ("list-level-style-number", "list-level-style-bullet", "list-level-style-image")
_OUTLINE: Final = "outline"  # name of the style of headings, which has none of its own
_DEEPEST: Final = 10  # levels, as in the programs that write these files
_MOST_BASES: Final = 10  # styles that a style may take after
_LONGEST: Final = 60  # characters of what stands around a number


class _Style(NamedTuple):
    """Of a paragraph: the style that it takes after, and its list; None where it names none, empty for no list."""

    base: str
    list_style: str | None


@dataclass(slots=True)
class _Lists:
    """Lists of a document: their levels, the styles of paragraphs that name them, and the last number of each."""

    levels: dict[tuple[str, int], Any] = field(default_factory=dict)
    styles: dict[str, _Style] = field(default_factory=dict)
    last: dict[Any, int] = field(default_factory=dict)

    def read(self, root: Any) -> None:
        """Add the styles of a part of the file."""
        for one in root.iter():
            name = local_name(one.tag)
            if name in (*_LEVELS, "outline-level-style"):
                style = attribute(one.getparent(), "name") if name in _LEVELS else _OUTLINE
                if (depth := _count(one, "level", 1)) <= _DEEPEST:
                    self.levels[style, depth] = one
            elif name == "style" and attribute(one, "family") == "paragraph":
                named = any(local_name(key) == "list-style-name" for key in one.attrib)
                listed = attribute(one, "list-style-name") if named else None
                self.styles[attribute(one, "name")] = _Style(attribute(one, "parent-style-name"), listed)

    def list_style_of(self, paragraph: Any) -> str | None:
        """Style of the list that a paragraph's style names, or the one that it takes after."""
        name = attribute(paragraph, "style-name") if paragraph is not None else ""
        for _ in range(_MOST_BASES):
            style = self.styles.get(name)
            if style is None or style.list_style is not None:
                return style.list_style if style else None
            name = style.base
        return None

    def marker(self, style: str, numbers: dict[int, int], depth: int) -> str | None:
        """What stands before an item; None for the usual bullet."""
        level = self.levels.get((style, depth))
        if level is None or local_name(level.tag) == "list-level-style-image":
            return None
        before, after = (attribute(level, name)[:_LONGEST] for name in ("num-prefix", "num-suffix"))
        if local_name(level.tag) == "list-level-style-bullet":
            return None if attribute(level, "bullet-char").strip() or not _has(level, "bullet-char") else ""
        if not attribute(level, "num-format"):
            return f"{before}{after}".strip()
        first = max(depth - _count(level, "display-levels", 1) + 1, 1)
        shown = [
            counter(numbers.get(at, 1), _KINDS.get(kind, "decimal"), doubled=True)
            for at in range(first, depth + 1)
            if (one := self.levels.get((style, at))) is not None and (kind := attribute(one, "num-format"))
        ]
        plain = not before and not after and style != _OUTLINE and not _has(level, "num-suffix")
        return f"{before}{'.'.join(shown)}{'.' if plain else after}".strip()


def mark_numbered(root: Any, styles: Any = None) -> None:
    """Set the markers of items whose style counts them, and the numbers of headings.

    Args:
        root: The content, which is changed.
        styles: The styles that the document has beside those of its content, or None.
    """
    lists = _Lists()
    for part in (styles, root):
        if part is not None:
            lists.read(part)
    headings: dict[int, int] = {}
    for part in root.iter() if lists.levels else ():
        name = local_name(part.tag)
        if name == "list":
            _number_items(part, lists)
        elif name == "h" and LABEL not in part.attrib:
            _number_heading(part, lists, headings)


def _number_heading(part: Any, lists: _Lists, counts: dict[int, int]) -> None:
    depth = _count(part, "outline-level", 1)
    level = lists.levels.get((_OUTLINE, depth))
    unlisted = attribute(part, "is-list-header") == "true" or lists.list_style_of(part) == ""
    if level is None or unlisted or not "".join(part.itertext()).strip():
        return
    for above in range(1, depth):  # one that is left out counts as begun: 1.1, and the next above it is 2
        if (skipped := lists.levels.get((_OUTLINE, above))) is not None:
            counts.setdefault(above, _count(skipped, "start-value", 1))
    counts[depth] = _count(part, "start-value", counts.get(depth, _count(level, "start-value", 1) - 1) + 1)
    for below in [one for one in counts if one > depth]:
        del counts[below]
    if attribute(level, "num-format") and (label := lists.marker(_OUTLINE, counts, depth)):
        part.set(LABEL, label)


def _number_items(part: Any, lists: _Lists) -> None:
    """Number a list, which may go on with the numbers of one before; one inside another has its style."""
    around = [part, *(one for one in part.iterancestors() if local_name(one.tag) == "list")]
    named = next(filter(None, (attribute(one, "style-name") for one in around)), "")
    place = named or lists.list_style_of(_first_paragraph(part)) or "", len(around)
    level = lists.levels.get(place)
    if level is None:
        return
    numbers = {
        len(around) - 1 - at: _count(one, _VALUE, 1)
        for at, one in enumerate(one for one in part.iterancestors() if local_name(one.tag) == "list-item")
    }
    start = _count(level, "start-value", 1)
    number = start - 1
    if before := attribute(part, "continue-list") or attribute(part, "continue-numbering") == "true":
        number = lists.last.get(place if before is True else before, number)
    for item in part:
        if local_name(item.tag) != "list-item":
            continue
        # an item that holds a list alone is there for its depth
        if any(local_name(one.tag) not in ("list", "number") for one in item):
            number = _count(item, "start-value", number + 1)
            marker = lists.marker(place[0], {**numbers, place[1]: number}, place[1])
            _set_marker(item, marker)
        item.set(_VALUE, str(max(number, start)))
    lists.last[place] = lists.last[attribute(part, "id")] = number


def _set_marker(item: Any, marker: str | None) -> None:
    """Mark an item, or the heading that it is."""
    written = next((one for one in item if local_name(one.tag) == "number"), None)
    if written is not None:  # as the program that saved the file showed it
        marker = " ".join("".join(written.itertext()).split())
    first = next(one for one in item if local_name(one.tag) != "number") if len(item) else None
    if first is not None and local_name(first.tag) == "h":
        first.set(LABEL, marker or "")
    elif marker is not None:
        item.set(ITEM_TAG, f'li {MARKER}="{escape(marker)}"')


def _first_paragraph(part: Any) -> Any:
    return next((one for one in part.iter() if local_name(one.tag) in ("p", "h")), None)


def _has(element: Any, name: str) -> bool:
    return any(local_name(key) == name for key in element.attrib)


def _count(element: Any, name: str, default: int) -> int:
    text = attribute(element, name)
    return int(text) if text.isdecimal() and len(text) < 6 else default
