"""Commands over the selection matrix: `list` and `show`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from llama_index_presets.cli.app import (
    AsJson,
    PresetName,
    SettingsFile,
    app,
    emit,
    print_table,
    say,
    table,
)
from llama_index_presets.presets.matrix import COLUMNS, PRESETS, Preset
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.settings_sources import describe_settings, load_settings

__all__ = ["list_presets", "show"]


@app.command("list")
def list_presets(as_json: AsJson = False) -> None:
    """List the seven presets, and what each still needs on this machine."""
    rows = [_row(row) for row in PRESETS.values()]
    if as_json:
        emit({"presets": rows})
        return
    shown = table("Preset", "Embedding", "Store", "Pattern", "Monitoring", "Ready")
    for row in rows:
        cells = [row[column] for column in ("name", "embedding", "store", "pattern", "monitoring")]
        shown.add_row(*cells, "yes" if row["ready"] else "no")
    print_table(shown)
    say("llama-presets show PRESET says what a preset is for, and what is missing.")


@app.command()
def show(preset: PresetName, settings: SettingsFile = None, as_json: AsJson = False) -> None:
    """Show one preset: its parts, why they were chosen, what is missing, and its settings."""
    row = find_preset(preset)
    values = _settings(preset, settings)
    details = {**_row(row), "llm": row.llm, "why": row.why, "offline": dict(_cells(row.offline()))}
    if as_json:
        emit({**details, "settings": values})
        return
    shown = table("Part", "Choice", "With --offline")
    for column, choice in _cells(row):
        shown.add_row(column, choice, details["offline"][column])
    say(f"{row.name}: {row.use_case}\n{row.why}")
    print_table(shown)
    for line in details["missing"] or ["Nothing is missing."]:
        say(line)
    say("")
    _print_settings(values)


def _settings(preset: str, file: Path | None) -> list[dict[str, Any]]:
    """Each setting with its value in this environment and the source of the value."""
    values, origins = load_settings(file, preset)
    here = values.to_dict()
    return [
        {**asdict(info), "value": here[info.name], "from": origins[info.name]}
        for info in describe_settings(preset)
    ]


def _print_settings(values: list[dict[str, Any]]) -> None:
    shown = table("Setting", "Value", "From", "What it does")
    for setting in values:
        about = f"{setting['about']} ({setting['accepts']})"
        shown.add_row(setting["name"], str(setting["value"]), setting["from"], about)
    print_table(shown)
    say("Set them with settings=… or --settings FILE.toml, or as LLAMA_PRESETS_<NAME>.")


def _cells(row: Preset) -> list[tuple[str, str]]:
    return [(column, getattr(row, column)) for column in COLUMNS]


def _row(row: Preset) -> dict[str, Any]:
    missing = row.missing()
    columns = ("name", "use_case", "embedding", "store", "pattern", "monitoring")
    return {**{column: getattr(row, column) for column in columns}, "ready": not missing, "missing": missing}
