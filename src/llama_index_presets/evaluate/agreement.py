"""Agreement of an answer with the expected one: exact match and F1 of words, as SQuAD counts them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

__all__ = ["answer_f1", "exact_match"]

_MARKERS = re.compile(r"(?<!\s)\s*+\[\d+\]")
_ARTICLES = frozenset({"a", "an", "the"})


def exact_match(expected: str, answer: str) -> float:
    """1 when both have the same words in the same order, else 0; case, punctuation, articles and ``[1]`` do not count.

    Example:
        >>> exact_match("28 days", "The 28 days. [1]"), exact_match("28 days", "28 weeks")
        (1.0, 0.0)
    """
    return float(_words(expected) == _words(answer))


def answer_f1(expected: str, answer: str) -> float:
    """Harmonic mean of two shares: of the answer's words that are expected, and of the expected ones that it has.

    Example:
        >>> answer_f1("28 days", "for 28 days, cool")  # 2 of 4 and 2 of 2
        0.6666666666666666

    Source: Rajpurkar et al., EMNLP 2016, doi:10.18653/v1/D16-1264
    """
    wanted, found = Counter(_words(expected)), Counter(_words(answer))
    if not wanted or not found:
        return float(wanted == found)
    return 2 * (wanted & found).total() / (wanted.total() + found.total())


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", _MARKERS.sub("", text)).casefold()
    # as SQuAD: "10-K" is "10k"
    kept = "".join(char for char in plain if not unicodedata.category(char).startswith("P"))
    return [word for word in kept.split() if word not in _ARTICLES]
