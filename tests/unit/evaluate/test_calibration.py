"""A calibration is fitted on labelled questions, written to the storage, and read by the next engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document

from llama_index_presets import build
from llama_index_presets.answer.confidence.calibration import CALIBRATION_FILE, Calibration, find_calibrations
from llama_index_presets.embed.catalogue import catalogue
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
    return Labelled((share, share, 0.0, 1.0, 1.0, 0.0, 0.0), answerable, "yes" if answerable else "no")


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


VALVES = [
    "Abel",
    "Baker",
    "Cohen",
    "Dufour",
    "Eriks",
    "Fabre",
    "Galle",
    "Hertz",
    "Ibsen",
    "Joule",
    "Kelvin",
    "Laval",
    "Mason",
    "Nobel",
    "Ohm",
    "Pascal",
    "Quint",
    "Rankin",
    "Savery",
    "Tesla",
]
FAR = ("Who won the cup of {}?", "Which song did {} write for the choir?")


@pytest.mark.slow("three engines and forty questions: 4 s of CPU")
def test_the_command_calibrates_the_storage_and_the_next_engine_goes_by_it(tmp_path: Path, run: Any) -> None:
    """Questions from a file, cross-validated, to `calibration.toml`; no model is asked on the way."""
    documents = [
        Document(text=f"The {name} valve opens at {place + 2} bar.", doc_id=name)
        for place, name in enumerate(VALVES)
    ]
    settings = {"pii": "off", "encryption": "off"}
    with build("healthcare", storage=tmp_path / "s", settings=settings) as engine:
        engine.ingest(documents, show_progress=False)
        before = engine.synthesizer.evidence.calibration
    questions = [
        {"question": f"At what pressure does the {name} valve open?", "answerable": True} for name in VALVES
    ] + [{"question": FAR[place % 2].format(name), "answerable": False} for place, name in enumerate(VALVES)]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, questions)))
    options = ["--questions", str(file), "--storage", str(tmp_path / "s"), "--calibrate", "--json"]
    options += ["--false-answers", "0"]
    code, out, _ = run("evaluate", "healthcare", *options)
    shown = json.loads(out)
    assert code == 0 and shown["file"] == str(tmp_path / "s" / CALIBRATION_FILE)
    assert shown["sentences"]["answered"] >= 0.9 and shown["sentences"]["wrongly_answered"] <= 0.1
    with build("healthcare", storage=tmp_path / "s", settings=settings) as engine:
        made = engine.synthesizer.evidence.calibration
        assert made is not None and made != before
        assert made.floor == shown["evidence"]["calibration"]["floor"]
        assert "12 bar" in str(engine.query("At what pressure does the Kelvin valve open?"))
        assert engine.query("Who won the cup of Kelvin?").metadata["known"] is False  # type: ignore[index, union-attr]


def test_a_setting_moves_the_floor_alone(tmp_path: Path) -> None:
    """And a storage without a calibration goes by the model's, or by none."""
    known = {"sentences": {"intercept": -1.0, "coverage": 2.0, "floor": 0.4}}
    found = find_calibrations(tmp_path, known, min_confidence=0.9)
    assert found == {"sentences": Calibration(intercept=-1.0, coverage=2.0, floor=0.9)}
    assert find_calibrations(tmp_path, None, min_confidence=0.9) == {}


@pytest.mark.parametrize("model", ["all-MiniLM-L6-v2", "all-mpnet-base-v2"])
@pytest.mark.parametrize("kind", ["evidence", "sentences"])
def test_local_models_come_with_calibrations(model: str, kind: str) -> None:
    """All words and names at the cosine of a paraphrase is an answer; a close neighbour without the name is none."""
    entry = catalogue()[model]
    calibration = find_calibrations(Path("nowhere"), {kind: getattr(entry, kind)})[kind]
    said = (1.0, 0.75, 0.15, 1.0, 1.0, 0.0, 0.0)  # in the order of FEATURES
    neighbour = (0.3, 0.45, 0.02, 0.0, 1.0, 0.0, 0.0)
    assert calibration.probability(said) >= 0.95 > calibration.floor
    assert calibration.probability(neighbour) < calibration.floor
