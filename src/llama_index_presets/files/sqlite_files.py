"""SQLite files of this package: one way to open one, for this user alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from llama_index_presets.files.private_files import private_file

__all__ = ["WRITE_AHEAD", "open_sqlite"]

WRITE_AHEAD: Final = "journal_mode=wal"
"""Pragma of a file that stays open: who reads waits for no writer."""


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
            connection.execute(f"pragma {pragma}")
        if schema:
            connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection
