"""Units and words of a passage, read before any question is asked and kept for the next one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence

from llama_index_presets.answer.confidence.quantities import implied_words
from llama_index_presets.answer.confidence.rows import read_row
from llama_index_presets.answer.confidence.shape import shape_of
from llama_index_presets.answer.confidence.units import is_title, split_units
from llama_index_presets.answer.confidence.words import Words, tokens_of
from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["PassageWords", "UnitWords", "passage_words"]


class UnitWords(Words):
    """A unit of a passage; its tokens name the quantities whose units it has, too.

    Attributes:
        text: Verbatim but for white space.
        written: Its tokens in order, without those of quantities.
        shape: Of `shape_of`.
        row: What it says as a row of a table, or None.
        is_title: Whether it is a heading as plain text has them.
    """

    __slots__ = ("is_title", "row", "shape", "text", "written")

    def __init__(self, text: str, analyzer: Analyzer) -> None:
        self.written = tokens_of(text, analyzer)
        super().__init__([*self.written, *tokens_of(implied_words(text), analyzer)])
        self.text, self.shape, self.row, self.is_title = text, shape_of(text), read_row(text), is_title(text)


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
