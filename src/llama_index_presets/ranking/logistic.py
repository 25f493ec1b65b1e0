"""Logistic regression: weights of a few features in the log-odds of an event. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llama_index_presets.errors import RankingError

__all__ = ["fit_logistic"]


def fit_logistic(
    rows: Sequence[Sequence[float]],
    labels: Sequence[bool],
    *,
    weights: Sequence[float] | None = None,
    ridge: float = 1.0,
) -> tuple[float, list[float]]:
    """Fit by Newton's method, with a ridge on the standardised features.

    Args:
        rows: Features of each event, shape (n, features).
        labels: Whether it happened.
        weights: How much each event counts, > 0; None means 1 each.
        ridge: Strength of the penalty, >= 0: keeps weights small where the data do not tell them.

    Returns:
        Intercept, and one weight a feature, in the features' own units.

    Raises:
        RankingError: There are fewer than two events, or they all have the same label.

    Example:
        >>> intercept, (weight,) = fit_logistic([[0.0], [0.2], [0.8], [1.0]], [False, False, True, True])
        >>> intercept < 0 < weight
        True
    """
    if len(set(labels)) < 2:
        raise RankingError(f"All {len(labels)} events have the same label; a regression needs both.")
    raw = np.asarray(rows, dtype=np.float64)
    mean, scale = raw.mean(axis=0), raw.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    matrix = np.c_[(raw - mean) / scale, np.ones(len(raw))]
    target = np.asarray(labels, dtype=np.float64)
    counts = np.ones(len(raw)) if weights is None else np.asarray(weights, dtype=np.float64)
    penalty = np.diag([ridge] * raw.shape[1] + [1e-6])
    found = np.zeros(matrix.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(matrix @ found, -50, 50)))
        gradient = matrix.T @ (counts * (chance - target)) + penalty @ found
        curvature = (matrix * (counts * chance * (1 - chance))[:, None]).T @ matrix + penalty
        step = np.linalg.solve(curvature, gradient)
        found -= step
        if np.abs(step).max() < 1e-9:
            break
    slopes = found[:-1] / scale
    return float(found[-1] - slopes @ mean), [float(slope) for slope in slopes]
