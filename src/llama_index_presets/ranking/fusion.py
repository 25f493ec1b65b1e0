"""Rank fusion: several rankings of the same documents into one. Pure functions over (id, score) pairs, best first.

Every method takes rankings and one weight >= 0 for each, and gives (id, score) pairs, best first, ties by id.
The order in which the rankings are given changes nothing; a weight of 0 is the same as leaving the ranking
out; an id that comes twice in one ranking counts once, at its better place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType

from llama_index_presets.errors import RankingError

__all__ = [
    "FUSIONS",
    "Fused",
    "Range",
    "Ranking",
    "above",
    "averaged",
    "checked_weights",
    "confidence",
    "confidence_weighted_fusion",
    "convex_combination",
    "distribution_based_fusion",
    "extent",
    "finite",
    "first_scores",
    "fuse",
    "perfect_match_fusion",
    "reciprocal_rank_fusion",
    "relative_score_fusion",
    "stretched",
    "summed",
    "three_deviations",
]

# -- common to all methods ------------------------------------------------------------------------------------


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


# -- perfect match: distances, which scores of different kinds have in common ---------------------------------


def perfect_match_fusion(
    rankings: Sequence[Ranking],
    *,
    weights: Sequence[float] | None = None,
    floors: Sequence[float | None] | None = None,
    ceilings: Sequence[float | None] | None = None,
) -> Fused:
    """Average the scores, each ranking stretched so that nothing of the query is 0 and a perfect match is 1.

    A ranking is stretched from its floor, or its lowest score where it has none, to its ceiling, or its highest score
    where it has none or where a score is above it. So a ranking whose best document is far from a perfect match adds
    little, however well that document stands out from its own others. Scores are in [0, 1]; a document that a ranking
    lacks gets 0 from it: give each ranking the scores of all documents where they can be had. Cosines that are all
    moved closer to 1, as some embedding models have them, change nothing.

    Args:
        rankings: Finite scores, higher is better.
        weights: One number >= 0 for each ranking; None means 1 each.
        floors: The score of a document that has nothing of the query, 0 for BM25; None where not known.
        ceilings: The score of a perfect match, 1 for cosine; None where not known.

    Raises:
        RankingError: Weights, floors or ceilings do not fit the rankings, or a score is not a finite number.

    Example:
        >>> cosines, words = [("a", 0.6), ("b", 0.2)], [("b", 4.0), ("a", 1.0)]
        >>> perfect_match_fusion([cosines, words], floors=[None, 0.0], ceilings=[1.0, 16.0])
        [('a', 0.28125), ('b', 0.125)]

    Source: docs/decisions/0145-fusion-by-the-distance-to-a-perfect-match.md, with the measurements that chose it.
    """
    count = len(rankings)
    limits = zip(_bounds("floors", floors, count), _bounds("ceilings", ceilings, count), strict=True)
    return averaged(rankings, weights, [_to_ceiling(floor, ceiling) for floor, ceiling in limits])


def _to_ceiling(floor: float | None, ceiling: float | None) -> Range:
    def ends(scores: Sequence[float]) -> tuple[float, float]:
        low, high = extent(scores)
        return (low if floor is None else floor), (high if ceiling is None else max(ceiling, high))

    return ends


# -- confidence: each ranking trusted, query by query, as far as its own scores warrant -----------------------


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
    """Distance of a ranking's best score from the rest, higher is surer, in [0, 10].

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
    """Scores padded to the depth asked for: documents that an exhausted ranking left out have its floor."""
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


Fusion = Callable[..., Fused]


def reciprocal_rank_fusion(
    rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None, k: float = 60
) -> Fused:
    """Sum reciprocal ranks: the document at 1-based rank r of ranking i gets ``weights[i] / (k + r)``.

    Scores are in (0, sum(weights) / (k + 1)]; the rankings' own scores are not read.

    Args:
        rankings: Best first; lengths may differ.
        weights: One number >= 0 for each ranking; None means 1 each.
        k: Damping, in ranks, >= 0.

    Raises:
        RankingError: Weights do not fit the rankings, or k is negative.

    Example:
        >>> reciprocal_rank_fusion([[("a", 9.0), ("b", 1.0)], [("b", 0.3)]])[0][0]
        'b'

    Source: Cormack, Clarke and Büttcher, SIGIR 2009, doi:10.1145/1571941.1572114
    """
    if not (math.isfinite(k) and k >= 0):
        raise RankingError(f"k is {k}; it must be a number of ranks, 0 or more. 60 is usual.")
    parts = [
        (weight, {name: 1 / (k + rank) for rank, name in enumerate(scores, start=1)})
        for scores, weight in zip(
            map(first_scores, rankings), checked_weights(weights, len(rankings)), strict=True
        )
        if weight
    ]
    return summed(parts)


def relative_score_fusion(rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None) -> Fused:
    """Average the scores, each ranking stretched from its lowest to its highest (CombSUM on min-max).

    Scores are in [0, 1] and do not change when a ranking's scores are all multiplied by a number > 0 or
    shifted. A document that a ranking lacks gets 0 from it. A ranking whose scores are all equal cannot tell
    its documents apart: each gets 0.5, so that a lone weak hit is not the equal of a best one.

    Args:
        rankings: Best first, finite scores.
        weights: One number >= 0 for each ranking; None means 1 each.

    Raises:
        RankingError: Weights do not fit the rankings, or a score is not a finite number.

    Example:
        >>> relative_score_fusion([[("a", 3.0), ("b", 1.0)], [("b", 0.9), ("c", 0.1)]])
        [('a', 0.5), ('b', 0.5), ('c', 0.0)]

    Source: Fox and Shaw, TREC-2 1993; min-max as in Lee, SIGIR 1997, doi:10.1145/258525.258587
    """
    return averaged(rankings, weights, [extent] * len(rankings))


def distribution_based_fusion(
    rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None
) -> Fused:
    """Average the scores, each ranking stretched from its mean - 3 to its mean + 3 standard deviations, and
    clipped.

    Scores are in [0, 1] and do not change when a ranking's scores are all multiplied by a number > 0 or
    shifted. A document that a ranking lacks gets 0 from it; a ranking whose scores are all equal gives each
    0.5.

    Args:
        rankings: Best first, finite scores.
        weights: One number >= 0 for each ranking; None means 1 each.

    Raises:
        RankingError: Weights do not fit the rankings, or a score is not a finite number.

    Example:
        >>> distribution_based_fusion([[("a", 7.0), ("b", 7.0)]])
        [('a', 0.5), ('b', 0.5)]

    Source: Mazzeschi, "Distribution-Based Score Fusion (DBSF)", 2023
    """
    return averaged(rankings, weights, [three_deviations] * len(rankings))


def convex_combination(
    rankings: Sequence[Ranking],
    *,
    weights: Sequence[float] | None = None,
    floors: Sequence[float | None] | None = None,
) -> Fused:
    """Average the scores, each ranking stretched so that the least score it could give is 0 and its highest
    1.

    With a floor of 0 for BM25 and -1 for cosine this is TM2C2. A ranking whose floor is None is stretched
    from its own lowest score. Scores are in [0, 1]; a document that a ranking lacks gets 0 from it. With a
    floor of 0, a ranking's scores may all be multiplied by a number > 0; with None, shifted too; and nothing
    changes.

    Args:
        rankings: Best first, finite scores, none below its ranking's floor.
        weights: One number >= 0 for each ranking; None means 1 each.
        floors: The least score that each ranking could give; None means None for each.

    Raises:
        RankingError: Weights or floors do not fit the rankings, a score is not a finite number or below its
            floor.

    Example:
        >>> convex_combination([[("a", 0.5), ("b", 0.0)], [("b", 8.0), ("a", 4.0)]], floors=[-1, 0])
        [('b', 0.8333333333333333), ('a', 0.75)]

    Source: Bruch, Gai and Ingber, TOIS 42(1) 2023, doi:10.1145/3596512
    """
    floors = [None] * len(rankings) if floors is None else floors
    if len(floors) != len(rankings):
        raise RankingError(
            f"{len(rankings)} rankings came with {len(floors)} floors; give one floor for each."
        )
    return averaged(rankings, weights, [extent if floor is None else above(floor) for floor in floors])


FUSIONS: Mapping[str, Fusion] = MappingProxyType(
    {
        "auto": perfect_match_fusion,
        "confidence": confidence_weighted_fusion,
        "rrf": reciprocal_rank_fusion,
        "relative": relative_score_fusion,
        "dbsf": distribution_based_fusion,
        "convex": convex_combination,
    }
)
"""name -> method; `fuse` and every `fusion=` argument look here and nowhere else."""


def fuse(
    method: str, rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None, **parameters: object
) -> Fused:
    """Fuse with the method of that name.

    Args:
        method: A key of `FUSIONS`.
        rankings: Best first.
        weights: One number >= 0 for each ranking; None means 1 each.
        **parameters: What else the method takes, such as ``k`` for ``"rrf"``.

    Raises:
        RankingError: No such method, or what the method raises.

    Example:
        >>> fuse("rrf", [[("a", 1.0)], [("a", 5.0)]], k=1)
        [('a', 1.0)]
    """
    if method not in FUSIONS:
        raise RankingError(f"There is no fusion '{method}'. Choose one of: {', '.join(FUSIONS)}.")
    return FUSIONS[method](rankings, weights=weights, **parameters)
