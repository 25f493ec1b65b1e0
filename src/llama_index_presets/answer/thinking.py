"""Thinking aloud of reasoning models: blocks between ``<think>`` tags, kept out of answers. Pure.

Vendors keep thinking in a field of its own. Servers of open models (DeepSeek R1, Qwen3, QwQ, Magistral) often leave it
in the text, between tags, and where the chat template already opened the block only the closing tag is written.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ThinkingFilter", "without_thinking"]

_NAMES: Final = ("think", "thinking", "thought")
_OPEN: Final = re.compile(rf"<({'|'.join(_NAMES)})>", re.IGNORECASE)
_CLOSE: Final = re.compile(rf"</({'|'.join(_NAMES)})>", re.IGNORECASE)
_ANY: Final = re.compile(rf"</?({'|'.join(_NAMES)})>", re.IGNORECASE)
_TAGS: Final = tuple(f"{slash}{name}>" for slash in ("<", "</") for name in _NAMES)


class ThinkingFilter:
    """Removes thinking from a text that comes in pieces; a tag may be split across them.

    A block that is never closed is thinking to its end. White space after a block belongs to it. A closing tag without
    an opening one is removed; what was written before it may have been shown already, see `without_thinking`.

    Example:
        >>> pieces = ThinkingFilter()
        >>> [pieces.feed(piece) for piece in ("<th", "ink>Which [1]?</thi", "nk>\\n\\nRed", " fish.")] + [pieces.end()]
        ['', '', 'Red', ' fish.', '']
    """

    def __init__(self) -> None:
        self._held = ""
        self._thinks = False
        self._trims = False  # white space that follows a block

    def feed(self, piece: str) -> str:
        """Take a piece; give what is certainly no thinking."""
        return self._read(self._held + piece, last=False)

    def end(self) -> str:
        """Give what was held back in case it became a tag."""
        return self._read(self._held, last=True)

    def _read(self, text: str, *, last: bool) -> str:
        said = []
        while True:
            if self._trims:
                text = text.lstrip()
                self._trims = not text
            found = (_CLOSE if self._thinks else _ANY).search(text)
            if found is None:
                break
            if not self._thinks:
                said.append(text[: found.start()])
            self._thinks = not found[0].startswith("</")
            self._trims = not self._thinks
            text = text[found.end() :]
        kept = 0 if last else _unfinished(text)
        self._held = text[len(text) - kept :] if kept else ""
        if not self._thinks:
            said.append(text[: len(text) - kept])
        return "".join(said)


def _unfinished(text: str) -> int:
    """Length of the end of a text that may become a tag."""
    start = text.rfind("<")
    tail = text[start:].lower() if start >= 0 else ""
    return len(tail) if tail and any(tag.startswith(tail) for tag in _TAGS) else 0


def without_thinking(text: str) -> str:
    """A whole text without its thinking; what stands before a lone closing tag is thinking, too.

    Example:
        >>> without_thinking("Let me see. [2]</think>Red fish. [1]"), without_thinking("<think>Hm, cut o")
        ('Red fish. [1]', '')
    """
    lone = _CLOSE.search(text)
    if lone and not _OPEN.search(text, 0, lone.start()):
        text = text[lone.end() :].lstrip()
    pieces = ThinkingFilter()
    return pieces.feed(text) + pieces.end()
