"""Phrases of a noun and what stands before it: "bisque firing" is not "glaze firing". Pure, English."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from llama_index_presets.answer.confidence.parts import AUXILIARIES
from llama_index_presets.answer.confidence.question import light_words
from llama_index_presets.answer.confidence.spelling import slips
from llama_index_presets.answer.confidence.words import Words, fold, held_by
from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["defined_term", "defines", "is_another_thing"]


def _words_of(line: str) -> frozenset[str]:
    return frozenset(line.split())


_WORD: Final = re.compile(r"[\w’']+|[^\w\s-]")
_DETERMINERS: Final = _words_of(
    "the a an this these those its their his her our my your any each every no some all"
)
_PREPOSITIONS: Final = _words_of(
    "of for in on at by with from about under during per as than among between into onto through over after before "
    "within without against along across near around until since while whether via"
)
_QUESTION_WORDS: Final = _words_of("which whose many much")
_AUXILIARIES: Final = {*AUXILIARIES.split("|"), "be", "been"}
_NUMERAL: Final = re.compile(r"\d.*|one|two|three|four|five|six|seven|eight|nine|ten", re.IGNORECASE)
_OF_ANY_NOUN: Final = re.compile(
    rf"{_NUMERAL.pattern}|.*(?:ly|est)|first|second|third|last|next|final|other|another|"
    r"same|different|most|more|several|few|only|own|usual|main|major|big|large|great|new|former|previous|current|"
    r"original|total|entire|whole|certain|particular|specific|also|often|still|ever|like",
    re.IGNORECASE,
)
"""Words that say which or how, and are easily said by another: numerals, superlatives, adverbs."""
_VERB: Final = re.compile(r".{2,}ed", re.IGNORECASE)
_BE: Final = _words_of("is are was were been")
_SURELY_A_NOUN: Final = re.compile(
    r".{2,}(?:ing|[st]ion|ment|ness|ity|ism|a?e?nce|ure|er|or)s?", re.IGNORECASE
)
_LONGEST: Final = 3
"""Words behind "of" up to which the last is a noun."""
_ALIKE: Final = 4
"""Letters that a modifier shares with itself in another spelling: labour and labor."""
_BEGIN: Final = _DETERMINERS | _PREPOSITIONS | _QUESTION_WORDS | _AUXILIARIES


class _Token(NamedTuple):
    word: str
    stem: str  # empty for a stop word and a sign


class _Phrase(NamedTuple):
    modifier: str
    head: str


def is_another_thing(
    question: str, asked: Collection[str], unit: str, passage: Words, analyzer: Analyzer
) -> bool:
    """Whether a unit speaks of another kind of what the question names, and its passage never of that kind.

    A modifier that the passage lacks may be said in other words; where its noun has another modifier in the unit, it is
    another thing. A name, a numeral, and a word such as "last" are no modifiers here, and neither is a verb.

    Args:
        question: What was asked.
        asked: Stems of the question, as the passages write them.
        unit: The sentence, list item or row that would be quoted.
        passage: Words of its passage and headings.
        analyzer: Makes stems.

    Example:
        >>> english = Analyzer(language="english")
        >>> unit = "Glaze firing takes nine hours."
        >>> words, held = frozenset(("bisqu", "fire", "take")), Words(("glaze", "fire", "take", "nine", "hour"))
        >>> is_another_thing("How long does bisque firing take?", words, unit, held, english)
        True
        >>> is_another_thing("How long does firing take?", words, unit, held, english)
        False
    """
    light = light_words(analyzer)
    missing = [
        phrase
        for phrase in _asked_phrases(_tokens(question, analyzer), light)
        if phrase.modifier in asked
        and not held_by(phrase.modifier, passage)
        and not slips([phrase.modifier], passage.tokens)
    ]
    if not missing:
        return False
    said = [one for one in _phrases(_tokens(unit, analyzer), light) if one.modifier not in asked]
    return any(
        phrase.head == one.head and phrase.modifier[:_ALIKE] != one.modifier[:_ALIKE]
        for phrase in missing
        for one in said
    )


def _tokens(text: str, analyzer: Analyzer) -> list[_Token]:
    words = _WORD.findall(fold(text))
    return [
        _Token(word, "" if word.lower() in _DETERMINERS else next(iter(analyzer.tokens(word)), ""))
        for word in words
    ]


def _asked_phrases(tokens: list[_Token], light: frozenset[str]) -> Iterator[_Phrase]:
    """Phrases of a question that begin behind a determiner, a preposition, a question word or an auxiliary."""
    for place, (modifier, head) in enumerate(itertools.pairwise(tokens)):
        before = [token.word.lower() for token in tokens[max(place - 2, 0) : place]]
        begins = bool(before) and (
            before[-1] in _DETERMINERS
            or (before[-1] in _BEGIN and not modifier.word.endswith("ing"))
            or before[-1].endswith(("'s", "’s", "s'", "s’"))
            or (len(before) == 2 and before[0] in _DETERMINERS)
        )
        if begins and _is_subject(before, modifier.word) and not _SURELY_A_NOUN.fullmatch(head.word):
            continue  # "does the shop take" names no kind of taking
        if begins and _is_phrase(modifier, head, light) and not _OF_ANY_NOUN.fullmatch(modifier.word):
            yield _Phrase(modifier.stem, head.stem)
    yield from _of_phrases(tokens, light)


def _is_subject(before: list[str], word: str) -> bool:
    """Whether a word by itself is what an auxiliary asks of, before its verb: "does the shop", "do shops"."""
    with_determiner = len(before) == 2 and before[0] in _AUXILIARIES - _BE and before[1] in _DETERMINERS
    return with_determiner or (word.endswith("s") and any(one in _AUXILIARIES - _BE for one in before[-1:]))


def _phrases(tokens: list[_Token], light: frozenset[str]) -> Iterator[_Phrase]:
    for modifier, head in itertools.pairwise(tokens):
        if _is_phrase(modifier, head, light) and not _NUMERAL.fullmatch(modifier.word):
            yield _Phrase(modifier.stem, head.stem)
    yield from _of_phrases(tokens, light)


def _of_phrases(tokens: list[_Token], light: frozenset[str]) -> Iterator[_Phrase]:
    """ "The price of copper" has the modifier behind its noun: the last word there."""
    for place, (head, of) in enumerate(itertools.pairwise(tokens)):
        if of.word.lower() == "of":
            behind = itertools.dropwhile(
                lambda token: token.word.lower() in _DETERMINERS, tokens[place + 2 :]
            )
            words = list(itertools.takewhile(lambda token: token.stem, behind))
            if (
                0 < len(words) <= _LONGEST
                and not words[-1].word.endswith("ing")
                and _is_phrase(words[-1], head, light)
            ):
                yield _Phrase(words[-1].stem, head.stem)


def _is_phrase(modifier: _Token, head: _Token, light: frozenset[str]) -> bool:
    return bool(modifier.stem and head.stem) and not (
        {modifier.stem, head.stem} & light
        or {modifier.word.lower(), head.word.lower()} & (_AUXILIARIES | _PREPOSITIONS)
        or head.word[0].isupper()
        or modifier.word[0].isdigit()
        or _OF_ANY_NOUN.fullmatch(head.word)
        or _VERB.fullmatch(head.word)
    )


_ASKS_TERM: Final = re.compile(
    r"(?:who|what) (?:is|are|was|were) (?:an? |the )?([\w'’ -]{1,60}?)\s*\?*", re.IGNORECASE
)


def defined_term(question: str) -> str:
    """The term of a question that asks who or what it is, and nothing more; or empty.

    Example:
        >>> defined_term("Who is the Contractor?"), defined_term("Who pays the Contractor?")
        ('Contractor', '')
    """
    asked = _ASKS_TERM.fullmatch(question.strip())
    return asked[1] if asked else ""


def defines(text: str, term: str) -> bool:
    """Whether a sentence introduces a term as contracts do: quoted in brackets, or with its meaning.

    Example:
        >>> [defines(one, "contractor") for one in ('Brightside (the "Contractor") cleans.', "The Contractor cleans.")]
        [True, False]
    """
    name = rf"""["“”„«](?:the )?{re.escape(term)}["”“»]"""
    return bool(
        re.search(
            rf"\([^()]{{0,60}}{name}|{name} (?:means|shall mean|refers to|has the meaning)",
            text,
            re.IGNORECASE,
        )
    )
