"""What a question wants to know of its matter, and the sections that are headed so: pure, English."""

from __future__ import annotations

import functools
import re
from typing import Final

__all__ = ["SECTION_PATH", "asks_meaning", "aspects_of", "section_fit"]

_ASPECTS: Final = tuple(
    (re.compile(asks, re.IGNORECASE), re.compile(heads, re.IGNORECASE))
    for asks, heads in (
        (
            r"\b(?:avoid|prevent\w*|protect\w*|keep (?:\w+ )?from|lower the risk|reduce the risk|guard against)\b",
            r"\b(?:prevent\w*|avoid\w*|protect\w*|precautions?|safety)\b",
        ),
        (
            r"\b(?:treat\w*|cured?|cures|help\w* (?:against|with)|medicines?|medications?|drugs?|therap\w+|remed\w+|"
            r"reliev\w+|get rid of)\b",
            r"\b(?:treat\w*|therap\w+|medications?|medicines?|remed\w+|cures?|management)\b",
        ),
        (
            r"\b(?:symptoms?|signs?|notice|feels? like|looks? like|complain\w*)\b",
            r"\b(?:symptoms?|signs?|complaints?)\b",
        ),
        (
            r"\b(?:diagnos\w+|tests? for|tested|detect\w*|(?:find out|tell|know) (?:if|whether)|check(?:ed)? for)\b",
            r"\b(?:diagnos\w+|tests?|testing|detect\w*|exams?)\b",
        ),
        (
            r"^who (?:gets?|catches|develops|can get|is (?:most )?likely)\b|"
            r"\b(?:at (?:higher |greater |high )?risk|likely to (?:get|have|develop|catch)|prone to)\b",
            r"\b(?:at risk|risk factors?|risks?)\b",
        ),
        (
            r"^why\b|\b(?:causes?|caused|comes? from|leads? to|results? in|reasons?|due to|brought about)\b",
            r"\b(?:causes?|reasons?|origins?|why)\b",
        ),
        (
            r"\b(?:outlook|prognosis|surviv\w+|life expectancy|expect(?:ed)? (?:to live|in the long))\b",
            r"\b(?:outlook|prognosis|survival|complications?|living with)\b",
        ),
        (
            r"\bhow many people\b|\bhow (?:common|frequent|widespread|rare)\b",
            r"\b(?:how many|how common|frequency|prevalence|incidence|statistics|epidemiology)\b",
        ),
        (
            r"\bhow much (?:does|do|is|are)\b.*\b(?:cost|pay|charge)|\b(?:prices?|fees?|costs?)\b",
            r"\b(?:prices?|pricing|costs?|fees?|charges|rates)\b",
        ),
        (
            r"\b(?:install\w*|set (?:it |this )?up|get started)\b",
            r"\b(?:install\w*|setup|getting started|quick ?start)\b",
        ),
        (
            r"^why\b|\b(?:errors?|fails?|broken|fix|does(?:n't| not) work|problems? with|goes? wrong)\b",
            r"\b(?:troubleshoot\w*|errors?|problems?|known issues)\b",
        ),
        (
            r"^who (?:may|can|is allowed|is eligible|qualif\w+)\b|\b(?:eligib\w+|qualify|allowed to|entitled)\b",
            r"\b(?:eligib\w+|requirements?|who can|entitlement)\b",
        ),
    )
)
"""What a question asks of its matter, and how sections about it are headed."""

_MEANS: Final = re.compile(
    r"^(?:what (?:is|are|was|were) (?:an? |the )?[\w'’() -]+\?*$|what does [\w'’() -]+ mean|can you explain|"
    r"please explain|explain|define|describe|tell me (?:what|about))",
    re.IGNORECASE,
)
_HEADS_MEANING: Final = re.compile(
    r"^(?:what (?:is|are)\b|about\b|overview|introduction|definition|background|summary|in short|description)",
    re.IGNORECASE,
)
SECTION_PATH: Final = " > "
"""Stands between the title of a document and the heading of a section."""


def asks_meaning(question: str) -> bool:
    """Whether a question asks what its matter is, and nothing more of it.

    Example:
        >>> asks_meaning("What is croup?"), asks_meaning("What helps against croup?")
        (True, False)
    """
    return bool(_MEANS.search(question))


def aspects_of(question: str) -> str:
    """The words of a question that ask for an aspect, such as its treatment: a heading says them in other words.

    Example:
        >>> aspects_of("Is there a test for croup?")
        'test for'
    """
    return " ".join(found[0] for asks, _ in _ASPECTS for found in asks.finditer(question))


@functools.lru_cache(maxsize=512)
def section_fit(question: str, heading: str) -> int:
    """Whether a section is headed by what the question wants to know: 1, by something else: -1, or neither: 0.

    A question for the treatment of a disease is answered below "Treatment" or "How is it treated?", and rarely in the
    section on its causes, whose words may be closer.

    Args:
        question: The question.
        heading: Path of the headings of a passage; a title alone says nothing about a section.

    Example:
        >>> section_fit("What helps against croup?", "Croup > What are the treatments for croup?")
        1
        >>> section_fit("What helps against croup?", "Croup > What causes croup?")
        -1
        >>> section_fit("How old is the harbour?", "Harbour > What causes tides?")
        0
        >>> section_fit("Can you explain Risk Factors?", "Risk Factors > What are Risk Factors?")
        1
    """
    if SECTION_PATH not in heading:
        return 0
    title = heading.split(SECTION_PATH, 1)[0].strip()
    question = _without(title, question)
    section = _without(title, heading.rsplit(SECTION_PATH, 1)[-1]).strip()
    asked = {place for place, (asks, _) in enumerate(_ASPECTS) if asks.search(question)}
    headed = {place for place, (_, heads) in enumerate(_ASPECTS) if heads.search(section)}
    if not asked and asks_meaning(question):
        return 1 if not headed and _HEADS_MEANING.search(section) else -1 if headed else 0
    if asked & headed:
        return 1
    return -1 if asked and (headed or _HEADS_MEANING.search(section)) else 0


def _without(title: str, text: str) -> str:
    """A text without the name of the document: what a thing is called is not what is asked of it."""
    return re.sub(rf"\b{re.escape(title)}(?!\w)", "it", text, flags=re.IGNORECASE) if title else text
