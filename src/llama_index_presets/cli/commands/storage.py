"""Commands on a storage: `answers`, `compact`, and `permissions` of its documents."""

from __future__ import annotations

from typing import Annotated

import typer

from llama_index_presets.cli.app import (
    FAILED,
    STORAGE,
    AsJson,
    Offline,
    PresetName,
    SettingsFile,
    StorageFolder,
    app,
    complain,
    emit,
    say,
)
from llama_index_presets.cli.engines import existing_storage, need_index, open_engine
from llama_index_presets.errors import SettingsError

__all__ = ["answers", "compact", "permissions"]


@app.command()
def answers(
    storage: StorageFolder = STORAGE,
    clear: Annotated[bool, typer.Option("--clear", help="Delete all of them from the disk.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answers that the answer cache of a storage holds."""
    from llama_index_presets.answer_cache.store import AnswerCache

    location = existing_storage(storage)
    cache = AnswerCache(location.answers, max_bytes=1, max_age_s=1)
    try:
        removed = cache.clear() if clear else 0
        held, size = len(cache), cache.path.stat().st_size if cache.path.exists() else 0
    finally:
        cache.close()
    if as_json:
        emit({"storage": location.shown, "answers": held, "bytes": size, "removed": removed})
    elif clear:
        say(f"{removed} answers removed from '{location.shown}'.")
    else:
        say(f"{held} answers in '{location.shown}', {size / 1e6:.1f} MB. Remove them with --clear.")


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


@app.command()
def permissions(
    preset: PresetName,
    documents: Annotated[
        list[str] | None, typer.Argument(metavar="[DOCUMENT]...", help="Ids; none for all.")
    ] = None,
    allowed: Annotated[
        str | None,
        typer.Option("--allowed", help="Who may see them from now on: hr,user:ada; '' for nobody."),
    ] = None,
    storage: StorageFolder = STORAGE,
    offline: Offline = False,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show who may see documents, or set it; nothing is embedded again. The storage has permissions = "on"."""
    need_index(storage)
    with open_engine(preset, storage, offline, settings) as engine:
        if allowed is not None:
            if not documents:
                raise SettingsError(
                    "--allowed sets the permissions of the documents named: name one or more."
                )
            changed = engine.set_permissions(documents, allowed)
        listed = engine.permissions(documents or None)
    if as_json:
        emit({"permissions": listed, **({"changed": changed} if allowed is not None else {})})
        return
    for name, names in listed.items():
        say(f"{name}: {', '.join(names) or 'nobody'}")
    if allowed is not None and changed < len(set(documents or ())):
        complain(f"{len(set(documents or ())) - changed} of the documents are not in the index.")
        raise typer.Exit(FAILED)
