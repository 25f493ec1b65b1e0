"""Embedding cache: one SQLite file keyed by a content hash, shared by threads and processes.

The file holds hashes and vectors, never a text. A hash can still be guessed by someone who has the file and a
list of likely texts, and a vector tells something of its text: keep the folder as private as the documents, and
give a `hash_key` where that matters.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from llama_index_presets._options import expect, expect_each, strict
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError, StoreWriteError
from llama_index_presets.files.disk_faults import is_full
from llama_index_presets.files.private_files import private_folder
from llama_index_presets.files.sqlite_files import WRITE_AHEAD, open_sqlite, rewrite

__all__ = ["EmbeddingCache", "Role"]

Role = Literal["query", "passage", "image"]
"""What was embedded: many models embed a question otherwise than a passage."""

_PAGE: Final = 8_192  # bytes; holds five MiniLM vectors or one of 1,536 numbers without waste
_KEYS_A_QUERY: Final = 500
_KEYS: Final = "a list of keys of EmbeddingCache.keys()"
_MOST_TOUCHED: Final = 20_000
_LOCK_TIMEOUT_S: Final = 60
_log = logging.getLogger(__name__)


@strict()
class EmbeddingCache:
    """A bounded store of float32 vectors by content; the least recently used go first when it is full.

    Safe for threads, for processes on one machine, and after a kill. A damaged file is set aside and a new one is
    begun; a damaged vector is computed again. Both are logged as warnings.

    Args:
        folder: Where the file lies; made, for this user alone, when missing.
        max_bytes: Largest size of the file, in bytes; 4 GiB hold about 2.5 million MiniLM vectors.
        hash_key: Secret for the hashes, so that they cannot be guessed from likely texts; the same one is needed to
            find them again.

    Raises:
        SettingsError: `max_bytes` is below 1 MiB.
        StoreWriteError: At first use: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> cache = EmbeddingCache(tempfile.mkdtemp())
        >>> [key] = cache.keys("my-model", "passage", ["a text"])
        >>> cache.put_many({key: [0.5, 0.25]})
        >>> cache.get_many([key])[key].tolist()
        [0.5, 0.25]
    """

    _process: int
    _lock: threading.RLock
    _connection: sqlite3.Connection | None
    _touched: set[int]

    def __init__(
        self, folder: str | Path, *, max_bytes: int = 4 * 2**30, hash_key: bytes | None = None
    ) -> None:
        if max_bytes < 2**20:
            raise SettingsError(f"max_bytes is {max_bytes:,}; a cache needs at least 1 MiB ({2**20:,}).")
        self.folder = Path(folder).expanduser()
        self.max_bytes = max_bytes
        self._hash_key = hash_key
        self._begin()

    def __repr__(self) -> str:
        return f"EmbeddingCache({str(self.folder)!r}, max_bytes={self.max_bytes})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._hash_key is not None:
            raise SettingsError(
                "An embedding cache with a hash_key cannot be pickled: the key would be written in clear. Pickle its "
                "folder, and open the cache with the key where it is used."
            )
        return EmbeddingCache, (self.folder,), {"max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what the constructor was not given when a pickle was opened."""
        self.max_bytes = state["max_bytes"]

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "embeddings.sqlite"

    # -- keys -----------------------------------------------------------------------------------------------------

    def keys(self, identity: str, role: Role, contents: Sequence[str | bytes]) -> list[bytes]:
        """Cache keys of contents, each hashed with model and role.

        Args:
            identity: All that decides the vector of a content: model, version, precision; see `vector_identity`.
            role: Whether they are queries, passages or images.
            contents: Texts, or the bytes of image files.

        Returns:
            One SHA-256 (HMAC where there is a `hash_key`) a content, 32 bytes each.
        """
        expect("identity", identity, str, "a text")
        contents = expect_each(
            "contents", contents, (str, bytes), "a list of texts or of the bytes of images"
        )
        prefix = f"{len(identity)}:{identity}{role}:".encode()
        start = hmac.new(self._hash_key, prefix, hashlib.sha256) if self._hash_key else hashlib.sha256(prefix)
        found = []
        for content in contents:
            hasher = start.copy()
            hasher.update(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
            found.append(hasher.digest())
        return found

    # -- read -----------------------------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Cached vectors: key -> float32 array of shape (dim,), read-only."""
        keys = expect_each("keys", keys, bytes, _KEYS)
        found: dict[bytes, np.ndarray] = {}
        damaged: list[int] = []
        for number, key, check, blob in self._rows("id, key, crc, vector", keys):
            if zlib.crc32(blob, zlib.crc32(key)) == check:
                found[key] = np.frombuffer(blob, dtype="<f4")
                self._touched.add(number)
            else:
                damaged.append(number)
        if damaged:
            self._drop(damaged)
        if len(self._touched) > _MOST_TOUCHED:
            self._note_use()
        return found

    def contains_many(self, keys: Sequence[bytes]) -> set[bytes]:
        """Keys that are cached, without reading their vectors."""
        return {key for (key,) in self._rows("key", expect_each("keys", keys, bytes, _KEYS))}

    def _rows(self, columns: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(keys), _KEYS_A_QUERY):
            chunk = keys[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(chunk))
            sql = f"SELECT {columns} FROM vectors WHERE key IN ({marks})"  # noqa: S608 (constants and marks)
            try:
                found = self._run(sql, chunk)
            except StoreWriteError as error:
                if not is_full(error):
                    raise
                # SQLite needs a little room to read, too; a vector that is not found is only made once more.
                _log.warning("The embedding cache is not asked: %s", error)
                return
            yield from found

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._connected() as connection, connection:
                return connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            raise StoreWriteError(f"The embedding cache '{self.path}' cannot be used ({error}).") from error
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            return []

    # -- write ----------------------------------------------------------------------------------------------------

    def put_many(self, vectors: Mapping[bytes, Sequence[float] | np.ndarray]) -> None:
        """Store vectors as float32, durable on return. A full disk is logged, not raised."""
        expect("vectors", vectors, Mapping, "a mapping of vectors by the keys of EmbeddingCache.keys()")
        expect_each("vectors", vectors, bytes, "a mapping of vectors by the keys of EmbeddingCache.keys()")
        now = time.time_ns()
        rows = []
        for key, vector in vectors.items():
            blob = np.asarray(vector, dtype="<f4").tobytes()
            rows.append((key, now, zlib.crc32(blob, zlib.crc32(key)), blob))
        sql = "INSERT OR REPLACE INTO vectors (key, used, crc, vector) VALUES (?, ?, ?, ?)"
        try:
            with self._connected() as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(sql, rows)
                self._write_touched(connection, now)
                self._make_room(connection)
        except (StoreWriteError, sqlite3.OperationalError) as error:
            if isinstance(error, StoreWriteError) and not is_full(error):
                raise
            # The vectors are in the caller's hands: losing them to a full disk would cost more than a later miss.
            _log.warning("The embedding cache '%s' kept nothing of this batch: %s", self.path, error)
        except sqlite3.DatabaseError as error:
            self._set_aside(error)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Delete the least recently used tenth when the file's pages in use exceed the limit."""
        while _bytes_in_use(connection) > self.max_bytes:
            (rows,) = connection.execute("SELECT count(*) FROM vectors").fetchone()
            if not rows:
                return
            connection.execute(
                "DELETE FROM vectors WHERE id IN (SELECT id FROM vectors ORDER BY used, id LIMIT ?)",
                (max(rows // 10, 1),),
            )

    def _note_use(self) -> None:
        with self._connected() as connection, connection:
            self._write_touched(connection, time.time_ns())

    def _write_touched(self, connection: sqlite3.Connection, now: int) -> None:
        """Write the times of last use: seldom and in batches, so that a hit is only a read."""
        touched, self._touched = self._touched, set()
        connection.executemany("UPDATE vectors SET used = ? WHERE id = ?", [(now, row) for row in touched])

    def _drop(self, numbers: list[int]) -> None:
        _log.warning(
            "%s damaged in the embedding cache '%s'.", counted(len(numbers), "vector", "were"), self.path
        )
        with self._connected() as connection, connection:
            connection.executemany("DELETE FROM vectors WHERE id = ?", [(number,) for number in numbers])

    # -- the whole ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        rows = self._run("SELECT count(*) FROM vectors")
        return int(rows[0][0]) if rows else 0

    @property
    def size_bytes(self) -> int:
        """Pages of the file that are in use, in bytes."""
        with self._connected() as connection:
            return _bytes_in_use(connection)

    def clear(self) -> None:
        """Delete every vector."""
        self._run("DELETE FROM vectors")

    def compact(self) -> None:
        """Delete every vector and overwrite the file, a damaged copy that was set aside included.

        Raises:
            StoreLockedError: Other processes used it for a minute without a break.
            StoreWriteError: The file cannot be written.
        """
        self.clear()  # sets a damaged file aside
        try:
            rewrite(self.path, self._connected, what="embedding cache", delete="DELETE FROM vectors")
        except sqlite3.Error as error:
            raise StoreWriteError(
                f"The embedding cache '{self.path}' cannot be compacted ({error})."
            ) from error
        for damaged in self.folder.glob("damaged.sqlite*"):
            damaged.unlink(missing_ok=True)

    def close(self) -> None:
        """Write the times of last use and close the file; the next use opens it again."""
        if self._connection is None or self._process != os.getpid():
            return
        try:
            self._note_use()
        except (sqlite3.Error, StoreWriteError) as error:
            _log.warning("The embedding cache '%s' could not note what was used (%s).", self.path, error)
        with self._lock:
            self._connection.close()
            self._connection = None

    # -- connection -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._connection = None
        self._touched = set()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if self._process != os.getpid():  # a connection must not cross a fork
            self._begin()
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
            yield self._connection

    def _open(self) -> sqlite3.Connection:
        try:
            private_folder(self.folder)
            return self._open_file()
        except (sqlite3.OperationalError, OSError) as error:
            step = "The disk is full: make room" if is_full(error) else "Choose another folder"
            raise StoreWriteError(
                f"The embedding cache '{self.path}' cannot be written ({error}). {step}."
            ) from error
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            return self._open_file()

    def _open_file(self) -> sqlite3.Connection:
        return open_sqlite(self.path, timeout_s=_LOCK_TIMEOUT_S, schema=_SCHEMA, pragmas=_PRAGMAS)

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Begin a new file; the damaged one is renamed, so that another process that holds it is not disturbed."""
        _log.warning("The embedding cache '%s' is damaged (%s); a new one is begun.", self.path, error)
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            for suffix in ("", "-wal", "-shm"):
                damaged = self.path.with_name(self.path.name + suffix)
                if damaged.exists():
                    damaged.replace(self.path.with_name("damaged.sqlite" + suffix))


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, crc INTEGER NOT NULL, vector BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON vectors (used);
"""
# A crash of the machine may lose the last batch, no more.
_PRAGMAS: Final = (f"page_size={_PAGE}", WRITE_AHEAD, "synchronous=normal")


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
