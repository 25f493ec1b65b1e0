"""Command `compact`: removes deleted text from the disk."""

from __future__ import annotations

from typing import Annotated

import typer

from llama_index_presets.cli.app import STORAGE, AsJson, StorageFolder, app, complain, emit, say
from llama_index_presets.errors import SettingsError

__all__ = ["compact"]


@app.command()
def compact(
    ctx: typer.Context,
    place: Annotated[
        str | None, typer.Argument(metavar="[STORAGE]", help="The same as --storage, without the option.")
    ] = None,
    storage: StorageFolder = STORAGE,
    as_json: AsJson = False,
) -> None:
    """Remove deleted documents from the disk: rewrite every file of a storage without their text."""
    from llama_index_presets.presets.index.compaction import compact_storage

    named = ctx.get_parameter_source("storage").name == "COMMANDLINE"  # type: ignore[union-attr]
    if place is not None and named and place != storage:
        raise SettingsError(f"The storage is named twice: '{place}' and --storage '{storage}'. Give one.")
    report = compact_storage(place or storage, progress=lambda part: complain(f"Compacting: {part} …"))
    if as_json:
        emit(report.to_dict())
        return
    say(
        f"{report.storage}: {', '.join(report.parts) or 'nothing'} written afresh, "
        f"{report.bytes_before / 1e6:.1f} MB before, {report.bytes_after / 1e6:.1f} MB after."
    )
