"""Calibration of "I don't know" on a user's own questions: what makes an answer probable, and where to stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from llama_index.core.schema import ImageNode, QueryBundle

from llama_index_presets.answer.confidence.calibration import FEATURES, Calibration
from llama_index_presets.answer.confidence.evidence import read_passages
from llama_index_presets.answer.confidence.floor import passages_of
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.counting import counted
from llama_index_presets.errors import RankingError, SettingsError
from llama_index_presets.evaluate.questions import JudgedQuestion
from llama_index_presets.files.whole_files import replace_file
from llama_index_presets.presets.engine import PresetEngine

__all__ = [
    "CalibrationReport",
    "Labelled",
    "calibrate",
    "choose_floor",
    "features_of",
    "fit_calibration",
    "fit_logistic",
    "write_calibrations",
]

_FEWEST = 20
"""Questions of each kind, answerable and not, below which a calibration says more of chance than of the index."""

_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Labelled:
    """Evidence for one question.

    Attributes:
        features: In the order of `evidence.FEATURES`.
        answerable: Whether the index holds the answer.
        group: Kind of the question; each counts alike in a fit, however many there are.
    """

    features: tuple[float, ...]
    answerable: bool
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """Calibration and what it does on questions that it was not fitted on.

    Attributes:
        calibration: Fitted on all questions.
        questions: How many.
        answered: Share of answerable questions above the floor, in cross-validation, 0 to 1.
        wrongly_answered: Share of unanswerable ones above it, likewise.
    """

    calibration: Calibration
    questions: int
    answered: float
    wrongly_answered: float


def features_of(engine: PresetEngine, question: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Evidence for a question: that of the likeliest passage, and that of the sentence that would be quoted.

    Both are zeros where nothing was found.
    """
    hits = [hit for hit in engine.retrieve(QueryBundle(question)) if not isinstance(hit.node, ImageNode)]
    if not hits:
        return (0.0,) * len(FEATURES), (0.0,) * len(FEATURES)
    reading = read_passages(question, passages_of(hits), engine.synthesizer.evidence.analyzer)
    passage = max(
        (reading.features(place) for place in range(len(hits))), key=lambda found: found[0] + found[1]
    )
    llm = engine.llm
    sentence = llm.evidence(question, passages_of(hits)) if isinstance(llm, ExtractiveLLM) else None
    return passage, sentence or passage


def fit_calibration(labelled: Sequence[Labelled]) -> Calibration:
    """Fit the weights; answerable and unanswerable questions count alike, and so does each group of the latter.

    Raises:
        RankingError: All questions are answerable, or none is.
    """
    counts = Counter((one.answerable, one.group) for one in labelled)
    groups = Counter(answerable for answerable, _ in counts)
    weights = [
        len(labelled) / 2 / groups[one.answerable] / counts[one.answerable, one.group] for one in labelled
    ]
    intercept, slopes = fit_logistic(
        [one.features for one in labelled], [one.answerable for one in labelled], weights=weights
    )
    rounded = {name: round(slope, 3) for name, slope in zip(FEATURES, slopes, strict=True)}
    return Calibration(intercept=round(intercept, 3), **rounded)


def choose_floor(
    calibration: Calibration, labelled: Sequence[Labelled], *, false_answers: float
) -> Calibration:
    """The calibration with the lowest floor at which no group of unanswerable questions is answered more often.

    Args:
        calibration: Its weights are kept.
        labelled: Questions to choose on.
        false_answers: Most share of unanswerable questions that may be answered, 0 to 1.
    """
    floor = 0.0
    for group in {one.group for one in labelled if not one.answerable}:
        chances = sorted(
            calibration.probability(one.features)
            for one in labelled
            if not one.answerable and one.group == group
        )
        allowed = int(false_answers * len(chances))
        floor = max(floor, chances[-allowed - 1])
    return replace(calibration, floor=min(round(floor + 0.0005, 3), 1.0))


def calibrate(
    engine: PresetEngine, questions: Iterable[JudgedQuestion], *, false_answers: float = 0.05
) -> dict[str, CalibrationReport]:
    """Fit both calibrations of an engine on labelled questions, each cross-validated.

    Args:
        engine: Retrieves the evidence; nothing is answered, and no language model is called.
        questions: Labelled; those without an answer in the index are marked unanswerable.
        false_answers: Share of the unanswerable questions that may be quoted an answer, 0 to 1; a language model, which
            can refuse by itself, is asked for up to five times as many.

    Returns:
        ``"evidence"`` for language models and ``"sentences"`` for `ExtractiveLLM`.

    Raises:
        SettingsError: There are fewer than 20 answerable or unanswerable questions.
    """
    asked = [(one.text, one.answerable) for one in questions if one.answerable is not None]
    answerable = sum(label for _, label in asked)
    if min(answerable, len(asked) - answerable) < _FEWEST:
        raise SettingsError(
            f"There are {answerable} answerable and {counted(len(asked) - answerable, 'unanswerable question')}; a "
            f"calibration "
            f'needs {_FEWEST} of each. Add questions that the documents do not answer, with "answerable": false.'
        )
    found = [(features_of(engine, text), label) for text, label in asked]
    evidence = [Labelled(passage, answer) for (passage, _), answer in found]
    sentences = [Labelled(sentence, answer) for (_, sentence), answer in found]
    return {
        "evidence": _cross_validated(evidence, min(5 * false_answers, 1.0)),
        "sentences": _cross_validated(sentences, false_answers),
    }


def _cross_validated(labelled: Sequence[Labelled], false_answers: float) -> CalibrationReport:
    passed: list[tuple[bool, bool]] = []
    ordered = sorted(labelled, key=lambda one: one.answerable)  # each fold has its share of both kinds
    for fold in range(_FOLDS):
        others = [one for place, one in enumerate(ordered) if place % _FOLDS != fold]
        calibration = choose_floor(fit_calibration(others), others, false_answers=false_answers)
        passed += [
            (one.answerable, calibration.probability(one.features) >= calibration.floor)
            for one in ordered[fold::_FOLDS]
        ]
    shares = {
        kind: sum(above for answerable, above in passed if answerable is kind)
        / max(sum(answerable is kind for answerable, _ in passed), 1)
        for kind in (True, False)
    }
    return CalibrationReport(
        calibration=choose_floor(fit_calibration(labelled), labelled, false_answers=false_answers),
        questions=len(labelled),
        answered=shares[True],
        wrongly_answered=shares[False],
    )


def write_calibrations(reports: dict[str, CalibrationReport], file: Path) -> None:
    """Write ``calibration.toml``, which `build` reads from the storage; the old one is replaced in one step."""
    tables = []
    for name, report in reports.items():
        values = {key: getattr(report.calibration, key) for key in Calibration.__dataclass_fields__}
        tables.append(f"[{name}]\n" + "".join(f"{key} = {float(value)!r}\n" for key, value in values.items()))
    replace_file(file, "\n".join(tables))


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
        raise RankingError(
            f"All {counted(len(labels), 'event', 'have')} the same label; a regression needs both."
        )
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
