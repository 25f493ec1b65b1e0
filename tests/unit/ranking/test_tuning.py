"""Choosing a fusion on labelled queries."""

from __future__ import annotations

import pytest

from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.ndcg import ndcg
from llama_index_presets.ranking.tuning import Choice, best_choice

GOOD, BAD = Choice("rrf", (1.0, 0.0)), Choice("rrf", (0.0, 1.0))


def answers(choice: Choice, query: str) -> list[tuple[str, float]]:
    """The good choice has the relevant document first, the bad one second."""
    return [("yes", 1.0), ("no", 0.5)] if choice == GOOD else [("no", 1.0), ("yes", 0.5)]


def test_the_better_choice_wins_on_unseen_queries() -> None:
    """Every fold chooses it, and what to expect is what it scores."""
    tuning = best_choice([GOOD, BAD], BAD, answers, {f"q{i}": {"yes": 1} for i in range(10)})
    assert (tuning.best, tuning.cross_validated) == (GOOD, 1.0)
    assert tuning.default_mean == pytest.approx(ndcg(["no", "yes"], {"yes": 1}))
    assert [(t.choice, t.held_out) for t in tuning.trials] == [(GOOD, 5), (BAD, 0)]
    assert "| rrf | 1 : 0 | 1.0000 | 5 |" in tuning.table()


def test_the_default_stays_where_choosing_does_not_pay() -> None:
    """Noise must not talk anyone into other weights."""
    tuning = best_choice([GOOD, BAD], GOOD, answers, {f"q{i}": {"yes": 1} for i in range(10)})
    assert tuning.best == tuning.default == GOOD


def test_too_few_queries_are_refused() -> None:
    """Queries without a relevant document do not count."""
    with pytest.raises(RankingError, match="1 query has relevant documents, and 5 folds"):
        best_choice([GOOD], GOOD, answers, {"q1": {"yes": 1}, "q2": {"yes": 0}})


def test_ndcg_is_arithmetic() -> None:
    """Gain is the grade, discount is the logarithm of the rank."""
    assert ndcg(["x", "a"], {"a": 3}) == pytest.approx(1 / 1.584962500721156)
    assert ndcg(["a"], {"a": 0}) == 0
