"""Excerpt: the beginning of a text that is too long to be shown."""

from __future__ import annotations

__all__ = ["excerpt"]

_LONGEST_WORD = 40


def excerpt(text: str, most: int) -> str:
    """A text, or what there is room for of it, with an ellipsis: cut at a blank, where there is one near.

    Chinese and Japanese have none, so a cut at the last blank may leave a word of a whole page.

    Args:
        text: In one line.
        most: Characters, the ellipsis included.

    Example:
        >>> excerpt("Store it cool and dry.", 15), len(excerpt("打印机的钥匙在地下室里面" * 9, 60))
        ('Store it cool …', 60)
    """
    if len(text) <= most:
        return text
    room = most - 2
    blank = text.rfind(" ", max(0, room - _LONGEST_WORD), room + 1)
    return f"{text[: blank if blank > 0 else room].rstrip()} …"
