"""Follow-up questions made whole without a language model: what the question before was about is carried over. Pure.

"How is botulism treated?" and then "and for children?" is one question in two messages. A message that leans on the one
before it (a pronoun, "and …", "what about …", words without a topic) is asked together with that one's words; one that
names another thing of the same kind ("and measles?") takes its place; one that stands alone is left as it is. The rules
are for English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from llama_index_presets.answer.confidence.parts import parts_of
from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["make_whole"]

_REFERS_BACK: Final = re.compile(
    r"\b(it|its|they|them|their|theirs|this|that|these|those|he|she|his|hers?|him|there|ones?|same|both|each|either|"
    r"the (?:disease|illness|infection|company|drug|product|paper|author|latter|former|others?|second|first))\b",
    re.IGNORECASE,
)
_EXPLETIVE: Final = re.compile(
    r"\b(?:is|are|was|were) there\b|\bthere (?:is|are|was|were|any)\b|\bis it (?:possible|safe|true|necessary)\b"
    r"|\b(?:who|which|one|evidence|reports?|\w+s) that\b",
    re.IGNORECASE,
)
_CONTINUES: Final = re.compile(
    r"^\s*(?:and(?: also)?|but|or|so|also|then|what about|how about|what of|what if|ok(?:ay)?,?|"
    r"why(?: not)?\??$|how so|since when|where\??$|when\??$|how\??$|who\??$|for example|such as|in|for|with|without|"
    r"during|"
    r"under|over|after|before|among|by|at|on|only|any others?|anything else|more|else)\b",
    re.IGNORECASE,
)
_INTRODUCES: Final = re.compile(
    r"^\s*(?:ok(?:ay)?,? )?(?:and |but |or |so )?(?:also |then )?(?:what|how) (?:about|of)\s+|^\s*(?:and|but|or|so)\s+",
    re.IGNORECASE,
)
_PREPOSITION: Final = re.compile(
    r"^\s*(?:in|for|with|without|during|under|over|after|before|among|by|at|on|from|between|if|when|as|to|since|until|"
    r"because|not|only|how|what|why|who|where|which|is|are|was|were|does|do|did|can|could|should|will|would|has|have)\b",
    re.IGNORECASE,
)
_POPULATIONS: Final = re.compile(
    r"\b(?:child(?:ren)?|kids?|adults?|infants?|bab(?:y|ies)|newborns?|wom[ae]n|m[ae]n|elderly|older|younger|teen\w*|"
    r"adolescents?|pregnan\w+|patients?|people|pets?|dogs?|cats?|animals?|humans?|travell?ers?|workers?|"
    r"employees?|managers?|"
    r"customers?|students?|weekends?|holidays?|abroad|today|tomorrow|yesterday|(?:19|20)\d\d|q[1-4]|quarters?|"
    r"years?|months?)\b",
    re.IGNORECASE,
)
_TOPICLESS: Final = re.compile(
    r"^\s*(?:what|which|who|where|when|why|how|is|are|was|were|do|does|did|can|could|should|"
    r"any)\b.*\bthe (?:(?:main|usual|"
    r"common|early|first|side|risk|incubation|exact|total|average|typical) )?\w+\s*\?*\s*$"
    r"|^\s*(?:is|are|was|were) there (?:an?|any|some)? ?(?:\w+ )?\w+\s*\?*\s*$",
    re.IGNORECASE,
)
_COMPLEMENT: Final = re.compile(
    r"\bthe \w+(?: \w+)? (?:of|for|in|from|to|with|by|on|at|about)\b", re.IGNORECASE
)
_QUESTION: Final = (
    "what which who whom whose when where why how many much long often old far is are was were do does did can could "
    "should "
    "would will has have had tell me explain describe give list about please need know want get use make "
    "happen work mean"
)


def make_whole(message: str, previous: str, *, topic: str = "") -> str:
    """The question that a message asks after another one.

    Args:
        message: What the user says now.
        previous: The question before it, as it was made whole; empty for none.
        topic: What was cited last is about, such as the title of its document; its words that the question before
            has count. May be empty.

    Returns:
        A question for retrieval and for the answer: the message itself where it stands alone.

    Example:
        >>> make_whole("And for children?", "How is botulism treated?")
        'How is botulism treated? And for children?'
        >>> make_whole("And measles?", "How is botulism treated?", topic="Botulism")
        'How is measles treated?'
        >>> make_whole("How is it treated?", "What are the signs of botulism?", topic="Botulism: ward guide")
        'How is botulism treated?'
        >>> make_whole("What causes measles?", "How is botulism treated?")
        'What causes measles?'
    """
    analyzer = Analyzer()
    if not previous.strip() or not _leans(parts_of(message)[0], analyzer):
        return message  # "it" in a second part is what the first part names
    topic = _shared(previous, topic, analyzer)
    other = _other_thing(message)
    if other and (replaced := _replaced(previous, topic, other)):
        return replaced
    if changed := _exchanged(message, previous):
        return changed
    about = topic or next(iter(_names(previous)), "")
    if about and not _adds(message):
        return message if _holds(message, about) else _about(message, about)
    carried = previous.rstrip()
    if len(parts_of(f"{carried.rstrip('?')}? {message.strip()}")) > len(parts_of(message)):
        return f"{carried.rstrip('?.! ')}: {message.strip()}"  # else what was answered is asked again
    return f"{carried if carried.endswith(('?', '.', '!', ':')) else carried + '?'} {message.strip()}"


_KINDS: Final = (
    re.compile(r"\b(?:19|20)\d\d\b"),
    re.compile(r"\bQ[1-4]\b", re.IGNORECASE),
    re.compile(
        r"\b(?:employees?|managers?|workers?|contractors?|directors?|interns?|students?|teachers?|customers?|suppliers?|"
        r"child(?:ren)?|adults?|infants?|wom[ae]n|m[ae]n|dogs?|cats?|weekdays?|weekends?)\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b",
        re.IGNORECASE,
    ),
)


def _exchanged(message: str, previous: str) -> str:
    """The question before, with its year, month or group of people exchanged; empty where none is named in both."""
    for kind in _KINDS:
        new, old = kind.findall(message), kind.findall(previous)
        if len(new) == 1 and len(old) == 1 and len(message.split()) <= 5:
            return kind.sub(new[0], previous, count=1)
    return ""


_PRONOUN: Final = re.compile(r"\b(it|they|them|he|she|him)\b", re.IGNORECASE)


def _about(message: str, about: str) -> str:
    """The message with what it is about in place of its pronoun, or before it."""
    if not _EXPLETIVE.search(message) and (found := _PRONOUN.search(message)):
        return message[: found.start()] + about + message[found.end() :]
    return f"{about}: {message}"


def _adds(message: str) -> bool:
    """Whether a message adds a condition to the question before, or asks for more of its answer."""
    rest = _INTRODUCES.sub("", message, count=1)
    if rest != message and not _REFERS_BACK.search(rest):
        return bool(_PREPOSITION.search(rest) or _POPULATIONS.search(rest)) and not _OWN_VERB.search(rest)
    return bool(_PREPOSITION_ONLY.search(message)) or (
        len(message.split()) < 4 and not _REFERS_BACK.search(message)
    )


_PREPOSITION_ONLY: Final = re.compile(
    r"^\s*(?:in|for|with|without|during|under|over|after|before|among|by|at|on|only|more|else|any others?|"
    r"tell me more)\b",
    re.IGNORECASE,
)
_OWN_VERB: Final = re.compile(
    r"^\s*(?:how|what|why|who|where|when|which|is|are|does|do|can)\b.*\b\w{3,}", re.IGNORECASE
)


def _leans(message: str, analyzer: Analyzer) -> bool:
    """Whether a message needs the one before it."""
    if _CONTINUES.search(message):
        return True
    if _REFERS_BACK.search(_EXPLETIVE.sub(" ", message)):
        return True
    light = {token for word in _QUESTION.split() for token in analyzer.tokens(word)}
    words = [token for token in analyzer.tokens(message) if token not in light]
    named = bool(re.search(r"(?<!^)(?<![.?!] )\b(?:[A-Z][\w-]+|\w*\d\w*)\b", message.strip()))
    if not words:
        return True
    if named or len(words) > 2:
        return False
    return bool(_TOPICLESS.search(message)) and not _COMPLEMENT.search(message)


def _other_thing(message: str) -> str:
    """The thing that a message names in place of the last one; empty where it adds a condition."""
    rest = _INTRODUCES.sub("", message, count=1)
    if rest == message or _PREPOSITION.search(rest) or _POPULATIONS.search(rest):
        return ""
    if re.match(r"\s*(?:the|its|their|his|her|any|some|other|more|all)\b", rest, re.IGNORECASE):
        return ""
    thing = rest.strip().rstrip("?.! ")
    return thing if 0 < len(thing.split()) <= 4 and not _REFERS_BACK.search(thing) else ""


def _replaced(previous: str, topic: str, other: str) -> str:
    """The question before, about another thing; empty where it does not name what it was about."""
    for name in (topic, *_names(previous)):
        if name and (found := re.search(rf"\b{re.escape(name)}\b", previous, re.IGNORECASE)):
            return previous[: found.start()] + other + previous[found.end() :]
    return ""


def _names(question: str) -> Sequence[str]:
    """Capitalised names within a question, the longest first."""
    names = re.findall(r"(?<=\s)[A-Z][\w&’'-]*(?: [A-Z][\w&’'-]*)*", question)
    return sorted(names, key=len, reverse=True)


def _shared(previous: str, topic: str, analyzer: Analyzer) -> str:
    """The topic as the question before names it: all of it, or the words side by side that the two share."""
    if not topic or _holds(previous, topic):
        return topic
    of_topic = set(analyzer.tokens(topic))
    runs: list[list[str]] = [[]]
    for word in re.findall(r"[\w&’'-]+", previous):
        tokens = analyzer.tokens(word)
        if tokens and of_topic.issuperset(tokens):
            runs[-1].append(word)
        elif runs[-1]:
            runs.append([])
    longest = max(runs, key=len)
    return " ".join(longest)


def _holds(text: str, topic: str) -> bool:
    return topic.casefold() in text.casefold()
