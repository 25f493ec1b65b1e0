"""A word of a PDF page, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Box", "Word"]

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in points from the upper left corner."""

_ASCENT, _DESCENT = 0.85, 0.15  # of an em; what a marker pen covers


@dataclass(slots=True)
class Word:
    """A word in the frame in which it is upright.

    Attributes:
        text: Its characters.
        x0: Left edge, in points.
        x1: Right edge.
        baseline: Distance of the baseline from the upper edge.
        em: Font size, as it is drawn.
        bold: Whether its font is.
        paint: ``"none"`` where its letters are not drawn or not to be seen, ``"white"`` where they may be as the paper
            is, else empty.
    """

    text: str
    x0: float
    x1: float
    baseline: float
    em: float
    bold: bool = False
    paint: str = ""

    @property
    def top(self) -> float:
        """Upper edge."""
        return self.baseline - _ASCENT * self.em

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.baseline + _DESCENT * self.em
