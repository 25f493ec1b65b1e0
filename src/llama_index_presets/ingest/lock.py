"""Ingest lock: one ingest at a time per index; the second waits, or gets an error that names the holder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llama_index_presets.errors import StoreLockedError, StoreWriteError
from llama_index_presets.private_files import private_open

__all__ = ["ingest_lock"]


@contextmanager
def ingest_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the ingest lock of an index for a `with` block.

    Two runs at once would both find a document new, and both would pay for its vectors. The system lets go of the lock
    when its process dies, however it dies. It binds threads and processes of one machine, and of machines that share a
    disk whose locks work; readers need none.

    Args:
        path: The lock's file; made when missing, never removed.
        wait: Whether to wait until the one who holds it is done.

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
    with _opened(path) as handle:
        if not _take(handle, wait=False):
            if not wait:
                raise _held(path, handle)
            _take(handle, wait=True)
        try:
            _write(handle, {"pid": os.getpid(), "host": platform.node(), "since": _now()})
            yield
        finally:
            _write(handle, {})


def _opened(path: Path) -> Any:
    try:
        return private_open(path, "a+")
    except OSError as error:
        raise StoreWriteError(
            f"'{path}' cannot be written ({error.strerror}). Choose another --storage."
        ) from error


def _take(handle: Any, *, wait: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _write(handle: Any, holder: dict[str, Any]) -> None:
    """Write the holder of the lock, for processes that wait; a full disk must not prevent deletions."""
    with suppress(OSError):
        handle.truncate(0)
        if holder:
            os.write(handle.fileno(), json.dumps(holder).encode())


def _held(path: Path, handle: Any) -> StoreLockedError:
    handle.seek(0)
    try:
        holder = json.loads(handle.read())
    except ValueError:  # it has the lock and did not write its name yet
        holder = {}
    pid = holder.get("pid")
    who = f"Process {pid} on {holder['host']}" if pid else "Another process"
    since = f" since {holder['since']}" if pid else ""
    return StoreLockedError(f"{who} ingests into '{path.parent}'{since}. Wait until it is done.", pid=pid)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
