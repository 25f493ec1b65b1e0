"""Closest passages: what a reader is shown beside an "I don't know", never as an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore

from llama_index_presets.answer.confidence.evidence import Reading, read_passages
from llama_index_presets.answer.confidence.floor import cosine_of, passages_of
from llama_index_presets.provenance import source_name
from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.text.excerpt import excerpt

__all__ = ["closest_passages"]

_MOST: Final = 3
_MOST_CHARACTERS: Final = 300
_NEAR: Final = 0.8
"""Share of the cosine of evidence from which a passage is near enough to be shown."""
_WORDS: Final = 0.5
"""The same of the question's weighted words, for a passage without a cosine."""


def closest_passages(
    question: str,
    hits: Sequence[NodeWithScore],
    *,
    floor: float | None = None,
    without: Collection[str] = (),
    analyzer: Analyzer | None = None,
) -> list[dict[str, Any]]:
    """Passages that are nearest to a question, each with the sentences that hold most of its words.

    Args:
        question: What was asked; empty for an image, to which no passage is near.
        hits: What was found, best first.
        floor: Cosine from which a hit is evidence; one below 0.8 of it is far from the question. None takes all.
        without: Ids of nodes that are not shown.
        analyzer: Makes stems; None takes that of the passages' language.

    Returns:
        Up to three, in the order of the hits, as citations have it: ``source``, ``page``, ``heading``, ``score``,
        ``node_id``, the ``text`` of the passage, and as ``quote`` the sentences, verbatim but for white space, up to
        300 characters.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> hit = NodeWithScore(node=TextNode(text="Cats purr. Dogs bark at night."), score=0.4)
        >>> [one["quote"] for one in closest_passages("Why do dogs bark?", [hit])]
        ['Dogs bark at night.']
    """
    texts = [hit for hit in hits if not isinstance(hit.node, ImageNode) and hit.node.node_id not in without]
    if not texts or not question.strip():
        return []
    reading = read_passages(question, passages_of(texts), analyzer)
    near = [place for place, hit in enumerate(texts) if _is_near(reading, place, hit, floor)]
    shown = [_shown(texts[place], _words(reading, place)) for place in near]
    return [one for one in shown if one["quote"]][:_MOST]


def _is_near(reading: Reading, place: int, hit: NodeWithScore, floor: float | None) -> bool:
    cosine = cosine_of(hit)
    if cosine is None:
        return reading.coverage[place] >= _WORDS
    return floor is None or cosine >= _NEAR * floor


def _words(reading: Reading, place: int) -> str:
    """The unit with most of the question's words, and what follows it, as far as there is room."""
    units = [unit for unit in reading.units if unit.passage == place]
    if not units:
        return ""
    best = max(units, key=lambda unit: (unit.coverage * unit.shape, -unit.place))
    words = " ".join(unit.text for unit in units[units.index(best) :])
    return excerpt(words, _MOST_CHARACTERS)


def _shown(hit: NodeWithScore, quote: str) -> dict[str, Any]:
    metadata = hit.node.metadata
    return {
        "source": source_name(hit.node),
        "page": metadata.get("page"),
        "heading": metadata.get("heading") or None,
        "score": hit.score,
        "node_id": hit.node.node_id,
        "text": hit.node.get_content(MetadataMode.NONE),
        "quote": quote,
    }
