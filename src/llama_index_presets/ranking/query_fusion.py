"""The four fusion modes of LlamaIndex's `QueryFusionRetriever`, with its numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from llama_index_presets.ranking.fusion import (
    Fused,
    Range,
    Ranking,
    checked_weights,
    extent,
    finite,
    first_scores,
    reciprocal_rank_fusion,
    summed,
    three_deviations,
)

__all__ = ["MODES", "reciprocal_rerank", "stretched_scores", "unchanged_scores"]

_FROM_ZERO = 59
"""k of ranks that begin with 1, where that of ranks that begin with 0 is 60."""


def reciprocal_rerank(rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None) -> Fused:
    """Sum reciprocal ranks: the document at 0-based rank r of ranking i gets ``weights[i] / (60 + r)``.

    The official retriever ignores weights in this mode; here they count where they are given.

    Example:
        >>> reciprocal_rerank([[("a", 0.9), ("b", 0.1)]])[0] == ("a", 1 / 60)
        True
    """
    return reciprocal_rank_fusion(rankings, weights=weights, k=_FROM_ZERO)


def unchanged_scores(rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None) -> Fused:
    """Keep the highest score of each document as it is; weights say nothing.

    Example:
        >>> unchanged_scores([[("a", 0.5), ("b", 0.25)], [("b", 4.0)]])
        [('b', 4.0), ('a', 0.5)]
    """
    checked_weights(weights, len(rankings))
    best: dict[str, float] = {}
    for ranking in rankings:
        for name, score in finite(first_scores(ranking)).items():
            best[name] = max(score, best.get(name, score))
    return sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))


def stretched_scores(
    rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None, ends: Range = extent
) -> Fused:
    """Weighted mean of the scores, each ranking stretched so that one end becomes 0 and the other 1, unclipped.

    Args:
        rankings: Finite scores, higher is better.
        weights: One number >= 0 for each ranking; None means 1 each.
        ends: Gives the ends of a ranking's scores. Where both are the same, scores above 0 become 1, others 0.

    Example:
        >>> stretched_scores([[("a", 3.0), ("b", 1.0)], [("b", 7.0)]])
        [('a', 0.5), ('b', 0.5)]
    """
    checked = checked_weights(weights, len(rankings))
    total = sum(checked)
    parts = []
    for ranking, weight in zip(rankings, checked, strict=True):
        scores = finite(first_scores(ranking))
        if scores:
            low, high = ends(list(scores.values()))
            parts.append(
                (weight / total, {name: _between(score, low, high) for name, score in scores.items()})
            )
    return summed(parts)


def _between(score: float, low: float, high: float) -> float:
    if high == low:
        return 1.0 if high > 0 else 0.0
    return (score - low) / (high - low)


def _by_deviation(rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None) -> Fused:
    return stretched_scores(rankings, weights=weights, ends=three_deviations)


MODES: Mapping[str, Callable[..., Fused]] = MappingProxyType(
    {
        "reciprocal_rerank": reciprocal_rerank,
        "relative_score": stretched_scores,
        "dist_based_score": _by_deviation,
        "simple": unchanged_scores,
    }
)
"""Name of a `FUSION_MODES` -> its method, of the signature of those in `ranking.fusion.FUSIONS`."""
