"""The scan in memory gives what a float64 scan gives, whatever the vectors look like."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_presets.store.duckdb import vector_matrix as module
from llama_index_presets.store.duckdb.vector_matrix import Matrix


def brute(vectors: np.ndarray, question: np.ndarray) -> np.ndarray:
    exact = vectors.astype(np.float64)
    return (exact @ question) / np.linalg.norm(exact, axis=1).reshape(-1, *[1] * (question.ndim - 1))


def direction(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values)


def clustered(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dim))
    return (centres[rng.integers(0, 40, count)] + 0.3 * rng.normal(size=(count, dim))).astype(np.float32)


@pytest.fixture(params=["numkong", "numpy"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the int8 library, and as where it is not installed."""
    if request.param == "numpy":
        monkeypatch.setattr(module, "_numkong", lambda: None)
    return str(request.param)


def test_a_thousand_questions_get_the_ten_of_a_float64_scan(library: str) -> None:
    """Positions, order and scores are those of brute force in float64."""
    vectors = clustered(3000, 32)
    matrix = Matrix.of(vectors)
    rng = np.random.default_rng(5)
    asked = [direction(vectors[i] + 0.2 * rng.normal(size=32)) for i in range(1000)]
    for question, scores in zip(asked, brute(vectors, np.stack(asked, axis=1)).T, strict=True):
        positions, found = matrix.nearest(question, 10)
        best = np.argsort(-scores, kind="stable")[:10]
        assert positions.tolist() == best.tolist()
        assert found == pytest.approx(scores[best], abs=1e-12)


@pytest.mark.parametrize("shape", ["outliers", "tiny", "large", "nearly equal", "repeated"])
def test_hard_vectors_are_searched_exactly_too(library: str, shape: str) -> None:
    """Coarse codes, extreme lengths and near ties only make it look at more candidates."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(5000, 32)).astype(np.float32)
    if shape == "outliers":
        vectors[:, 5] += 300
    if shape == "tiny":
        vectors *= np.float32(1e-12)
    if shape == "large":
        vectors *= np.float32(1e12)
    if shape == "nearly equal":
        vectors = (np.ones(32) + 1e-4 * rng.normal(size=(5000, 32))).astype(np.float32)
    if shape == "repeated":
        vectors = vectors[rng.integers(0, 7, 5000)]
    matrix = Matrix.of(vectors)
    for seed in range(20):
        question = direction(np.random.default_rng(seed).normal(size=32))
        scores = brute(vectors, question)
        positions, found = matrix.nearest(question, 10)
        worst = np.sort(scores)[-10]
        assert len(positions) >= 10
        assert found[:10] == pytest.approx(np.sort(scores)[::-1][:10], abs=1e-12)
        assert np.all(scores[positions] >= worst - 1e-12)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.9])
def test_a_selection_is_searched_whichever_way_is_cheaper(library: str, share: float) -> None:
    """Gathered or scored with the rest: the best of the selected."""
    vectors = clustered(9000, 24)
    matrix = Matrix.of(vectors)
    among = np.flatnonzero(np.random.default_rng(1).random(9000) < share)
    question = direction(vectors[17].astype(np.float64))
    scores = brute(vectors, question)
    positions, _ = matrix.nearest(question, 5, among)
    assert positions.tolist() == among[np.argsort(-scores[among], kind="stable")[:5]].tolist()


def test_rows_that_are_gone_are_never_found(library: str) -> None:
    """Not even when everything is asked for."""
    vectors = clustered(2000, 16)
    matrix = Matrix.of(vectors)
    question = direction(vectors[3].astype(np.float64))
    gone = np.sort(np.argsort(-brute(vectors, question))[:50])
    for k in (1, 10, 5000):
        positions, _ = matrix.nearest(question, k, None, gone)
        assert len(positions) == min(k, 1950) and not set(positions) & set(gone)
        ((many, _),) = matrix.nearest_of_many(question[None], k, gone)
        assert many.tolist() == positions.tolist()


def test_many_questions_get_what_each_would_get(library: str) -> None:
    """One product for all, the same answers."""
    vectors = clustered(20_000, 16)
    matrix = Matrix.of(vectors)
    asked = np.stack([direction(vector.astype(np.float64)) for vector in clustered(37, 16, seed=9)])
    for question, (positions, scores) in zip(asked, matrix.nearest_of_many(asked, 7), strict=True):
        alone, exact = matrix.nearest(question, 7)
        assert positions.tolist() == alone.tolist() and scores.tolist() == exact.tolist()


def test_growing_leaves_earlier_views_as_they_were(library: str) -> None:
    """Room is shared, rows are not rewritten; a view that others grew from first is copied."""
    vectors = clustered(300, 8)
    first = Matrix.of(vectors[:100], capacity=400)
    second = first.append(vectors[100:200])
    third = second.append(vectors[200:])
    other = first.append(vectors[250:])
    assert second.buffers is first.buffers and third.buffers is first.buffers
    assert other.buffers is not first.buffers
    assert np.array_equal(third.vectors(slice(None)), vectors)
    assert np.array_equal(other.vectors(slice(None)), np.concatenate([vectors[:100], vectors[250:]]))
    assert np.array_equal(third.select(np.array([5, 250])).vectors(slice(None)), vectors[[5, 250]])


def test_nothing_to_search_finds_nothing(library: str) -> None:
    """No rows, no selection, no wish."""
    question = direction(np.ones(4))
    matrix = Matrix.of(np.ones((3, 4), np.float32))
    assert len(matrix.nearest(question, 0)[0]) == 0
    assert len(matrix.nearest(question, 2, np.empty(0, np.intp))[0]) == 0
    assert len(Matrix.of(np.empty((0, 4), np.float32)).nearest(question, 2)[0]) == 0
