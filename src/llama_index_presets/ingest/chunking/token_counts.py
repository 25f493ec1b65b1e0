"""Token counts of texts: line by line and word by word from a cache where the tokenizer allows it, and the same.

WordPiece tokenizers (BERT's, and those of most local embedding models) cut a text at white space and punctuation and
then each word by itself, so that the tokens of a text are those of its words. Nearly all others, OpenAI's among them,
cut before a line, so that the tokens of a text are those of its lines. Whether a tokenizer does either is tried on a
probe. A splitter counts the same line as part of several texts; it is counted once.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

__all__ = ["TokenCounter", "token_counter"]

_Text = TypeVar("_Text", str, bytes)

_WORDS: Final = re.compile(rb"[A-Za-z0-9]+|[^\sA-Za-z0-9]")
_MARKS: Final = string.punctuation.encode("ascii")
_WITHOUT_MARKS: Final = bytes.maketrans(_MARKS, b" " * len(_MARKS))
# white space or nothing, by the tokenizer's release
_CONTROLS: Final = bytes({*range(32), 127} - {*b"\t\n\r"})
_LINES: Final = re.compile(r"[^\n]*(?:\n(?!\S)[^\n]*)*\n?")
"""A line with its end, and with the blank and indented lines below it: white space at a line's ends is one token."""
_PROBE: Final = (
    'Hello, world: id=48213_x (foo-bar) 3.5% of antidisestablishmentarianism... e.g. "hyperparameterization" at\n\n'
    "2024-05-01T10:22:33,123 [http://example.org/a?b=c&d] isn't  well\tspaced; C++ {x: [1, 2]} tokenizations re-run"
)
_LINES_PROBE: Final = (
    "The first ends here.\nand the second, 42,\n'quoted' \n\n  indented\n\tby a tab (\n)\n-- \nÜber allem 東京\n"
    "日本語。\nэто;\r\na\n\n\nb\n12\n3.4\n'll\n\u00a0x\n#!/bin\nend"
)
_MOST_WORDS: Final = 25_000
_LONGEST_WORD: Final = 40  # characters of a word that is kept
_MOST_LINES: Final = 4_096
_LONGEST_LINE: Final = 2_000  # characters of a line that is kept


class TokenCounter:
    """Counts the tokens of texts.

    Example:
        >>> TokenCounter(str.split).count("one two")
        2
    """

    def __init__(self, tokenize: Callable[[str], Sequence[Any]]) -> None:
        self._tokenize = tokenize
        length = _word_length(tokenize)
        self._words = _Counts[bytes](lambda word: length(word.decode("ascii")), _MOST_WORDS, _LONGEST_WORD)
        self._lines = _Counts[str](self._of_line, _MOST_LINES, _LONGEST_LINE)
        self._marks_are_one = all(length(mark) == 1 for mark in string.punctuation)
        self.by_words = self._sum(_PROBE) == len(tokenize(_PROBE))
        lines = sum(len(tokenize(line)) for line in _LINES.findall(_LINES_PROBE))
        self._by_lines = lines == len(tokenize(_LINES_PROBE))

    def count(self, text: str) -> int:
        """Tokens of a text, without special tokens."""
        if not self._by_lines:
            return self._of_line(text)
        # A tokenizer that cuts at white space has no tokens for line ends; others count a line with its end.
        lines = text.split("\n") if self.by_words else _LINES.findall(text) if "\n" in text else [text]
        return sum(map(self._lines.__getitem__, lines))

    def adds_up(self, text: str) -> bool:
        """Whether the tokens of a text are those of its parts, cut at white space or beside punctuation."""
        return self.by_words and text.isascii()

    def _of_line(self, text: str) -> int:
        return self._sum(text) if self.by_words and text.isascii() else len(self._tokenize(text))

    def _sum(self, text: str) -> int:
        """Tokens of ASCII: one for each punctuation mark, and those of the words between the marks."""
        raw = text.encode("ascii")
        if len(raw.translate(None, _CONTROLS)) < len(raw):
            return len(self._tokenize(text))  # it may drop such a character, and so join what is beside it
        if not self._marks_are_one:
            return sum(map(self._words.__getitem__, _WORDS.findall(raw)))
        marks = len(raw) - len(raw.translate(None, _MARKS))
        return marks + sum(map(self._words.__getitem__, raw.translate(_WITHOUT_MARKS).split()))


class _Counts(dict[_Text, int], Generic[_Text]):
    """Token counts of recent texts; where there are too many, those not asked for since are dropped.

    Args:
        count: Counts a text that is not there.
        most: Texts after which the older ones are let go; twice as many are kept at most.
        longest: Characters of a text that is kept.
    """

    def __init__(self, count: Callable[[_Text], int], most: int, longest: int) -> None:
        super().__init__()
        self._count: Callable[[_Text], int] = count
        self._most, self._longest = most, longest
        self._older: dict[_Text, int] = {}

    def __missing__(self, text: _Text) -> int:
        tokens = self._older.get(text)
        if tokens is None:
            tokens = self._count(text)
        if len(text) <= self._longest:
            if len(self) >= self._most:
                self._older = dict(self)
                self.clear()
            self[text] = tokens
        return tokens


def _word_length(tokenize: Callable[[str], Sequence[Any]]) -> Callable[[str], int]:
    """Counts one word: the tokenizer's ``word_length`` where it has one."""
    length: Callable[[str], int] | None = getattr(getattr(tokenize, "__self__", None), "word_length", None)
    return length or (lambda word: len(tokenize(word)))


@lru_cache(maxsize=4)
def token_counter(tokenize: Callable[[str], Sequence[Any]]) -> TokenCounter:
    """The counter of a tokenizer, shared by the chunkers that have it."""
    return TokenCounter(tokenize)
