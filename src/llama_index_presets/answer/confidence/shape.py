"""Shape of a line: a statement, or a title, a letterhead, a line that names a source. Pure."""

from __future__ import annotations

import re

__all__ = ["shape_of"]

_FUNCTION_WORD = re.compile(
    r"\b(?:the|a|an|of|to|in|is|are|was|were|be|been|has|have|had|and|or|that|which|for|with|by|on|at|from|as|it|not|can|"
    r"may|will|should|you|your|we|our|they|their|he|she|his|her)\b",
    re.IGNORECASE,
)
_SMALL_WORD = re.compile(r"(?<=\s)[a-z]{3,}\b(?!\.\s)")
_ROW = re.compile(r"^[-*•–]\s|^\d{1,2}[.)]\s|\|")
_SOURCE_LINE = re.compile(r"^(?:Source|Sources|More on|See also|Link|Page)\b[^.]{0,40}:", re.IGNORECASE)
_ENDS = '.!?"”)]:;。！？」』؟।॥۔։…»'
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff]")
"""Characters of scripts without spaces, of which two are taken for a word."""


def shape_of(text: str) -> float:
    """1 for a statement, a list item or a table row; less for a title, a letterhead, a source line."""
    words = max(len(text.split()), len(_UNSPACED.findall(text)) // 2)
    if _SOURCE_LINE.match(text):
        return 0.4
    if _ROW.search(text):
        return 0.9 if words >= 2 else 0.5
    ends = text[-1:] in _ENDS
    if words < 5:
        length = (0.8 if ends and words >= 3 else 0.6) + (0.15 if ends and _is_clause(text) else 0.0)
    else:
        length = 1.0 if words <= 80 else 0.9 if words <= 120 else 0.7
    return (1.0 if ends else 0.85) * (1.0 if _is_clause(text) else 0.7 if ends else 0.5) * length


def _is_clause(text: str) -> bool:
    """Whether a text has a word of grammar, or ends as a sentence and has a word in small letters behind its first.

    "Acme pays within 14 days." is a statement without an article or an auxiliary; an address, a title and a menu have
    capitals throughout, or no full stop.
    """
    if _FUNCTION_WORD.search(text) or not text.isascii():
        return True
    return text[-1:] in _ENDS and bool(_SMALL_WORD.search(text))
