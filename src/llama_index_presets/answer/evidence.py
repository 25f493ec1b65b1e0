"""Evidence for a question in passages: words, meaning and names, weighed into a probability that the answer is there.

The same few features serve every model: how much of the question's weighted words a sentence and what stands around it
hold (`coverage`), how close it is in meaning (`similarity`), how far the best passage stands out among the hits
(`margin`), and whether the names, numbers and codes of the question are there (`names`). A logistic function whose
weights were fitted on labelled questions turns them into a probability.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llama_index_presets.answer.question_words import without_question_words
from llama_index_presets.answer.units import split_units
from llama_index_presets.languages import ENGLISH, detect_language
from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.ranking.bm25.analyzer import ANALYZED

__all__ = ["Passage", "Question", "Reading", "Unit", "read_passages"]

_NEUTRAL_MARGIN = 0.05
"""Margin where only one document was found: about the mean between two."""
_IN_HEADING, _BESIDE, _IN_PASSAGE = 0.75, 0.5, 0.35
_SAME_BEGINNING, _BEGINNING = 0.7, 5

_LITTLE_WEIGHT: Final = 0.25
_QUESTION_WORDS: Final = (
    "who whom whose which what when where why how many much percentage percent proportion portion name named number",
    "kind type sort year date day month century likely person people place country city term word use used call called",
    "tell explain mean give describe list refer happen according long old far amount get",
)


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


@dataclass(frozen=True, slots=True)
class Question:
    """What a question asks for.

    Attributes:
        text: The question.
        words: Its stems, in order.
        names: Those of names, numbers and codes.
        codes: Those with a digit beside a letter, and numbers of three digits and more.
        wants: ``"number"``, ``"date"``, ``"name"``, or empty.
    """

    text: str
    words: tuple[str, ...]
    names: frozenset[str]
    codes: frozenset[str]
    wants: str

    @classmethod
    def of(cls, text: str, analyzer: Analyzer) -> Question:
        """Read a question."""
        plain = fold(text)
        words = tuple(dict.fromkeys(analyzer.tokens(plain)))
        raw = [word.strip(".,;:?!\"'()[]") for word in plain.split()]
        names = {
            token
            for place, word in enumerate(raw)
            if (place and word[:1].isupper()) or any(map(str.isdigit, word))
            for token in analyzer.tokens(word)
        }
        codes = {token for word in raw if _CODE.search(word) for token in analyzer.tokens(word)}
        return cls(text, words, frozenset(names & set(words)), frozenset(codes & set(words)), _wanted(plain))


@dataclass(slots=True)
class Unit:
    """A sentence, list item or table row, and what speaks for it.

    Attributes:
        passage: Place of its passage among those read.
        place: Its place in the passage.
        text: Verbatim but for white space.
        coverage: Share of the question's weighted words in it and around it, 0 to 1.
        typed: Whether it holds what the question wants, a number, a date or a name: 0 to 1.
        shape: Below 1 for what is hardly a statement: a title, a letterhead, a menu.
        similarity: Cosine to the question; None where it was not embedded.
    """

    passage: int
    place: int
    text: str
    coverage: float
    typed: float
    shape: float
    similarity: float | None = None


@dataclass(slots=True)
class Reading:
    """Passages, read for a question.

    Attributes:
        question: The question.
        passages: What was read.
        units: Their units, in reading order.
        coverage: Of each passage, that of its best unit.
        names: Of each passage, the share of the question's names that it holds.
        holds_code: Of each passage, whether it holds a code of the question and half of its words.
        margin: How far the best cosine stands above that of another document.
        language: ISO 639-1 code of the passages; English where the analyzer was given.
    """

    question: Question
    passages: Sequence[Passage]
    units: list[Unit]
    coverage: list[float]
    names: list[float]
    holds_code: list[bool]
    margin: float
    language: str = ENGLISH

    @property
    def goes_by_words(self) -> bool:
        """Whether the passages are in another language and were found by their words: no vector says anything here."""
        return self.language != ENGLISH and all(one.cosine is None for one in self.passages)

    def features(
        self, passage: int, similarity: float | None = None, coverage: float | None = None
    ) -> tuple[float, ...]:
        """Features of a passage in the order of `FEATURES`; a passage without a cosine has the least of the others."""
        cosine = self.passages[passage].cosine
        if cosine is None:
            cosine = min((one.cosine for one in self.passages if one.cosine is not None), default=0.0)
        return (
            self.coverage[passage] if coverage is None else coverage,
            cosine if similarity is None else similarity,
            self.margin,
            self.names[passage],
        )


def read_passages(question: str, passages: Sequence[Passage], analyzer: Analyzer | None = None) -> Reading:
    """Read passages for a question: words and names, no model.

    A word counts in full in the unit itself, less where only its heading, its neighbours or its passage have it; a word
    with the same five first letters counts 0.7. Words weigh by how rare they are among the units; words that only say
    what kind of answer is wanted (who, percentage, year) weigh a quarter.

    Args:
        question: The question.
        passages: Best first.
        analyzer: Makes stems; None takes that of the passages' language.
    """
    language = ENGLISH
    if analyzer is None:
        language = detect_language("\n".join(passage.text for passage in passages)) or ENGLISH
        analyzer = _analyzer(ANALYZED[language])
    asked = Question.of(without_question_words(question, language), analyzer)
    texts = [split_units(passage.text, language) for passage in passages]
    tokens = [[set(_tokens(text, analyzer)) for text in units] for units in texts]
    headings = [set(_tokens(passage.heading, analyzer)) for passage in passages]
    weights = _weights(asked, [one for units in tokens for one in units], analyzer)
    everything = [set().union(heading, *units) for heading, units in zip(headings, tokens, strict=True)]
    found = []
    for which, units in enumerate(texts):
        around = (headings[which], everything[which])
        for place, text in enumerate(units):
            near = tokens[which][max(place - 1, 0) : place] + tokens[which][place + 1 : place + 2]
            coverage = _coverage(weights, tokens[which][place], near, *around)
            found.append(Unit(which, place, text, coverage, _typed(asked, text, analyzer), _shape(text)))
    best = [
        max((u.coverage * u.shape for u in found if u.passage == which), default=0.0)
        for which in range(len(texts))
    ]
    names = [_share(asked.names, held) for held in everything]
    codes = [
        bool(asked.codes) and _share(asked.codes, held) == 1 and best[which] >= 0.5
        for which, held in enumerate(everything)
    ]
    return Reading(asked, passages, found, best, names, codes, _margin(passages), language)


@functools.cache
def _analyzer(language: str) -> Analyzer:
    return Analyzer(language=language)


def fold(text: str) -> str:
    """The text without accents.

    Example:
        >>> fold("Thomas de Maizière")
        'Thomas de Maiziere'
    """
    if text.isascii():
        return text
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))


_CODE = re.compile(r"^(?=.*\d)(?=.*[A-Za-z])[\w./-]+$|^\d[\d.,-]{2,}$")
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|high|large|big|fast|often|wide|deep|heavy)\b|\bpercent|"
    r"\bwhat (?:number|amount|portion|proportion|size|age)\b",
    re.IGNORECASE,
)
_ASKS_DATE = re.compile(
    r"\bwhen\b|\b(?:what|which) (?:\w+ ){0,2}(?:year|date|day|month|century|decade|time)s?\b", re.IGNORECASE
)
_ASKS_NAME = re.compile(
    r"\bwho(?:m|se)?\b|\bwhere\b|\b(?:what|which) (?:\w+ ){0,3}(?:person|people|country|city|name|company|player|team|"
    r"place|state|man|woman)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred|thousand|"
    r"million|billion|half|third|quarter|dozen|once|twice|none|several|both)\b",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\d|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|century|centuries|"
    r"years?|ago|decade|spring|summer|autumn|winter|era|today|until|since)\b",
    re.IGNORECASE,
)
_CAPITALISED = re.compile(r"\b[A-Z][\w’'.-]*")
_FUNCTION_WORD = re.compile(
    r"\b(?:the|a|an|of|to|in|is|are|was|were|be|been|has|have|had|and|or|that|which|for|with|by|on|at|from|as|it|not|can|"
    r"may|will|should|you|your|we|our|they|their|he|she|his|her)\b",
    re.IGNORECASE,
)
_ROW = re.compile(r"^[-*•–]\s|^\d{1,2}[.)]\s|\|")
_SOURCE_LINE = re.compile(r"^(?:Source|Sources|More on|See also|Link|Page)\b[^.]{0,40}:", re.IGNORECASE)


def _wanted(question: str) -> str:
    asks = {"number": _ASKS_NUMBER, "date": _ASKS_DATE, "name": _ASKS_NAME}
    return next((kind for kind, pattern in asks.items() if pattern.search(question)), "")


def _typed(question: Question, text: str, analyzer: Analyzer) -> float:
    if question.wants == "number":
        return float(bool(_NUMBER.search(text)))
    if question.wants == "date":
        return float(bool(_DATE.search(text)))
    if question.wants == "name":
        own = set(question.words)
        new = [m.start() for m in _CAPITALISED.finditer(text) if not set(_tokens(m[0], analyzer)) <= own]
        return 1.0 if any(new) else 0.7 if new else 0.0
    return 0.5


_ENDS = '.!?"”)]:;。！？」』؟।॥۔։…»'
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff]")
"""Characters of scripts without spaces, of which two are taken for a word."""


def _shape(text: str) -> float:
    """1 for a statement, a list item or a table row; less for a title, a letterhead, a source line."""
    words = max(len(text.split()), len(_UNSPACED.findall(text)) // 2)
    if _SOURCE_LINE.match(text):
        return 0.4
    if _ROW.search(text):
        return 0.9 if words >= 2 else 0.5
    ends = text[-1:] in _ENDS
    shape = 1.0 if ends else 0.85
    if not _FUNCTION_WORD.search(text) and text.isascii():
        shape *= 0.7 if ends else 0.5  # an address, a title, a menu
    length = (
        1.0
        if 5 <= words <= 80
        else (0.9 if words <= 120 else 0.7)
        if words > 80
        else 0.8
        if words >= 3 and ends
        else 0.6
    )
    return shape * length


def _weights(question: Question, units: Sequence[set[str]], analyzer: Analyzer) -> dict[str, float]:
    """Weight of each word of the question, > 0; of a question of question words alone they weigh in full."""
    counts = Counter(token for tokens in units for token in tokens.intersection(question.words))
    light = _light(analyzer) - question.names
    heavy = [word for word in question.words if word not in light]
    return {
        word: math.log(1 + (len(units) + 1) / (counts[word] + 0.5))
        * (_LITTLE_WEIGHT if heavy and word in light else 1)
        for word in question.words
    }


@functools.cache
def _light(analyzer: Analyzer) -> frozenset[str]:
    return frozenset(
        token
        for line in _QUESTION_WORDS
        for token in Analyzer(language=analyzer.language, stopwords=False).tokens(line)
    )


def _coverage(
    weights: Mapping[str, float],
    own: set[str],
    near: Sequence[set[str]],
    heading: set[str],
    passage: set[str],
) -> float:
    total = sum(weights.values())
    if not total:
        return 0.0
    beside = set().union(*near)
    levels = ((1.0, own), (_IN_HEADING, heading), (_BESIDE, beside), (_IN_PASSAGE, passage))
    return sum(weight * _held(word, levels) for word, weight in weights.items()) / total


def _held(word: str, levels: Sequence[tuple[float, set[str]]]) -> float:
    exact = next((level for level, tokens in levels if word in tokens), 0.0)
    if exact == 1.0 or len(word) < _BEGINNING:
        return exact
    alike = next(
        (level for level, tokens in levels if level > exact and word[:_BEGINNING] in _beginnings(tokens)), 0.0
    )
    return max(exact, _SAME_BEGINNING * alike)


def _beginnings(tokens: set[str]) -> set[str]:
    return {token[:_BEGINNING] for token in tokens if len(token) >= _BEGINNING}


def _share(wanted: frozenset[str], held: set[str]) -> float:
    """Share of the wanted words that are held; 1 where none is wanted."""
    return sum(_held(word, ((1.0, held),)) for word in wanted) / len(wanted) if wanted else 1.0


def _margin(passages: Sequence[Passage]) -> float:
    known = sorted(((one.cosine, one.group) for one in passages if one.cosine is not None), reverse=True)
    others = [cosine for cosine, group in known[1:] if not group or group != known[0][1]]
    return known[0][0] - others[0] if others else _NEUTRAL_MARGIN


def _tokens(text: str, analyzer: Analyzer) -> list[str]:
    return analyzer.tokens(fold(text))
