"""Cut a long text into overlapping windows that a model can read. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["cut_windows", "window_spans"]


def window_spans(tokens: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Half-open token ranges that cover a text; the last is moved back to be full.

    Args:
        tokens: Length of the text, in tokens.
        room: Most tokens of a window, > overlap.
        overlap: Tokens that neighbours share, >= 0.

    Example:
        >>> window_spans(10, room=4, overlap=1)
        [(0, 4), (3, 7), (6, 10)]
        >>> window_spans(11, room=4, overlap=1)
        [(0, 4), (3, 7), (6, 10), (7, 11)]
        >>> window_spans(3, room=4, overlap=1)
        [(0, 3)]
    """
    if tokens <= room:
        return [(0, tokens)]
    starts = range(0, tokens - room, room - overlap)
    return [(start, start + room) for start in starts] + [(tokens - room, tokens)]


def cut_windows(text: str, offsets: Sequence[tuple[int, int]], room: int, overlap: int) -> list[str]:
    """The windows of a text as text, cut at token borders.

    Args:
        text: The whole text.
        offsets: Character range of each token, in order.
        room: Most tokens of a window.
        overlap: Tokens that neighbours share.

    Example:
        >>> cut_windows("ab cd ef", [(0, 2), (3, 5), (6, 8)], room=2, overlap=1)
        ['ab cd', 'cd ef']
    """
    if len(offsets) <= room:
        return [text]
    spans = window_spans(len(offsets), room, overlap)
    return [text[offsets[start][0] : offsets[stop - 1][1]] for start, stop in spans]
