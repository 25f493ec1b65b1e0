"""Vertical writing: Japanese and Chinese characters below each other are the words of a line that runs downwards.

The characters stand upright, so that nothing but their places tells: each is a word of its own, a step below the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from llama_index_presets.ingest.readers.pdf.word import Word

__all__ = ["DOWNWARDS", "may_be_vertical", "vertical_words"]

DOWNWARDS: Final = 3
"""Quarters by which a page is turned so that such a line runs from left to right, the first one on top."""

_EAST_ASIAN: Final = re.compile(
    "[\u2026\u2014\u2015\u2500\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uffef]+"
)
_STEP: Final = (0.4, 1.7)  # em from one baseline to the next
_OVERLAP: Final = 0.5  # share of the narrower of two characters that is below or above the other
_FEWEST: Final = 4  # characters of a line; a column of a table may have as many cells
_LONGEST: Final = 3  # characters of a number among them that stands upright
_LEAST: Final = 0.6  # share of the line's words that are single East Asian characters


def may_be_vertical(text: str) -> bool:
    """Whether a page has characters that are written downwards."""
    return not text.isascii() and _EAST_ASIAN.search(text) is not None


def vertical_words(words: Sequence[Word], width: float) -> tuple[list[Word], list[Word]]:
    """Words that stand upright, without those of vertical lines; and these lines, in a frame turned by `DOWNWARDS`.

    Args:
        words: In the order of the content.
        width: Of the page, in points.
    """
    rest = list[Word]()
    lines = list[Word]()
    for run in _runs(words):
        single = sum(_is_single(word) for word in run)
        if single >= _FEWEST and single >= _LEAST * len(run):
            lines.append(_line(run, width))
        else:
            rest += run
    return rest, lines


def _runs(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Words each of which stands below the last one."""
    run: list[Word] = []
    for word in words:
        if run and not (len(word.text) <= _LONGEST and _is_below(run[-1], word)):
            yield run
            run = []
        run.append(word)
    if run:
        yield run


def _is_single(word: Word) -> bool:
    return len(word.text) == 1 and _EAST_ASIAN.fullmatch(word.text) is not None


def _is_below(above: Word, word: Word) -> bool:
    em = max(above.em, word.em)
    overlap = min(word.x1, above.x1) - max(word.x0, above.x0)
    step = word.baseline - above.baseline
    return (
        word.paint == above.paint
        and len(above.text) <= _LONGEST
        and overlap >= _OVERLAP * min(word.x1 - word.x0, above.x1 - above.x0)
        and _STEP[0] * em < step < _STEP[1] * em
    )


def _line(run: Sequence[Word], width: float) -> Word:
    """A word of the whole line, since nothing stands between its characters."""
    first, last = run[0], run[-1]
    em = max(word.em for word in run)
    # The library's boxes of vertical fonts reach further to the left than the characters do.
    left = max(min(word.x0 for word in run), max(word.x1 for word in run) - em)
    text = "".join(word.text for word in run).strip("\u3000")
    bold = 2 * sum(word.bold for word in run) > len(run)
    baseline = width - left - (first.bottom - first.baseline)
    return replace(first, text=text, x0=first.top, x1=last.bottom, baseline=baseline, em=em, bold=bold)
