"""Numbers with their nouns, in messages and logs: "1 document has", "1,200 chunks". Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["counted"]

_SINGULARS: Final = {"have": "has", "are": "is", "were": "was", "do": "does", "go": "goes"}


def counted(number: float, noun: str, verb: str = "") -> str:
    """A number with its noun and, where one is given, the verb that it takes.

    Args:
        number: How many.
        noun: The noun of one.
        verb: The verb of many.

    Example:
        >>> counted(1, "document"), counted(1200, "chunk"), counted(2, "entry"), counted(0, "index")
        ('1 document', '1,200 chunks', '2 entries', '0 indexes')
        >>> counted(1, "file", "are"), counted(2, "file", "are"), counted(1, "query", "hold")
        ('1 file is', '2 files are', '1 query holds')
    """
    one = number == 1
    shown = f"{number:,}" if isinstance(number, int) else f"{number:,g}"
    words = [shown, noun if one else _plural(noun)]
    if verb:
        words.append(_SINGULARS.get(verb, f"{verb}s") if one else verb)
    return " ".join(words)


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
