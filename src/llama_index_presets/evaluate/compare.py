"""Comparison of two runs over the same questions, with a paired test of each difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llama_index_presets._extras import require
from llama_index_presets.evaluate.measures import LOWER_IS_BETTER, MEASURES, Scores

__all__ = ["Difference", "compare"]

_RESAMPLES = 9_999
_SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One measure of two runs.

    Attributes:
        measure: Its name.
        first: Mean of the first run, over the questions that both have.
        second: Mean of the second.
        p_value: How often chance alone would give a difference as large, 0 to 1; None where no question differs.
        questions: How many questions both have.
    """

    measure: str
    first: float
    second: float
    p_value: float | None
    questions: int

    @property
    def change(self) -> float:
        """Second less first."""
        return self.second - self.first

    def verdict(self, level: float = 0.05) -> str:
        """``"better"``, ``"worse"``, or ``"no difference shown"`` of the second against the first.

        Args:
            level: p-value below which a difference counts, 0 to 1.
        """
        if self.p_value is None or self.p_value >= level:
            return "no difference shown"
        return "better" if (self.change < 0) == (self.measure in LOWER_IS_BETTER) else "worse"


def compare(first: Scores, second: Scores) -> list[Difference]:
    """Compare run by run, question by question.

    The test is the paired randomization test: were the two runs alike, each question's difference could as well have
    the other sign. It asks no shape of the differences, and with fewer than six questions it can show nothing.

    Raises:
        MissingExtraError: scipy is not installed.

    Source: Smucker, Allan and Carterette, CIKM 2007, doi:10.1145/1321440.1321528
    """
    return [
        _difference(name, first.by_question[name], second.by_question[name])
        for name in MEASURES
        if set(first.by_question.get(name, {})) & set(second.by_question.get(name, {}))
    ]


def _difference(name: str, first: Mapping[str, float], second: Mapping[str, float]) -> Difference:
    both = sorted(set(first) & set(second))
    one, two = (np.array([values[key] for key in both], dtype=float) for values in (first, second))
    return Difference(
        measure=name,
        first=float(one.mean()),
        second=float(two.mean()),
        p_value=_p_value(two - one),
        questions=len(both),
    )


def _p_value(differences: np.ndarray) -> float | None:
    if not differences.any():
        return None
    if len(differences) < 2:
        return 1.0  # either sign of a single difference is as large
    stats = require("scipy.stats", extra="evaluate")
    found = stats.permutation_test(
        (differences,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        rng=_SEED,
    )
    return float(found.pvalue)
