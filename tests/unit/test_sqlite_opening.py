"""Opening a SQLite file that another process has just made."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from llama_index_presets.files.sqlite_files import WRITE_AHEAD, open_sqlite


def test_the_journal_mode_waits_for_another_connection(tmp_path: Path) -> None:
    """SQLite itself waits for no one there; past the timeout its error is raised."""
    path = tmp_path / "new.sqlite"
    holder = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    holder.execute("create table one (a)")
    holder.execute("begin exclusive")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_sqlite(path, timeout_s=0.05, pragmas=[WRITE_AHEAD])
    release = threading.Timer(0.2, holder.execute, ["commit"])
    release.start()
    connection = open_sqlite(path, timeout_s=30, pragmas=[WRITE_AHEAD])
    release.join()
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    connection.close()
    holder.close()
