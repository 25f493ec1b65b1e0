"""Several rankings of the same documents into one. Pure functions over (id, score) pairs, best first.

Every method takes rankings and one weight >= 0 for each, and gives (id, score) pairs, best first, ties by id.
The order in which the rankings are given changes nothing; a weight of 0 is the same as leaving the ranking
out; an id that comes twice in one ranking counts once, at its better place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.confidence import confidence_weighted_fusion
from llama_index_presets.ranking.scaling import (
    Fused,
    Ranking,
    above,
    averaged,
    checked_weights,
    extent,
    first_scores,
    summed,
    three_deviations,
)

__all__ = [
    "FUSIONS",
    "Fused",
    "Ranking",
    "confidence_weighted_fusion",
    "convex_combination",
    "distribution_based_fusion",
    "fuse",
    "reciprocal_rank_fusion",
    "relative_score_fusion",
]

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
        "auto": confidence_weighted_fusion,
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
