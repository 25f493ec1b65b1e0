"""Form of a question: two questions with one form ask the same thing. Pure.

Built to miss rather than to be wrong: words, their order and their case stay as they are, so numbers, units, names,
negations, quantifiers and tenses do. What is taken away is what cannot change a meaning: blanks, the spelling of
Unicode, the last question mark, a capital at the beginning of a question word, politeness around a question, and the
word order that "tell me" brings. Words with a like meaning are different words.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["normalised", "question_form"]

# soft hyphen, blank without width, byte order mark
_INVISIBLE: Final = dict.fromkeys((0x00AD, 0x200B, 0xFEFF))
_SPELLINGS: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u2010": "-", "\u2011": "-"})
_WH: Final = r"(?:who|what|which|when|where|why|how)"
_OPENING: Final = re.compile(rf"(?:{_WH}|is|are|was|were|do|does|did)(?:n't|'s)?", re.I)
_START: Final = rf"(?:{_WH}|is|are|was|were|do|does|did|can|could|should|would|list|give|show)"
_GREETING: Final = re.compile(r"^(?:hi|hello|hey|good (?:morning|afternoon|evening))(?: there)?[,!] +", re.I)
_PLEASE: Final = re.compile(rf"^please,? +(?={_START} )", re.I)
_INDIRECT: Final = re.compile(
    r"^(?:(?:please,? )?(?:can|could|would|will) you (?:please )?tell me|please tell me|tell me(?: please)?"
    r"|do you know|i(?:'d| would) like to know|i want to know),? +(?=" + _WH + " )",
    re.I,
)
_THANKS: Final = re.compile(r"(?<=\w)[?]?, +(?:please|thanks|thank you|thanks a lot|many thanks)$", re.I)
_LAST_MARK: Final = re.compile(r"(?:(?<=[\w)%'\"]) ?[?]|(?<=\w)[.])$")
_DETERMINERS: Final = frozenset(
    ("the", "a", "an", "my", "our", "your", "their", "his", "her", "its", "this", "these", "those")
)
_IS: Final = frozenset(("is", "are", "was", "were"))
_WH_IS: Final = re.compile(r"^(what|who|where|when|how|why)'s (?=(?:the|a|an|my|our|your|this|that) )", re.I)
_NEGATED: Final = re.compile(r"(is|are|was|were|do|does|did|has|have|had|could|should|would|must)n't")
_NOT: Final = {"can't": "can not", "cannot": "can not", "won't": "will not"}
_CLAUSE: Final = re.compile(rf"{_WH}|that|whom|whose|if|whether|because|and|or|but")


def normalised(question: str) -> str:
    """A question with one blank between words and one spelling of each letter; nothing else is changed.

    Example:
        >>> normalised(" What   is\\u00a0 caf\\u0065\\u0301? ")
        'What is café?'
    """
    return " ".join(unicodedata.normalize("NFC", question.translate(_INVISIBLE)).split())


def question_form(question: str) -> str:
    """Form of a question; equal forms ask the same thing.

    Example:
        >>> question_form("Could you please tell me what the dose for adults is?") == question_form(
        ...     "what is the dose for adults"
        ... )
        True
        >>> question_form("Is it safe for us?") == question_form("Is it safe for US?")
        False
    """
    text = _LAST_MARK.sub("", normalised(question).translate(_SPELLINGS))
    text = _LAST_MARK.sub("", _THANKS.sub("", text)) if _THANKS.search(text) else text
    text = _GREETING.sub("", text)
    asked, indirect = _INDIRECT.subn("", text)
    words = _opened(_WH_IS.sub(r"\1 is ", asked if indirect else _PLEASE.sub("", text))).split(" ")
    words = " ".join(_NOT.get(word, _NEGATED.sub(r"\1 not", word)) for word in words).split(" ")
    return " ".join(_direct(words) if indirect else words)


def _opened(text: str) -> str:
    """Without the capital of a question word at the beginning; a name or an abbreviation (WHO, IS) keeps its own."""
    first, blank, rest = text.partition(" ")
    plain = _OPENING.fullmatch(first) and first[1:] == first[1:].lower()
    return (first.lower() if plain else first) + blank + rest


def _direct(words: list[str]) -> list[str]:
    """Word order of a direct question: "what the dose is" is "what is the dose"; only where nothing else fits."""
    verbs = [place for place, word in enumerate(words) if word in _IS]
    simple = len(verbs) == 1 and verbs[0] > 1 and not any(map(_CLAUSE.fullmatch, words[1:]))
    if not simple or words[1] not in _DETERMINERS:
        return words
    place = verbs[0]
    return [words[0], words[place], *words[1:place], *words[place + 1 :]]
