"""Commands on a storage: `answers`, `compact`, and its `documents` with their `permissions`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
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
    print_table,
    say,
    table,
)
from llama_index_presets.cli.engines import (
    Everything,
    Groups,
    User,
    as_user,
    existing_storage,
    need_index,
    open_engine,
)
from llama_index_presets.cli.terminal import printable
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError

__all__ = ["answers", "compact", "documents", "file_missing", "permissions"]


@app.command()
def answers(
    storage: StorageFolder = STORAGE,
    clear: Annotated[bool, typer.Option("--clear", help="Delete all of them from the disk.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answers that the answer cache of a storage holds."""
    from llama_index_presets.answer.cache.store import AnswerCache

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
        say(f"{counted(removed, 'answer')} removed from '{location.shown}'.")
    else:
        say(
            f"{counted(held, 'answer')} in '{location.shown}', {size / 1e6:.1f} MB. Remove them with --clear."
        )


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
def documents(
    preset: PresetName,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DOCUMENT]...", help="Ids, paths, or folders with all that was in them."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove those named from the index.")] = False,
    storage: StorageFolder = STORAGE,
    offline: Offline = False,
    settings: SettingsFile = None,
    user: User = "",
    groups: Groups = "",
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """Documents of the index, and whether their files are there; with --delete, remove some of them."""
    if delete and not names:
        raise SettingsError("--delete removes the documents named: name one or more, or a folder.")
    need_index(storage)
    with open_engine(preset, storage, offline, settings) as engine:
        view = as_user(engine, user, groups, everything)
        listed = {one.id: one for one in view.documents()}
        chosen = _documents_named(names, listed) if names else [*listed]
        deleted = view.delete(chosen) if delete else 0
        unfinished = view.unfinished_documents()
    if as_json:
        rows = [{**listed[one].to_dict(), "file_missing": file_missing(one)} for one in chosen]
        more = {"unfinished": unfinished} if unfinished else {}
        emit({"documents": rows, **({"deleted": deleted} if delete else {}), **more})
        return
    shown = table("Document", "Chunks", "Ingested", "")
    for one in chosen:
        info = listed[one]
        shown.add_row(
            printable(one), f"{info.chunks:,}", info.ingested_at, "no such file" if file_missing(one) else ""
        )
    print_table(shown)
    if unfinished:
        complain(
            f"An ingest was cut short with {counted(len(unfinished), 'document')}, such as "
            f"'{printable(unfinished[0])}': questions may find parts of them, and new ones are not in this list. Run "
            "the ingest again."
        )
    if len(chosen) > 1 and all(map(file_missing, chosen)) and not delete:
        say(
            "None of the files is there: they were moved, or the storage came from elsewhere. Answers need no files. "
            "Where you ingest the files again from their new place, remove these with --delete."
        )
    if delete:
        say(
            f"{counted(deleted, 'document')} removed. 'llama-presets compact' takes their text off the disk, too."
        )


def _documents_named(names: Sequence[str], listed: Iterable[str]) -> list[str]:
    """Ids of documents by id, by path, or by a folder above them.

    Raises:
        SettingsError: A name is none of a document; nothing has been done then.
    """
    chosen: dict[str, None] = {}
    for name in names:
        places = {name, Path(name).absolute().as_posix()}
        found = [one for one in listed if one in places or one.startswith(tuple(f"{at}/" for at in places))]
        if not found:
            raise SettingsError(
                f"The index has no document '{name}', and none below it. 'llama-presets documents' lists them."
            )
        chosen |= dict.fromkeys(found)
    return list(chosen)


def file_missing(document: str) -> bool:
    """Whether an id is the path of a file, and no such file is there."""
    return document.startswith("/") and not os.path.exists(document)  # noqa: PTH110 -- Path's raises where it is long


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
