"""Which sentences, items and rows of the passages read are quoted together."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from llama_index_presets.answer.confidence.evidence import Passage, Reading, Unit
from llama_index_presets.answer.confidence.units import is_item, is_question, label_of
from llama_index_presets.text.languages import ENGLISH

__all__ = ["answering_units", "first_units", "quoted", "units_behind", "with_items", "with_next"]

_DASH: Final = re.compile(r"^[-*•–‣▪] +")
_LIST_OF_QUESTIONS: Final = 2
"""Questions with something behind each that make a passage a list of questions with answers."""

_STEPS_OR_REASONS: Final = re.compile(
    r"\W*(?:how (?:(?:do|can|could|should|would|must) (?:i|we|you|one)|to)|why)\b", re.IGNORECASE
)
"""Questions for what a sentence seldom says that repeats their words."""
_NEARLY_ALL: Final = 0.9
"""Coverage from which a sentence says what is asked, not only what it is about."""
_STATEMENT: Final = 0.8
"""Least shape of what is quoted behind a sentence: no title, letterhead or menu."""

_LEAD_IN_ITEMS: Final = 6
"""Items that follow a quoted line that ends with a colon."""


def answering_units(reading: Reading, most: int) -> list[Unit]:
    """Units that answer: statements, and of a list of questions with answers the questions that have one.

    A question repeats the words of the one that is asked, and says nothing; so one by itself is left out.
    """
    units, questions = [], [unit for unit in reading.units if is_question(unit.text)]
    behind = {(unit.passage, unit.place): units_behind(unit, reading, most) for unit in questions}
    answered = Counter(passage for (passage, _), answer in behind.items() if answer)
    for unit in reading.units:
        answer = behind.get((unit.passage, unit.place))
        if answer is None or (answer and answered[unit.passage] >= _LIST_OF_QUESTIONS):
            unit.typed = max(one.typed for one in answer or [unit])
            units.append(unit)
    return units


def units_behind(question: Unit, reading: Reading, most: int) -> list[Unit]:
    """What follows a question in its passage, up to the next one: its answer, where questions are listed."""
    units = [one for one in reading.units if one.passage == question.passage and one.place > question.place]
    return list(itertools.takewhile(lambda one: not is_question(one.text), units))[:most]


def quoted(passages: Sequence[Passage], answers: Sequence[Sequence[Unit]]) -> str:
    """The units with the numbers of their passages; one that answers two parts stands once.

    An item that is quoted by itself is no list, and goes without its dash.
    """
    units = {(unit.passage, unit.place): unit.text for answer in answers for unit in answer}
    if len(units) == 1:
        units = {place: _DASH.sub("", text) for place, text in units.items()}
    return " ".join(f"{text} [{passages[passage].number}]" for (passage, _), text in units.items())


def first_units(reading: Reading, passage: int, most: int) -> list[Unit]:
    """First statements of a passage; titles, letterheads and lines that name a source are passed over."""
    own = [unit for unit in reading.units if unit.passage == passage and not is_question(unit.text)]
    return ([unit for unit in own if unit.shape >= 0.8] or own)[:most]


def with_next(chosen: Sequence[Unit], best: Unit, reading: Reading) -> list[Unit]:
    """The units, and the sentence behind the best one where that may only lead to the answer.

    The sentence nearest to "How do I turn metrics on?" says that there are metrics, and the next one how; see
    docs/decisions/0214. What holds the number, date or name that is asked for, or nearly all words of the question, is
    quoted by itself, and so are items, rows and labels.
    """
    if best in chosen and not _says_it_all(best, reading):
        following = [
            one for one in reading.units if one.passage == best.passage and one.place == best.place + 1
        ]
        whole = [one for one in following if one.shape >= _STATEMENT and not is_question(one.text)]
        return [*chosen, *(one for one in whole if one not in chosen and not one.meaning)]
    return list(chosen)


def _says_it_all(unit: Unit, reading: Reading) -> bool:
    """Whether a unit is quoted without what follows it."""
    asked = reading.question
    if (
        reading.language != ENGLISH
        or unit.meaning
        or unit.labelled == 1
        or unit.defines
        or is_item(unit.text)
    ):
        return True
    if asked.wants in ("number", "date", "name"):
        return unit.typed == 1
    return unit.coverage >= _NEARLY_ALL and not _STEPS_OR_REASONS.match(asked.text)


def with_items(chosen: Sequence[Unit], reading: Reading) -> list[Unit]:
    """The units, and behind one that ends with a colon, or names a list that is asked for, the items below it."""
    wanted = {(unit.passage, unit.place): unit for unit in chosen}
    by_place = {(unit.passage, unit.place): unit for unit in reading.units}
    for unit in chosen:
        announces, names = unit.text.endswith(":"), unit.labelled == 1 and not label_of(unit.text)
        first = unit.place + 1
        for place in range(first, first + _LEAD_IN_ITEMS if announces or names else 0):
            item = by_place.get((unit.passage, place))
            if item is None or not (is_item(item.text) or (announces and place == first)):
                break
            wanted[unit.passage, place] = item
    return list(wanted.values())
