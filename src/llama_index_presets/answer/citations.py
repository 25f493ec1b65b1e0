"""Citation markers in an answer: find them, drop the invented ones, also while it streams. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["MarkerFilter", "check_citations", "markers_in"]

_MARKER = re.compile(r"\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\]")
_OPEN_MARKER = re.compile(r"[ \t]*\[?[\d,; ]*\Z")
_LONGEST_MARKER = 64


def check_citations(text: str, blocks: int) -> tuple[str, list[int], list[int]]:
    """Remove markers that refer to no passage.

    Args:
        text: An answer with markers like ``[1]`` or ``[1, 3]``.
        blocks: How many passages there were; they are numbered from 1.

    Returns:
        The text without invented markers, the numbers cited in order of first mention, the invented numbers.

    Example:
        >>> check_citations("Yes [1, 7]. No [9].", blocks=2)
        ('Yes [1]. No.', [1], [7, 9])
    """
    marker_filter = MarkerFilter(blocks)
    clean = marker_filter.feed(text) + marker_filter.end()
    return clean, marker_filter.cited, marker_filter.invented


def markers_in(text: str) -> list[int]:
    """All numbers that a text cites, in order.

    Example:
        >>> markers_in("Yes [1, 7]. No [2].")
        [1, 7, 2]
    """
    return [int(number) for match in _MARKER.finditer(text) for number in re.split(r"\s*[,;]\s*", match[1])]


@dataclass(slots=True)
class MarkerFilter:
    """Checks markers in a stream of text pieces; holds back only what may be the beginning of a marker.

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
        """Take the next piece; give the text that is certain by now."""
        text = self._held + piece
        opening = _OPEN_MARKER.search(text[-_LONGEST_MARKER:])
        held = len(opening[0]) if opening else 0
        self._held = text[len(text) - held :]
        return self._checked(text[: len(text) - held])

    def end(self) -> str:
        """Give what was held back; no more will come."""
        text, self._held = self._held, ""
        return self._checked(text)

    def stream(self, pieces: Iterable[str]) -> Iterator[str]:
        """Filter a whole stream."""
        for piece in pieces:
            certain = self.feed(piece)
            if certain:
                yield certain
        rest = self.end()
        if rest:
            yield rest

    def _checked(self, text: str) -> str:
        return re.sub(r"[ \t]*" + _MARKER.pattern, self._marker, text)

    def _marker(self, match: re.Match[str]) -> str:
        numbers = [int(number) for number in re.split(r"\s*[,;]\s*", match[1])]
        valid = [number for number in numbers if 1 <= number <= self.blocks]
        self.cited += [number for number in dict.fromkeys(valid) if number not in self.cited]
        self.invented += [number for number in dict.fromkeys(numbers) if number not in valid + self.invented]
        if not valid:
            return ""
        space = match[0][: len(match[0]) - len(match[0].lstrip())]
        return space + "".join(f"[{number}]" for number in valid)
