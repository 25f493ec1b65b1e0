"""Table of ingest jobs: uploads that are ingested in the background, with progress that survives a restart.

A job is a row in a SQLite file of the engine's state folder; what it ingests is on the disk before the job is answered
for. `job_queue` runs it.

    queued -> running -> done | failed | cancelled
                 ^
    waiting <----'      another process ingests into the same storage, or the keys cannot be read
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import (
    StoreCorruptError,
    StoreError,
    StoreWriteError,
)
from llama_index_presets.files.private_files import private_folder
from llama_index_presets.files.sqlite_files import WRITE_AHEAD, open_sqlite
from llama_index_presets.serve.callers.key_file import Caller
from llama_index_presets.serve.protocols.problems import Problem

__all__ = ["Job", "Jobs", "Text"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, caller TEXT NOT NULL, status TEXT NOT NULL, total INTEGER NOT NULL, finished INTEGER NOT NULL,
    items TEXT NOT NULL, metadata TEXT NOT NULL, report TEXT NOT NULL, error TEXT NOT NULL, created TEXT NOT NULL,
    updated TEXT NOT NULL
)
"""
_OPEN: Final = ("queued", "running", "waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A document that is given as text.

    Attributes:
        id: Id of the document.
        text: Its text.
        metadata: Its metadata.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """State of an ingest job.

    Attributes:
        id: Its id.
        caller: Who sent it, without secrets.
        status: See the module.
        total: Documents given.
        finished: Documents dealt with.
        items: Paths of uploads, and of texts that wait as files of JSON.
        metadata: Put on every document.
        report: Sums so far, as `IngestReport.to_dict` has them.
        error: Why it failed or waits, or empty.
        created: When it was sent, ISO 8601, UTC.
        updated: When it last changed.
    """

    id: str
    caller: Mapping[str, Any]
    status: str
    total: int
    finished: int
    items: Sequence[str]
    metadata: Mapping[str, Any]
    report: Mapping[str, Any]
    error: str
    created: str
    updated: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values for its sender: no path of the server."""
        return {
            "id": self.id,
            "status": self.status,
            "total": self.total,
            "finished": self.finished,
            "progress": round(self.finished / self.total, 3) if self.total else 1.0,
            "report": dict(self.report),
            "error": self.error or None,
            "created": self.created,
            "updated": self.updated,
        }


class Jobs:
    """Table of an engine's jobs. Thread safe, and safe among processes.

    Args:
        state: Folder for files of the server.

    Raises:
        StoreWriteError: The file cannot be read or written now; as every method.
        StoreCorruptError: It is damaged; as every method.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self._path = state / "jobs.sqlite"
        self._lock = threading.Lock()
        with self._faults():
            private_folder(state)
            self._connection = open_sqlite(self._path, timeout_s=30, schema=_SCHEMA, pragmas=[WRITE_AHEAD])

    def add(
        self, caller: Caller, job_id: str, items: Sequence[str], total: int, metadata: Mapping[str, Any]
    ) -> Job:
        """Record a job whose items are on the disk."""
        now = _now()
        row = (
            job_id, json.dumps(caller.to_dict()), "queued", total, 0, json.dumps(list(items)),
            json.dumps(dict(metadata)), "{}", "", now, now,
        )  # fmt: skip
        with self._change() as connection:
            connection.execute(
                "INSERT INTO jobs (id, caller, status, total, finished, items, metadata, report, error, created, "
                "updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            Problem: 404, there is none.
        """
        found = self._select("WHERE id = ?", [job_id])
        if not found:
            raise Problem(404, "There is no such job.", code="job_not_found")
        return found[0]

    def recent(self, caller: Caller, most: int = 100) -> list[Job]:
        """The newest jobs of a caller, newest first."""
        whose = "WHERE json_extract(caller, '$.name') = ? AND json_extract(caller, '$.tenant') = ?"
        return self._select(
            f"{whose} ORDER BY created DESC, rowid DESC LIMIT ?", [caller.name, caller.tenant, most]
        )

    def unfinished(self) -> list[Job]:
        """Jobs to run, oldest first."""
        marks = ", ".join("?" for _ in _OPEN)
        return self._select(f"WHERE status IN ({marks}) ORDER BY created, rowid", list(_OPEN))

    def update(self, job_id: str, **changes: Any) -> None:
        """Change columns of a job."""
        values = {**changes, "updated": _now()}
        names = ", ".join(f"{name} = ?" for name in values)
        with self._change() as connection:
            connection.execute(
                f"UPDATE jobs SET {names} WHERE id = ?",  # noqa: S608 (names are this module's)
                [json.dumps(value) if isinstance(value, dict) else value for value in values.values()]
                + [job_id],
            )

    def cancel(self, job_id: str) -> None:
        """Stop a job before its next batch."""
        with self._change() as connection:
            connection.execute(
                "UPDATE jobs SET status = 'cancelled', updated = ? WHERE id = ? AND status IN (?, ?, ?)",
                [_now(), job_id, *_OPEN],
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._faults(), self._lock, self._connection:
            yield self._connection

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Errors of SQLite leave as errors of this package."""
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise StoreError(f"The jobs in '{self._path}' are closed ({error}): the server ends.") from error
        except (OSError, sqlite3.OperationalError) as error:
            raise StoreWriteError(
                f"The jobs in '{self._path}' cannot be read or written ({error}); those recorded before are as they "
                "were. Make room on the disk, or fix its rights."
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreCorruptError(
                f"The jobs in '{self._path}' are damaged ({error}). Stop the server, move the file away and start "
                "again; what was uploaded and not ingested is in the folders beside it."
            ) from error

    def _select(self, rest: str, values: Sequence[Any]) -> list[Job]:
        columns = "id, caller, status, total, finished, items, metadata, report, error, created, updated"
        with self._faults(), self._lock:
            rows = self._connection.execute(f"SELECT {columns} FROM jobs {rest}", list(values)).fetchall()  # noqa: S608
        return [
            Job(
                id=row[0], caller=json.loads(row[1]), status=row[2], total=row[3], finished=row[4],
                items=json.loads(row[5]), metadata=json.loads(row[6]), report=json.loads(row[7]), error=row[8],
                created=row[9], updated=row[10],
            )
            for row in rows
        ]  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
