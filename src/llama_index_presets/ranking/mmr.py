"""Maximal marginal relevance: near to the query, far from each other. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from llama_index_presets.counting import counted
from llama_index_presets.errors import RankingError

__all__ = ["maximal_marginal_relevance"]


def maximal_marginal_relevance(
    similarities: ArrayLike, vectors: ArrayLike, k: int, *, threshold: float = 0.5
) -> list[int]:
    """Choose k candidates one after the other, each relevant and unlike those chosen before.

    The next is the candidate with the largest
    ``threshold * similarity - (1 - threshold) * (largest cosine to a chosen one)``; the first is the most
    similar. Ties go to the earlier candidate, so give them in the order of their ids, or best first. (LlamaIndex
    core compares with the last chosen one only, and so may choose the same thing again at every other place.)

    Args:
        similarities: Of each candidate to the question, shape (n,); higher is closer.
        vectors: Of each candidate, shape (n, dim), of any length but zero.
        k: How many to choose, >= 0; all where there are fewer.
        threshold: From 0 (only unlike each other) to 1 (only like the question).

    Returns:
        Places of the chosen, in the order in which they were chosen.

    Raises:
        RankingError: threshold is outside [0, 1], k is negative, or the shapes do not fit.

    Example:
        >>> maximal_marginal_relevance([0.9, 0.89, 0.5], [[1, 0], [1, 0.01], [0, 1]], 2)
        [0, 2]

    Source: Carbonell and Goldstein, SIGIR 1998, doi:10.1145/290941.291025
    """
    relevance, directions = np.asarray(similarities, np.float64), np.asarray(vectors, np.float64)
    if not 0 <= threshold <= 1 or k < 0:
        raise RankingError(
            f"MMR has threshold={threshold} and k={k}; expected 0 <= threshold <= 1 and k >= 0."
        )
    if len(relevance) != len(directions):
        raise RankingError(
            f"MMR got {len(relevance)} similarities for {counted(len(directions), 'vector')}; give one each."
        )
    if not len(relevance) or not k:
        return []
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    chosen = [int(np.argmax(relevance))]
    overlap = directions @ directions[chosen[0]]
    while len(chosen) < min(k, len(relevance)):
        gain = threshold * relevance - (1 - threshold) * overlap
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
        overlap = np.maximum(overlap, directions @ directions[chosen[-1]])
    return chosen
