"""Words of a PDF page that the page does not show: not drawn, or in the colour of what is behind them.

Such text is where instructions to a language model are planted. The layer of recognized text below a scan is not drawn
either, and is what the scan says: it is kept where images cover most of the page. White words are looked for in the
picture of the page, which is drawn only where there are any: they stay where they can be seen.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["Paint", "are_shown"]

_NEAR: Final = 24  # of 765: the sum of the differences of red, green and blue from white
_SCAN_SHARE: Final = 0.5  # of the page that images cover
_ALIKE: Final = 8  # of 255
_SCALE: Final = 2.0  # pixels a point
_MOST_PIXELS: Final = 8_000_000


class Paint:
    """How letters of a text page of pypdfium2 are drawn; letters of one text object are drawn alike.

    Args:
        raw: The library.
        text: Its handle of the text page.
    """

    def __init__(self, raw: Any, text: Any) -> None:
        self._raw, self._text = raw, text
        self._last: tuple[int, str] = (0, "")
        self._colour = [ctypes.c_uint() for _ in range(4)]

    def of(self, place: int) -> str:
        """``"none"`` where a letter is not drawn, ``"white"`` where it is white or clear, else empty."""
        drawn = self._raw.FPDFText_GetTextObject(self._text, place)
        if not drawn:
            return ""
        address = ctypes.addressof(drawn.contents)
        if address != self._last[0]:
            self._last = address, self._judged(drawn, place)
        return self._last[1]

    def _judged(self, drawn: Any, place: int) -> str:
        mode = self._raw.FPDFTextObj_GetTextRenderMode(drawn)
        if mode == self._raw.FPDF_TEXTRENDERMODE_INVISIBLE:
            return "none"
        if mode != self._raw.FPDF_TEXTRENDERMODE_FILL:
            return ""
        if not self._raw.FPDFText_GetFillColor(self._text, place, *self._colour):
            return ""
        *rgb, alpha = (one.value for one in self._colour)
        return "white" if 765 - sum(rgb) <= _NEAR or alpha <= _ALIKE else ""


def are_shown(
    page: Any, looks: Sequence[tuple[str, tuple[float, float, float, float]]], image_share: float
) -> list[bool]:
    """Whether the page shows each of its words.

    Args:
        page: Of pypdfium2.
        looks: The paint of each word, and its box in points from the upper left corner of the page as it is drawn.
        image_share: Part of the page that images cover, 0 to 1.
    """
    pixels, scale = _picture(page) if any(paint == "white" for paint, _ in looks) else (None, 1.0)
    return [
        _varies(pixels, [edge * scale for edge in box])
        if paint == "white"
        else not paint or image_share >= _SCAN_SHARE
        for paint, box in looks
    ]


def _picture(page: Any) -> tuple[Any, float]:
    """Grey values of the drawn page, and pixels a point."""
    width, height = page.get_size()
    scale = min(_SCALE, (_MOST_PIXELS / max(width * height, 1.0)) ** 0.5)
    return page.render(scale=scale, grayscale=True).to_numpy(), scale


def _varies(pixels: Any, box: Sequence[float]) -> bool:
    """Whether the picture is not of one colour within a box."""
    x0, y0, x1, y1 = (max(int(edge), 0) for edge in box)
    part = pixels[y0 : y1 + 1, x0 : x1 + 1]
    return bool(part.size) and int(part.max()) - int(part.min()) > _ALIKE
