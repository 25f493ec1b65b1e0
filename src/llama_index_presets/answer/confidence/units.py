"""Units of an extractive answer: sentences, list items and table rows. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from llama_index_presets.answer.confidence.rows import read_row
from llama_index_presets.text.sentences import split_sentences

__all__ = ["is_item", "is_question", "is_title", "label_of", "split_units"]

_NUMBER: Final = (
    r"(?:\d{1,2}[.)]|[a-z][.)](?!\s*[A-Za-z]\.)"
    r"|(?:[ivxl]{2,6}|[IVXL]{2,6})[.)]|\((?:\d{1,2}|[a-z]|[ivxl]{2,6})\))"
)
"""Of a list item: digits, a letter or a Roman figure; "e. g." is none."""
_ITEM = re.compile(rf"^\s*(?:[-*•–‣▪]|{_NUMBER})\s+\S")
_FIELD = re.compile(
    r"\s*(?:(?:[-*•–‣▪]|\d{1,2}[.)])\s+)?([^\W\d_][\w/-]{1,30}(?: [\w/-]{1,30}){0,3}(?: \([\w /-]{1,30}\))?):\s{1,3}\S"
)
_MARK = re.compile(rf"^[ \t]*{_NUMBER}[ \t]+(?=\S)", re.MULTILINE)
_CAPITAL = re.compile(rf"^[ \t]*(?:{_NUMBER}|[A-Z]\.)[ \t]+(?=\S)", re.MULTILINE)
_CAPITALS = re.compile(
    r"^[ \t]*(?:[A-Z]|[IVXL]{2,6})\.[ \t]+\S.*\n[ \t]*(?:[A-Z]|[IVXL]{2,6})\.[ \t]+\S", re.MULTILINE
)
"""Two lines that begin with a capital number; one alone may be the initial of a name."""
_CLAUSE = re.compile(r"[^\W\d_][\w'’&/-]*(?: [\w'’&/-]+){0,3}\. {1,3}")
"""The title of a numbered clause, as contracts have them, with its text behind it on the line."""


_CELLS = re.compile(r"\||\t|\S {3,}\S.* {3,}\S")
_FIGURES = re.compile(
    r"^(?=\D*\d\D*\d)\D{2,80}(?:[$€£]?+\s*+\(?+[$€£]?+\d[\d,.]*+\)?+\s*+%?+\s*+[*)]?+\s*+)++$"
)
"""A row of a table that lost its lines: words, then figures to the end. Possessive, as digits can be split at will."""


_NUMBERED = re.compile(r"\d{1,2}(?:\.\d{1,2})+\.? {1,3}[\dA-Z]")
_LONGEST_TITLE: Final = 60  # characters


def split_units(text: str, language: str | None = None) -> list[str]:
    """Cut a text into the units that an answer may quote, each in one line, in reading order.

    A sentence is a unit, and so is every list item and every row of a table, which no full stop ends: not the one of
    "Novak s.r.o." either.

    Example:
        >>> split_units("Take care:\\n - wash hands\\n - wear gloves\\n\\nYear | Sales\\n2018 | 32.8")
        ['Take care:', '- wash hands', '- wear gloves', 'Year | Sales', '2018 | 32.8']
    """
    return [
        line
        for paragraph in text.split("\n\n")
        for sentence in ([paragraph] if read_row(paragraph.strip()) else _sentences(paragraph, language))
        for part in _lines(sentence)
        if (line := " ".join(part.split()))
    ]


def _sentences(paragraph: str, language: str | None) -> list[str]:
    """Sentences of a paragraph; "2." at the beginning of a line stays with what it numbers, and ends what is before.

    The title of a numbered clause stays with the first sentence of the clause.
    """
    marks = list((_CAPITAL if _CAPITALS.search(paragraph) else _MARK).finditer(paragraph))
    if not marks:
        return split_sentences(paragraph, language)
    sentences = split_sentences(paragraph[: marks[0].start()], language)
    for mark, end in zip(marks, [*(one.start() for one in marks[1:]), len(paragraph)], strict=True):
        first, *rest = split_sentences(paragraph[mark.end() : end], language)
        if rest and "." in mark[0] and _CLAUSE.fullmatch(first):
            first += rest.pop(0)  # "3. Deposit." says nothing of the deposit
        sentences += [mark[0] + first, *rest]
    return sentences


def is_item(line: str) -> bool:
    """Whether a line is a list item or a row of a table.

    Example:
        >>> is_item("- wash hands"), is_item("Year | Sales"), is_item("Sales; 2018: 32.8"), is_item("Wash hands.")
        (True, True, True, False)
    """
    return bool(_ITEM.match(line)) or _is_row(line)


def label_of(line: str) -> str:
    """What stands before the colon of a label with a value, as letterheads, minutes and data sheets have them; or "".

    Example:
        >>> label_of("Absent: Ana Ruiz"), label_of("- Delivery time (days): 3"), label_of("Total")
        ('Absent', 'Delivery time (days)', '')
    """
    found = _FIELD.match(line)
    return found[1] if found else ""


def is_question(line: str) -> bool:
    """Whether a line ends with a question mark, in any script, marks of emphasis and quotation behind it or not.

    Example:
        >>> is_question("**When does boarding close?**"), is_question("It asks who you are.")
        (True, False)
    """
    return line.rstrip("*_\"'”’») ").endswith(("?", "？", "؟"))


def is_title(line: str) -> bool:
    """Whether a line is a heading as plain text has them: capitals throughout or a number of parts, and no full stop.

    Example:
        >>> is_title("ERROR CODES"), is_title("Error codes"), is_title("DO NOT OPEN."), is_title("4.2 Error codes")
        (True, False, False, True)
    """
    plain = line.strip()
    like_one = plain.isupper() or _NUMBERED.match(plain)
    return bool(like_one) and len(plain) <= _LONGEST_TITLE and plain[-1] not in ".!?,;"


def _lines(sentence: str) -> list[str]:
    """The sentence, or its lines where a line of it is a list item or a row; a wrapped line stays with its item."""
    lines = sentence.splitlines()
    parts = [lines.pop(0)] if _stands_over(lines) else []
    rows = [_is_row(line, below) for line, below in zip(lines, [*lines[1:], ""], strict=True)]
    items = [row or bool(_ITEM.match(line) or label_of(line)) for line, row in zip(lines, rows, strict=True)]
    if not any(items):
        return [*parts, "\n".join(lines)] if parts else [sentence]
    row_above = False
    for line, item, row in zip(lines, items, rows, strict=True):
        if parts and not _stands_over([parts[-1], line]) and not item and not row_above:
            parts[-1] += f" {line}"
        else:
            parts.append(line)
        row_above = row
    return parts


def _stands_over(lines: Sequence[str]) -> bool:
    """Whether the first line is a title of the second."""
    return (
        len(lines) > 1 and is_title(lines[0]) and not (lines[1].isupper() or lines[1].lstrip()[:1].islower())
    )


def _is_row(line: str, below: str = "") -> bool:
    """Whether a line is a row; one that ends in figures is not, where the line below goes on in small letters."""
    plain = line.strip()
    if _CELLS.search(plain) or read_row(plain) is not None:
        return True
    return bool(_FIGURES.match(plain)) and not below.lstrip()[:1].islower()
