"""Units of an extractive answer: sentences, list items and table rows. Pure."""

from __future__ import annotations

import re

from llama_index_presets.answer.confidence.rows import read_row
from llama_index_presets.text.sentences import split_sentences

__all__ = ["is_item", "split_units"]

_ITEM = re.compile(r"^\s*(?:[-*•–‣▪]|\d{1,2}[.)]|[a-z][.)])\s+\S")
_CELLS = re.compile(r"\||\t|\S {3,}\S.* {3,}\S")
_FIGURES = re.compile(r"^\D{2,80}(?:[$€£]?\s*\(?[$€£]?\d[\d,.]*\)?\s*%?\s*[*)]?\s*){2,}$")
"""A row of a table that lost its lines: words, then figures to the end."""


def split_units(text: str, language: str | None = None) -> list[str]:
    """Cut a text into the units that an answer may quote, each in one line, in reading order.

    A sentence is a unit, and so is every list item and every row of a table, which no full stop ends.

    Example:
        >>> split_units("Take care:\\n - wash hands\\n - wear gloves\\n\\nYear | Sales\\n2018 | 32.8")
        ['Take care:', '- wash hands', '- wear gloves', 'Year | Sales', '2018 | 32.8']
    """
    return [
        line
        for sentence in split_sentences(text, language)
        for part in _lines(sentence)
        if (line := " ".join(part.split()))
    ]


def is_item(line: str) -> bool:
    """Whether a line is a list item or a row of a table.

    Example:
        >>> is_item("- wash hands"), is_item("Year | Sales"), is_item("Sales; 2018: 32.8"), is_item("Wash hands.")
        (True, True, True, False)
    """
    return bool(_ITEM.match(line)) or _is_row(line)


def _lines(sentence: str) -> list[str]:
    """The sentence, or its lines where a line of it is a list item or a row; a wrapped line stays with its item."""
    lines = sentence.splitlines()
    if not any(is_item(line) for line in lines):
        return [sentence]
    parts: list[str] = []
    for line in lines:
        if parts and not is_item(line) and not _is_row(parts[-1]):
            parts[-1] += f" {line}"
        else:
            parts.append(line)
    return parts


def _is_row(line: str) -> bool:
    plain = line.strip()
    return bool(_CELLS.search(plain) or _FIGURES.match(plain)) or read_row(plain) is not None
