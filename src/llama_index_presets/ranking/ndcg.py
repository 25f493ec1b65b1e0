"""Normalised discounted cumulative gain: how near the order of a ranking is to the best one. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["ndcg"]


def ndcg(ranking: Sequence[str], grades: Mapping[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain of the first k, with linear gain as trec_eval computes it.

    Args:
        ranking: Ids, best first; a repeated id counts at its first place.
        grades: id -> how relevant it is, > 0; ids left out, and grades of 0 and less, are not relevant.
        k: How many are looked at.

    Returns:
        In [0, 1]; 0.0 where nothing is relevant.

    Example:
        >>> ndcg(["a", "b"], {"b": 1})
        0.6309297535714575

    Source: Järvelin and Kekäläinen, TOIS 20(4) 2002, doi:10.1145/582415.582418
    """
    ideal = _discounted(sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k])
    found = _discounted([max(0.0, grades.get(name, 0.0)) for name in [*dict.fromkeys(ranking)][:k]])
    return found / ideal if ideal else 0.0


def _discounted(grades: Sequence[float]) -> float:
    return math.fsum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))
