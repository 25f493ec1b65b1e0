"""Support of an answer, sentence by sentence: whether what a sentence cites says so. No language model is asked.

A sentence that stands in what it cites is supported. Another one is when a sentence or two of what it cites hold most
of its words, or half of them and its meaning by the embedding model, and when its figures and names stand there and
neither denies what the other says. Words cannot tell a false sentence made of the passage's own words from a true one:
"supported" means that the words are there, not that they are true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llama_index_presets.answer.citations import markers_in, without_markers
from llama_index_presets.answer.cited.quotes import Chunk, Quote, find_words, sentence_spans
from llama_index_presets.answer.cited.verify_numbers import Figures, find_figures, statements
from llama_index_presets.answer.context import is_note
from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["Sentence", "check_sentences"]

_WORDS_ALONE: Final = 0.75
"""Share of a sentence's words that what it cites must hold, without a look at the meaning."""
_WORDS_BESIDE: Final = 0.4
"""The same where the meaning is alike."""
_MEANING: Final = 0.7
"""Cosine from which two sentences mean the same."""
_AT_LEAST: Final = 0.25
"""Share of the words below which no stretch is pointed at."""
_NOT: Final = re.compile(
    r"\b(?:not|no|never|none|neither|nor|cannot|without|fail(?:s|ed)? to)\b|n['’]t\b", re.IGNORECASE
)
_NAME: Final = re.compile(r"(?<![.!?:•\-*] )(?<!^)(?<!\w)[A-Z][\w’'-]{2,}")
_YES_OR_NO: Final = re.compile(
    r"(?:yes|no|ja|nein|oui|non|sí|sì|sim|não|да|нет|はい|いいえ|是的?|不是?|نعم|لا)(?:\s*[,.:;!、。，،–—-]+\s*|\s*$)",
    re.IGNORECASE,
)
"""What an answer begins with that says nothing by itself."""
_LIST_MARK: Final = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+")

Similarities = Callable[[str, Sequence[str]], list[float]]
"""Cosines of one text and several."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer, checked.

    Attributes:
        text: The sentence without its markers.
        cites: Numbers of the passages that it cites.
        supported: Whether they say so; None for a sentence without a statement, such as a lead-in.
        score: Share of its words that its best stretch holds, 0 to 1.
        quotes: By passage: the stretch that it rests on.
        missing: Its figures that stand nowhere in what it cites; where it cites nothing, in no passage.
    """

    text: str
    cites: tuple[int, ...]
    supported: bool | None
    score: float
    quotes: dict[int, Quote]
    missing: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; ``spans`` are in the source document's text."""
        return {
            "text": self.text,
            "cites": list(self.cites),
            "supported": self.supported,
            "score": round(self.score, 3),
            "missing": list(self.missing),
            "spans": [
                {"n": number, "span": list(quote.span) if quote.span else None, "quote": quote.text}
                for number, quote in self.quotes.items()
            ],
        }


def check_sentences(
    answer: str,
    passages: Sequence[Sequence[Chunk]],
    *,
    headings: Sequence[str] = (),
    similarities: Similarities | None = None,
) -> list[Sentence]:
    """Check each sentence of an answer against what it cites.

    A sentence without a marker is judged by the next marker of its line, else by what was cited before it; without
    any, nothing supports it.

    Args:
        answer: With markers ``[1]``.
        passages: The chunks of each passage, in the order of the numbers.
        headings: Of the passages: their words count as the passage's.
        similarities: Compares meanings; None goes by words.

    Example:
        >>> chunk = Chunk("n", "Botulism is treated with an antitoxin. It is rare.", 0, {})
        >>> [one.supported for one in check_sentences("An antitoxin treats botulism. [1] Eat fish. [1]", [[chunk]])]
        [True, False]
    """
    analyzer = Analyzer()
    parts = statements(answer)
    cited: list[int] = []
    found = []
    for place, part in enumerate(parts):
        own = [number for number in markers_in(part) if 1 <= number <= len(passages)]
        cites = own or _following(parts, place, len(passages)) or list(cited)
        cited += [number for number in own if number not in cited]
        text = _LIST_MARK.sub("", without_markers(part)).strip()
        if text:
            found.append(
                _checked(text, list(dict.fromkeys(cites)), passages, headings, similarities, analyzer)
            )
    return found


def _following(parts: Sequence[str], place: int, count: int) -> list[int]:
    """The next marker of the line."""
    for index in range(place, len(parts)):
        if index > place and (numbers := [n for n in markers_in(parts[index]) if 1 <= n <= count]):
            return numbers
        if parts[index].endswith("\n"):
            break
    return []


def _checked(
    text: str,
    cites: Sequence[int],
    passages: Sequence[Sequence[Chunk]],
    headings: Sequence[str],
    similarities: Similarities | None,
    analyzer: Analyzer,
) -> Sentence:
    said = text[found.end() :] if (found := _YES_OR_NO.match(text)) else text
    verbatim = {number: quote for number in cites if (quote := find_words(said, passages[number - 1]))}
    if verbatim:
        return Sentence(text, tuple(cites), True, 1.0, verbatim)
    words = set(analyzer.tokens(said))
    lead_in = text.endswith(":") and not find_figures(text)
    if not words or lead_in or is_note(text) or (cites and not any(passages[number - 1] for number in cites)):
        return Sentence(text, tuple(cites), None, 0.0, {})
    best: dict[int, tuple[float, Quote]] = {}
    for number in cites:
        heading = set(analyzer.tokens(headings[number - 1])) if number <= len(headings) else set()
        if scored := _best_stretch(words, heading, passages[number - 1], analyzer):
            best[number] = scored
    score = max((share for share, _ in best.values()), default=0.0)
    quotes = {number: quote for number, (share, quote) in best.items() if share >= max(_AT_LEAST, score / 2)}
    supported = any(
        _says_so(said, share, quote, passages[number - 1], similarities)
        for number, (share, quote) in best.items()
        if share >= _WORDS_BESIDE
    )
    missing = () if supported else _missing_figures(said, cites, passages, headings)
    return Sentence(text, tuple(cites), supported, score, quotes, missing)


def _missing_figures(
    text: str, cites: Sequence[int], passages: Sequence[Sequence[Chunk]], headings: Sequence[str]
) -> tuple[str, ...]:
    """Figures of a sentence that no passage holds which it cites; of all passages where it cites none."""
    read = [number - 1 for number in cites] or range(len(passages))
    held = [
        Figures("\n".join([*headings[place : place + 1], *(chunk.text for chunk in passages[place])]))
        for place in read
    ]
    figures = sorted(find_figures(text), key=lambda figure: text.find(figure.text))
    return tuple(
        dict.fromkeys(figure.text for figure in figures if not any(passage.holds(figure) for passage in held))
    )


def _best_stretch(
    words: set[str], heading: set[str], chunks: Sequence[Chunk], analyzer: Analyzer
) -> tuple[float, Quote] | None:
    """The sentence, or two that follow each other, with most of the words; one alone where two are no better."""
    best: tuple[float, Quote] | None = None
    for chunk in chunks:
        before: tuple[set[str], Quote] | None = None
        for quote in sentence_spans(chunk):
            held = set(analyzer.tokens(quote.text))
            options = [(held, quote)]
            if before is not None:
                options.append((held | before[0], Quote(chunk, before[1].start, quote.end)))
            for place, (tokens, stretch) in enumerate(options):
                share = len(words & (tokens | heading)) / len(words) - 0.05 * place
                if words & tokens and (best is None or share > best[0]):
                    best = share, stretch
            before = held, quote
    return best


def _says_so(
    text: str, share: float, quote: Quote, chunks: Sequence[Chunk], similarities: Similarities | None
) -> bool:
    whole = " ".join(chunk.text for chunk in chunks)
    if not _figures_hold(text, whole) or not _names_hold(text, whole):
        return False
    if bool(_NOT.search(text)) != bool(_NOT.search(quote.text)):
        return False
    if share >= _WORDS_ALONE:
        return True
    return similarities is not None and similarities(text, [" ".join(quote.text.split())])[0] >= _MEANING


def _figures_hold(text: str, passage: str) -> bool:
    figures = find_figures(text)
    held = Figures(passage) if figures else None
    return held is None or all(held.holds(figure) for figure in figures)


def _names_hold(text: str, passage: str) -> bool:
    """Whether the capitalised words within the sentence stand in the passage."""
    small = passage.casefold()
    return all(name[0].casefold().rstrip("'’s") in small for name in _NAME.finditer(text))
