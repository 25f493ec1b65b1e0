"""Questions that ask two things, cut into their parts: pure, English."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["AUXILIARIES", "parts_of"]

AUXILIARIES: Final = (
    "is|are|was|were|does|do|did|has|have|had|can|could|may|might|must|shall|should|will|would"
)
"""Verbs that an English question puts before its subject, as alternatives of a pattern."""

_ASKS: Final = r"(?:what|which|who|whom|whose|when|where|why|how)"
_PREPOSITION: Final = r"(?:(?:at|by|for|from|in|of|on|to|under|with)\s+)?"
_AUXILIARY: Final = rf"(?:{AUXILIARIES})"
_SUBJECT: Final = r"(?:it|they|he|she|there|this|that|these|those|you|we|i)"
_STARTS: Final = re.compile(
    rf"^\s*(?:{_PREPOSITION}{_ASKS}\b|{_AUXILIARY}\b|(?:please\s+)?(?:explain|describe|define|tell|list|name|give|say)\b)",
    re.IGNORECASE,
)
_BETWEEN: Final = re.compile(
    rf"\?\s+(?:(?:and|or|but|also|then)\s+)*(?={_PREPOSITION}{_ASKS}\s+\w|{_AUXILIARY}\s+\w)|"
    rf"(?<!\s)(?:\s*+,)?\s+(?:and|or|but)\s+(?:(?:also|then|if so)(?:\s*+,)?\s+)?"
    rf"(?={_PREPOSITION}{_ASKS}\s+\w|{_AUXILIARY}\s+(?:not\s+)?{_SUBJECT}\s+\w)",
    re.IGNORECASE,
)
"""Between two questions: a question mark, or a conjunction before a question word or an inverted verb."""

_OPEN_END: Final = re.compile(rf"\b(?:{_ASKS}|and|or|than|as)\s*$", re.IGNORECASE)
_FEWEST_WORDS: Final = 3
_MOST_PARTS: Final = 3


def parts_of(question: str) -> list[str]:
    """The questions that a question is made of, three at most; itself where it asks one thing.

    Args:
        question: English, as it was asked; a part may refer to what stands in another, as "it" does.

    Example:
        >>> parts_of("What is croup and how is it treated?")
        ['What is croup?', 'how is it treated?']
        >>> parts_of("When and where was she born?")
        ['When and where was she born?']
    """
    if not _STARTS.search(question):
        return [question]
    parts = [question]
    while len(parts) < _MOST_PARTS and (cut := _BETWEEN.search(parts[-1])):
        first, rest = parts[-1][: cut.start()], parts[-1][cut.end() :]
        if not _is_whole(first) or not _is_whole(rest):
            break
        parts[-1:] = [f"{first.strip(' ,?')}?", rest]
    return parts


def _is_whole(part: str) -> bool:
    return len(part.split()) >= _FEWEST_WORDS and not _OPEN_END.search(part.rstrip(" ?,"))
