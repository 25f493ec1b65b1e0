"""Units and words of a passage, read before any question is asked and kept for the next one."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from llama_index_presets.answer.confidence.rows import read_row
from llama_index_presets.answer.confidence.units import is_item, is_title, label_of, split_units
from llama_index_presets.answer.confidence.words import Words, apart, tokens_of
from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["PassageWords", "UnitWords", "passage_words"]

_VALUE: Final = 0.85
"""Least shape of a label with a value."""

_LONGEST_NAME: Final = 4
"""Words of a line that names the list below it."""

_TITLE_OF_LABELS: Final = 0.5
"""Shape of a line that stands over labels with values: it says what they are about, and nothing of it."""


class UnitWords(Words):
    """A unit of a passage; its tokens name the quantities whose units it has, too.

    Attributes:
        text: Verbatim but for white space.
        written: Its tokens in order, without those of quantities.
        shape: 1 for a statement, less for a title, a letterhead, a line that names a source.
        row: What it says as a row of a table, or None.
        label: Tokens of what stands before the colon of "Absent: Ana Ruiz", or of the name of the list below it.
        is_title: Whether it is a heading as plain text has them.
    """

    __slots__ = ("is_title", "label", "row", "shape", "text", "written")

    def __init__(self, text: str, analyzer: Analyzer) -> None:
        self.written = tokens_of(text, analyzer)
        super().__init__([*self.written, *tokens_of(_implied_words(text), analyzer)])
        self.label = frozenset(tokens_of(apart(f"{label_of(text)}: "), analyzer))
        self.text, self.shape, self.row, self.is_title = text, _shape_of(text), read_row(text), is_title(text)

    def labelled(self, asked: Iterable[str]) -> int:
        """1 for a value whose label is asked for, -1 for that of another label, 0 where there is none."""
        return 0 if not self.label else 1 if self.label.issubset(asked) else -1


class PassageWords:
    """Words of a passage.

    Attributes:
        units: Its units, in reading order.
        heading: Words of its heading.
        everything: Words of its heading and units.
    """

    __slots__ = ("_lines", "_pairs", "everything", "heading", "units")

    def __init__(self, heading: str, text: str, analyzer: Analyzer, language: str) -> None:
        self.units = [UnitWords(unit, analyzer) for unit in split_units(text, language)]
        for unit in self.units:
            unit.shape = max(unit.shape, _VALUE) if unit.label else unit.shape
        for unit, below in itertools.pairwise(self.units):
            if unit.label or unit.row or is_item(unit.text) or unit.text[-1] in ".!?;,":
                continue
            if is_item(below.text) and len(unit.written) <= _LONGEST_NAME:
                unit.label = frozenset(unit.written)
            elif below.label and unit.text[-1] != ":":
                unit.is_title, unit.shape = True, _TITLE_OF_LABELS
        headed = tokens_of(heading, analyzer)
        self.heading = Words(headed)
        self.everything = Words(self.heading.tokens.union(*(unit.tokens for unit in self.units)))
        self._lines = [headed, *(unit.written for unit in self.units)]
        self._pairs: frozenset[tuple[str, str]] | None = None

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Tokens of a line that follow each other, or have one between them."""
        if self._pairs is None:
            self._pairs = frozenset(pair for line in self._lines for pair in _pairs(line))
        return self._pairs


@functools.lru_cache(maxsize=512)
def passage_words(heading: str, text: str, analyzer: Analyzer, language: str) -> PassageWords:
    """The passage cut into units; floor and extractive model read it twice, and questions meet it again."""
    return PassageWords(heading, text, analyzer, language)


def _pairs(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield from itertools.pairwise(tokens)
    yield from zip(tokens, tokens[2:], strict=False)


_UNITS: Final = (
    (re.compile(r"\d\s?°|\bdegrees (?:celsius|centigrade|fahrenheit)\b", re.IGNORECASE), "temperature"),
    (re.compile(r"[$€£¥]\s?\d|\d\s?[$€£¥]|\d\s?(?:dollars?|euros?|cents|USD|EUR|GBP|CHF)\b"), "cost price"),
    (re.compile(r"\d\s?(?:km/h|mph|m/s|knots)(?!\w)"), "speed"),
    (re.compile(r"\d\s?(?:kg|lbs?|tonnes?|kilograms?)(?!\w)"), "weight"),
)


def _implied_words(text: str) -> str:
    """Names of the quantities whose units a text has, as a question asks for them.

    Example:
        >>> _implied_words("Bake at 250 °C."), _implied_words("Bake for 20 minutes.")
        ('temperature', '')
    """
    return " ".join(words for unit, words in _UNITS if unit.search(text))


_FUNCTION_WORD = re.compile(
    r"\b(?:the|a|an|of|to|in|is|are|was|were|be|been|has|have|had|and|or|that|which|for|with|by|on|at|from|as|it|not|can|"
    r"may|will|should|you|your|we|our|they|their|he|she|his|her)\b",
    re.IGNORECASE,
)
_SMALL_WORD = re.compile(r"(?<=\s)[a-z]{3,}\b(?!\.\s)")
_ROW = re.compile(r"^[-*•–]\s|^\d{1,2}[.)]\s|\|")
_SOURCE_LINE = re.compile(r"^(?:Source|Sources|More on|See also|Link|Page)\b[^.]{0,40}:", re.IGNORECASE)
_ENDS = '.!?"”)]:;。！？」』؟।॥۔։…»'
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff]")
"""Characters of scripts without spaces, of which two are taken for a word."""


def _shape_of(text: str) -> float:
    """1 for a statement, a list item or a table row; less for a title, a letterhead, a source line."""
    words = max(len(text.split()), len(_UNSPACED.findall(text)) // 2)
    if _SOURCE_LINE.match(text):
        return 0.4
    if _ROW.search(text):
        return 0.9 if words >= 2 else 0.5
    ends = text[-1:] in _ENDS
    if words < 5:
        length = (0.8 if ends and words >= 3 else 0.6) + (0.15 if ends and _is_clause(text) else 0.0)
    else:
        length = 1.0 if words <= 80 else 0.9 if words <= 120 else 0.7
    return (1.0 if ends else 0.85) * (1.0 if _is_clause(text) else 0.7 if ends else 0.5) * length


def _is_clause(text: str) -> bool:
    """Whether a text has a word of grammar, or ends as a sentence and has a word in small letters behind its first.

    "Acme pays within 14 days." is a statement without an article or an auxiliary; an address, a title and a menu have
    capitals throughout, or no full stop.
    """
    if _FUNCTION_WORD.search(text) or not text.isascii():
        return True
    return text[-1:] in _ENDS and bool(_SMALL_WORD.search(text))
