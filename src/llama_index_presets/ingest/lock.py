"""Ingest lock: one ingest at a time per index; the second waits, or gets an error that names the holder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from llama_index_presets.errors import StoreLockedError, StoreWriteError
from llama_index_presets.files.locks import FileLock

__all__ = ["ingest_lock"]


@contextmanager
def ingest_lock(path: Path, *, wait: bool = True, doing: str = "ingests into") -> Iterator[None]:
    """Hold the ingest lock of an index for a `with` block.

    Two runs at once would both find a document new, and both would pay for its vectors. The system lets go of the lock
    when its process dies, however it dies. It binds threads and processes of one machine, and of machines that share a
    disk whose locks work; readers need none.

    Args:
        path: The lock's file; made when missing, never removed.
        wait: Whether to wait until the one who holds it is done.
        doing: What the holder does with the folder, for the message.

    Raises:
        StoreLockedError: Someone holds it, and `wait` is False; names the process.
        StoreWriteError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "ingest.lock"
        >>> with ingest_lock(path):
        ...     with ingest_lock(path, wait=False):
        ...         pass
        Traceback (most recent call last):
        ...
        llama_index_presets.errors.StoreLockedError: Process ... ingests into '...' since .... Wait until it is done.
    """
    with _opened(path) as lock:
        if not lock.acquire(timeout_s=0):
            if not wait:
                raise _held(path, lock, doing)
            lock.acquire()
        try:
            lock.write_note(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": _now()}))
            yield
        finally:
            lock.write_note("")


def _opened(path: Path) -> FileLock:
    try:
        return FileLock(path)
    except OSError as error:
        raise StoreWriteError(
            f"'{path}' cannot be written ({error.strerror}). Choose another --storage."
        ) from error


def _held(path: Path, lock: FileLock, doing: str) -> StoreLockedError:
    try:
        holder = json.loads(lock.read_note())
    except ValueError:  # it has the lock and did not write its name yet
        holder = {}
    pid = holder.get("pid")
    who = f"Process {pid} on {holder['host']}" if pid else "Another process"
    since = f" since {holder['since']}" if pid else ""
    return StoreLockedError(f"{who} {doing} '{path.parent}'{since}. Wait until it is done.", pid=pid)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
