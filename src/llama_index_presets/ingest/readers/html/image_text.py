"""Text that stands for an image: its description, where one was written for it."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["description", "image_text"]

_FEWEST_WORDS: Final = 5  # of a description; shorter ones on a page are labels of icons, as "Edit this page"
_FEWEST_CHARACTERS: Final = 10  # of a description in a script without spaces
_LONGEST: Final = 1_000  # characters
_FILE: Final = re.compile(
    r"(?:https?://|[A-Za-z]:\\|/)\S+$|[^\n]*\.(?:jpe?g|png|gif|svg|webp|bmp|tiff?|emf|wmf)$", re.I
)
_BY_MACHINE: Final = re.compile(
    r"\s*(?:Description automatically generated.*|AI-generated content.*)$", re.I | re.S
)


def image_text(node: Any, *, described: bool) -> str:
    """The alternative text of an ``img``; empty where it says nothing or stands beside it anyway.

    Args:
        node: The element.
        described: Whether the text must be long enough for a description, as on pages full of icons.
    """
    attributes = node.attributes
    if attributes.get("role") in ("presentation", "none") or attributes.get("aria-hidden") == "true":
        return ""
    alt = description(attributes.get("alt") or "")
    if not alt or (described and not _is_description(alt)):
        return ""
    return "" if alt.lower() in _caption(node).lower() else alt


def description(text: str) -> str:
    """A description without what programs add; empty for the name of a file, one word or nothing.

    Example:
        >>> description("A pump in a hall Description automatically generated"), description("IMG 1.jpg")
        ('A pump in a hall', '')
    """
    text = " ".join(_BY_MACHINE.sub("", text).split())[:_LONGEST]
    words = len(text.split())
    if _FILE.match(text) or (words < 2 and (text.isascii() or len(text) < _FEWEST_CHARACTERS)):
        return ""
    return text


def _is_description(text: str) -> bool:
    return len(text.split()) >= _FEWEST_WORDS or (
        not text.isascii() and len(text) >= _FEWEST_CHARACTERS and len(text) > 8 * len(text.split())
    )


def _caption(node: Any) -> str:
    """Caption of the figure that an image stands in."""
    above = node.parent
    for _ in range(4):
        if above is None:
            break
        if above.tag == "figure":
            caption = above.css_first("figcaption")
            return " ".join((caption.text(deep=True) or "").split()) if caption is not None else ""
        above = above.parent
    return ""
