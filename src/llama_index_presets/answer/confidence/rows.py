"""Rows of tables as the readers write them: the label of a row, and cells with the names of their columns. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llama_index_presets.answer.confidence.words import Words, apart, held_by, tokens_of

if TYPE_CHECKING:
    from llama_index_presets.answer.confidence.question import Question
    from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["YEAR", "Row", "fit", "read_row"]

YEAR: Final = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
"""A year as tables have it."""

_LONGEST_PART: Final = 160
"""Characters of a label or a cell; what is longer is prose with semicolons."""

_PART = re.compile(r";\s+|(?<!\s)\s+\|\s*|^\|\s*|(?<!\s)\s+—\s+")
_MARKS: Final = ";|—"
"""One of them stands between the parts of a row."""
_CELL = re.compile(r"(?P<name>[^:]{1,80}):\s+(?P<value>.+)", re.DOTALL)
_FIGURE = re.compile(
    r"[(\[$€£¥+−–-]*\s*[$€£¥]?\s*\d[\d.,\s]*(?:%|[kKmMbB]n?|million|billion)?[)\]%*$€£\s]*|[-–—]+%?"
)
_SENTENCE_END = re.compile(r"[a-z]{2}[.!?][”\"')]?$")
_LITTLE_IN_A_LABEL: Final = frozenset(("total", "net"))
_OTHER_LABEL, _OTHER_YEAR = 0.5, 0.5
_ASIDE = re.compile(r"\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        label: What the row is about: its first cell.
        group: Names of the rows above that it belongs to, or empty.
        cells: Name of the column, empty where the table gives none, and value of each further cell.
    """

    label: str
    group: str
    cells: tuple[tuple[str, str], ...]

    @property
    def columns(self) -> str:
        """Names of the columns in one line."""
        return " ".join(dict.fromkeys(name for name, _ in self.cells if name))

    @property
    def subject(self) -> str:
        """The label without what stands in brackets."""
        return _ASIDE.sub(" ", self.label).strip() or self.label


def read_row(line: str) -> Row | None:
    """Read a line as a row; None for a line that is no row, such as a sentence with semicolons.

    Example:
        >>> read_row("Cost of sales; 2021: 362.1; 2020: 290.0")
        Row(label='Cost of sales', group='', cells=(('2021', '362.1'), ('2020', '290.0')))
        >>> read_row("It rained; we stayed: nobody minded.")
    """
    if not any(mark in line for mark in _MARKS):  # most lines
        return None
    parts = [part.strip() for part in _PART.split(line) if part.strip()]
    if len(parts) < 2 or _SENTENCE_END.search(line) or max(map(len, parts)) > _LONGEST_PART:
        return None
    labels: list[str] = []
    cells: list[tuple[str, str]] = []
    for part in parts:
        cell = _CELL.fullmatch(part)
        if cell:
            cells.append((cell["name"].strip(), cell["value"].strip()))
        elif _FIGURE.fullmatch(part) or cells:
            cells.append(("", part))
        else:
            labels.append(part)
    if not labels and cells:  # a record: each cell has its name, and the first says what it is about
        labels = [cells.pop(0)[1]]
    if not labels or not any(_states(*cell) for cell in cells):
        return None
    return Row(labels[-1], " ".join(labels[:-1]), tuple(cells))


def _states(name: str, value: str) -> bool:
    """Whether a cell has a name, or is a figure."""
    return bool(name) or bool(_FIGURE.fullmatch(value))


def fit(row: Row, question: Question, analyzer: Analyzer) -> float:
    """How well a row fits what was asked: its label says no more than the question, and it has the year.

    "Total assets" is closer to the question for total assets than "Total current assets", whose words are there, too. A
    row of other years is not the one that was asked for.
    """
    asked = Words(question.words)
    label = [token for token in tokens_of(apart(row.subject), analyzer) if token not in _LITTLE_IN_A_LABEL]
    share = sum(held_by(token, asked) for token in label) / len(label) if label else 0.0
    years, of_row = set(YEAR.findall(question.text)), set(YEAR.findall(f"{row.label} {row.columns}"))
    other = bool(years and of_row) and not years & of_row
    return (_OTHER_LABEL + (1 - _OTHER_LABEL) * share) * (_OTHER_YEAR if other else 1.0)
