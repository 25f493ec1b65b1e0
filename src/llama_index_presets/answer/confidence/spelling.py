"""Names of a question as the passages write them: abbreviations spelled out, letters that slipped. Pure, English."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

__all__ = ["slips", "spelled_out"]

_ABBREVIATION: Final = re.compile(r"\b[A-Z]{3,6}\b")
_BETWEEN: Final = r"(?:[\s-]+(?:and|at|by|de|for|in|of|on|or|the|to))?[\s-]+"
"""What may stand between the words of an abbreviation without giving it a letter."""
_SURE: Final = 4
"""Letters from which the words of an abbreviation need no capitals: "chronic obstructive pulmonary disease"."""
_SHORTEST: Final = 5
"""Letters of a name in which two may be swapped; a longer one may also have one too many or too few."""


def spelled_out(question: str, texts: Sequence[str]) -> str:
    """A question whose abbreviations are written out where the texts never abbreviate, but have the words.

    Args:
        question: The question.
        texts: What it is asked of.

    Example:
        >>> spelled_out("When did the UMC meet?", ["The United Methodist Church met in May."])
        'When did the United Methodist Church meet?'
        >>> spelled_out("When did the UMC meet?", ["The UMC, the United Methodist Church, met in May."])
        'When did the UMC meet?'
    """
    if question.isupper():
        return question
    missing = {
        short
        for short in _ABBREVIATION.findall(question)
        if not any(re.search(rf"\b{short}\b", text, re.IGNORECASE) for text in texts)
    }
    full = {short: words for short in missing if (words := _words_of(short, texts))}
    return _ABBREVIATION.sub(lambda found: full.get(found[0], found[0]), question) if full else question


def _words_of(short: str, texts: Iterable[str]) -> str:
    """The first words in a row that begin with the letters of an abbreviation; small words between them are free."""
    for text in texts:
        for capitals in (True, False):
            if not capitals and len(short) < _SURE:
                continue
            letters = short if capitals else short.lower()
            found = re.search(r"\b" + _BETWEEN.join(rf"{one}[\w’']+" for one in letters), text)
            if found:
                return " ".join(found[0].split())
    return ""


def slips(names: Collection[str], held: Collection[str]) -> dict[str, str]:
    """Names that are missing, and the one word that is there and differs by a slip of the keyboard.

    A slip swaps two letters, leaves one out or puts one in. Another letter in place of one is none: arteritis is not
    arthritis. Names shorter than five letters are taken as they are, and those of five only have letters swapped.

    Args:
        names: Stems of a question's names.
        held: Stems of the passages.

    Example:
        >>> slips(["bedigo", "geelong", "zeria"], ["bendigo", "geelong", "zeira"])
        {'bedigo': 'bendigo', 'zeria': 'zeira'}
        >>> slips(["arteriti"], ["arthriti"])
        {}
    """
    found = {}
    for name in names:
        if len(name) < _SHORTEST or not name.isalpha() or name in held:
            continue
        alike = [
            word
            for word in held
            if word[:1] == name[:1] and abs(len(word) - len(name)) <= 1 and _is_slip(name, word)
        ]
        if len(alike) == 1:
            found[name] = alike[0]
    return found


def _is_slip(one: str, other: str) -> bool:
    place = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if place is None or not other.isalpha():  # a longer form of the word is no slip
        return False
    if len(one) == len(other):
        swapped = one[:place] + one[place : place + 2][::-1] + one[place + 2 :]
        return swapped == other
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return len(longer) > _SHORTEST + 1 and longer[:place] + longer[place + 1 :] == shorter
