"""Evaluation runs on disk: one JSON file each, for comparison and plots."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index_presets.errors import SettingsError, StoreWriteError
from llama_index_presets.evaluate.measures import Scores, measure
from llama_index_presets.evaluate.outcomes import Outcome
from llama_index_presets.evaluate.questions import JudgedQuestion, digest, digests
from llama_index_presets.files.whole_files import replace_file

__all__ = [
    "Result",
    "make_result",
    "read_result",
    "read_results",
    "save_result",
    "write_result",
    "write_whole",
]

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run.

    Attributes:
        label: What was measured, in a few words.
        made: When it ended, ``YYYY-MM-DDTHH:MM:SSZ``.
        engine: What the engine was made of, as `explain` says.
        questions: Short name of the questions; equal names can be compared.
        asked: How many questions there were.
        failed: Question id -> what went wrong, in one line.
        scores: The measures, by question.
        outcomes: What came of each question.
        question_digests: Question id -> hash of the question; empty in a file of an earlier release.
    """

    label: str
    made: str
    engine: Mapping[str, Any]
    questions: str
    asked: int
    failed: Mapping[str, str]
    scores: Scores
    outcomes: Sequence[Outcome]
    question_digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def corpus(self) -> str | None:
        """Hash of the documents that were searched, wherever they lie; None where that is not known."""
        found = self.engine.get("corpus")
        return None if found is None else str(found)

    def summary(self) -> dict[str, float | None]:
        """Means by name, with the latency as percentiles; an unknown price is None."""
        means: dict[str, float | None] = dict(self.scores.means())
        if means.pop("latency_ms", None) is not None:
            means |= {f"latency_p{percent}_ms": self.scores.latency(percent) for percent in (50, 95)}
        answered = [outcome for outcome in self.outcomes if outcome.known is not None]
        if any(outcome.cost_usd is None for outcome in answered):
            means["cost_usd"] = None  # some calls have no known price: a mean of the others would be too low
        judged = [outcome.judge_usd for outcome in self.outcomes if outcome.faithfulness is not None]
        if judged:
            known = [usd for usd in judged if usd is not None]
            means["judge_usd"] = sum(known) if len(known) == len(judged) else None
        return means

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "format": _FORMAT,
            "label": self.label,
            "made": self.made,
            "engine": dict(self.engine),
            "questions": self.questions,
            "question_digests": dict(self.question_digests),
            "asked": self.asked,
            "failed": dict(self.failed),
            "summary": self.summary(),
            "by_question": {name: dict(values) for name, values in self.scores.by_question.items()},
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
        }


def make_result(
    label: str,
    engine: Mapping[str, Any],
    questions: Sequence[JudgedQuestion],
    outcomes: Mapping[str, Outcome],
    failed: Mapping[str, str],
) -> Result:
    """Measure a run that has ended.

    Raises:
        SettingsError: No question has an outcome.
    """
    return Result(
        label=label,
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        engine=engine,
        questions=digest(questions),
        asked=len(questions),
        failed=failed,
        scores=measure(questions, outcomes),
        outcomes=[outcomes[one.id] for one in questions if one.id in outcomes],
        question_digests=digests(questions),
    )


def save_result(result: Result, folder: Path) -> Path:
    """Save a run in a folder, under a name of its own; all or nothing.

    Raises:
        StoreWriteError: The folder cannot be written.
    """
    stem = f"{result.made.replace(':', '')}-{_slug(result.label)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = next(
            place
            for place in (
                folder / f"{stem}{suffix}.json" for suffix in ("", *(f"-{n}" for n in range(2, 999)))
            )
            if not place.exists()
        )
        replace_file(path, json.dumps(result.to_dict(), indent=1) + "\n")
    except OSError as error:
        raise StoreWriteError(
            f"'{folder}' cannot be written ({error.strerror}). Give another folder with --out."
        ) from error
    return path


def read_results(folder: Path, *, questions: str | None = None) -> list[Result]:
    """The runs of a folder, oldest first.

    Args:
        folder: Where `save_result` put them.
        questions: Only runs over these.

    Raises:
        SettingsError: A file is damaged.
    """
    found = [read_result(path) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if questions in (None, result.questions)]


def read_result(path: Path) -> Result:
    """Read one run.

    Raises:
        SettingsError: The file is missing, is no result of an evaluation, or a newer release wrote it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        format_ = values.get("format", _FORMAT)
        if format_ == _FORMAT:
            return Result(
                label=values["label"],
                made=values["made"],
                engine=dict(values["engine"]),
                questions=values["questions"],
                asked=values["asked"],
                failed=dict(values["failed"]),
                scores=Scores({name: _numbers(found) for name, found in values["by_question"].items()}),
                outcomes=[Outcome.from_dict(row) for row in values["outcomes"]],
                question_digests=dict(values.get("question_digests", {})),
            )
    except FileNotFoundError as error:
        raise SettingsError(
            f"There is no '{path}'. Make it with evaluate --save '{path}', or name a file of the folder "
            "'evaluations' in the storage."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"'{path}' is no result of an evaluation ({type(error).__name__}). Move it elsewhere, or make it again."
        ) from error
    raise SettingsError(
        f"'{path}' has format {format_}; this release reads {_FORMAT}. Read it with the release that wrote it, or run "
        "the evaluation again."
    )


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """Scores of a file. A value that is no number would pass every comparison."""
    if not all(math.isfinite(value) for value in found.values()):
        raise ValueError("a score is not finite")
    return dict(found)


def write_result(result: Result, path: Path) -> Path:
    """Write a run to a file of this name, such as the baseline of later runs; all or nothing.

    Raises:
        StoreWriteError: It cannot be written; what was there before stays.
    """
    return write_whole(path, json.dumps(result.to_dict(), indent=1) + "\n")


def write_whole(path: Path, text: str) -> Path:
    """Write a file in one step: it is there as a whole, or as it was before.

    A link stays a link; a device or a pipe, such as ``/dev/stdout``, is written to.

    Raises:
        StoreWriteError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        else:
            replace_file(path.resolve(), text)
    except OSError as error:
        raise StoreWriteError(f"'{path}' cannot be written ({error.strerror}). Name another file.") from error
    return path


def _slug(label: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in label.lower())[:80].strip("-")
