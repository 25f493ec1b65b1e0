"""Cleaning of characters and pages: what every reader's text goes through."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText

__all__ = ["plain_from_pages", "plain_from_text", "whole_characters", "without_controls"]

_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)\s*")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
_INVISIBLE = re.compile(
    "[\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\uffa0"
    "\U000e0000-\U000e0fff]|(?<=[\x20-\x7e])[\u200c\u200d]|[\u200c\u200d](?=[\x20-\x7e])"
)
"""Characters without width, marks of direction and tags; joiners stay between letters of scripts that need them."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def whole_characters(text: str) -> str:
    """Well-formed Unicode: surrogate pairs are joined to their character, lone ones replaced.

    Example:
        >>> whole_characters("a\\ud83d\\ude00b\\ud800") == "a\\U0001f600b\\ufffd"
        True
    """
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_controls(text: str) -> str:
    """Well-formed Unicode without control characters, byte order marks and characters that cannot be seen.

    Example:
        >>> without_controls("a\\x00b")
        'ab'
    """
    if text.isascii() and text.isprintable():
        return text
    text = _CONTROL.sub("", whole_characters(text))
    return text if text.isascii() else _INVISIBLE.sub("", text)


def plain_from_text(text: str) -> PlainText:
    """Text as it is, without control characters and halves of characters.

    Example:
        >>> plain_from_text("a\\x00b\\r\\nc").text
        'ab\\nc'
    """
    return PlainText(without_controls(text.replace("\r\n", "\n").replace("\r", "\n")))


def plain_from_pages(pages: Iterable[tuple[str, str]], limit: SizeLimit = DEFAULT_LIMIT) -> PlainText:
    """Pages as (label, text), joined; a sentence that runs over a page break belongs to the page where it begins.

    Example:
        >>> plain_from_pages([("1", "a"), ("2", "b")]).page(2)
        '2'
    """
    parts, length, last, marks = list[str](), 0, "", list[Mark]()
    for label, page in pages:
        page = plain_from_text(page).text.strip()
        marks.append((length + _carried_over(last, page), label))
        parts.append(page + "\n")
        length += len(page) + 1
        last = page[-1:] or last
        limit.check_text(length)
    return PlainText("".join(parts), pages=tuple(marks))


def _carried_over(last: str, page: str) -> int:
    """Length of the end of the last page's sentence, whose last character is given, at the beginning of a page."""
    runs_on = last not in (*".!?:;", "") and page[:1].islower()
    end = _SENTENCE_END.search(page) if runs_on else None
    return end.end() if end else 0
