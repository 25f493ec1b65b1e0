"""DuckDB database, opened once per process and shared by its stores."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import duckdb

from llama_index_presets._options import expect
from llama_index_presets.concurrency.forks import in_forked_child
from llama_index_presets.errors import StoreError, StoreUnavailableError, StoreWriteError
from llama_index_presets.files.disk_faults import is_full
from llama_index_presets.files.private_files import tighten
from llama_index_presets.store.duckdb.connect import (
    ENCRYPTED_CATALOG,
    MEMORY,
    ROW_GROUP,
    connect,
    count_connections,
    prepare_folder,
    quote,
    settable,
    without_key,
)
from llama_index_presets.store.duckdb.errors import is_conflict, translated
from llama_index_presets.store.duckdb.rewrite import ReadWriteLock, delete_drafts, rewrite

__all__ = ["Database", "finish_opening", "inode_of", "open_database", "stamp_of"]

_PATIENCE_S = 60.0


@dataclass(eq=False)
class Database:
    """Connection to one database and the state that its users share.

    Every operation runs on a cursor of its own, so threads never meet in one; writers take `writing`.

    Attributes:
        path: Absolute path of the file, or ``":memory:"``, or ``""`` for a connection given by the caller.
        read_only: Whether it was opened so that nothing can be written.
        connection: The connection that cursors are made from.
        schema: Quoted catalog and schema, such as ``"chunks"."main"``.
        writing: Held by the writer.
        shared: Whatever the stores of this database want to share, by key.
        users: Stores that have it open.
        changes: Counts the changes made through it.
        lent: Whether the caller has got hold of the connection, and may write past the stores.
        stamp_at_open: `stamp_of` the file before it was opened.
        before_close: Called while the last user closes it; the connection still works.
        after_close: Called when the file is closed.
    """

    path: str
    read_only: bool
    connection: duckdb.DuckDBPyConnection
    encryption_key: str | None = field(default=None, repr=False)
    schema: str = ""
    writing: threading.RLock = field(default_factory=threading.RLock)
    shared: dict[str, Any] = field(default_factory=dict)
    users: int = 0
    changes: int = 0
    lent: bool = False
    process: int = field(default_factory=os.getpid)
    stamp_at_open: list[int] | None = None
    before_close: list[Callable[[], None]] = field(default_factory=list, repr=False)
    after_close: list[Callable[[], None]] = field(default_factory=list, repr=False)
    _broken: bool = False
    _refused: StoreError | None = None
    _opened_inode: int | None = None
    _access: ReadWriteLock = field(default_factory=ReadWriteLock, repr=False)

    shares: ClassVar[bool] = False
    """Whether other processes use the file at the same time."""

    def __post_init__(self) -> None:
        self._opened_inode = inode_of(self.path)
        self._find_schema()
        _live.add(self)

    def check_file(self) -> None:
        """Refuse a file that is gone: its rows could be read on, and what is written to it would be lost at the end.

        Raises:
            StoreError: It was deleted or moved, or another one is in its place.
        """
        with self._access.passing():  # a compaction puts another file there
            if self._is_own_file(now := inode_of(self.path)):
                return
        what = "deleted or moved" if now is None else "replaced by another file"
        raise StoreUnavailableError(
            f"'{self.path}' was {what} while it is open; nothing is read from it or written to it. Put it back, or "
            "close the store and open it again."
        )

    def _is_own_file(self, inode: int | None) -> bool:
        return self.path in ("", MEMORY) or inode == self._opened_inode

    @property
    def is_lost(self) -> bool:
        """Whether the file is gone, or another one is in its place."""
        return not self._is_own_file(inode_of(self.path))

    def abandon(self) -> None:
        """Close the connection to a file that is lost, or DuckDB would give it to whoever opens the new one."""
        with self._access.closed(_PATIENCE_S):
            _open.pop(self.path, None)
            self._close_connection()

    def _find_schema(self) -> None:
        if self.encryption_key is not None:
            self.schema = f"{ENCRYPTED_CATALOG}.main"
            return
        found = self.connection.execute("SELECT current_database(), current_schema()").fetchall()
        catalog, schema = found[0]
        self.schema = f"{quote(catalog)}.{quote(schema)}"

    def mark(self) -> object | None:
        """Version mark: different after every change, by any writer; None where only DuckDB can tell.

        A commit lengthens the log beside the file, and a checkpoint replaces both. No other process can
        write while this one has the file open.
        """
        self._check_open()
        if not self.path or (self.path == MEMORY and self.lent):
            return None
        if self.path == MEMORY:
            return self.changes
        return self.changes, _stamp(self.path), _stamp(self.path + ".wal")

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for one operation; errors of DuckDB leave it as errors of this package.

        Raises:
            StoreError: The store was closed, or opened before a fork.
        """
        self._check_usable()
        with self._access.passing(), translated(self.path):
            if self._broken:
                self._reconnect()
            cursor = self.connection.cursor()
            try:
                yield cursor
            except duckdb.FatalException:
                self._broken = True
                raise
            finally:
                cursor.close()

    def _check_open(self) -> None:
        if not self.users:
            raise StoreError("The store is closed. Open a new one to go on.")

    def _check_usable(self) -> None:
        self._check_open()
        if self.process != os.getpid():
            raise StoreError(
                f"The store was opened in process {self.process} and cannot be used in its fork {os.getpid()}. "
                "Open it in the process that uses it; read_only=True where several read."
            )

    @contextmanager
    def write_access(self) -> Iterator[None]:
        """Be the only writer until the block ends; a thread that is one may come again.

        Raises:
            StoreWriteError: The disk is full, so that the file can only be read.
        """
        with self.writing:
            if self._refused is not None:
                with self.cursor():  # connects again
                    if self._refused is not None:
                        raise self._refused
            yield

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor inside a transaction: committed when the block ends, undone when it raises."""
        with self.cursor() as cursor:
            cursor.execute("BEGIN TRANSACTION")
            try:
                yield cursor
                self._commit(cursor)
                self._protect_log()
            except BaseException:
                self._roll_back(cursor)
                raise

    def _protect_log(self) -> None:
        """Give DuckDB's log, which it makes for everybody, the mode of the file."""
        if self.path not in ("", MEMORY):
            with suppress(OSError):
                if not Path(self.path).stat().st_mode & 0o077:
                    tighten(Path(self.path + ".wal"))

    def _commit(self, cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.execute("COMMIT")
        except duckdb.Error as error:
            # After a commit that the disk refused, DuckDB 1.4 goes on, and crashes in a later read.
            self._broken = self._broken or not is_conflict(error)
            raise

    def _roll_back(self, cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.execute("ROLLBACK")
        except duckdb.TransactionException:
            pass  # a failed COMMIT has rolled back already
        except duckdb.Error:
            self._broken = True

    def _reconnect(self) -> None:
        """Open the file afresh, without which DuckDB is of no more use after some errors."""
        with _opening:
            if self._broken and self.path not in ("", MEMORY):
                self.connection.close()
                self._refused = self._connect_again()
                self._broken = self._refused is not None  # to be tried again each time
                self._opened_inode = inode_of(self.path)
                self._find_schema()
                self.changes += 1

    def _connect_again(self) -> StoreError | None:
        """Connect; give the error of a full disk, on which DuckDB cannot take up its log, so that it only reads."""
        try:
            with translated(self.path):
                self.connection = connect(self.path, self.read_only, self.encryption_key)
        except StoreError as error:
            if self.read_only or not is_full(error):
                raise
            self.connection = connect(self.path, True, self.encryption_key)
            return error
        return None

    def compact(self) -> None:
        """Rewrite the file without deleted rows; other threads wait, and then read the same rows.

        Raises:
            StoreError: There is no file of its own, or this process has it open elsewhere.
            StoreWriteError: It was opened for reading, or the disk has no room for a second copy; it is as it was.
            StoreLockedError: It was in use for a minute without a break.
        """
        self._check_compactable()
        with self.writing, self._access.closed(_PATIENCE_S), translated(self.path):
            self._refuse_other_connections()
            self._rewrite()

    def _check_compactable(self) -> None:
        if self.path in ("", MEMORY):
            raise StoreError(
                "A store in memory, or on a given connection, has no file to compact. Give it a path."
            )
        if self.read_only:
            raise StoreWriteError(
                f"'{self.path}' was opened with read_only=True. Open it without, to compact it."
            )

    def _rewrite(self) -> None:
        options = [ROW_GROUP]
        if self.encryption_key is not None:
            options.append("ENCRYPTION_KEY '" + self.encryption_key.replace("'", "''") + "'")
        catalog = self.schema.rpartition(".")[0]
        self._broken = True  # until the new file is open
        try:
            rewrite(self.connection, catalog, self.path, ", ".join(options))
        except duckdb.Error as error:
            if self.encryption_key is None:
                raise
            raise without_key(error, self.encryption_key, self.path) from None
        finally:
            self._reconnect()

    def _refuse_other_connections(self) -> None:
        if self.encryption_key is not None:
            return
        count = count_connections(self.connection)
        if count != 1 and (self.lent or count is not None):
            raise StoreError(
                f"This process has further connections to '{self.path}', which would go on writing to the old file. "
                "Close them, and compact again."
            )

    def close(self) -> None:
        """Give up one use; the last one closes the connection, unless the caller owns it."""
        if self.process != os.getpid():
            return  # of a fork: the file, and the connection to it, are the parent's
        lost = self.is_lost  # what the hooks keep would then stand beside the file of another database
        if self.users == 1 and self.path and not lost:
            self._call(self.before_close)
        with _opening:
            self.users -= 1
            if self.users == 0 and self.path:
                if _open.get(self.path) is self:
                    del _open[self.path]
                self.shared.clear()
                self._close_connection()
                self._call([] if lost else self.after_close)

    def _close_connection(self) -> None:
        with translated(self.path), suppress(duckdb.ConnectionException):  # of one that is closed already
            if self.is_lost:  # its checkpoint would delete the log of the file that is there now
                self.connection.execute("PRAGMA disable_checkpoint_on_shutdown")
            self.connection.close()

    def _call(self, hooks: list[Callable[[], None]]) -> None:
        for hook in hooks:
            # What they keep beside the file can be made again; closing goes on without it.
            with suppress(OSError, StoreError, duckdb.Error):
                hook()

    def finish(self) -> None:
        """Do at the end of the process what `close` would have done, for those who did not call it."""
        if self.process == os.getpid() and self.users and self.changes and not self.lent:
            self._call(self.before_close)
            with suppress(StoreError, duckdb.Error):
                with self.cursor() as cursor:
                    cursor.execute(f"CHECKPOINT {self.schema.rpartition('.')[0]}")
                self._call(self.after_close)

    def release_memory(self) -> None:
        """Have DuckDB drop the blocks of its file that it caches.

        DuckDB has no command for it, but keeps to a lower limit at once. The limit is not left low: a batch with long
        texts may need more.
        """
        if self.path == MEMORY:
            return
        limit = settable(self.setting("memory_limit"))
        # What it cannot let go of, such as changes that are not in the file yet, it keeps, with the limit as it was.
        with suppress(duckdb.OutOfMemoryException):
            self.set("memory_limit", "'1MB'")
        self.set("memory_limit", f"'{limit}'")

    def setting(self, name: str) -> str:
        """A setting of DuckDB, in its own words."""
        found = self.connection.execute(f"SELECT current_setting('{name}')").fetchall()
        return str(found[0][0])

    def set(self, name: str, value: str) -> None:
        """Change a setting of DuckDB; `value` is SQL."""
        self.connection.execute(f"SET {name} = {value}")


def inode_of(path: str) -> int | None:
    """Number of a file, by which another one in its place is noticed; None where there is none."""
    try:
        return Path(path).stat().st_ino
    except OSError:
        return None


def stamp_of(path: str) -> list[int] | None:
    """Size and time of a database's file; None where there is none, or a log beside it holds changes."""
    found, log = _stamp(path), _stamp(f"{path}.wal")
    return None if found is None or log is not None else [*found]


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


_opening = threading.RLock()
_open: dict[str, Database] = {}
_live: weakref.WeakSet[Database] = weakref.WeakSet()


def _leave_files_to_the_parent() -> None:
    """In a fork: never release a connection of the parent, not even at the end of the interpreter.

    DuckDB would write the parent's log into the file and delete it, while the parent goes on writing to that log
    (what it commits from then on would be lost with it; no lock keeps a fork away from files that it inherited), and
    then crash, as it waits for threads that the fork does not have. One reference more than there are holders
    prevents both.
    """
    import ctypes  # for CPython's own functions alone

    for database in list(_live):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(database.connection))


in_forked_child(_leave_files_to_the_parent)


def _finish_all() -> None:
    for database in list(_open.values()):
        database.abandon() if database.is_lost else database.finish()


atexit.register(_finish_all)


def open_database(
    path: str | Path,
    *,
    read_only: bool = False,
    encryption_key: str | None = None,
    connection: duckdb.DuckDBPyConnection | None = None,
    shared: Callable[[str, bool, str | None], Database] | None = None,
) -> Database:
    """Open a database, or share the one that this process has open already.

    Args:
        path: A file, made with its folders when missing; ``":memory:"`` is a new database each time.
        read_only: Open so that other processes can read too.
        encryption_key: Key of DuckDB's own encryption; None for a plain file.
        connection: A connection to use instead; it stays the caller's to close.
        shared: `shared.open_shared` where other processes use the file, too.

    Raises:
        StoreLockedError: Another process holds the file.
        StoreCorruptError: The file is no readable DuckDB database.
        StoreWriteError: The folder cannot be written.
        StoreError: It is open in this process in a way that does not go together with this one, or the key
            cannot be used.
    """
    if connection is not None:
        expect("connection", connection, duckdb.DuckDBPyConnection, "what duckdb.connect() gives")
        if shared:
            raise StoreError("A given connection cannot be shared with other processes. Give a path instead.")
        database = Database("", read_only, connection)
        database.users = 1
        return database
    where = MEMORY if str(path) == MEMORY else os.path.realpath(path)
    with _opening:
        known = _open.get(where)
        if known is not None and known.process == os.getpid() and known.is_lost:
            known.abandon()
        database = _open.get(where) or (shared or _opened)(where, read_only, encryption_key)
        _check_shareable(database, read_only, encryption_key, shared is not None)
        database.users += 1
        if where != MEMORY:
            _open[where] = database
    return database


def _opened(where: str, read_only: bool, encryption_key: str | None) -> Database:
    if where != MEMORY:
        prepare_folder(Path(where), read_only)
    with translated(where):
        new = where != MEMORY and not Path(where).exists()
        stamp = stamp_of(where)
        inode = inode_of(where)
        connection = connect(where, read_only, encryption_key)
        if inode not in (None, inode_of(where)):  # another process has compacted it while we were opening it
            connection.close()
            connection = connect(where, read_only, encryption_key)
        if where != MEMORY and not read_only:
            finish_opening(where, new=new)
        return Database(where, read_only, connection, encryption_key, stamp_at_open=stamp)


def finish_opening(where: str, *, new: bool) -> None:
    """Delete what a killed `rewrite` left, and keep a new file from other users; hold the file's lock."""
    with suppress(OSError):
        delete_drafts(where)
    if new:
        tighten(Path(where))


def _check_shareable(database: Database, read_only: bool, encryption_key: str | None, shared: bool) -> None:
    if database.process != os.getpid():
        raise StoreError(
            f"'{database.path}' was opened before this process was forked; close it before forking."
        )
    if database.encryption_key != encryption_key:
        raise StoreError(f"'{database.path}' is open in this process with another encryption_key (or none).")
    if database.shares != shared:
        now, wanted = ("with", "without") if database.shares else ("without", "with")
        raise StoreError(
            f"'{database.path}' is open in this process {now} shared=True and cannot be opened {wanted} it. "
            "Give both the same, or close the other store."
        )
    if database.read_only and not read_only:
        raise StoreError(
            f"'{database.path}' is open in this process with read_only=True; close that store before writing."
        )
