"""Logistic regression finds weights in the features' own units."""

from __future__ import annotations

import math

import pytest

from llama_index_presets.errors import RankingError
from llama_index_presets.experiments.calibration import fit_logistic


def test_it_finds_the_log_odds_of_counts() -> None:
    """Of 4 events at 0 one happens, of 4 at 1 three do: the odds are 1/3 and 3."""
    rows = [[0.0]] * 4 + [[1.0]] * 4
    intercept, (weight,) = fit_logistic(rows, [True, False, False, False, True, True, True, False], ridge=0)
    assert intercept == pytest.approx(math.log(1 / 3), abs=1e-6)
    assert intercept + weight == pytest.approx(math.log(3), abs=1e-6)


def test_a_feature_that_never_changes_has_no_weight() -> None:
    """Nothing can be learned from it."""
    _, weights = fit_logistic([[1.0, 0.0], [1.0, 1.0], [1.0, 0.4]], [False, True, False])
    assert weights[0] == pytest.approx(0)


def test_one_label_is_refused() -> None:
    """There is nothing to tell apart."""
    with pytest.raises(RankingError, match="All 2 events have the same label"):
        fit_logistic([[0.0], [1.0]], [True, True])
