"""Command `doctor`: checks of the machine, of a preset and of its storage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_presets.cli.app import (
    FAILED,
    STORAGE,
    AsJson,
    Offline,
    OptionalPreset,
    Reach,
    SettingsFile,
    app,
    complain,
    emit,
    print_table,
    say,
    table,
)
from llama_index_presets.cli.terminal import working
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.matrix import preset as find_preset

__all__ = ["doctor"]


@app.command()
def doctor(
    preset: OptionalPreset = None,
    storage: Annotated[str | None, typer.Option("--storage", help="Folder or URL of its index.")] = None,
    settings: SettingsFile = None,
    offline: Offline = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Bring the keyword index back in step with the store.")
    ] = False,
    reach: Reach = False,
    no_egress: Annotated[
        bool,
        typer.Option(
            "--no-egress", help="Ingest and ask without a network, and print what it tried to reach."
        ),
    ] = False,
    documents: Annotated[
        Path | None, typer.Option("--documents", help="What --no-egress ingests; else two short texts.")
    ] = None,
    cold: Annotated[
        bool, typer.Option("--time", help="Ask in a fresh process, and print where the time goes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check versions, extras, keys, weights, storage and retries; each finding comes with its fix."""
    if preset is not None:
        find_preset(preset)
    elif no_egress or storage or repair or cold:
        raise SettingsError("This needs a preset: llama-presets doctor PRESET.")
    if preset and storage is None and (Path(STORAGE) / "preset.json").exists():
        storage = str(STORAGE)
    if cold:
        _cold(str(preset), storage, settings, offline, as_json)
    elif no_egress:
        _no_egress(str(preset), documents, settings, offline, as_json)
    else:
        _examine(preset, storage, settings, offline, repair, reach, as_json)


def _examine(
    preset: str | None,
    storage: str | None,
    settings: Path | None,
    offline: bool,
    repair: bool,
    reach: bool,
    as_json: bool,
) -> None:
    with working("Checking"):
        from llama_index_presets.diagnose.doctor import examine

        found = list(
            examine(preset, storage=storage, settings=settings, offline=offline, repair=repair, reach=reach)
        )
    errors = sum(finding.level == "error" for finding in found)
    warnings = sum(finding.level == "warning" for finding in found)
    if as_json:
        emit(
            {
                "healthy": not errors,
                "errors": errors,
                "warnings": warnings,
                "findings": [f.to_dict() for f in found],
            }
        )
    else:
        shown = table("", "Check", "Found", "What to do")
        for finding in found:
            shown.add_row(finding.level, finding.check, finding.message, finding.fix)
        print_table(shown)
        say(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}.")
    if errors:
        raise typer.Exit(FAILED)


def _cold(preset: str, storage: str | None, settings: Path | None, offline: bool, as_json: bool) -> None:
    from llama_index_presets.diagnose.cold_start import time_cold_question

    with working("Asking in a fresh process"):
        steps = time_cold_question(preset, storage=storage, settings=settings, offline=offline)
    if as_json:
        emit({"steps": [step.to_dict() for step in steps]})
        return
    shown = table("Step", "Seconds", "Processor seconds", "Memory, MB")
    for step in steps:
        shown.add_row(step.name, f"{step.wall_s:.2f}", f"{step.cpu_s:.2f}", f"{step.rss_mb:.0f}")
    print_table(shown)


def _no_egress(
    preset: str, documents: Path | None, settings: Path | None, offline: bool, as_json: bool
) -> None:
    from llama_index_presets.diagnose.no_egress import run_without_network

    complain(f"Running '{preset}' in a network namespace of its own ...")
    report = run_without_network(preset, documents=documents, settings=settings, offline=offline)
    if as_json:
        emit(report.to_dict())
    else:
        say(
            f"{preset}: {', '.join(report.steps) or 'nothing'} done, {counted(report.documents, 'document')}."
        )
        for attempt in report.attempts:
            say(f"  tried: {_attempt(attempt)}, {attempt['packets']} packets")
        say(
            f"  {report.error}"
            if report.error
            else "  No address was tried."
            if report.silent
            else "  Not silent."
        )
    if not report.silent:
        raise typer.Exit(FAILED)


def _attempt(attempt: dict[str, Any]) -> str:
    if attempt["name"]:
        return f"dns query for '{attempt['name']}'"
    return f"{attempt['protocol']} to {attempt['address']}:{attempt['port']}"
