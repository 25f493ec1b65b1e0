"""What a search leaves behind: settings as TOML, the front as a page and a figure, and everything as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_index_presets.counting import counted
from llama_index_presets.evaluate.results import write_whole
from llama_index_presets.experiments.tuning.runner import Part
from llama_index_presets.experiments.tuning.search import Interval, Tuned
from llama_index_presets.experiments.tuning.space import AXES, INDEX_AXES, Configuration
from llama_index_presets.report.charts import Chart, intervals, render, standalone

__all__ = ["TuneReport"]

_SURE = 0.05
_SECRET = ("alert_webhook",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneReport:
    """A finished search.

    Attributes:
        preset: Its name.
        given: Settings that it had, by file or option.
        measure: Of quality.
        options: Configurations that were tried; the first is today's.
        tuned: What was found.
        priced: Whether the language model's price is known; else dollars say nothing.
        seconds: How long it took.
        parts: How long each part took, the whole last.
    """

    preset: str
    given: Mapping[str, Any]
    measure: str
    options: Sequence[Configuration]
    tuned: Tuned
    priced: bool
    seconds: float
    parts: Sequence[Part] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings to take: those that were given, but for secrets, and the winner's, without what it leaves open."""
        kept = {name: value for name, value in self.given.items() if name not in (*AXES, *_SECRET)}
        return {**kept, **_settings_of(self.options[self.tuned.winner])}

    @property
    def verdict(self) -> str:
        """What the search shows, in one sentence."""
        tuned, chosen, now = self.tuned, self.tuned.quality, self.tuned.current
        told = (
            f"{self.measure} {chosen.mean:.3f} ({chosen.low:.3f} to {chosen.high:.3f}) on questions that did not "
            f"choose; {now.mean:.3f} with the settings as they are"
        )
        if tuned.p_value is None or tuned.p_value >= _SURE:
            chance = "" if tuned.p_value is None else f" (p = {tuned.p_value:.3f})"
            return f"{told}: no difference shown{chance}. {self._without_a_difference()}."
        better = "better" if tuned.change.mean > 0 else "worse: keep the settings as they are"
        return f"{told}: {better} (p = {tuned.p_value:.3f})."

    def _without_a_difference(self) -> str:
        """What to do where the quality is not shown to differ: a change needs another reason."""
        if self.tuned.winner == 0:
            return "The settings as they are stay"
        if self.tuned.today_is_near:
            return "What is chosen is cheaper or faster"
        return (
            "What is chosen is better only on the questions that chose it: the settings as they are can stay, and more "
            "questions tell more"
        )

    @property
    def needs_keyword_index(self) -> bool:
        """Whether the index of today's settings lacks the keyword index that the winner searches."""
        today, winner = self.options[0]["pattern"], self.options[self.tuned.winner]["pattern"]
        return bool(winner == "hybrid" and today != "hybrid")

    @property
    def needs_ingest(self) -> bool:
        """Whether the winner needs another index than today's settings."""
        return any(self.options[self.tuned.winner][name] != self.options[0][name] for name in INDEX_AXES)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        tuned = self.tuned
        return {
            "preset": self.preset,
            "measure": self.measure,
            "configurations": len(self.options),
            "settings": self.settings,
            "needs_ingest": self.needs_ingest,
            "needs_keyword_index": self.needs_keyword_index,
            "verdict": self.verdict,
            "quality": asdict(tuned.quality),
            "current": asdict(tuned.current),
            "change": asdict(tuned.change),
            "p_value": tuned.p_value,
            "folds_that_chose_it": sum(one == tuned.winner for one in tuned.winners),
            "front": [
                {
                    "settings": _settings_of(self.options[point.number]),
                    "quality": asdict(point.quality),
                    "latency_ms": point.latency_ms,
                    "usd": point.usd if self.priced else None,
                    "chosen": point.number == tuned.winner,
                }
                for point in tuned.front
            ],
            "seconds": round(self.seconds, 1),
            "parts": [
                {
                    **asdict(part),
                    "seconds": round(part.seconds, 1),
                    "cpu_seconds": round(part.cpu_seconds, 1),
                }
                for part in self.parts
            ],
        }

    def to_toml(self) -> str:
        """Settings file, for ``--settings`` or the table ``[settings]`` of llama-presets.toml."""
        lines = [
            f"# llama-presets tune {self.preset}",
            f"# {self.verdict}",
            "# The index is made with some of these: ingest into a new storage.\n"
            if self.needs_ingest
            else "# It searches a keyword index, too: 'llama-presets doctor --repair' builds it in the storage.\n"
            if self.needs_keyword_index
            else "",
            *(
                f"# {name} is a secret and not copied: set it as before."
                for name in _SECRET
                if name in self.given
            ),
        ]
        values = [f"{name} = {_toml(value)}" for name, value in self.settings.items()]
        return "\n".join([*filter(None, lines), *values]) + "\n"

    def charts(self) -> list[Chart]:
        """The front against latency, and against dollars where they differ.

        Raises:
            MissingExtraError: The extra ``report`` is not installed.
        """
        axes = [("retrieval latency", "ms", [point.latency_ms for point in self.tuned.front])]
        dollars = [point.usd * 1000 for point in self.tuned.front]
        if self.priced and any(dollars):
            axes.append(("cost", "USD a thousand answers", dollars))
        return [
            intervals(
                f"Front of {self.preset}: {self.measure} against {title}",
                [
                    (self._short(point.number), x, point.quality.mean, point.quality.low, point.quality.high)
                    for point, x in zip(self.tuned.front, values, strict=True)
                ],
                x_unit=unit,
                y_unit=self.measure,
            )
            for title, unit, values in axes
        ]

    def write(self, folder: Path) -> dict[str, Path]:
        """Write ``settings.toml``, ``result.json``, ``front.html`` and ``front.svg``, each in one step.

        Raises:
            StoreWriteError: The folder cannot be written.
            MissingExtraError: The extra ``report`` is not installed; the settings and the result are written.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"
        written = {
            "settings": write_whole(folder / "settings.toml", self.to_toml()),
            "result": write_whole(folder / "result.json", text),
        }
        charts = self.charts()
        written["figure"] = write_whole(folder / "front.svg", standalone(charts[0]))
        written["page"] = write_whole(folder / "front.html", self._page(charts))
        return written

    def _page(self, charts: Sequence[Chart]) -> str:
        rows = [
            (
                f"{place} {self._short(point.number)}"
                + (" (chosen)" if point.number == self.tuned.winner else ""),
                _shown(point.quality),
                f"{point.latency_ms:.1f}",
                f"{point.usd:.6f}" if self.priced else "unknown",
            )
            for place, point in enumerate(self.tuned.front, start=1)
        ]
        columns = ("settings", f"{self.measure}, 95 % interval", "latency ms", "USD an answer")
        title = f"Tuning of {self.preset}"
        parts = [
            (part.name, part.detail, f"{part.seconds:.1f}", f"{part.cpu_seconds:.1f}") for part in self.parts
        ]
        return render(
            "tune.html", title=title, verdict=self.verdict, charts=charts, columns=columns, rows=rows,
            part_columns=("part", "of what", "seconds", "CPU seconds"), parts=parts,
        )  # fmt: skip

    def _short(self, number: int) -> str:
        """What a configuration has otherwise than today's."""
        today, one = self.options[0], self.options[number]
        changes = [
            f"{name} {value}" for name, value in one.items() if value != today.get(name) and value is not None
        ]
        changes += [
            f"no {name}" for name, value in one.items() if value is None and today.get(name) is not None
        ]
        return ", ".join(changes) or "settings as they are"


def _toml(value: Any) -> str:
    """A value as TOML; JSON's texts, lists, numbers and booleans are TOML's too, but for inf and nan."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _settings_of(one: Configuration) -> Mapping[str, Any]:
    return {name: value for name, value in one.items() if value is not None}


def _shown(found: Interval) -> str:
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f}, {counted(found.questions, 'question')})"
