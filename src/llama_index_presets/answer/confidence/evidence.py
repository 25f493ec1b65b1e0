"""Evidence for a question in passages: words, meaning and names, weighed into a probability that the answer is there.

The same few features serve every model: how much of the question's weighted words a sentence and what stands around it
hold (`coverage`), how close it is in meaning (`similarity`), how far the best passage stands out among the hits
(`margin`), whether the names, numbers and codes of the question are there (`names`), whether the number, date or name
that it asks for is (`typed`), whether the heading is about the matter, too (`heading`), and how far the sentence is
ahead of the next one (`lead`). A logistic function, see `calibration`, turns them into a probability.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from llama_index_presets.answer.confidence.passage_words import PassageWords, passage_words
from llama_index_presets.answer.confidence.phrases import defined_term, defines, is_another_thing
from llama_index_presets.answer.confidence.question import Question, holds_code, light_words, typed
from llama_index_presets.answer.confidence.question_words import without_question_words
from llama_index_presets.answer.confidence.rows import YEAR, Row, fit
from llama_index_presets.answer.confidence.sections import SECTION_PATH, asks_meaning, aspects_of, section_fit
from llama_index_presets.answer.confidence.spelling import slips, spelled_out
from llama_index_presets.answer.confidence.whether import share_decided
from llama_index_presets.answer.confidence.words import SAME_BEGINNING, Words, held_by, share_of, tokens_of
from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.ranking.bm25.analyzer import ANALYZED
from llama_index_presets.text.languages import ENGLISH, detect_language

__all__ = ["Passage", "Reading", "Unit", "read_passages"]

_NEUTRAL_MARGIN = 0.05
"""Least margin where only one document was found: about the mean between two."""
_LARGEST_MARGIN: Final = 0.15
"""What stands out further is about the right document, and that says nothing more of the answer."""
_FURTHEST_HEADING: Final = 0.1
"""How much further from the question than the sentence below it a heading counts: a short one is far from all."""
_IN_HEADING, _BESIDE, _IN_PASSAGE = 0.75, 0.5, 0.35

_SAYS_NOTHING, _SAYS_ALL = 0.3, 0.5
"""Cosines of a question and a heading: up to the first the heading says nothing of the matter."""

_LITTLE_WEIGHT: Final = 0.25


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage to be read.

    Attributes:
        number: What an answer cites it by.
        heading: Path of its headings.
        text: Its text.
        cosine: Of the passage and the question; None where only its words were found.
        group: What it was cut from; hits of one document do not compete with each other.
    """

    number: int
    heading: str
    text: str
    cosine: float | None = None
    group: str = ""


@dataclass(slots=True)
class Unit:
    """A sentence, list item or table row, and what speaks for it.

    Attributes:
        passage: Place of its passage among those read.
        place: Its place in the passage.
        text: Verbatim but for white space.
        coverage: Share of the question's weighted words in it and around it, 0 to 1.
        typed: Whether it holds what the question wants, a number, a date or a name: 0 to 1.
        shape: Below 1 for what is hardly a statement: a title, a letterhead, a menu; and for a row of a table that is
            about more than was asked, or has other columns.
        meaning: What is embedded in its place, or empty: of a row its names, without the figures.
        names: Names, numbers and codes of the question that stand in it.
        labelled: 1 for a value whose label is asked for, -1 for that of another label, 0 where there is none.
        defines: Whether it introduces the term that is asked for, and nothing more is asked.
        similarity: Cosine to the question; None where it was not embedded.
    """

    passage: int
    place: int
    text: str
    coverage: float
    typed: float
    shape: float
    meaning: str = ""
    names: frozenset[str] = frozenset()
    labelled: int = 0
    defines: bool = False
    similarity: float | None = None


@dataclass(slots=True)
class Reading:
    """Passages, read for a question.

    Attributes:
        question: The question.
        passages: What was read.
        units: Their units, in reading order.
        coverage: Of each passage, that of its best unit.
        names: Of each passage, the share of the question's names that it holds; half of it where none of those that
            stand side by side in the question do so in the passage ("Heart Block" is neither a heart nor a block).
        holds_code: Of each passage, whether it holds a code of the question and half of its words.
        sections: Of each passage, whether its section is headed by what is asked: 1, by something else: -1, neither: 0.
        headed: Of each passage, the share of the question's weighted words that its headings hold, 0 to 1.
        lacks: Of each passage, whether it has a table of something else: a year, a code or a name of the question is
            missing there, or all else that it asks for.
        other_code: Of each passage, whether a code such as HTTP/3 is missing, and HTTP/1.1 is something else; or a year
            where it states others.
        margin: How far the best cosine stands above that of another document, up to 0.15.
        language: ISO 639-1 code of the passages; English where the analyzer was given.
        analyzer: Made the stems.
        words: Of each passage, those of its headings, too.
    """

    question: Question
    passages: Sequence[Passage]
    units: list[Unit]
    coverage: list[float]
    names: list[float]
    holds_code: list[bool]
    sections: list[int]
    headed: list[float]
    lacks: list[bool]
    other_code: list[bool]
    margin: float
    language: str
    analyzer: Analyzer
    words: list[Words]

    def is_of_another_kind(self, unit: Unit) -> bool:
        """Whether a unit speaks of another kind of what is asked, glaze firing for bisque firing; see `phrases`."""
        return self.language == ENGLISH and is_another_thing(
            self.question.text, self.question.words, unit.text, self.words[unit.passage], self.analyzer
        )

    def decides(self, unit: Unit) -> float:
        """How far a unit can say yes or no, 0 to 1; 1 where that is not asked; see `whether`."""
        asked, which = self.question, unit.passage
        if asked.wants != "whether" or self.language != ENGLISH:
            return 1.0
        near = [one.text for one in self.units if one.passage == which and abs(one.place - unit.place) <= 1]
        if self.sections[which] == 1:
            near.append(aspects_of(asked.text))
        around = Words(tokens_of("\n".join([self.passages[which].heading, *near]), self.analyzer))
        words = set(asked.words) - light_words(self.analyzer)
        return share_decided(words, asked.names, around, self.words[which], self.analyzer)

    @property
    def goes_by_words(self) -> bool:
        """Whether the passages are in another language and were found by their words: no vector says anything here."""
        return self.language != ENGLISH and all(one.cosine is None for one in self.passages)

    def features(
        self,
        passage: int,
        similarity: float | None = None,
        coverage: float | None = None,
        heading: float | None = None,
        typed: float | None = None,
        lead: float = 0.0,
    ) -> tuple[float, ...]:
        """Features of a passage, or of a unit of it, in the order of `FEATURES`.

        Args:
            passage: Its place; one without a cosine has the least of the others.
            similarity: Of the unit; None takes the cosine of the passage.
            coverage: Of the unit; None takes that of the best one.
            heading: Cosine of the question and the heading; None where it was not compared.
            typed: Of the unit; None takes the best of the passage.
            lead: How much further than usual the unit is ahead of the next; 0 says nothing.
        """
        if typed is None:
            typed = max((unit.typed for unit in self.units if unit.passage == passage), default=0.0)
        cosine = self.passages[passage].cosine
        if cosine is None:
            cosine = min((one.cosine for one in self.passages if one.cosine is not None), default=0.0)
        return (
            self.coverage[passage] if coverage is None else coverage,
            cosine if similarity is None else similarity,
            self.margin,
            self.names[passage],
            typed if self.question.wants in ("number", "date", "name") else 1.0,
            self._heading(passage, heading, cosine if similarity is None else similarity),
            lead,
        )

    def _heading(self, passage: int, heading: float | None, similarity: float) -> float:
        """How much closer the heading is than what stands below it; 0 for one that says nothing of the matter.

        A section about something else that mentions the matter in passing has a heading that is further away. A bare
        title, and a heading such as "Part II", are far from every question.
        """
        if heading is None or SECTION_PATH not in self.passages[passage].heading:
            return 0.0
        says = (heading - _SAYS_NOTHING) / (_SAYS_ALL - _SAYS_NOTHING)
        return max(min(max(says, 0.0), 1.0) * (heading - similarity), -_FURTHEST_HEADING)


def read_passages(
    question: str,
    passages: Sequence[Passage],
    analyzer: Analyzer | None = None,
    *,
    margin: float | None = None,
) -> Reading:
    """Read passages for a question: words and names, no model.

    A word counts in full in the unit itself, less where only its heading, its neighbours or its passage have it; a word
    that begins alike counts 0.7. Words weigh by how rare they are among the units; words that only say
    what kind of answer is wanted (who, percentage, year) weigh a quarter.

    Args:
        question: The question.
        passages: Best first.
        analyzer: Makes stems; None takes that of the passages' language.
        margin: How far the best stands out, where more was found than these passages; None takes it from their cosines.
    """
    language = ENGLISH
    if analyzer is None:
        language = detect_language("\n".join(passage.text for passage in passages)) or ENGLISH
        analyzer = _analyzer(ANALYZED[language])
    texts = [passage_words(passage.heading, passage.text, analyzer, language) for passage in passages]
    asked = _asked(without_question_words(question, language), passages, texts, analyzer)
    weights = _weights(asked, [unit.tokens for text in texts for unit in text.units], analyzer)
    found = _units(question, asked, passages, texts, weights, analyzer)
    best = [0.0] * len(texts)
    for unit in found:
        unit.shape = 1.0 if unit.labelled == 1 else unit.shape
        best[unit.passage] = max(best[unit.passage], unit.coverage * unit.shape)
    names = [_names(asked, text) for text in texts]
    other_code = [_is_of_another_code(asked, f"{one.heading}\n{one.text}") for one in passages]
    codes = [
        bool(asked.codes)
        and share_of(asked.codes, text.everything) == 1
        and not other_code[which]
        and best[which] >= 0.5
        for which, text in enumerate(texts)
    ]
    sections = [0] * len(passages)
    if language == ENGLISH:
        sections = [
            section_fit(question, one.heading) or _is_headed_by(asked, one.heading, analyzer)
            for one in passages
        ]
    lacks = [_lacks(asked, text, one.heading, analyzer) for text, one in zip(texts, passages, strict=True)]
    headed = [_share(weights, text.heading) for text in texts]
    found_margin = _margin(passages) if margin is None else margin
    words = [text.everything for text in texts]
    return Reading(
        asked, passages, found, best, names, codes, sections, headed, lacks, other_code, found_margin, language,
        analyzer, words,
    )  # fmt: skip


def _units(
    question: str,
    asked: Question,
    passages: Sequence[Passage],
    texts: Sequence[PassageWords],
    weights: dict[str, float],
    analyzer: Analyzer,
) -> list[Unit]:
    """The units of all passages, each with what speaks for it."""
    term = defined_term(question)
    return [
        Unit(
            which,
            place,
            plain.text,
            coverage,
            typed(asked, plain.text, analyzer) if coverage else 0.0,
            plain.shape if plain.row is None else fit(plain.row, asked, analyzer),
            _meaning(plain.row, passages[which].heading),
            asked.names & plain.tokens,
            plain.labelled(asked.words),
            bool(term) and defines(plain.text, term),
        )
        for which, text in enumerate(texts)
        for place, (plain, coverage) in enumerate(
            zip(text.units, _coverages(weights, text, asked), strict=True)
        )
    ]


def _asked(
    question: str, passages: Sequence[Passage], texts: Sequence[PassageWords], analyzer: Analyzer
) -> Question:
    """The question, its abbreviations and its names as the passages write them; embedded as it was asked."""
    written = spelled_out(question, [f"{one.heading}\n{one.text}" for one in passages])
    asked = replace(Question.of(written, analyzer), text=question)
    missing = [name for name in asked.names if not any(held_by(name, text.everything) for text in texts)]
    if not missing:
        return asked
    return asked.respelled(slips(missing, set().union(*(text.everything.tokens for text in texts))))


@functools.cache
def _analyzer(language: str) -> Analyzer:
    return Analyzer(language=language)


_ANY_YEAR: Final = re.compile(r"(?<![\d.,])(?:1\d|20)\d\d(?![\d%]|[.,]\d|['’]?s\b)")
"""Of prose of any time; "the 1700s" are a century."""
_LEGAL_FORMS: Final = frozenset(
    (
        "inc",
        "incorpor",
        "corp",
        "corpor",
        "ltd",
        "limit",
        "plc",
        "llc",
        "co",
        "compani",
        "group",
        "hold",
        "ag",
        "gmbh",
    )
)
"""Stems of what names of companies have or leave out."""


def _meaning(row: Row | None, heading: str) -> str:
    return "" if row is None else f"{heading}: {row.group} {row.label}, {row.columns}"


def _weights(question: Question, units: Sequence[frozenset[str]], analyzer: Analyzer) -> dict[str, float]:
    """Weight of each word of the question, > 0; of a question of question words alone they weigh in full."""
    counts = Counter(token for tokens in units for token in tokens.intersection(question.words))
    light = light_words(analyzer) - question.names
    heavy = [word for word in question.words if word not in light]
    return {
        word: math.log(1 + (len(units) + 1) / (counts[word] + 0.5))
        * (_LITTLE_WEIGHT if heavy and word in light else 1)
        for word in question.words
    }


def _share(weights: Mapping[str, float], words: Words) -> float:
    """Share of the weights whose words are held, 0 to 1."""
    total = sum(weights.values())
    return sum(weight * held_by(word, words) for word, weight in weights.items()) / total if total else 0.0


def _is_headed_by(question: Question, heading: str, analyzer: Analyzer) -> int:
    """1 where a question asks what something is, and a section is named after it: "4.3 Leak sensor"; else 0."""
    if not asks_meaning(question.text) or SECTION_PATH not in heading:
        return 0
    matter = set(question.words) - light_words(analyzer)
    own = set(tokens_of(heading.rsplit(SECTION_PATH, 1)[1], analyzer))
    return int(bool(matter & own) and matter <= set(tokens_of(heading, analyzer)))


def _coverages(weights: Mapping[str, float], text: PassageWords, question: Question) -> list[float]:
    """Share of the weights that each unit of a passage holds by itself, by its heading, its neighbours, its passage.

    What stands in a row of a table says nothing of the row beside it: only the names of the question, such as that of a
    company, may stand elsewhere in its passage. A code such as E4 must stand in the sentence, the one before it or the
    heading: in a list of error codes, each is near every other.
    """
    total = sum(weights.values())
    if not total:
        return [0.0] * len(text.units)
    codes = {word for word in question.codes if not word.isdigit()}
    in_passage = {word: held_by(word, text.everything) for word in weights}
    present = [word for word, held in in_passage.items() if held]
    in_heading = {word: held_by(word, text.heading) if in_passage[word] else 0.0 for word in weights}
    around = {
        word: max(_IN_HEADING * in_heading[word], 0 if word in codes else _IN_PASSAGE * in_passage[word])
        for word in weights
    }
    around_row = {
        word: max(in_heading[word], _IN_HEADING * in_passage[word] if word in question.names else 0.0)
        for word in weights
    }
    above: dict[str, float] = {}
    forms = {word: text.everything.other_forms(word) for word in present}
    own = [_held(forms, unit) for unit in text.units]
    beside = [own[place] if unit.row is None else {} for place, unit in enumerate(text.units)]
    nothing: dict[str, float] = {}
    covered = []
    for place, (unit, words) in enumerate(zip(text.units, own, strict=True)):
        if unit.is_title:
            above = words
        before = beside[place - 1] if place else nothing
        behind = beside[place + 1] if place + 1 < len(own) else nothing
        held = 0.0
        for word in present:
            share = words.get(word, 0.0)
            if share < 1 and unit.row is not None:
                share = max(share, around_row[word])
            elif share < 1:
                share = max(
                    share,
                    around[word],
                    _IN_HEADING * above.get(word, 0.0),
                    _BESIDE * before.get(word, 0.0),
                    0.0 if word in codes else _BESIDE * behind.get(word, 0.0),
                )
            held += weights[word] * share
        covered.append(held / total)
    return covered


def _held(forms: Mapping[str, frozenset[str]], unit: Words) -> dict[str, float]:
    """What `held_by` says of the words that a unit has; their other forms are looked up once for the passage."""
    return {
        word: 1.0 if word in unit.tokens else SAME_BEGINNING
        for word, others in forms.items()
        if word in unit.tokens or not others.isdisjoint(unit.tokens)
    }


def _names(question: Question, text: PassageWords) -> float:
    share = share_of(question.names, text.everything)
    if not question.name_pairs:
        return share
    together = sum(pair in text.pairs or pair[::-1] in text.pairs for pair in question.name_pairs)
    return share * (1 + together / len(question.name_pairs)) / 2


def _is_of_another_code(question: Question, text: str) -> bool:
    """Whether a text lacks a code of the question, or a year of it where the text states others."""
    if not all(holds_code(code, text) for code in question.long_codes):
        return True
    years = set(_ANY_YEAR.findall(question.text))
    return bool(years and (stated := set(_ANY_YEAR.findall(text)))) and not years <= stated


def _lacks(question: Question, text: PassageWords, heading: str, analyzer: Analyzer) -> bool:
    """Whether a passage with a table is about another year, code or name than the question, or none of its matter.

    The rows of a table are alike but for these, so that the row of another year or company looks like the answer, and
    so does the prose beside it. In prose, a year often stands in another passage, and the matter in other words. A
    table without any year, or without the name of its company, may still be the one that is asked for.
    """
    matter = [word for word in question.words if word not in question.names | light_words(analyzer)]
    if not matter or not any(unit.row for unit in text.units):
        return False
    years = set(YEAR.findall(question.text))
    stated = {year for year in text.everything.tokens if YEAR.fullmatch(year)}
    return (
        not any(held_by(word, text.everything) for word in matter)
        or bool(years and stated and not years <= stated)
        or any(code not in text.everything.tokens for code in question.codes - years)
        or _is_another_name(question, text, heading, analyzer)
    )


def _is_another_name(question: Question, text: PassageWords, heading: str, analyzer: Analyzer) -> bool:
    """Whether the heading has half of a name beside another word: Harbour Foods where Harbour Motors is asked for."""
    missing = {
        word
        for pair in question.name_pairs
        for word in pair
        if not held_by(word, text.everything) and word not in _LEGAL_FORMS and word.isalpha()
    }
    beside = [
        pair for part in heading.split(SECTION_PATH) for pair in itertools.pairwise(tokens_of(part, analyzer))
    ]
    return any(
        (first == one and second in missing and other not in question.words)
        or (second == other and first in missing and one not in question.words)
        for first, second in question.name_pairs
        for one, other in beside
    )


def _margin(passages: Sequence[Passage]) -> float:
    """How far the best passage stands above those of other documents; above the last where all are of one document."""
    known = sorted(((one.cosine, one.group) for one in passages if one.cosine is not None), reverse=True)
    if not known:
        return _NEUTRAL_MARGIN
    best, group = known[0]
    others = [cosine for cosine, one in known[1:] if not one or one != group]
    margin = best - others[0] if others else max(best - known[-1][0], _NEUTRAL_MARGIN)
    return min(margin, _LARGEST_MARGIN)
