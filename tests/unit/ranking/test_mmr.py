"""Maximal marginal relevance against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.mmr import maximal_marginal_relevance


def candidates(count: int = 30, dim: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors, question = rng.normal(size=(count, dim)), rng.normal(size=dim)
    cosines = vectors @ question / np.linalg.norm(vectors, axis=1) / np.linalg.norm(question)
    return cosines, vectors


def by_definition(cosines: np.ndarray, vectors: np.ndarray, k: int, threshold: float) -> list[int]:
    """The formula of the paper, one candidate after the other."""
    chosen: list[int] = []
    while len(chosen) < k:

        def gain(i: int) -> float:
            same = [
                float(vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j]))
                for j in chosen
            ]
            return threshold * float(cosines[i]) - (1 - threshold) * max(same, default=0.0)

        left = [i for i in range(len(cosines)) if i not in chosen]
        chosen.append(max(left, key=gain) if chosen else int(np.argmax(cosines)))
    return chosen


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_formula(threshold: float, seed: int) -> None:
    """Every choice is the best left, against all that were chosen before."""
    cosines, vectors = candidates(seed=seed)
    found = maximal_marginal_relevance(cosines, vectors, 8, threshold=threshold)
    assert found == by_definition(cosines, vectors, 8, threshold)


def test_threshold_1_is_the_order_of_relevance() -> None:
    """Without a penalty the most similar come first."""
    cosines, vectors = candidates()
    assert maximal_marginal_relevance(cosines, vectors, 5, threshold=1.0) == np.argsort(-cosines)[:5].tolist()


def test_a_copy_of_a_chosen_one_comes_last() -> None:
    """At an even balance, something else is better than the same again."""
    chosen = maximal_marginal_relevance([0.9, 0.9, 0.2], [[1, 0], [1, 0], [0, 1]], 3)
    assert chosen == [0, 2, 1]


def test_all_are_given_where_there_are_fewer() -> None:
    """k is a limit."""
    assert maximal_marginal_relevance([0.1], [[1.0]], 9) == [0]
    assert maximal_marginal_relevance([], np.empty((0, 3)), 9) == []
    assert maximal_marginal_relevance([0.1], [[1.0]], 0) == []


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"threshold": -0.1}, {"k": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """The message gives the values and what was expected."""
    options = {"k": 1, "threshold": 0.5, **wrong}
    with pytest.raises(RankingError, match="0 <= threshold <= 1"):
        maximal_marginal_relevance([0.1], [[1.0]], int(options["k"]), threshold=options["threshold"])


def test_similarities_without_vectors_are_refused() -> None:
    """Each candidate needs both."""
    with pytest.raises(RankingError, match="2 similarities for 1 vector"):
        maximal_marginal_relevance([0.1, 0.2], [[1.0]], 1)
