"""From logits and retrieval scores to final scores. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llama_index_presets.errors import RerankError

__all__ = ["blended", "normalized", "probability"]


def probability(logit: float) -> float:
    """The logistic function, without overflow: any finite number becomes one in [0, 1], higher is better.

    Example:
        >>> probability(0.0), probability(-1000.0), probability(1000.0)
        (0.5, 0.0, 1.0)
    """
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    small = math.exp(logit)
    return small / (1.0 + small)


def normalized(scores: Sequence[float | None]) -> list[float]:
    """Stretch the retrieval scores of one candidate list to [0, 1]: worst 0, best 1, all equal 1.

    Raises:
        RerankError: A score is missing or not finite; the message carries its 1-based place.

    Example:
        >>> normalized([0.9, 0.5, 0.7])
        [1.0, 0.0, 0.4999999999999999]
    """
    known = [_finite(score, place) for place, score in enumerate(scores, start=1)]
    if not known:
        return []
    low, high = min(known), max(known)
    if low == high:
        return [1.0] * len(known)
    return [(score - low) / (high - low) for score in known]


def blended(p: float, retrieval: float, blend: float) -> float:
    """``(1 - blend) * p + blend * retrieval``: all in [0, 1], higher is better.

    Example:
        >>> blended(0.25, 0.75, 0.5)
        0.5
    """
    return (1.0 - blend) * p + blend * retrieval


def _finite(score: float | None, place: int) -> float:
    if score is None or not math.isfinite(score):
        raise RerankError(
            f"Candidate {place} has the retrieval score {score}; blending needs a finite number. "
            "Set blend=0, or use a retriever that scores its hits."
        )
    return float(score)
