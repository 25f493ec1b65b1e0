"""Which documents an index holds, and from which content: what makes a second run free.

A document is recorded after its chunks are in the store, and forgotten after they left it. So a crash between
the two leaves a document that the next run writes again, under the same chunk ids; never one that is missing.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llama_index_presets.errors import StoreCorruptError, StoreWriteError
from llama_index_presets.private_files import private_file
from llama_index_presets.sealing import Sealer

__all__ = ["Manifest", "ManifestEntry"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    doc_id TEXT PRIMARY KEY, content_hash TEXT NOT NULL, chunks INTEGER NOT NULL, tokens INTEGER NOT NULL,
    ingested_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
)"""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One document of the index; ``tokens`` as the embedding model counts them."""

    doc_id: str
    content_hash: str
    chunks: int
    tokens: int


class Manifest:
    """The documents of one index, in a SQLite file; safe for threads and processes.

    Args:
        path: The file; created when missing.
        sealer: Encrypts ids (often paths, which may name people) and hashes; None keeps them in clear.

    Raises:
        StoreCorruptError: The file is not a manifest.
        StoreWriteError: It cannot be created.
    """

    def __init__(self, path: Path, *, sealer: Sealer | None = None) -> None:
        self._lock = threading.Lock()
        self._hide = sealer.seal_id if sealer else str
        self._show = sealer.open_id if sealer else str
        try:
            with suppress(OSError):  # SQLite says better what is wrong
                private_file(path)
            self._connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(_SCHEMA)
            self._connection.commit()
        except sqlite3.OperationalError as error:
            raise StoreWriteError(
                f"'{path}' cannot be written ({error}). Choose another storage folder."
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreCorruptError(
                f"'{path}' is damaged ({error}). Delete it and ingest again: unchanged chunks keep their ids."
            ) from error

    def hashes(self) -> dict[str, str]:
        """Content hash of every document, by id."""
        with self._lock:
            rows = self._connection.execute("SELECT doc_id, content_hash FROM documents").fetchall()
        return {self._show(doc_id): self._show(content_hash) for doc_id, content_hash in rows}

    def totals(self) -> tuple[int, int]:
        """Number of documents and of chunks."""
        with self._lock:
            row = self._connection.execute(
                "SELECT count(*), coalesce(sum(chunks), 0) FROM documents"
            ).fetchone()
        return int(row[0]), int(row[1])

    def record(self, entries: Iterable[ManifestEntry]) -> None:
        """Remember documents, replacing what was known of them."""
        rows = [
            (self._hide(entry.doc_id), self._hide(entry.content_hash), entry.chunks, entry.tokens)
            for entry in entries
        ]
        with self._lock, self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO documents (doc_id, content_hash, chunks, tokens) VALUES (?, ?, ?, ?)",
                rows,
            )

    def forget(self, doc_ids: Iterable[str]) -> None:
        """Forget documents; unknown ids are fine."""
        with self._lock, self._connection:
            self._connection.executemany(
                "DELETE FROM documents WHERE doc_id = ?", [(self._hide(doc_id),) for doc_id in doc_ids]
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
