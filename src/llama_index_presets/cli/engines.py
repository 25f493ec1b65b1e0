"""Engine or storage of a command: opened, or refused before anything slow is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_presets.cli.terminal import working
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.providers.language_models import read_name

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine
    from llama_index_presets.presets.index.storage import Storage

__all__ = [
    "Everything",
    "Groups",
    "User",
    "as_user",
    "existing_storage",
    "must_find",
    "need_index",
    "open_engine",
]

User = Annotated[str, typer.Option("--user", help="Who asks, where the storage has permissions.")]
Groups = Annotated[str, typer.Option("--groups", help="Their groups: hr,all.")]
Everything = Annotated[
    bool, typer.Option("--everything", help="See every document; with --user, for the record.")
]


def open_engine(
    preset: str,
    storage: str,
    offline: bool,
    settings: Path | None,
    filters: Sequence[str] | None = None,
    *,
    llm: str | None = None,
) -> PresetEngine:
    """Build an engine; a mistyped preset or model fails before the slow import."""
    find_preset(preset)
    if llm:
        read_name(llm)
    from llama_index_presets.filters.text import parse_filters

    wanted = parse_filters(filters or [])
    with working("Opening the index"):
        from llama_index_presets.presets.build import build

        return build(preset, storage=storage, llm=llm, offline=offline, settings=settings, filters=wanted)


def must_find(paths: Sequence[str | Path]) -> None:
    """Fail when there is nothing to ingest, before a storage is made for it.

    Raises:
        IngestError: A path is missing, or a folder is empty.
    """
    from llama_index_presets.ingest.sources.file_system_source import is_url
    from llama_index_presets.ingest.sources.files import find_files

    local = [str(path) for path in paths if not is_url(path)]
    if local or not paths:
        find_files(local)


def need_index(storage: str) -> None:
    """Fail when the folder has no index yet; vectors on a server may come from another machine."""
    from llama_index_presets.presets.index.storage import read_metadata, resolve_storage

    location = resolve_storage(storage)
    if location.address is None:
        read_metadata(location)


def existing_storage(storage: str) -> Storage:
    """The storage of a folder that exists, whatever is in it.

    Raises:
        SettingsError: There is no such folder.
    """
    from llama_index_presets.presets.index.storage import resolve_storage

    location = resolve_storage(storage)
    if not location.folder.is_dir():
        raise SettingsError(
            f"There is no storage folder '{location.shown}'. Give the --storage of an earlier ingest."
        )
    return location


def as_user(engine: PresetEngine, user: str, groups: str, everything: bool) -> PresetEngine:
    """The engine for the user that the options name; the engine itself where they name none."""
    if not (user or groups or everything):
        return engine
    listed = [group.strip() for group in groups.split(",")] if groups else []
    return engine.as_user(user=user, groups=listed, everything=everything)
