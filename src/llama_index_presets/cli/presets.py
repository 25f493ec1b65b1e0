"""Commands that read the matrix."""

from __future__ import annotations

from typing import Any

from llama_index_presets.cli.app import AsJson, PresetName, app, emit, print_table, say, table
from llama_index_presets.presets.matrix import COLUMNS, PRESETS, Preset
from llama_index_presets.presets.matrix import preset as find_preset

__all__ = ["list_presets", "show"]


@app.command("list")
def list_presets(as_json: AsJson = False) -> None:
    """The seven presets, and what each still needs on this machine."""
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
def show(preset: PresetName, as_json: AsJson = False) -> None:
    """One preset: its parts, why they were chosen, and what is missing."""
    row = find_preset(preset)
    details = {**_row(row), "llm": row.llm, "why": row.why, "offline": dict(_cells(row.offline()))}
    if as_json:
        emit(details)
        return
    shown = table("Part", "Choice", "With --offline")
    for column, choice in _cells(row):
        shown.add_row(column, choice, details["offline"][column])
    say(f"{row.name}: {row.use_case}\n{row.why}")
    print_table(shown)
    for line in details["missing"] or ["Nothing is missing."]:
        say(line)


def _cells(row: Preset) -> list[tuple[str, str]]:
    return [(column, getattr(row, column)) for column in COLUMNS]


def _row(row: Preset) -> dict[str, Any]:
    missing = row.missing()
    columns = ("name", "use_case", "embedding", "store", "pattern", "monitoring")
    return {**{column: getattr(row, column) for column in columns}, "ready": not missing, "missing": missing}
