"""A calibration is fitted on labelled questions, written to the storage, and read by the next engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_presets.answer.calibration import CALIBRATION_FILE, Calibration, find_calibrations
from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.questions import JudgedQuestion
from llama_index_presets.experiments.calibration import (
    CalibrationReport,
    Labelled,
    calibrate,
    choose_floor,
    fit_calibration,
    write_calibrations,
)


def evidence(share: float, answerable: bool) -> Labelled:
    return Labelled((share, share, 0.0, 1.0), answerable, "yes" if answerable else "no")


LABELLED = [evidence(0.5 + place / 100, True) for place in range(40)] + [
    evidence(place / 100, False) for place in range(60)
]


def test_the_floor_lets_no_more_wrong_answers_through_than_allowed() -> None:
    """Of 60 unanswerable questions at most 3 are above it."""
    calibration = choose_floor(fit_calibration(LABELLED), LABELLED, false_answers=0.05)
    above = [
        calibration.probability(one.features) >= calibration.floor for one in LABELLED if not one.answerable
    ]
    assert sum(above) <= 3
    assert calibration.coverage > 0


def test_a_written_calibration_is_read_back(tmp_path: Path) -> None:
    """The file of the storage goes before the catalogue."""
    made = Calibration(intercept=-1.5, coverage=2.0, floor=0.25)
    report = CalibrationReport(calibration=made, questions=1, answered=1.0, wrongly_answered=0.0)
    write_calibrations({"evidence": report}, tmp_path / CALIBRATION_FILE)
    assert find_calibrations(tmp_path, {}) == {"evidence": made}


def test_a_damaged_calibration_is_named(tmp_path: Path) -> None:
    """A silent default would change every answer."""
    (tmp_path / CALIBRATION_FILE).write_text("[evidence", encoding="utf-8")
    with pytest.raises(SettingsError, match="cannot be read"):
        find_calibrations(tmp_path, {})


def test_too_few_questions_are_refused() -> None:
    """Chance would decide; no question is asked."""
    asked = [JudgedQuestion("q", {}, str(place), answerable=place < 5) for place in range(40)]
    with pytest.raises(SettingsError, match="5 answerable and 35 unanswerable"):
        calibrate(None, asked)  # type: ignore[arg-type]
