"""Questions for yes or no, and how far a text decides one. Pure, English."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from typing import Final

from llama_index_presets.answer.confidence.words import Words, held_by
from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["asks_whether", "share_decided"]

_ASKS_WHETHER: Final = re.compile(
    r"(?:(?:is|are|was|were|do|does|did|has|have|had|can|could|must|should|will|would)(?:n['’]t)?|"
    r"am|may|might|shall|can['’]t|won['’]t)\b(?!"
    r" (?:you|someone|somebody|anyone|anybody) (?:please )?"
    r"(?:tell|explain|describe|define|show|list|name|give|summari[sz]e|know|say)\b|"
    r" there (?:(?:a|any|some) )?(?:ways?|reasons?)\b|"
    r".*\bor\b)",
    re.IGNORECASE,
)
_SAID_IN_MANY_WAYS: Final = (
    "allow permit forbid prohibit ban possible able need require mandatory necessary have must bring take want like "
    "still also ever already really any anything include cover available offer"
)
"""Permission and need, which a text also grants by "may" and "welcome" and denies by "blocked"; and particles."""
_OF_ANOTHER_NAME: Final = 0.5


def asks_whether(question: str) -> bool:
    """Whether a question is answered with yes or no.

    "Can you tell me when" and "is there a way" ask for more, and a question with "or" for one of two.

    Example:
        >>> asks_whether("Do gift cards expire?"), asks_whether("Can you tell me when gift cards expire?")
        (True, False)
    """
    return bool(_ASKS_WHETHER.match(question))


def share_decided(
    words: Collection[str], names: Collection[str], near: Words, passage: Words, analyzer: Analyzer
) -> float:
    """How far a sentence can say yes or no: the share of the question's words that it speaks of, 0 to 1.

    Such a question has every word of its answer, so that one which is missing leaves it open: from "gift cards are not
    refundable" follows nothing about their expiry. Words of permission and need do not count.

    Args:
        words: Stems of the question that say more than what kind of answer is wanted.
        names: Those of names, numbers and codes. They may stand elsewhere in the passage; where one does not, the
            sentence is about another, and decides half at most.
        near: Words of the sentence, the ones before and behind it and the headings.
        passage: Words of the passage and its headings.
        analyzer: Made the stems.

    Example:
        >>> near = Words(["gift", "card", "refund"])
        >>> share_decided(["gift", "card", "expir"], [], near, near, Analyzer()) == 2 / 3
        True
    """
    words = [word for word in words if word not in _said_in_many_ways(analyzer)]
    present = {name for name in names if held_by(name, passage)}
    held = sum(word in present or held_by(word, near) > 0 for word in words)
    share = held / len(words) if words else 1.0
    return share if len(present) == len(names) else min(share, _OF_ANOTHER_NAME)


@functools.cache
def _said_in_many_ways(analyzer: Analyzer) -> frozenset[str]:
    return frozenset(analyzer.tokens(_SAID_IN_MANY_WAYS))
