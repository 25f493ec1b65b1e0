"""What stands before the items of lists: dashes, and numbers in the form that a page or a document gives them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from llama_index_presets.ingest.readers.html.visibility import check_selectors, selected, sheet_rules

__all__ = ["MARKER", "OWN", "counter", "item_marker", "list_styles", "whole_number"]

OWN: Final = secrets.token_hex(8)
"""End of the names of attributes that readers set: a file cannot write them, and so no text that nobody sees."""
MARKER: Final = f"list-marker-{OWN}"
"""Attribute of an item in HTML that this package makes of a document: its marker as the document shows it."""

_LETTERS: Final = {
    "lower-alpha": "abcdefghijklmnopqrstuvwxyz",
    "upper-alpha": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "lower-greek": "αβγδεζηθικλμνξοπρστυφχψω",
}
_ROMAN: Final = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
    (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip
_KINDS: Final = {
    **{name: name for name in (*_LETTERS, "lower-roman", "upper-roman", "decimal", "decimal-leading-zero", "none")},
    "lower-latin": "lower-alpha", "upper-latin": "upper-alpha", "disc": "bullet", "circle": "bullet",
    "square": "bullet", "disclosure-closed": "bullet", "disclosure-open": "bullet",
}  # fmt: skip
_TYPES: Final = {
    "1": "decimal", "a": "lower-alpha", "A": "upper-alpha", "i": "lower-roman", "I": "upper-roman",
    "disc": "bullet", "circle": "bullet", "square": "bullet",
}  # fmt: skip
_DECLARED: Final = re.compile(r"(?:^|;)\s*list-style(?P<part>-type)?\s*:(?P<value>[^;]*)", re.IGNORECASE)
_DRAWN: Final = re.compile(r"(?:^|;)\s*content\s*+:\s*+(?!none|normal|(['\"])\s*\1)", re.IGNORECASE)
_PSEUDO: Final = re.compile(r"(?<=\w)::?(?:before|marker)\s*$", re.IGNORECASE)
_DRAWN_BY_PAGE: Final = "drawn"
_UNSURE: Final = frozenset(("inherit", "initial", "unset", "revert", "revert-layer"))
_MOST_LETTERS: Final = 12


def counter(value: int, kind: str, *, doubled: bool = False) -> str:
    """A number in the form of a list: as a letter, in Roman figures; in digits where the form has none for it.

    Args:
        value: The number.
        kind: As CSS names it, such as ``"lower-roman"``.
        doubled: Whether the letter after z is aa, then bb, as in office programs; else aa, then ab, as in browsers.

    Example:
        >>> counter(4, "lower-roman"), counter(28, "upper-alpha"), counter(28, "upper-alpha", doubled=True)
        ('iv', 'AB', 'BB')
    """
    letters = _LETTERS.get(kind)
    if letters and value > 0:
        if doubled:
            times, place = divmod(value - 1, len(letters))
            return letters[place] * (times + 1) if times < _MOST_LETTERS else str(value)
        text = ""
        while value:
            value, place = divmod(value - 1, len(letters))
            text = letters[place] + text
        return text
    if kind in ("lower-roman", "upper-roman") and 0 < value < 4000:
        text = ""
        for worth, figure in _ROMAN:
            times, value = divmod(value, worth)
            text += figure * times
        return text if kind == "lower-roman" else text.upper()
    return f"{value:02d}" if kind == "decimal-leading-zero" else str(value)


def item_marker(item: Any, around: Any, last: int | None, styles: Mapping[int, str]) -> tuple[str, int]:
    """What stands before an item as browsers show it, and its number; see HTML, 4.4.8.

    Args:
        item: The ``li``.
        around: The list, or whatever it stands in.
        last: Number of the item before; None for the first.
        styles: See `list_styles`.
    """
    value = _value(item, around, last)
    own = item.attributes.get(MARKER)
    if own is not None:
        return f"{own} " if own else "", value
    usual = "decimal" if around is not None and around.tag == "ol" else "bullet"
    kind = _kind(item, styles) or (_kind(around, styles) if around is not None else "") or usual
    if kind == "none" and styles.get(item.mem_id, "").startswith(_DRAWN_BY_PAGE):
        kind = usual
    if kind in ("none", "bullet"):
        return "- " if kind == "bullet" else "", value
    return f"{counter(value, kind)}. ", value


def _value(item: Any, around: Any, last: int | None) -> int:
    attributes = around.attributes if around is not None else {}
    step = -1 if "reversed" in attributes else 1
    if (value := whole_number(item.attributes.get("value"))) is not None:
        return value
    if last is not None:
        return last + step
    if (value := whole_number(attributes.get("start"))) is not None:
        return value
    return 1 if step > 0 else sum(one.tag == "li" for one in around.iter())


def whole_number(text: str | None) -> int | None:
    """Number of an attribute, of six digits at most; None where it is no such number."""
    plain = (text or "").strip()
    return int(plain) if re.fullmatch(r"[-+]?\d{1,6}", plain, re.ASCII) else None


def _kind(node: Any, styles: Mapping[int, str]) -> str:
    """How an element says that its items are counted; empty where it does not."""
    attributes = node.attributes
    if not attributes:
        return styles.get(node.mem_id, "").removeprefix(_DRAWN_BY_PAGE)
    own = _declared(attributes.get("style") or "")
    sheet = styles.get(node.mem_id, "").removeprefix(_DRAWN_BY_PAGE)
    hint = (attributes.get("type") or "").strip()
    return own or sheet or _TYPES.get(hint) or _TYPES.get(hint.lower(), "")


def _declared(style: str) -> str:
    """What declarations say of the markers of items; empty where they say nothing that is known.

    The short form sets back what it does not name: ``list-style: inside`` is a bullet.
    """
    kind = ""
    for found in _DECLARED.finditer(style):
        words = found["value"].lower().replace("!important", "").split()
        if not words or _UNSURE.intersection(words):
            continue
        named = next((_KINDS[word] for word in words if word in _KINDS and word != "none"), "")
        if any(word.startswith(("url(", "'", '"')) for word in words):
            kind = named or "bullet"  # an image or a sign of its own
        elif named or "none" in words:
            kind = named or "none"
        elif not found["part"] and all(word in ("inside", "outside") for word in words):
            kind = "bullet"
    return kind


def list_styles(parser: Any) -> dict[int, str]:
    """What the page's own style sheets say of lists and items, by the id of the node.

    Where rules differ, the one counts whose selector says more, as in browsers. Items before which a sheet writes
    something of its own, a sign or a number, have the usual marker whatever the list says.

    Raises:
        IngestError: It would take minutes.
    """
    said: dict[str, tuple[tuple[object, ...], str]] = {}
    signs: dict[str, None] = {}
    for place, (selectors, style) in enumerate(sheet_rules(parser)):
        kind, important = _declared(style), "!important" in style.lower()
        for selector in selectors if kind else ():
            rank = (important, *_weight(selector), place)
            said[selector] = max(said.get(selector, (rank, kind)), (rank, kind))
        if _DRAWN.search(style):
            signs |= {_PSEUDO.sub("", one): None for one in selectors if _PSEUDO.search(one)}
    check_selectors(parser, len(said) + len(signs))
    found: dict[int, str] = {}
    for selector, (_, kind) in sorted(said.items(), key=lambda one: one[1][0]):
        found |= dict.fromkeys(selected(parser, selector), kind)
    drawn = set().union(*(selected(parser, selector, tag="li") for selector in signs))
    return found | {node: _DRAWN_BY_PAGE + found.get(node, "") for node in drawn}


def _weight(selector: str) -> tuple[int, int, int]:
    """Ids, classes and tags that a selector names."""
    return (
        selector.count("#"),
        selector.count(".") + selector.count("["),
        len(re.findall(r"(?:^|[\s>+~])[a-z]", selector, re.IGNORECASE)),
    )
