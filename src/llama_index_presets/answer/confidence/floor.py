"""Floor of evidence: which hits an answer may rest on, and how probable it is that they hold the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore

from llama_index_presets.answer.confidence.calibration import Calibration
from llama_index_presets.answer.confidence.evidence import Passage, Reading, read_passages
from llama_index_presets.answer.context import heading_of
from llama_index_presets.provenance import (
    BM25,
    CROSS_MODAL,
    FUSION,
    KEYWORD,
    RETRIEVAL,
    VECTOR,
    RankedNode,
    document_id,
)
from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["WORDS", "EvidenceFloor", "Judgement", "cosine_of", "passages_of"]

WORDS: Final = Calibration(intercept=-2.46, coverage=3.85, names=1.15, floor=0.6)
"""Calibration of words alone, for a hit whose embedding model has none; see docs/decisions/0172."""

ALONGSIDE: Final = 0.2
"""Share of the floor that a hit needs beside one that passes it: neighbours give context."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What hits are worth for a question.

    Attributes:
        hits: Those that are evidence, best first; none where no hit is.
        confidence: Probability that they hold the answer, 0 to 1; None where there is no text to judge by.
        margin: How far the best stands out among all hits, those that are no evidence, too; None as above.
    """

    hits: list[NodeWithScore]
    confidence: float | None
    margin: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFloor:
    """Decides whether there is evidence for an answer, the same way for every language model and pattern.

    With a `calibration`, each text hit is given the probability that it holds the answer, from its cosine, from the
    share of the question's weighted words that it covers, from the names and codes that it holds and from how far the
    best hit stands out. Below the floor of the calibration there is no evidence.

    Without one, a hit counts when its cosine reaches `floor`. A hit that was found by its words counts when they say
    so: when it covers most of the question's weight, or holds its code, number or name beside half of it; never because
    it came first in its leg. So does, with a calibration, a hit that holds a code, whose cosine says little.

    Attributes:
        floor: Cosine below which a hit is no evidence; None keeps every hit.
        cross_floor: The same between a text and an image.
        calibration: Of the embedding model; None goes by `floor`.
        analyzer: Makes stems of question and passages; None takes that of their language.
        alongside: Share of the calibration's floor that a hit needs beside one that passes it, 0 to 1.
    """

    floor: float | None = None
    cross_floor: float | None = None
    calibration: Calibration | None = None
    analyzer: Analyzer | None = None
    alongside: float = ALONGSIDE

    def judge(self, question: str, hits: Sequence[NodeWithScore]) -> Judgement:
        """Keep the hits that are evidence.

        Args:
            question: What is asked; empty for a question that is an image.
            hits: Best first.
        """
        texts = [hit for hit in hits if not isinstance(hit.node, ImageNode)]
        if not texts or not question.strip():
            return Judgement([hit for hit in hits if self._is_close(hit)], None)
        reading = read_passages(question, passages_of(texts), self.analyzer)
        chances = {id(hit): self._chance(reading, place) for place, hit in enumerate(texts)}
        confidence = max(chances.values())
        if self.calibration is None or reading.goes_by_words or any(_is_given(hit) for hit in texts):
            by_words = {
                id(hit): _found_by_words(hit) and _words_say_so(reading, p) for p, hit in enumerate(texts)
            }
            kept = [hit for hit in hits if self._is_close(hit) or by_words.get(id(hit))]
            return Judgement(kept, confidence, reading.margin)
        needed = self.calibration.floor * (self.alongside if confidence >= self.calibration.floor else 1)
        kept = [
            hit for hit in hits if chances.get(id(hit), needed if self._is_close(hit) else -1.0) >= needed
        ]
        return Judgement(kept, confidence, reading.margin)

    def _chance(self, reading: Reading, place: int) -> float:
        calibration = self.calibration or WORDS
        chance = calibration.probability(reading.features(place))
        return max(chance, calibration.floor) if reading.holds_code[place] else chance

    def _is_close(self, hit: NodeWithScore) -> bool:
        across = isinstance(hit, RankedNode) and CROSS_MODAL in hit.stages
        floor = self.cross_floor if across else self.floor
        if floor is None or floor <= -1 or _is_given(hit):
            return True
        cosine = cosine_of(hit)
        return cosine is not None and cosine >= floor


def cosine_of(hit: NodeWithScore) -> float | None:
    """Cosine of a hit: from its vector leg, else from retrieval before a reranking, else its own score.

    None for a hit that only its words found, and for a text that was given without a search.
    """
    if not isinstance(hit, RankedNode) or not hit.stages:
        return None if hit.score is None or math.isinf(hit.score) else hit.score
    for stage in (VECTOR, CROSS_MODAL):
        if (found := hit.stages.get(stage)) is not None:
            return found.score
    if _found_by_words(hit) or FUSION in hit.stages:
        return None
    before = hit.stages.get(RETRIEVAL)
    return before.score if before is not None else hit.score


def passages_of(hits: Sequence[NodeWithScore]) -> list[Passage]:
    """Hits as passages to be read, numbered from 1."""
    return [
        Passage(
            number,
            heading_of(hit),
            hit.node.get_content(MetadataMode.NONE),
            cosine_of(hit),
            document_id(hit.node),
        )
        for number, hit in enumerate(hits, start=1)
    ]


def _found_by_words(hit: NodeWithScore) -> bool:
    return isinstance(hit, RankedNode) and (BM25 in hit.stages or KEYWORD in hit.stages)


def _words_say_so(reading: Reading, place: int) -> bool:
    if reading.question.codes:
        # another code than the one asked for is no evidence, whatever stands around it
        return reading.holds_code[place]
    return WORDS.probability(reading.features(place)) >= WORDS.floor


def _is_given(hit: NodeWithScore) -> bool:
    """Whether a text was given without a search: it is evidence by definition."""
    return hit.score is not None and math.isinf(hit.score)
