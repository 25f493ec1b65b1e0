"""Comparison of two runs over the same questions, with a paired test of each difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llama_index_presets.evaluate.measures import LOWER_IS_BETTER, MEASURES, Scores
from llama_index_presets.packages.extras import require

__all__ = ["Difference", "compare", "family_p_values", "paired_p_value"]

_RESAMPLES = 9_999
_SEED = 1
_BLOCKS, _BLOCK = 10, 1_000
_ROUNDING = 1e-12


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

    def verdict(self) -> str:
        """``"better"``, ``"worse"``, or, with p = 0.05 and above, ``"no difference shown"`` of the second run."""
        if self.p_value is None or self.p_value >= 0.05:
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
        p_value=paired_p_value(two - one),
        questions=len(both),
    )


def paired_p_value(differences: np.ndarray) -> float | None:
    """Paired randomization test of the mean, two-sided.

    Args:
        differences: One a question, shape (n,).

    Returns:
        How often chance alone gives a mean as far from 0; None where every difference is 0.

    Raises:
        MissingExtraError: scipy is not installed.
    """
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


def family_p_values(first: Scores, second: Scores) -> dict[str, float]:
    """How often chance alone would give some measure a loss as large as each one's: p-values of a whole family.

    One randomization of each question's sign serves all measures, and a loss is held against the largest loss of any
    measure. So the chance of one false alarm or more among all of them is at most the level, also where measures say
    nearly the same, as nDCG and recall do.

    Args:
        first: The baseline.
        second: The run that may have lost.

    Returns:
        Measure -> p-value of its loss in (0, 1]; 1 where it gained or did not change. Measures of both runs alone.

    Source: Westfall and Young, Resampling-Based Multiple Testing, 1993 (single-step maxT)
    """
    losses = {name: _losses(name, first, second) for name in MEASURES}
    losses = {name: found for name, found in losses.items() if found}
    questions = sorted({question for found in losses.values() for question in found})
    # (measures, questions)
    table = np.array([[found.get(question, 0.0) for question in questions] for found in losses.values()])
    scale = np.sqrt((table**2).sum(axis=1, keepdims=True)) if losses else np.zeros((0, 1))
    table = np.divide(table, scale, out=np.zeros_like(table), where=scale > 0)
    observed = table.sum(axis=1)
    exceeded = np.zeros(len(losses))
    random = np.random.default_rng(_SEED)
    for _ in range(_BLOCKS):
        signs = random.choice((-1.0, 1.0), size=(_BLOCK, len(questions)))
        largest = (signs @ table.T).max(axis=1, initial=0.0)
        exceeded += (largest[:, None] >= observed - _ROUNDING).sum(axis=0)
    chances = np.where(observed > 0, (exceeded + 1) / (_BLOCKS * _BLOCK + 1), 1.0)
    return dict(zip(losses, map(float, chances), strict=True))


def _losses(name: str, first: Scores, second: Scores) -> dict[str, float]:
    """Loss of each question that both runs have; a gain is negative."""
    one, two = first.by_question.get(name, {}), second.by_question.get(name, {})
    sign = 1.0 if name in LOWER_IS_BETTER else -1.0
    return {question: sign * (two[question] - one[question]) for question in one if question in two}
