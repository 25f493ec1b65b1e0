"""Fusion that trusts each ranking, query by query, as far as its own scores say that it knows the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.scaling import (
    Fused,
    Ranking,
    checked_weights,
    extent,
    finite,
    first_scores,
    stretched,
    summed,
)

__all__ = ["confidence", "confidence_weighted_fusion"]

_SUREST = 10.0
"""The most standard deviations that a best score counts for: one lone hit must not silence the other rankings."""


def confidence_weighted_fusion(
    rankings: Sequence[Ranking],
    *,
    weights: Sequence[float] | None = None,
    floors: Sequence[float | None] | None = None,
    ceilings: Sequence[float | None] | None = None,
    depth: int | None = None,
) -> Fused:
    """Average the scores stretched to [0, 1], each ranking weighted by its `confidence` for this query.

    The weight of ranking i is ``weights[i] * confidence_i``, divided by their sum. Scores are in [0, 1]; a
    document that a ranking lacks gets 0 from it. A ranking with a floor that gave fewer than `depth`
    documents is exhausted, every other document has the floor's score: it is stretched from its floor, not
    from its lowest score. A ranking's scores may be multiplied by a number > 0 where it has no ceiling and a
    floor of 0 or none.

    Args:
        rankings: Best first, finite scores.
        weights: One number >= 0 for each ranking, what it is trusted before it is seen; None means 1 each.
        floors: The score of a document that has nothing of the query, 0 for BM25; None where not known.
        ceilings: The score of a perfect match, 1 for cosine; None where not known.
        depth: How many documents each ranking was asked for; None where not known.

    Raises:
        RankingError: Weights, floors or ceilings do not fit the rankings, or a score is not a finite number.

    Example:
        >>> sure, unsure = [("a", 9.0), ("b", 1.0), ("c", 0.9)], [("c", 3.0), ("b", 2.0), ("a", 1.0)]
        >>> [name for name, score in confidence_weighted_fusion([sure, unsure])]
        ['a', 'c', 'b']

    Source: docs/decisions/0020-fusion-auto.md, with the measurements that chose it.
    """
    count = len(rankings)
    checked = checked_weights(weights, count)
    bounds = zip(_bounds("floors", floors, count), _bounds("ceilings", ceilings, count), strict=True)
    parts = [
        (weight, *_trusted(finite(first_scores(ranking)), floor, ceiling, depth))
        for ranking, weight, (floor, ceiling) in zip(rankings, checked, bounds, strict=True)
        if weight
    ]
    total = math.fsum(weight * trust for weight, trust, _ in parts)
    if total > 0:
        shares = [(weight * trust / total, scores) for weight, trust, scores in parts]
    else:  # No ranking tells its documents apart: what each was trusted before has to do.
        given = math.fsum(weight for weight, _, _ in parts)
        shares = [(weight / given, scores) for weight, _, scores in parts]
    return [(name, min(score, 1.0)) for name, score in summed(shares)]


def confidence(scores: Sequence[float], *, floor: float | None = None, ceiling: float | None = None) -> float:
    """How far a ranking's best score stands out, higher is surer, in [0, 10].

    ``(best - mean of the rest) / standard deviation of the rest``, at most 10, times the square root of how
    much of the scale the candidates span: ``(best - last) / (ceiling - last)`` with a ceiling, ``(best -
    last) / (best - floor)`` with a floor, 1 with neither. The first factor asks whether one document is
    unlike the others, the second whether the ranking has found anything at all.

    Args:
        scores: Of the candidates; at least one.
        floor: The score of a document that has nothing of the query, where known.
        ceiling: The score of a perfect match, where known.

    Example:
        >>> confidence([9.0, 1.0, 0.9]) > confidence([3.0, 2.0, 1.0])
        True
    """
    ordered = sorted(scores, reverse=True)
    best, rest = ordered[0], ordered[1:]
    if not rest:
        return 1.0
    mean = math.fsum(rest) / len(rest)
    deviation = math.sqrt(math.fsum([(score - mean) ** 2 for score in rest]) / len(rest))
    standing = _SUREST if best - mean > _SUREST * deviation else 0.0
    if deviation > 0:
        standing = min((best - mean) / deviation, _SUREST)
    return standing * math.sqrt(_span(best, ordered[-1], floor, ceiling))


def _span(best: float, last: float, floor: float | None, ceiling: float | None) -> float:
    if ceiling is not None and last < best <= ceiling:
        return (best - last) / (ceiling - last)
    if floor is not None and floor <= last < best:
        return (best - last) / (best - floor)
    return 1.0


def _padded(values: list[float], floor: float | None, depth: int | None) -> list[float]:
    """Scores of as many documents as were asked for: those that an exhausted ranking left out have its floor."""
    if not values or floor is None or depth is None or len(values) >= depth:
        return values
    return values + [floor] * (depth - len(values))


def _trusted(
    scores: dict[str, float], floor: float | None, ceiling: float | None, depth: int | None
) -> tuple[float, dict[str, float]]:
    """Confidence in a ranking, and its scores stretched to [0, 1]."""
    if not scores:
        return 0.0, {}
    values = _padded(list(scores.values()), floor, depth)
    return confidence(values, floor=floor, ceiling=ceiling), stretched(scores, *extent(values))


def _bounds(name: str, given: Sequence[float | None] | None, count: int) -> Sequence[float | None]:
    if given is None:
        return [None] * count
    if len(given) != count:
        raise RankingError(f"{count} rankings came with {len(given)} {name}; give one for each ranking.")
    return given
