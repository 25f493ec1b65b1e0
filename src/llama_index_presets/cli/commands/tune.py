"""Command `tune`: from a user's questions to the front of quality, latency and dollars."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_presets.cli.app import (
    STORAGE,
    AsJson,
    ModelName,
    Offline,
    PresetName,
    SettingsFile,
    StorageFolder,
    app,
    complain,
    emit,
    print_table,
    say,
    table,
)
from llama_index_presets.cli.engines import must_find
from llama_index_presets.cli.spending import agree_to_cost
from llama_index_presets.cli.terminal import working
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.project.file import find_project

if TYPE_CHECKING:
    from llama_index_presets.experiments.tuning.plan import Plan
    from llama_index_presets.experiments.tuning.report import TuneReport

__all__ = ["tune"]

# Options, in the order of the command.
Questions = Annotated[
    Path,
    typer.Option(
        "--questions", help="At least 30 with sources: JSON Lines, CSV, or a folder in BEIR layout."
    ),
]
Documents = Annotated[
    list[str] | None,
    typer.Option("--documents", "--data", help="What to search; else the project's sources. Repeatable."),
]
Measure = Annotated[
    str, typer.Option("--measure", help="Quality to tune for; one of answers asks the language model.")
]
Try = Annotated[
    list[str] | None,
    typer.Option(
        "--try", metavar="AXIS=A,B", help="Values of an axis, in place of the usual ones. Repeatable."
    ),
]
Configurations = Annotated[int, typer.Option("--configurations", min=2, help="How many to try at most.")]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        "--max-minutes",
        min=0,
        help="Leave out ways of cutting beyond so many minutes of embedding, about.",
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost", min=0, help="Refuse when it would cost more US dollars; below it, ask nothing."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be tried, and what it would cost.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder of the results; default: tune in the storage.")
]


@app.command()
def tune(
    preset: PresetName,
    questions: Questions,
    storage: StorageFolder = STORAGE,
    documents: Documents = None,
    measure: Measure = "ndcg_at_10",
    try_: Try = None,
    configurations: Configurations = 40,
    max_minutes: MaxMinutes = None,
    max_cost: MaxCost = None,
    dry_run: DryRun = False,
    out: Out = None,
    offline: Offline = False,
    settings: SettingsFile = None,
    llm: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Try settings on your questions: quality against latency and dollars, and the settings to take.

    Exit codes: 0 done; 1 the cost is above --max-cost or was not agreed to; 2 wrong usage, such as too few questions;
    130 stopped: the same command goes on.
    """
    find_preset(preset)
    with working("Planning"):
        from llama_index_presets.evaluate.questions import read_questions
        from llama_index_presets.experiments.evaluation import Variant
        from llama_index_presets.experiments.tuning.plan import make_plan
        from llama_index_presets.presets.index.storage import resolve_storage

        asked = read_questions(questions)
        data = documents or _sources(preset)
        must_find(data)
        plan = make_plan(
            Variant(preset=preset, storage=storage, settings=settings, changes={"llm": llm} if llm else None),
            asked, data, folder=out or resolve_storage(storage).folder / "tune", measure=measure, tried=try_ or [],
            count=configurations, max_minutes=max_minutes, offline=offline,
        )  # fmt: skip
    if dry_run:
        _show_plan(plan, as_json)
        return
    agree_to_cost(
        "Tuning", plan.cost_usd, "a model has no known price", max_cost=max_cost, as_json=as_json,
        cheaper="Try fewer --configurations, fewer values with --try, or a higher --max-cost.",
    )  # fmt: skip
    _announce(plan, as_json)
    report = _run(plan)
    files = report.write(plan.folder)
    if as_json:
        emit({**report.to_dict(), "files": {name: str(path) for name, path in files.items()}})
        return
    _show(report)
    _say_next(preset, plan, report, files)


def _say_next(preset: str, plan: Plan, report: TuneReport, files: Mapping[str, Path]) -> None:
    """What was written, what stays, and the command that uses it."""
    say(f"Written: {', '.join(str(path) for path in files.values())}")
    kept = plan.folder / "embeddings"
    say(
        f"The indexes of the search are removed. Its vectors stay in {kept}: another run embeds nothing again."
    )
    other = f"--settings {files['settings']}"
    if report.needs_ingest:
        say(f"The index is made otherwise: llama-presets ingest {preset} … --storage NEW {other}")
    elif report.needs_keyword_index:
        say(
            f"It searches a keyword index, too. An index that has none gets it by: llama-presets doctor {preset} "
            f"--storage {shlex.quote(plan.variant.storage)} {other} --repair"
        )
    say(
        f'Use it: llama-presets ask {preset} "…" {other}, or copy the lines below [settings] in llama-presets.toml.'
    )


def _sources(preset: str) -> list[str]:
    project = find_project()
    if project is None or project.preset != preset or not project.sources:
        raise SettingsError(
            "What should be searched? Name files and folders with --documents, or sources in llama-presets.toml."
        )
    return list(project.sources)


def _announce(plan: Plan, as_json: bool) -> None:
    """How long embedding takes, and what --max-minutes leaves out, before it begins."""
    from llama_index_presets.experiments.tuning.runner import label

    left_out = ", ".join(label(one) for one in plan.left_out)
    if left_out:
        complain(f"Left out, as --max-minutes has no time for it: {left_out}.")
    if not as_json and plan.minutes is not None and plan.minutes >= 1:
        say(
            f"Embedding for {counted(len(plan.indexes), 'index')} takes about "
            f"{counted(round(plan.minutes), 'minute')}, less what is cached."
        )


def _run(plan: Plan) -> TuneReport:
    from llama_index_presets.experiments.tuning.plan import run_plan

    def complain_of(source: str, error: str) -> None:
        complain(f"{source}: {error}")

    return run_plan(plan, complain_of)


def _show_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        emit(plan.to_dict())
        return
    shown = table("To try", "")
    for name, value in plan.summary().items():
        shown.add_row(name, value)
    print_table(shown)
    say("Nothing was sent, and nothing was written.")


def _show(report: TuneReport) -> None:
    shown = table("front", report.measure, "95 %", "latency ms", "USD an answer", "")
    for row in report.to_dict()["front"]:
        quality = row["quality"]
        shown.add_row(
            " ".join(f"{name}={value}" for name, value in row["settings"].items()),
            f"{quality['mean']:.3f}",
            f"{quality['low']:.3f} to {quality['high']:.3f}",
            f"{row['latency_ms']:.1f}",
            "unknown" if row["usd"] is None else f"{row['usd']:.6f}",
            "chosen" if row["chosen"] else "",
        )
    print_table(shown)
    say(report.verdict)
