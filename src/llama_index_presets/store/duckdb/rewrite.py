"""Rewrite of a DuckDB file without the blocks of deleted rows, under an exclusive lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from llama_index_presets.errors import StoreLockedError
from llama_index_presets.files.private_files import tighten

__all__ = ["ReadWriteLock", "delete_drafts", "rewrite"]

_FRESH = "llama_index_presets_fresh"


class ReadWriteLock:
    """Readers-writer lock: any number of threads pass at once; one that needs to be alone closes it for a while."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False
        self._own = threading.local()

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Hold the lock as a reader; a thread that is inside may pass again, even while others wait to close it."""
        depth = getattr(self._own, "depth", 0)
        with self._changed:
            while self._closed and not depth:
                self._changed.wait()
            self._inside += 1
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def closed(self, patience_s: float) -> Iterator[None]:
        """Wait until no thread is inside, and admit none until the block ends.

        Raises:
            StoreLockedError: Somebody was inside for longer than `patience_s` seconds.
        """
        with self._changed:
            self._closed = True
            empty = self._changed.wait_for(lambda: not self._inside, patience_s)
        try:
            if not empty:
                raise StoreLockedError(
                    f"The store was read or written for more than {patience_s:g} s without a break. Try again later.",
                    os.getpid(),
                )
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()


def rewrite(connection: duckdb.DuckDBPyConnection, catalog: str, path: str, options: str) -> None:
    """Copy a database into a new file and put that in place of the old one, whose lock is held all the while.

    The old file's log is empty before the copy begins, so a crash at any moment leaves the old file or the new one,
    each whole. The connection then still has the old, nameless file: close it, and open the new one.

    Args:
        connection: With nothing else going on, in this or any other process.
        catalog: Quoted name of the database in it.
        path: Its file.
        options: Options of ATTACH for the new file, as SQL.
    """
    draft = _drafts(path)[0]
    delete_drafts(path)
    try:
        connection.execute(f"CHECKPOINT {catalog}")
        quoted = str(draft).replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS {_FRESH} ({options})")
        try:
            connection.execute(f"COPY FROM DATABASE {catalog} TO {_FRESH}")
        finally:
            connection.execute(f"DETACH {_FRESH}")
        tighten(draft)
        _sync(draft)
        draft.replace(path)
        _sync(Path(path).parent)
    finally:
        with suppress(OSError):
            delete_drafts(path)


def delete_drafts(path: str) -> None:
    """Delete the copy, with all of its rows, that a killed `rewrite` left; hold the file's lock.

    Raises:
        OSError: It cannot be deleted.
    """
    for left in _drafts(path):
        left.unlink(missing_ok=True)


def _drafts(path: str) -> tuple[Path, Path]:
    return Path(f"{path}.compact"), Path(f"{path}.compact.wal")


def _sync(path: Path) -> None:
    with suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
