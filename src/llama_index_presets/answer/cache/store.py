"""File of cached answers: one SQLite file, bounded in size and age, shared by threads and processes.

It holds answers and passages: it is made for its owner alone (0600), sealed where the storage is encrypted, and emptied
by `compact`, as deleted text must leave the disk. Whatever cannot be read is no hit.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from llama_index_presets.errors import EncryptionError, StoreError, StoreWriteError
from llama_index_presets.files.encryption import Encryptor
from llama_index_presets.files.private_files import private_folder
from llama_index_presets.files.sqlite_files import WRITE_AHEAD, open_sqlite, rewrite

__all__ = ["ANSWERS_FILE", "AnswerCache", "SentenceCache"]

ANSWERS_FILE: Final = "answers.sqlite"
_PATIENCE_S: Final = 5.0  # an answer waits for no cache
_log = logging.getLogger(__name__)
_SCHEMA: Final = """
create table if not exists answers (
  key blob primary key, made integer not null, used integer not null, crc integer not null, size integer not null,
  entry blob not null
);
create index if not exists by_use on answers (used);
"""
# A crash of the machine may lose the last answers, no more.
_PRAGMAS: Final = (WRITE_AHEAD, "synchronous=normal", "secure_delete=on")


class AnswerCache:
    """Answers by key; the least recently used go first when it is full.

    Safe for threads, for processes on one machine, for forks, and after a kill: an entry is there whole or not at all.
    Reading and writing never raise: a file that cannot be used is a miss, and is logged, without a word of a question.

    Args:
        path: The file; made, for this user alone, with the first answer.
        max_bytes: Largest sum of the entries, in bytes, > 0.
        max_age_s: Seconds after which an entry is none, > 0.
        sealer: Encrypts entries and hashes keys; None keeps entries in clear.

    Attributes:
        logs: Options of the model that only grow as it is asked, such as a list of past prompts: they decide no answer.

    Example:
        >>> import tempfile
        >>> cache = AnswerCache(Path(tempfile.mkdtemp()) / "answers.sqlite", max_bytes=10_000, max_age_s=60)
        >>> key = cache.key("scope", "question")
        >>> cache.put(key, {"text": "Yes."})
        >>> cache.get(key), cache.clear(), cache.get(key)
        ({'text': 'Yes.'}, 1, None)
    """

    what: ClassVar[str] = "answer cache"

    def __init__(
        self, path: Path, *, max_bytes: int, max_age_s: float, sealer: Encryptor | None = None
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.max_age_s = max_age_s
        self.logs: set[str] = set()
        self._sealer = sealer
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def key(self, *parts: str) -> bytes:
        """Key of an entry: SHA-256 over all parts, keyed where the storage is encrypted."""
        data = json.dumps(parts).encode("utf-8", "surrogatepass")
        if self._sealer is not None:
            return hmac.digest(self._sealer.hash_key, data, "sha256")
        return hashlib.sha256(data).digest()

    def get(self, key: bytes) -> dict[str, Any] | None:
        """Entry under a key; None where it is missing, too old, damaged, or later than the clock."""
        if not self.path.exists():
            return None
        try:
            with self._connected() as connection:
                row = connection.execute(
                    "select made, crc, entry from answers where key = ?", (key,)
                ).fetchone()
                if row is None:
                    return None
                made, crc, blob = row
                # After the row, which another thread may have written while this one waited.
                now = time.time_ns()
                entry = self._read(key, made, crc, blob, now)
                with connection:
                    if entry is None:
                        connection.execute("delete from answers where key = ?", (key,))
                    else:
                        connection.execute("update answers set used = ? where key = ?", (now, key))
                return entry
        except (OSError, sqlite3.Error) as error:
            self._report(error)
            return None

    def _read(self, key: bytes, made: object, crc: object, blob: object, now: int) -> dict[str, Any] | None:
        if not (isinstance(blob, bytes) and isinstance(made, int) and isinstance(crc, int)):
            return None  # SQLite takes any value in any column
        if not 0 <= now - made <= self.max_age_s * 1e9:
            return None
        if zlib.crc32(blob, zlib.crc32(key)) != crc:
            return None
        try:
            data = self._sealer.open(blob.decode(), place=key.hex()) if self._sealer else blob
            entry = json.loads(data)
        except (EncryptionError, ValueError):
            return None
        return entry if isinstance(entry, dict) else None

    def put(self, key: bytes, entry: dict[str, Any]) -> None:
        """Keep an entry of JSON values in place of the one under its key; one that is too large is not kept."""
        now = time.time_ns()
        data = json.dumps(entry, ensure_ascii=False).encode("utf-8", "surrogatepass")
        blob = self._sealer.seal(data, place=key.hex()).encode() if self._sealer else data
        if len(blob) > self.max_bytes:
            return
        row = (key, now, now, zlib.crc32(blob, zlib.crc32(key)), len(blob), blob)
        try:
            with self._connected() as connection, connection:
                connection.execute("begin immediate")
                connection.execute(
                    "insert or replace into answers (key, made, used, crc, size, entry) values (?, ?, ?, ?, ?, ?)",
                    row,
                )
                self._make_room(connection, now)
        except (OSError, sqlite3.Error) as error:
            self._report(error)

    def _make_room(self, connection: sqlite3.Connection, now: int) -> None:
        """Delete what is too old, then the least recently used until the rest fits."""
        connection.execute("delete from answers where made < ?", (now - self.max_age_s * 1e9,))
        total = connection.execute("select coalesce(sum(size + 0), 0) from answers").fetchone()[0]
        if total <= self.max_bytes:
            return
        for key, size in connection.execute("select key, size + 0 from answers order by used").fetchall():
            connection.execute("delete from answers where key = ?", (key,))
            total -= size
            if total <= self.max_bytes:
                return

    def __len__(self) -> int:
        if not self.path.exists():
            return 0
        try:
            with self._connected() as connection:
                return int(connection.execute("select count(*) from answers").fetchone()[0])
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The {self.what} '{self.path}' cannot be read ({error}). Remove the file; answers are cached anew."
            ) from error

    def clear(self) -> int:
        """Delete every answer and overwrite the file, also while others use it; gives how many there were.

        Raises:
            StoreWriteError: The file cannot be written.
            StoreLockedError: Other processes used it for a minute without a break.
        """
        if not self.path.exists():
            return 0
        try:
            return rewrite(self.path, self._connected, what=self.what, delete="delete from answers")
        except (OSError, sqlite3.Error) as error:
            if not _is_damage(error) or not self._set_aside():
                raise StoreWriteError(
                    f"The {self.what} '{self.path}' cannot be emptied ({error}). Remove the file."
                ) from error
            return 0

    compact = clear

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if self._process != os.getpid():  # a connection must not cross a fork
            self._begin()
        with self._lock:
            if self._connection is not None and self._file != _identity(self.path):
                self.close()  # somebody removed the file, or put another one in its place
            if self._connection is None:
                private_folder(self.path.parent)
                self._connection = open_sqlite(
                    self.path, timeout_s=_PATIENCE_S, schema=_SCHEMA, pragmas=_PRAGMAS
                )
                self._file = _identity(self.path)
            yield self._connection

    def _report(self, error: Exception) -> None:
        _log.warning("The %s '%s' is not used: %s", self.what, self.path, error)
        if _is_damage(error):
            self._set_aside()

    def _set_aside(self) -> bool:
        """Remove a damaged file, which held nothing that is not elsewhere; whether that could be done."""
        with self._lock:
            try:
                self.close()
                for suffix in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            except (OSError, sqlite3.Error) as error:
                _log.warning("The damaged %s '%s' cannot be removed: %s", self.what, self.path, error)
                return False
            return True


def _is_damage(error: Exception) -> bool:
    """Whether a file is no database, rather than one that cannot be used now."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class SentenceCache(AnswerCache):
    """The same file for context sentences, by document, chunk, model and prompt."""

    what: ClassVar[str] = "cache of context sentences"
