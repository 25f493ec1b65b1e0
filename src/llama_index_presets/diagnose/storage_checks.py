"""Checks of the place of a storage, before anything in it is opened: can a folder be there, is there room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Final

from llama_index_presets.diagnose.finding import Finding
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.index.storage import Storage
from llama_index_presets.presets.index.stores import check_place
from llama_index_presets.presets.matrix import Preset

__all__ = ["check_location", "check_not_begun"]

_LITTLE_SPACE: Final = 1 << 30  # bytes
_NO_SPACE: Final = 1 << 20


def check_location(row: Preset, place: Storage, *, offline: bool) -> Iterator[Finding]:
    """Check that the store can use the place, that the folder is one or can be made, and that the disk has room.

    Args:
        row: The row as it would be built.
        place: The storage.
        offline: Whether nothing may leave the machine.

    Example:
        >>> from llama_index_presets.presets.index.storage import resolve_storage
        >>> from llama_index_presets.presets.matrix import PRESETS
        >>> [one.level for one in check_location(PRESETS["healthcare"], resolve_storage("/dev/null"), offline=True)]
        ['error']
    """
    local = offline or row.monitoring == "local"
    try:
        check_place(row.store, place, preset=row.name, local=local)
    except SettingsError as error:
        yield Finding(level="error", check="storage", message=str(error), fix="Give another --storage.")
        return
    there = next(one for one in (place.folder, *place.folder.parents) if os.path.lexists(one))
    if not there.is_dir():
        yield Finding(
            level="error", check="storage", message=f"'{there}' is no folder", fix="Give another --storage."
        )
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            level="error",
            check="storage",
            message=f"'{there}' cannot be written by this user",
            fix="Change its rights or owner, or give another --storage.",
        )
    else:
        free = shutil.disk_usage(there).free
        room = "no room is left" if free < _NO_SPACE else f"{free / 2**30:.1f} GiB free"
        level, fix = ("error" if free < _NO_SPACE else "warning", "Make room.")
        if free >= _LITTLE_SPACE:
            level, fix = "ok", ""
        yield Finding(level=level, check="storage", message=f"'{place.shown}', {room}", fix=fix)  # type: ignore[arg-type]


def check_not_begun(place: Storage) -> Finding:
    """What to say of a storage without a metadata file: nothing was ingested yet, or the file was lost."""
    if place.manifest.exists() or place.keywords.exists():
        return Finding(
            level="error",
            check="storage",
            message=f"'{place.shown}' has an index and no {place.metadata_file.name}, which names its preset",
            fix="Restore the file from a backup, or run ingest with the preset that made the index.",
        )
    return Finding(
        level="note",
        check="storage",
        message=f"'{place.shown}' holds no index yet",
        fix="llama-presets ingest",
    )
