"""Citation markers in an answer: found, and dropped where invented, also while it streams. Pure.

Models spell a marker in many ways: ``[1]``, ``[1, 2]``, ``[1-3]``, ``[^1]``, ``【1†source】``, ``[[1]](http://…)``,
``<a href="…">1</a>``. All of them become ``[1]``, without any link: where a marker leads is decided by the passages,
never by the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import regex

__all__ = ["MARKERS_AND_BLANKS", "MarkerFilter", "markers_in", "without_markers"]

_LONGEST_HELD = 2_048
"""Characters of a marker with its link; what is longer is made harmless by a blank instead of taken out."""

# Patterns are those of the package `regex`, which can tell that a text may be the beginning of a match.
_NUMBER = r"\^?[-−]?\d+\^?"
_NUMBERS = rf"{_NUMBER}(?:\s*[,;，；、–—-]\s*{_NUMBER})*"
_BRACKETED = rf"[\[［【〔]\s*{_NUMBERS}\s*(?:†[^\[\]［］【】〔〕\n]*)?[\]］】〕]"
_TAGS = r"(?:\s|</?(?:sup|b|i|em|strong|span)\b[^<>]*>)*"
_MARKER = (
    rf"\[{_BRACKETED}\]|{_BRACKETED}"
    rf"|(?:\[\s*)?<a\s[^<>]*>{_TAGS}(?:{_BRACKETED}|{_NUMBER}){_TAGS}</a\s*>(?:\s*\])?"
)
_TITLE = r"""(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?"""
_TARGET = rf"\(\s*(?:<[^<>\n]*>|(?:\\.|[^\s()<>\\]|\([^\s()]*\))*){_TITLE}\s*\)"
_CITATION = rf"(?:{_MARKER})(?:{_TARGET})?"

_OPENING = regex.compile(r"[ \t]{0,16}[\[［【〔<]")
_BLANKS_AT_END = regex.compile(r"[ \t]{0,16}\Z")
_MARKER_AT = regex.compile(_MARKER)
_TARGET_AT = regex.compile(_TARGET)
_DEFINITION_AT = regex.compile(r":\s*(?:<|/|#|www\.|[A-Za-z][A-Za-z0-9+.-]*:\S)")
_LINK_TAG_AT = regex.compile(rf"<a\s[^<>]{{{_LONGEST_HELD - 3}}}")
_CITATIONS = regex.compile(rf"(?<!\s)\s*+(?:{_CITATION})")
_RANGES = regex.compile(r"([-−]?\d+)\^?(?:\s*[-–—]\s*\^?(\d+))?")
_ATTRIBUTES_AND_NOTES = regex.compile(r"<[^<>]*>|†.*")
_MOST_DIGITS = 18

MARKERS_AND_BLANKS = regex.compile(rf"\s*(?:{_CITATION}\s*)*")
"""Nothing but markers and blanks; with ``partial=True`` also where the last marker is half there."""


def markers_in(text: str) -> list[int]:
    """All numbers that a text cites, in order; of a range, its ends.

    Example:
        >>> markers_in("Yes [1, 7]. No 【2†source】.")
        [1, 7, 2]
    """
    return [
        number
        for marker in _MARKER_AT.finditer(text)
        for first, last in _ranges(marker[0])
        for number in dict.fromkeys((first, last))
    ]


def without_markers(text: str) -> str:
    """The text without its markers and their links.

    Example:
        >>> without_markers("Yes [1]. No [2](http://example.org).")
        'Yes. No.'
    """
    return str(_CITATIONS.sub("", text))


@dataclass(slots=True)
class MarkerFilter:
    """Checks markers in a stream of text pieces; holds back only what may be the beginning of a marker or its link.

    Attributes:
        blocks: How many passages there were.
        cited: Numbers of passages cited so far, in order of first mention.
        invented: Numbers cited that refer to no passage.
    """

    blocks: int
    cited: list[int] = field(default_factory=list)
    invented: list[int] = field(default_factory=list)
    _held: str = ""

    def feed(self, piece: str) -> str:
        """Process the next piece; returns the text that is final by now."""
        return self._checked(self._held + piece, partial=True)

    def end(self) -> str:
        """Return the text that was held back; the stream is over."""
        return self._checked(self._held, partial=False)

    def stream(self, pieces: Iterable[str]) -> Iterator[str]:
        """Filter a whole stream."""
        for piece in pieces:
            certain = self.feed(piece)
            if certain:
                yield certain
        rest = self.end()
        if rest:
            yield rest

    def _checked(self, text: str, *, partial: bool) -> str:
        certain, position = [], 0
        while opening := _OPENING.search(text, position):
            start = opening.end() - 1
            end = _marker_end(text, start, partial)
            if end is None:  # more of it must come first
                break
            certain.append(text[position : opening.start()])
            if end == start:  # a bracket of another kind
                certain.append(opening[0] + _harmless(text, start))
                position = opening.end()
                continue
            position = end
            marker = _MARKER_AT.match(text, start)[0]
            certain.append(self._written(opening[0][:-1], marker, _joint(text, start + len(marker), end)))
        held = opening.start() if opening else _BLANKS_AT_END.search(text, position).start()
        held = held if partial else len(text)
        self._held = text[held:]
        return "".join(certain) + text[position:held]

    def _written(self, blanks: str, marker: str, joint: str) -> str:
        valid: list[int] = []
        invented: list[int] = []
        for first, last in _ranges(marker):
            valid += range(max(first, 1), min(last, self.blocks) + 1)
            invented += [number for number in (first, last) if not 1 <= number <= self.blocks]
        self.cited += [number for number in dict.fromkeys(valid) if number not in self.cited]
        self.invented += [number for number in dict.fromkeys(invented) if number not in self.invented]
        return blanks + "".join(f"[{number}]" for number in valid) + joint if valid else ""


def _marker_end(text: str, start: int, partial: bool) -> int | None:
    """End of the marker that begins at `start`, its link included; `start` for no marker, None if undecided."""
    within = start + _LONGEST_HELD
    partial = partial and len(text) < within
    marker = _MARKER_AT.match(text, start, within, partial=partial)
    if marker is None or marker.partial:
        return start if marker is None else None
    end: int = marker.end()
    for what_follows in (_TARGET_AT, _MARKER_AT, _DEFINITION_AT):
        follower = what_follows.match(text, end, within, partial=partial)
        if follower is not None and follower.partial:
            return None
    target = _TARGET_AT.match(text, end, within)
    return target.end() if target else end


def _harmless(text: str, start: int) -> str:
    """A blank that ends the tag of a link too long to be held; nothing for other brackets."""
    return " " if _LINK_TAG_AT.match(text, start) else ""


def _joint(text: str, marker_end: int, end: int) -> str:
    """A blank where the marker would still be a link: to ``(…``, ``[label]`` or as a definition, ``[1]: http://…``."""
    if end > marker_end:
        return ""
    reference = text.startswith("[", end) and not _MARKER_AT.match(text, end)
    return " " if reference or text.startswith("(", end) or _DEFINITION_AT.match(text, end) else ""


def _ranges(marker: str) -> list[tuple[int, int]]:
    """First and last number of each part of a marker; ``[1, 3-5]`` has two parts, ``[5-3]`` is two single numbers."""
    ranges: list[tuple[int, int]] = []
    for part in _RANGES.finditer(_ATTRIBUTES_AND_NOTES.sub("", marker)):
        first, last = _number(part[1]), _number(part[2] or part[1])
        ranges += [(first, last)] if first <= last else [(first, first), (last, last)]
    return ranges


def _number(digits: Any) -> int:
    """A longer number is cut: it refers to nothing either way."""
    return int(str(digits).replace("−", "-")[:_MOST_DIGITS])
