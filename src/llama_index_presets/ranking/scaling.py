"""What fusion methods share: checked weights, scores stretched to [0, 1], sums that do not depend on an order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import itemgetter

from llama_index_presets.errors import RankingError

__all__ = [
    "Fused",
    "Range",
    "Ranking",
    "above",
    "averaged",
    "checked_weights",
    "extent",
    "finite",
    "first_scores",
    "stretched",
    "summed",
    "three_deviations",
]

Ranking = Sequence[tuple[str, float]]
"""(id, score) pairs of one retriever, best first, higher scores are better."""

Fused = list[tuple[str, float]]
"""(id, score) pairs, best first, ties by id."""

Range = Callable[[Sequence[float]], tuple[float, float]]
"""The scores of a ranking -> which score becomes 0 and which becomes 1."""


def averaged(rankings: Sequence[Ranking], weights: Sequence[float] | None, ranges: Sequence[Range]) -> Fused:
    """Weighted mean of scores, each ranking stretched over its range and clipped to [0, 1]."""
    checked = checked_weights(weights, len(rankings))
    total = math.fsum(checked)
    parts = [
        (weight / total, _over(finite(first_scores(ranking)), ends))
        for ranking, weight, ends in zip(rankings, checked, ranges, strict=True)
        if weight
    ]
    return [(name, min(score, 1.0)) for name, score in summed(parts)]


def checked_weights(weights: Sequence[float] | None, count: int) -> Sequence[float]:
    """Check the weights, or make them."""
    given = [1.0] * count if weights is None else weights
    if len(given) != count:
        raise RankingError(
            f"{count} rankings came with {len(given)} weights; give one weight for each ranking."
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in given):
        raise RankingError(f"The weights are {list(given)}; each must be a finite number, 0 or more.")
    if count and not any(given):
        raise RankingError(f"The weights are {list(given)}; at least one must be above 0.")
    return given


def first_scores(ranking: Ranking) -> dict[str, float]:
    """id -> score, best first; the first of equal ids is kept."""
    scores = dict(ranking)
    if len(scores) < len(ranking):
        scores = {}
        for name, score in ranking:
            scores.setdefault(name, score)
    return scores


def finite(scores: dict[str, float]) -> dict[str, float]:
    """The same scores, or a `RankingError` that names the first that is not a finite number."""
    try:
        if math.isfinite(sum(scores.values())):
            return scores
    except TypeError:
        pass
    for name, score in scores.items():
        if score is None or not math.isfinite(score):
            raise RankingError(
                f"The score of '{name}' is {score}; a finite number was expected. Use fusion 'rrf'."
            )
    return scores


def stretched(scores: dict[str, float], low: float, high: float) -> dict[str, float]:
    """Scores stretched so that low becomes 0 and high 1, and clipped; 0.5 each where the two are the same."""
    span = high - low
    if not span > 0:
        return dict.fromkeys(scores, 0.5)
    return {
        name: (score - low) / span if low <= score <= high else float(score > high)
        for name, score in scores.items()
    }


def extent(scores: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest score."""
    return min(scores), max(scores)


def three_deviations(scores: Sequence[float]) -> tuple[float, float]:
    """Mean - 3 and mean + 3 standard deviations."""
    mean = math.fsum(scores) / len(scores)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
    return mean - 3 * deviation, mean + 3 * deviation


def above(floor: float) -> Range:
    """The range from a floor to the highest score; a `RankingError` where a score is below the floor."""

    def ends(scores: Sequence[float]) -> tuple[float, float]:
        if min(scores) < floor:
            raise RankingError(
                f"A score is {min(scores)}, below its ranking's floor of {floor}; lower the floor."
            )
        return floor, max(scores)

    return ends


def summed(parts: Sequence[tuple[float, dict[str, float]]]) -> Fused:
    """Weighted sums, best first, ties by id."""
    totals = _sum_of_two(parts) if len(parts) <= 2 else _sum_of_many(parts)
    fused = sorted(totals.items(), key=itemgetter(1), reverse=True)
    if len(set(totals.values())) < len(totals):
        fused.sort(key=lambda pair: (-pair[1], pair[0]))
    return fused


def _sum_of_two(parts: Sequence[tuple[float, dict[str, float]]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for weight, scores in parts:
        for name, score in scores.items():
            totals[name] = totals.get(name, 0.0) + weight * score
    return totals


def _sum_of_many(parts: Sequence[tuple[float, dict[str, float]]]) -> dict[str, float]:
    """fsum rounds once, so that the order of the rankings cannot change the last digit."""
    terms: dict[str, list[float]] = {}
    for weight, scores in parts:
        for name, score in scores.items():
            terms.setdefault(name, []).append(weight * score)
    return {name: math.fsum(values) for name, values in terms.items()}


def _over(scores: dict[str, float], ends: Range) -> dict[str, float]:
    return stretched(scores, *ends(list(scores.values()))) if scores else {}
