"""SQLite files of this package: one way to open one, for this user alone."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from llama_index_presets.errors import StoreLockedError
from llama_index_presets.files.private_files import private_file

__all__ = ["WRITE_AHEAD", "open_sqlite", "rewrite"]

WRITE_AHEAD: Final = "journal_mode=wal"
"""Pragma of a file that stays open: who reads waits for no writer."""

_TURN_S: Final = 60.0
_POLL_S: Final = 0.02


def open_sqlite(
    path: Path, *, timeout_s: float, schema: str = "", pragmas: Sequence[str] = ()
) -> sqlite3.Connection:
    """Open a SQLite file, made with mode 0600 where it is missing; SQLite gives the log beside it the same mode.

    The connection may be used by any thread, by one at a time: the caller holds a lock.

    Args:
        path: The file, in a folder that is there.
        timeout_s: How long to wait while another process writes, in seconds.
        schema: Statements that make the tables where they are missing.
        pragmas: Set first, in this order, such as ``"synchronous=normal"``.

    Raises:
        OSError: The file cannot be made.
        sqlite3.OperationalError: It cannot be opened or written now.
        sqlite3.DatabaseError: It is no SQLite file, or damaged.

    Example:
        >>> import tempfile
        >>> connection = open_sqlite(Path(tempfile.mkdtemp()) / "notes.sqlite", timeout_s=5, pragmas=[WRITE_AHEAD])
        >>> connection.execute("pragma journal_mode").fetchone()
        ('wal',)
    """
    private_file(path)
    connection = sqlite3.connect(path, timeout=timeout_s, check_same_thread=False)
    try:
        for pragma in pragmas:
            _set(connection, pragma, time.monotonic() + timeout_s)
        if schema:
            connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection


def _set(connection: sqlite3.Connection, pragma: str, until: float) -> None:
    """Set a pragma. SQLite does not wait for a connection that changes the journal mode of a new file as well."""
    while True:
        try:
            connection.execute(f"pragma {pragma}")
            return
        except sqlite3.OperationalError as error:
            if not _is_locked(error) or time.monotonic() >= until:
                raise
        time.sleep(_POLL_S)


def _is_locked(error: sqlite3.Error) -> bool:
    """Whether an error of SQLite says that another connection was in the way."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def rewrite(
    path: Path,
    connected: Callable[[], AbstractContextManager[sqlite3.Connection]],
    *,
    what: str,
    delete: str = "",
    patience_s: float = _TURN_S,
) -> int:
    """Write a file afresh and empty its log, so that no deleted row is left on the disk.

    Other processes may go on using the file: each step is tried until they let it through. SQLite itself waits for
    writers and readers, and not for another connection that moves the log into the file, as each does now and then.

    Args:
        path: The file, for messages.
        connected: Lends the connection, outside a transaction, for one try; other threads have it in between.
        what: What the file is, for messages.
        delete: A statement to begin with, such as ``"delete from rows"``.
        patience_s: Seconds to try for, at least once a step.

    Returns:
        Rows that `delete` removed.

    Raises:
        StoreLockedError: Others used the file all the time; what was deleted may still be in its log.
        sqlite3.Error: Anything else.
    """
    until, removed = time.monotonic() + patience_s, 0
    for statement in (*((delete,) if delete else ()), "vacuum", "pragma wal_checkpoint(truncate)"):
        while (count := _tried(connected, statement)) is None:
            if time.monotonic() >= until:
                raise StoreLockedError(
                    f"Other processes used the {what} '{path}' for {patience_s:g} s without a break: what was deleted "
                    "may still be readable in the file or its log. Stop what uses the storage, such as llama-presets "
                    "serve, or wait until it is idle, and do the same again."
                )
            time.sleep(_POLL_S)
        if statement == delete:
            removed = count
    return removed


def _tried(connected: Callable[[], AbstractContextManager[sqlite3.Connection]], statement: str) -> int | None:
    """Rows that a statement changed; None where another connection was in the way."""
    try:
        with connected() as connection, connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone()
    except sqlite3.OperationalError as error:
        if _is_locked(error):
            return None
        raise
    busy = statement.startswith("pragma") and row[0]
    return None if busy else cursor.rowcount
