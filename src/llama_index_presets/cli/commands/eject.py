"""Command `eject`: export of a preset as plain LlamaIndex code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_presets.cli.app import AsJson, Offline, PresetName, SettingsFile, app, complain, emit, say
from llama_index_presets.cli.terminal import working
from llama_index_presets.presets.matrix import preset as find_preset

__all__ = ["eject"]


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
