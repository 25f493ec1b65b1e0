"""Numbers quoted from the sources or not at all: a gate that an answer passes through, also while it streams."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llama_index_presets.answer.citations import MARKERS_AND_BLANKS, markers_in, without_markers
from llama_index_presets.answer.context import DONT_KNOW
from llama_index_presets.answer.figures import Figures, find_figures
from llama_index_presets.sentences import split_sentences

__all__ = ["VERBATIM_PROMPT", "NumberGate", "statements"]

VERBATIM_PROMPT = (
    "Copy every figure as the passage writes it, with its unit; never compute, round or convert one."
)

_AFTER_MARKERS = ". \t\r\n"
_LIST_NUMBER = re.compile(r"\A\s*\d{1,2}[.)]\s")


@dataclass(slots=True)
class NumberGate:
    """Lets a statement through when the passages that it cites hold all its figures.

    A statement is a sentence, or a line. One without a marker is judged by the next marker of its line, or else by the
    passages that the answer has cited so far. A statement is held back until that is known.

    Attributes:
        passages: What the model was shown, in the order of their numbers.
        mode: ``"remove"`` leaves an unsupported statement out, ``"mark"`` keeps it and names its figures.
        checked: Statements with figures, so far.
        unsupported: Those that were left out or marked, with their figures.
    """

    passages: Sequence[str]
    mode: Literal["mark", "remove"]
    checked: int = 0
    unsupported: list[dict[str, Any]] = field(default_factory=list)
    _held: str = ""
    _waiting: list[str] = field(default_factory=list)
    _cited: list[int] = field(default_factory=list)
    _said: bool = False
    _figures: dict[int, Figures] = field(default_factory=dict)

    def feed(self, piece: str) -> str:
        """Take the next piece; give what has been judged by now."""
        *whole, self._held = statements(self._held + piece) or [""]
        while whole and MARKERS_AND_BLANKS.fullmatch(self._held, partial=True):
            self._held = whole.pop() + self._held  # a marker belongs to what stands before it
        return "".join(self._take(statement) for statement in whole)

    def end(self) -> str:
        """Judge what was held back; say so when statements were left out."""
        last, self._held = self._held, ""
        text = (self._take(last) if last else "") + self._settle([])
        return text + self._note()

    def report(self) -> dict[str, Any]:
        """What was checked, for the response's metadata."""
        return {"checked": self.checked, "unsupported": list(self.unsupported)}

    def _take(self, statement: str) -> str:
        """A whole statement: judged now, or put to those that wait for a marker."""
        markers = [number for number in markers_in(statement) if 1 <= number <= len(self.passages)]
        self._waiting.append(statement)
        if markers:
            return self._settle(markers)
        if statement.endswith("\n") or (len(self._waiting) == 1 and not _figures_of(statement)):
            return self._settle([])
        return ""

    def _settle(self, markers: Sequence[int]) -> str:
        waiting, self._waiting = self._waiting, []
        self._cited += [number for number in markers if number not in self._cited]
        judged = "".join(self._judged(statement, markers or self._cited) for statement in waiting)
        self._said = self._said or bool(judged.strip())
        return judged

    def _judged(self, statement: str, cited: Sequence[int]) -> str:
        figures = _figures_of(statement)
        self.checked += bool(figures)
        missing = [
            figure.text
            for figure in figures
            if not any(self._passage(number).holds(figure) for number in cited)
        ]
        if not missing:
            return statement
        self.unsupported.append({"statement": without_markers(statement).strip(), "numbers": missing})
        tail = statement[len(statement.rstrip()) :]
        if self.mode == "mark":
            return f"{statement.rstrip()} [not in the sources: {', '.join(missing)}]{tail or ' '}"
        return tail if "\n" in tail else ""

    def _passage(self, number: int) -> Figures:
        if number not in self._figures:
            self._figures[number] = Figures(self.passages[number - 1])
        return self._figures[number]

    def _note(self) -> str:
        count = len(self.unsupported)
        if not count or self.mode == "mark":
            return ""
        what = "A statement was" if count == 1 else f"{count} statements were"
        note = f"({what} left out: not all figures stand in the cited sources.)"
        return f"\n\n{note}" if self._said else f"{DONT_KNOW} {note}"


def statements(text: str) -> list[str]:
    """Cut an answer into sentences and lines, each with the markers behind it; joined again they are the text.

    Example:
        >>> statements("It rose. [1] It fell [2]. Done")
        ['It rose. [1] ', 'It fell [2]. ', 'Done']
    """
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        start = len(found)
        for sentence in split_sentences(line):
            leading = _leading_markers(sentence)
            if leading and len(found) > start:
                found[-1] += leading
                sentence = sentence[len(leading) :]
            if sentence:
                found.append(sentence)
    return found


def _figures_of(statement: str) -> list[Any]:
    return find_figures(without_markers(_LIST_NUMBER.sub("", statement)))


def _leading_markers(sentence: str) -> str:
    """The markers that a sentence begins with, and the full stop behind them; they belong to the sentence before."""
    markers = str(MARKERS_AND_BLANKS.match(sentence)[0])
    if not markers.strip():
        return ""
    rest = sentence[len(markers) :]
    return sentence[: len(sentence) - len(rest.lstrip(_AFTER_MARKERS))]
