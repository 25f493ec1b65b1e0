"""DuckDB database that several processes share: each has the file open only while it reads or writes.

DuckDB locks its file for as long as it is open: for one process that may write, or for any number that only read. So
nobody keeps it open here. A reader opens it read-only, a writer alone; a lock file beside it says whose turn it is.

    FILE.turn     held by a writer from when it waits on; a reader passes through it, so that writers do not starve
    FILE.users    held by readers together, by a writer alone, for as long as the file is open

The system drops both locks when a process dies. What a killed writer committed is in DuckDB's log beside the file, and
read from there. Where the locks cannot be made, as on a read-only disk, a reader goes on with DuckDB's own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import duckdb

from llama_index_presets.errors import StoreError, StoreLockedError, StoreWriteError
from llama_index_presets.files.disk_faults import is_half_made
from llama_index_presets.files.locks import FileLock
from llama_index_presets.store.duckdb.connect import MEMORY, connect, prepare_folder
from llama_index_presets.store.duckdb.database import (
    Database,
    finish_opening,
    inode_of,
    stamp_of,
)
from llama_index_presets.store.duckdb.errors import translated

__all__ = ["SharedDatabase", "open_shared"]

_PATIENCE_S: Final = 60.0
_LINGER_S: Final = 2.0  # an Arrow reader that is not collected yet keeps DuckDB's own lock for a moment
_POLL_S: Final = 0.01


class SharedDatabase(Database):
    """Database whose file is open only while it is used; see the module.

    Within a process, readers share one connection, and a writer is alone. A thread that writes may read meanwhile; one
    that reads may read again, and may not begin to write.
    """

    shares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._uses = 0
        self._without_locks = False
        self._turns = threading.Lock()
        self._own = threading.local()
        super().__post_init__()

    def _find_schema(self) -> None:
        if self.connection is not None:
            super()._find_schema()

    # ---- whose turn it is ---------------------------------------------------------------------------------

    @contextmanager
    def write_access(self) -> Iterator[None]:
        """Be the only user of the file, in this and all other processes, until the block ends.

        Raises:
            StoreLockedError: Others had it for a minute without a break.
        """
        if getattr(self._own, "writes", False):
            yield
            return
        self._check_usable()
        if getattr(self._own, "depth", 0):
            raise StoreError("The store is being read by this thread. End the read before writing.")
        with self.writing, ExitStack() as held:
            self._lock(held, "turn", shared=False)
            self._lock(held, "users", shared=False)
            self._connect(read_only=False)
            self._own.writes = True
            try:
                yield
            finally:
                self._own.writes = False
                self._disconnect()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        depth = getattr(self._own, "depth", 0)
        if getattr(self._own, "writes", False):
            yield
            return
        if not depth:
            with ExitStack() as passed:  # waits while a writer has its turn, or is next
                self._lock(passed, "turn", shared=True)
                self._enter()
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            if not depth:
                self._leave()

    def _enter(self) -> None:
        with self._turns:
            if not self._uses:
                with ExitStack() as held:
                    self._lock(held, "users", shared=True)
                    self._connect(read_only=True)
                    self._held = held.pop_all()
            self._uses += 1

    def _leave(self) -> None:
        with self._turns:
            self._uses -= 1
            if not self._uses:
                with self._held:
                    self._disconnect()

    def _lock(self, held: ExitStack, name: str, *, shared: bool) -> None:
        path = Path(f"{self.path}.{name}")
        try:
            lock = _lock_file(path, must_write=not shared)
            self._without_locks = lock is None
            taken = lock is None or held.enter_context(lock).acquire(shared=shared, timeout_s=_PATIENCE_S)
        except OSError as error:
            raise StoreWriteError(
                f"The lock '{path}' cannot be taken: {error.strerror}. Processes that share a file make two locks "
                "beside it: give them a folder that this user can write, or open the store without shared."
            ) from error
        if not taken:
            use = "written" if shared or name == "turn" else "read or written"
            raise StoreLockedError(
                f"'{self.path}' was {use} by other processes for more than {_PATIENCE_S:g} s without a break. Try "
                "again later."
            )

    def _connect(self, *, read_only: bool) -> None:
        until = time.monotonic() + (_PATIENCE_S if self._without_locks else _LINGER_S)
        while True:
            try:
                with translated(self.path):
                    self.connection = connect(self.path, read_only, self.encryption_key)
                break
            except StoreError as error:
                # Beyond that, the holder is one that does not take turns: another program, or a store without shared.
                brief = isinstance(error, StoreLockedError) or "different configuration" in str(error)
                if not brief or time.monotonic() >= until:
                    raise
                time.sleep(_POLL_S)
        if not self.schema:
            self._find_schema()

    def _disconnect(self) -> None:
        connection, self.connection = self.connection, None  # type: ignore[assignment]
        if connection is not None:
            with translated(self.path):
                connection.close()

    # ---- what a store does with it ------------------------------------------------------------------------

    def _is_own_file(self, inode: int | None) -> bool:
        return inode is not None  # another one is what a compaction of another process leaves

    def mark(self) -> object | None:
        """Version mark: different after every change, by any process; a file that was compacted is another one."""
        self._check_usable()
        with suppress(OSError):
            return Path(self.path).stat().st_ino, super().mark()
        return None

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for one operation, over the file opened for it or for others that read now."""
        self._check_usable()
        with self._reading(), translated(self.path):
            cursor = self.connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()

    def compact(self) -> None:
        """Rewrite the file without deleted rows, alone; see `Database.compact`."""
        self._check_compactable()
        with self.write_access(), translated(self.path):
            self._rewrite()

    def finish(self) -> None:
        """Keep the snapshot file at the end of the process; nothing else is open."""
        if self.process == os.getpid() and self.users and self.changes:
            self._call(self.before_close)
            self._call(self.after_close)

    def release_memory(self) -> None:
        """Nothing: DuckDB's memory goes with each connection."""

    def setting(self, name: str) -> str:
        """A setting of DuckDB, in its own words."""
        with self.cursor() as cursor:
            return str(cursor.execute(f"SELECT current_setting('{name}')").fetchall()[0][0])

    def set(self, name: str, value: str) -> None:
        """Nothing: a setting would last for one use of the file."""

    def _reconnect(self) -> None:
        self._disconnect()
        self._connect(read_only=False)
        self.changes += 1
        self._broken = False

    def _close_connection(self) -> None:
        """Nothing: whoever used it has closed it."""


def _lock_file(path: Path, *, must_write: bool) -> FileLock | None:
    """The lock at `path`; None for a reader that cannot make it."""
    try:
        return FileLock(path)
    except OSError:
        if must_write:
            raise
    with suppress(FileNotFoundError, PermissionError):
        return FileLock(path, create=False)  # made by a user who can write here
    return None


def _settle(database: SharedDatabase) -> bool:
    """Make the file, or take up the log of a killed process; False where a full disk lets it only be read.

    Raises:
        StoreError: There is nothing to read either.
    """
    known = inode_of(database.path) is not None and not is_half_made(database.path)
    try:
        with database.write_access():
            finish_opening(database.path, new=True)
    except StoreWriteError:
        if not known:
            raise
        return False
    return True


def open_shared(where: str, read_only: bool, encryption_key: str | None) -> SharedDatabase:
    """Open a database to share; made, with its folders, when missing.

    Raises:
        StoreError: It is no file, or there is none to read; see `open_database`.
    """
    if where == MEMORY:
        raise StoreError("A store in memory cannot be shared with other processes. Give it a path.")
    prepare_folder(Path(where), read_only)
    none: Any = None
    database = SharedDatabase(where, read_only, none, encryption_key, stamp_at_open=stamp_of(where))
    database.users = 1
    try:
        if read_only or (stamp_of(where) and not is_half_made(where)) or not _settle(database):
            with database.cursor():
                pass
    finally:
        database.users = 0
    return database
