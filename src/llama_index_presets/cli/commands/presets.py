"""Commands over the selection matrix: `list`, `show`, and `eject`, which exports a preset as plain LlamaIndex code."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_presets.cli.app import (
    AsJson,
    Offline,
    PresetName,
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
from llama_index_presets.presets.checks.readiness import obstacles
from llama_index_presets.presets.estimates.model_uses import ModelUse, model_uses
from llama_index_presets.presets.matrix import COLUMNS, PRESETS, Preset
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.project.settings_sources import describe_settings, load_settings

__all__ = ["eject", "list_presets", "show"]


@app.command("list")
def list_presets(settings: SettingsFile = None, reach: Reach = False, as_json: AsJson = False) -> None:
    """List the seven presets: their models with key and address, and what each still needs on this machine."""
    rows = [_row(name, settings, reach) for name in PRESETS]
    if as_json:
        emit({"presets": rows})
        return
    shown = table("Preset", "Embedding", "Store", "Pattern", "Monitoring", "Language model", "Ready")
    for row in rows:
        cells = [row[column] for column in ("name", "embedding", "store", "pattern", "monitoring", "llm")]
        shown.add_row(*cells, "yes" if row["ready"] else "no")
    print_table(shown)
    models = table("Preset", "Model", "Key", "Address")
    for row in rows:
        for use in _uses(row["name"], settings):
            models.add_row(row["name"], f"{use.part} {use.name}", use.key_state, use.place)
    say("")
    print_table(models)
    say("llama-presets show PRESET says what a preset is for, and what is missing.")


@app.command()
def show(
    preset: PresetName, settings: SettingsFile = None, reach: Reach = False, as_json: AsJson = False
) -> None:
    """Show one preset: its parts, why they were chosen, its models, what is missing, and its settings."""
    row = _chosen(preset, settings)
    values = _settings(preset, settings)
    details = {**_row(preset, settings, reach), "why": row.why, "offline": dict(_cells(row.offline()))}
    if as_json:
        emit({**details, "settings": values})
        return
    shown = table("Part", "Choice", "With --offline")
    for column, choice in _cells(row):
        shown.add_row(column, choice, details["offline"][column])
    say(f"{row.name}: {row.use_case}\n{row.why}")
    print_table(shown)
    models = table("Model", "Provider", "Key", "Address")
    for use in _uses(preset, settings):
        models.add_row(f"{use.part} {use.name}", use.provider, use.key_state, use.place)
    print_table(models)
    for line in details["missing"] or ["Nothing is missing."]:
        say(line)
    say("")
    _print_settings(values)


@app.command()
def eject(
    preset: PresetName,
    folder: Annotated[Path, typer.Argument(help="Where the project goes.")],
    offline: Offline = False,
    settings: SettingsFile = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files of the project in a folder that is not empty.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Export a preset as a project of plain LlamaIndex code that gives the same answers."""
    find_preset(preset)
    with working("Writing the project"):
        from llama_index_presets.advise.eject import eject as write_out

        done = write_out(preset, folder, offline=offline, settings=settings, force=force)
    for notice in done.notices:
        complain(notice)
    if as_json:
        emit({"folder": str(done.folder), "files": list(done.files), "extras": list(done.extras)})
        return
    say(f"Written to {done.folder}: {', '.join(done.files)}.")
    say(f"Next: cd {done.folder} && pip install -r requirements.txt && python app.py ingest DOCUMENTS")


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


def _chosen(preset: str, file: Path | None) -> Preset:
    """A row as the settings of this environment choose it."""
    return find_preset(preset).with_settings(load_settings(file, preset)[0])


def _uses(preset: str, file: Path | None) -> list[ModelUse]:
    values, _ = load_settings(file, preset)
    return model_uses(find_preset(preset).with_settings(values), values)


def _row(preset: str, file: Path | None, reach: bool) -> dict[str, Any]:
    row = _chosen(preset, file)
    missing = [one.line for one in obstacles(row, load_settings(file, preset)[0], reach=reach)]
    columns = ("name", "use_case", "embedding", "store", "pattern", "monitoring", "llm")
    return {
        **{column: getattr(row, column) for column in columns},
        "models": [use.to_dict() for use in _uses(preset, file)],
        "ready": not missing,
        "missing": missing,
    }
