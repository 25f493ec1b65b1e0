"""Characters of a PDF page and their places, asked for all at once: a call into the library for each is the cost."""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from itertools import repeat
from typing import Any, Final, NamedTuple

import numpy as np

from llama_index_presets.ingest.readers.pdf.word import Box

__all__ = ["Characters", "Run"]

_Codes = np.ndarray[Any, np.dtype[np.int64]]
_Edges = np.ndarray[Any, np.dtype[np.float64]]

_IGNORED: Final = (0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF)
_UNSURE: Final = 0xFFFE
"""Stands in the text of a page for a hyphen at the end of a line, and for what has no character."""
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


class Run(NamedTuple):
    """Characters between white space.

    Attributes:
        start: Place of the first.
        end: Place behind the last.
        is_odd: Whether one of them is no visible character.
        nearest: Smallest distance from a character to the next one, in points; negative where they overlap.
        farthest: Largest such distance.
        shift: Largest difference between the lower edges of two neighbours.
        left: Left edge of all.
        right: Right edge of all.
    """

    start: int
    end: int
    is_odd: bool
    nearest: float
    farthest: float
    shift: float
    left: float
    right: float


class Characters:
    """Characters of a text page of pypdfium2.

    Args:
        raw: The library.
        page: The text page, which stays open.

    Attributes:
        codes: Of Unicode, an array with one for each place; also numbers beyond it, which broken fonts have.
        text: The same as a string of as many characters.
    """

    def __init__(self, raw: Any, page: Any) -> None:
        self._page = page  # must not be closed
        self._address = ctypes.cast(page.raw, _POINTER).value
        self._calls = _calls(raw)
        count = page.count_chars()
        self.codes, self.text = self._codes(count)
        self._edges = self._boxes(count)

    def __len__(self) -> int:
        return len(self.codes)

    def box(self, place: int) -> Box:
        """Left, bottom, right and top of a character, in points of PDF's own coordinates."""
        left, top, right, bottom = self._edges[place].tolist()
        return left, bottom, right, top

    def text_object(self, place: int) -> int:
        """Number of the object that a character was drawn by; characters of one are drawn alike."""
        return self._calls.text_object(self._address, place) or 0

    def has_no_character(self, place: int) -> bool:
        """Whether the font does not say what the character is."""
        return bool(self._calls.map_error(self._address, place) == 1)

    def runs(self) -> Iterator[Run]:
        """Characters between white space, in the order of the content."""
        codes = self.codes
        inside = ~(((codes <= 32) & (codes != 2)) | (codes == 0xA0))
        before = np.concatenate(([False], inside[:-1]))
        starts = np.flatnonzero(inside & ~before)
        if not len(starts):
            return
        ends = np.flatnonzero(inside & ~np.concatenate((inside[1:], [False]))) + 1
        odd = np.isin(codes, _IGNORED) | ((codes >= 0xD800) & (codes <= 0xDFFF)) | (codes == 0xFFFD)
        odd |= codes > sys.maxunicode
        left, right, bottom = self._edges[:, 0], self._edges[:, 2], self._edges[:, 3]
        follows = inside & before
        gap, shift = np.zeros(len(codes)), np.zeros(len(codes))
        gap[1:], shift[1:] = left[1:] - right[:-1], np.abs(bottom[1:] - bottom[:-1])
        columns = (
            starts,
            ends,
            np.logical_or.reduceat(odd & inside, starts),
            np.minimum.reduceat(np.where(follows, gap, np.inf), starts),
            np.maximum.reduceat(np.where(follows, gap, -np.inf), starts),
            np.maximum.reduceat(np.where(follows, shift, -np.inf), starts),
            np.minimum.reduceat(np.where(inside, left, np.inf), starts),
            np.maximum.reduceat(np.where(inside, right, -np.inf), starts),
        )
        yield from map(Run, *(column.tolist() for column in columns))

    def _codes(self, count: int) -> tuple[_Codes, str]:
        units = np.zeros(count + 1, np.uint16)
        written = self._calls.text(self._address, 0, count, units.ctypes.data) if count else 1
        codes, text = units[:count].astype(np.int64), ""
        if written == count + 1 and not (codes == _UNSURE).any():
            text = units[:count].tobytes().decode("utf-16", "replace")
        if len(text) != count:  # characters beyond 65,535 take two units
            asked = map(self._calls.unicode, repeat(self._address), range(count))
            codes = np.fromiter(asked, np.int64, count)
            text = "".join(chr(code) if code <= sys.maxunicode else "\ufffd" for code in codes.tolist())
        return codes, text

    def _boxes(self, count: int) -> _Edges:
        """Left, top, right and bottom of each character, as high and wide as its font draws it."""
        edges = np.zeros((count, 4), np.float32)
        begin = edges.ctypes.data
        places = range(begin, begin + 16 * count, 16)
        deque(map(self._calls.box, repeat(self._address), range(count), places), maxlen=0)
        return edges.astype(np.float64)


class _Calls(NamedTuple):
    unicode: Any
    text: Any
    box: Any
    text_object: Any
    map_error: Any


@lru_cache(maxsize=1)
def _calls(raw: Any) -> _Calls:
    """Functions of the library that take addresses, which saves a conversion each; they never call back into Python."""

    def function(name: str, result: Any, *arguments: Any) -> Any:
        # never 0: a name that is there has one
        address = ctypes.cast(getattr(raw, name), _POINTER).value or 0
        return ctypes.PYFUNCTYPE(result, _POINTER, _INT, *arguments)(address)

    return _Calls(
        function("FPDFText_GetUnicode", ctypes.c_uint),
        function("FPDFText_GetText", _INT, _INT, _POINTER),
        function("FPDFText_GetLooseCharBox", _INT, _POINTER),
        function("FPDFText_GetTextObject", _POINTER),
        function("FPDFText_HasUnicodeMapError", _INT),
    )
