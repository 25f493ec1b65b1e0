"""Locks on files and folders among processes of one machine; the system drops a lock when its process dies.

On POSIX a lock is a `flock` on the file or folder itself, as in every earlier version of this package, so that an
older version at the same storage is still excluded. Windows hides locked bytes from all other handles and opens no
folders, so there the neighbour ``<name>.lock`` is locked instead.
"""

from __future__ import annotations

import os
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from llama_index_presets.concurrency.forks import in_forked_child
from llama_index_presets.files.private_files import private_file

fcntl: Any
try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

__all__ = ["FileLock", "delete_lone_neighbours", "has_record_lock"]

_SUFFIX: Final = ".lock"
_POLL_S: Final = 0.005
_neighbours: bool = os.name == "nt"
"""Whether a lock is on the neighbour of its file."""


class FileLock:
    """A lock on a file or folder, exclusive or shared; opened here, taken by `acquire`.

    Excludes other `FileLock` objects of this and other processes. A forked child holds none of its parent's locks.

    Args:
        path: The file or folder.
        create: Whether to make an empty file, for this user alone, when nothing is at `path`.
        renamed_to: The name that the file gets once it is locked; others look for the lock under this name.

    Raises:
        OSError: The file cannot be opened.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> with FileLock(path) as first, FileLock(path) as second:
        ...     first.acquire(), second.acquire(shared=True, timeout_s=0)
        (True, False)
    """

    def __init__(self, path: Path, *, create: bool = True, renamed_to: Path | None = None) -> None:
        self._path = path
        self._holder: int | None = None  # process that took it
        if create:
            private_file(path)
        locked = path
        if _neighbours:
            path.stat()
            locked = _neighbour(renamed_to or path)
            private_file(locked)
        self._descriptor: int | None = _opened(locked, must_write=create)
        _live.add(self)

    def acquire(self, *, shared: bool = False, timeout_s: float | None = None) -> bool:
        """Take the lock, or change its kind, which releases it for a moment.

        Args:
            shared: Whether others may share it.
            timeout_s: Seconds to try; 0 tries once, None waits without limit.

        Returns:
            Whether it was taken.

        Raises:
            OSError: The file system has no locks.
        """
        if _neighbours:
            self.release()  # Windows adds a second kind to the first
        elif timeout_s is None:  # on Windows the library's own wait ends after 10 s
            return self._take(shared=shared, wait=True)
        deadline = time.monotonic() + (float("inf") if timeout_s is None else timeout_s)
        while not self._take(shared=shared, wait=False):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _take(self, *, shared: bool, wait: bool) -> bool:
        if not (_flock if fcntl is not None else _portalock)(self, shared=shared, wait=wait):
            return False
        self._holder = os.getpid()
        return True

    def release(self) -> None:
        """Release the lock; it can be taken again."""
        if not self._held:
            return
        self._holder = None
        if fcntl is not None:
            fcntl.flock(self.fileno(), fcntl.LOCK_UN)
        else:
            import portalocker

            portalocker.unlock(self)

    def close(self) -> None:
        """Release the lock and close the file; a second call does nothing."""
        try:
            self.release()
        finally:
            self._close_file()

    def _close_file(self) -> None:
        descriptor, self._descriptor, self._holder = self._descriptor, None, None
        if descriptor is not None:
            os.close(descriptor)

    @property
    def _held(self) -> bool:
        return self._holder == os.getpid()  # a fork that unlocked its copy would unlock the parent's

    def fileno(self) -> int:
        """Descriptor of the file that is locked.

        Raises:
            ValueError: It is closed.
        """
        if self._descriptor is None:
            raise ValueError(f"The lock on '{self._path}' is closed. Open another FileLock.")
        return self._descriptor

    def write_note(self, text: str) -> None:
        """Replace the file's content, for those who wait; a full disk loses the note and not the lock."""
        if self._held:
            with suppress(OSError), self._path.open("r+b", buffering=0) as file:
                file.truncate(0)
                file.write(text.encode())

    def read_note(self) -> str:
        """Read what the holder noted; empty when it noted nothing yet."""
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


def _flock(file: _HasFileno, *, shared: bool, wait: bool) -> bool:
    flags = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file.fileno(), flags)
    except BlockingIOError:
        return False
    return True


def _portalock(file: _HasFileno, *, shared: bool, wait: bool) -> bool:
    """Where Python has no `fcntl`, as on Windows."""
    import portalocker

    flags = portalocker.LOCK_SH if shared else portalocker.LOCK_EX
    try:
        portalocker.lock(file, flags if wait else flags | portalocker.LOCK_NB)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise OSError(*_reason(error)) from error
    return True


def has_record_lock(file: _HasFileno) -> bool:
    """Take the kind of lock that DuckDB and SQLite take on their files; whether another process has it.

    Such a lock (`fcntl`'s ``lockf``) is another than `FileLock`, and closing any opening of the file in this process
    drops it. Windows has none: there a file that another program has open cannot be written.

    Args:
        file: Open to write.
    """
    if fcntl is None:
        return False
    try:
        fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def delete_lone_neighbours(folder: Path, pattern: str) -> None:
    """Delete locks of files that are gone; only Windows has them. One that is held there cannot be deleted."""
    for neighbour in folder.glob(pattern + _SUFFIX):
        if not neighbour.with_name(neighbour.name.removesuffix(_SUFFIX)).exists():
            with suppress(OSError):
                neighbour.unlink()


def _neighbour(path: Path) -> Path:
    return path.with_name(path.name + _SUFFIX)


def _opened(path: Path, *, must_write: bool) -> int:
    if path.is_dir():
        return os.open(path, os.O_RDONLY)
    try:
        return os.open(path, os.O_RDWR)
    except PermissionError:
        if must_write:
            raise
        return os.open(path, os.O_RDONLY)  # enough for a lock, except on some network file systems


def _reason(error: Any) -> tuple[Any, ...]:
    cause = error.__cause__
    return cause.args if isinstance(cause, OSError) else (str(error),)


_live: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close a fork's copies of the locked files, which would keep the locks beyond the parent's life."""
    for lock in list(_live):
        lock._close_file()


in_forked_child(_close_in_child)
