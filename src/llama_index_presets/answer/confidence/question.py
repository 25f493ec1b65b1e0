"""What a question asks for: its words, names, codes and the kind of its answer. Pure, English."""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from llama_index_presets.answer.confidence.whether import asks_whether
from llama_index_presets.answer.confidence.words import fold, tokens_of
from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["Question", "holds_code", "light_words", "typed"]

_QUESTION_WORDS: Final = (
    "who whom whose which what when where why how many much percentage percent proportion portion name named number",
    "kind type sort year date day month century likely person people place country city term word use used call called",
    "tell explain mean give describe list refer happen according long old far amount get go goes come comes",
)

_SPEAKER: Final = re.compile(
    r"(^|\b(?:am|was|do|did|have|had|can|could|may|might|must|shall|should|will|would|if|when|whenever|that|what|which|"
    r"where|who|whom|why|how|whether|because|before|after|while|once|until|unless|since|as|than|and|or|but|so)\s+)"
    r"[Ii](?=['’\s?!,;:]|$)(?:['’](?:m|ve|d|ll)\b)?",
    re.IGNORECASE,
)
"""The first person where it is a pronoun; the numeral stands behind a noun, as in "World War I" and "type I"."""
_ARTICLE: Final = re.compile(r"\ba (?=[a-z])")
"""No stop word of the analyzer, since letters alone are names: vitamin A."""
_CODE = re.compile(r"^(?=.*\d)(?=.*[A-Za-z])[\w./-]+$|^\d[\d.,-]{2,}$")
_LONG_CODE = re.compile(r"[A-Z][A-Za-z]*[-/.]\d[\w.-]*|\d+-[A-Z]+|[vV]?\d+(?:\.\d+)*\.\d+\.\d{1,3}")
"""A code of several tokens, such as a version 4.1.2; "2-yard" is none, and neither is a date."""
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|high|large|big|fast|often|wide|deep|heavy)\b|\bpercent|"
    r"\bwhat (?:(?:is|was|are|were) the )?"
    r"(?:number|amount|portion|proportion|size|age|temperature|price|cost|speed|weight)\b",
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
    r"\d+(?:[.,]\d+)*|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred|thousand|"
    r"million|billion|half|third|quarter|dozen|once|twice|none|several|both|hourly|daily|weekly|monthly|quarterly|"
    r"yearly|annually)\b",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\d+(?:[.,]\d+)*|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|century|centuries|"
    r"years?|ago|decade|spring|summer|autumn|winter|era|today|until|since)\b",
    re.IGNORECASE,
)
_CAPITALISED = re.compile(
    r"\b(?!(?:January|February|March|April|May|June|July|August|September|October|November|"
    r"December|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)\b)[A-Z][\w’'.-]*"
)


@dataclass(frozen=True, slots=True)
class Question:
    """What a question asks for.

    Attributes:
        text: The question.
        words: Its stems, in order.
        names: Those of names, numbers and codes.
        name_pairs: Those that stand side by side, as in "Heart Block".
        codes: Those with a digit beside a letter, and numbers of three digits and more.
        long_codes: Codes of several tokens, such as "HTTP/3" and "B-12", as they are written.
        wants: ``"number"``, ``"date"``, ``"name"``, ``"whether"`` for yes or no, or empty.
    """

    text: str
    words: tuple[str, ...]
    names: frozenset[str]
    name_pairs: frozenset[tuple[str, str]]
    codes: frozenset[str]
    long_codes: frozenset[str]
    wants: str

    @classmethod
    def of(cls, text: str, analyzer: Analyzer) -> Question:
        """Read a question. Who asks does not matter: "I" is neither a name nor a word to be found."""
        plain = _ARTICLE.sub("", _SPEAKER.sub(r"\1 ", fold(text)))
        words = tuple(dict.fromkeys(tokens_of(plain, analyzer)))
        raw = [word.strip(".,;:?!\"'()[]") for word in plain.split()]
        named = [
            tokens_of(word, analyzer) if (place and word[:1].isupper()) or any(map(str.isdigit, word)) else []
            for place, word in enumerate(raw)
        ]
        names = {token for tokens in named for token in tokens}
        light = light_words(analyzer)
        name_pairs = {
            (first[-1], second[0])
            for first, second in itertools.pairwise(named)
            if first and second and not {first[-1], second[0]} & light
        }
        codes = {token for word in raw if _CODE.search(word) for token in tokens_of(word, analyzer)}
        return cls(
            text,
            words,
            frozenset(names & set(words)),
            frozenset(name_pairs),
            frozenset(codes & set(words)),
            frozenset(word for word in raw if _LONG_CODE.fullmatch(word)),
            _wanted(plain),
        )

    def respelled(self, slips: Mapping[str, str]) -> Question:
        """The question with stems of its names as the passages write them; see `spelling.slips`."""
        if not slips:
            return self

        def right(token: str) -> str:
            return slips.get(token, token)

        return replace(
            self,
            words=tuple(dict.fromkeys(map(right, self.words))),
            names=frozenset(map(right, self.names)),
            name_pairs=frozenset((right(one), right(other)) for one, other in self.name_pairs),
        )


@functools.lru_cache(maxsize=512)
def _as_written(code: str) -> re.Pattern[str]:
    parts = r"[\s/.-]?".join(re.findall(r"[A-Za-z]+|\d+", code))
    return re.compile(rf"(?<!\w){parts}s?(?!\w|[./-]\d)", re.IGNORECASE)


def holds_code(code: str, text: str) -> bool:
    """Whether a text has a code, its parts apart or not: "B-12" is "B12" and "B 12", and "HTTP/1" is not "HTTP/1.1".

    Example:
        >>> holds_code("B-12", "Vitamin B12 helps."), holds_code("HTTP/1", "HTTP/1.1 is newer.")
        (True, False)
    """
    return bool(_as_written(code).search(text))


def _wanted(question: str) -> str:
    if asks_whether(question):
        return "whether"
    asks = {"number": _ASKS_NUMBER, "date": _ASKS_DATE, "name": _ASKS_NAME}
    return next((kind for kind, pattern in asks.items() if pattern.search(question)), "")


_MARK: Final = re.compile(r"\s*(?:\d{1,3}[.)]|\d{1,2}(?:\.\d{1,2})+[.)]?(?= +[A-Z]))\s+")
"""Number in front of a list item or a clause: it counts them, and is no number of its matter."""


def typed(question: Question, text: str, analyzer: Analyzer) -> float:
    """Whether a text holds what the question wants, 0 to 1; 0.5 where it wants neither number, date nor name."""
    if question.wants == "number" and (mark := _MARK.match(text)):
        text = text[mark.end() :]
    if question.wants in ("number", "date"):
        pattern = _NUMBER if question.wants == "number" else _DATE
        asked, told = (
            Counter(one[0].lower() for one in pattern.finditer(of)) for of in (question.text, text)
        )
        return float(bool(told - asked))  # a number that was asked with answers nothing
    if question.wants == "name":
        own = set(question.words)
        new = [m.start() for m in _CAPITALISED.finditer(text) if not set(tokens_of(m[0], analyzer)) <= own]
        return 1.0 if any(new) else 0.7 if new else 0.0
    return 0.5


@functools.cache
def light_words(analyzer: Analyzer) -> frozenset[str]:
    """Stems of words that only say what kind of answer is wanted, such as who, percentage and year."""
    return frozenset(
        token
        for line in _QUESTION_WORDS
        for token in Analyzer(language=analyzer.language, stopwords=False).tokens(line)
    )
