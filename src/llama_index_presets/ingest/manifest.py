"""Manifest of an index: its documents and their content hashes, so that a second run skips unchanged ones.

The manifest is a write-ahead log of the store: which documents are about to change is written down before the store
changes, and what became of them after it did. So a crash between the two leaves documents that are known to be unsure.
The next run writes each of them again, under the same chunk ids, or takes it out of the store.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index_presets.errors import StoreCorruptError, StoreError, StoreWriteError
from llama_index_presets.files.disk_faults import is_full
from llama_index_presets.files.encryption import Encryptor
from llama_index_presets.files.sqlite_files import WRITE_AHEAD, open_sqlite, rewrite

__all__ = ["Manifest", "ManifestEntry"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    doc_id TEXT PRIMARY KEY, content_hash TEXT NOT NULL, chunks INTEGER NOT NULL, tokens INTEGER NOT NULL,
    ingested_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, owner TEXT, language TEXT,
    reader_version INTEGER
);
CREATE TABLE IF NOT EXISTS changes (doc_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS removals (doc_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS permissions (doc_id TEXT PRIMARY KEY, allowed TEXT NOT NULL, pending INTEGER NOT NULL);
"""
"""``changes`` holds what is about to change, ``removals`` what of it is to leave; ``permissions`` what was set by hand,
``pending`` until it is stored."""

_ADDED_LATER = {"owner": "TEXT", "language": "TEXT", "reader_version": "INTEGER"}
"""Columns that manifests of earlier releases lack; NULL where they were never recorded."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """Manifest entry: one document of the index.

    Attributes:
        doc_id: Its id.
        content_hash: Of the input that its chunks come from.
        chunks: How many it has.
        tokens: Of all chunks, as the embedding model counts them.
        owner: Metadata keys and values that say whose it is; empty where it has no owner.
        language: ISO 639-1 code of its text; empty where that is not known.
        reader_version: Of the reader of its file: see `ReaderEntry`.
    """

    doc_id: str
    content_hash: str
    chunks: int
    tokens: int
    owner: Mapping[str, Any] = field(default_factory=dict)
    language: str = ""
    reader_version: int = 0


class Manifest:
    """Manifest of one index, in a SQLite file; safe for threads and processes.

    Args:
        path: The file; created when missing.
        sealer: Encrypts ids (often paths, which may name people) and hashes; None keeps them in clear.

    Raises:
        StoreCorruptError: The file is not a manifest.
        StoreWriteError: It cannot be created.
    """

    def __init__(self, path: Path, *, sealer: Encryptor | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._hide = sealer.seal_id if sealer else str
        self._show = sealer.open_id if sealer else str
        try:
            self._connection = open_sqlite(path, timeout_s=30, schema=_SCHEMA, pragmas=[WRITE_AHEAD])
            self._add_columns()
        except (OSError, sqlite3.OperationalError) as error:
            step = "Make room on its disk" if is_full(error) else "Choose another storage folder"
            raise StoreWriteError(f"'{path}' cannot be written ({error}). {step}.") from error
        except sqlite3.DatabaseError as error:
            raise _damaged(path, error) from error

    def _add_columns(self) -> None:
        """Add the columns that manifests of earlier releases lack; two processes may do so at once."""
        if not self._missing_columns():
            return
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for name in self._missing_columns():
                self._connection.execute(f"ALTER TABLE documents ADD COLUMN {name} {_ADDED_LATER[name]}")

    def _missing_columns(self) -> list[str]:
        there = {row[1] for row in self._connection.execute("PRAGMA table_info(documents)")}
        return [name for name in _ADDED_LATER if name not in there]

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Hold the file for one thread; errors of SQLite leave as errors of this package.

        Raises:
            StoreWriteError: The disk is full, or the file cannot be read or written now.
            StoreCorruptError: It is damaged.
        """
        try:
            with self._lock:
                yield
        except sqlite3.ProgrammingError as error:
            raise StoreError(f"'{self._path}' is closed ({error}). Build the engine again.") from error
        except sqlite3.OperationalError as error:
            raise StoreWriteError(
                f"'{self._path}' cannot be read or written ({error}); what was recorded before is as it was. Free "
                "space or fix the disk, then ingest again."
            ) from error
        except sqlite3.DatabaseError as error:
            raise _damaged(self._path, error) from error

    def hashes(self) -> dict[str, str]:
        """Content hash of every document, by id; empty where a change of the document did not finish, or it is to be
        read again."""
        rows = self._rows(
            "SELECT doc_id, CASE WHEN c.doc_id IS NULL THEN content_hash END "
            "FROM documents LEFT JOIN changes c USING (doc_id)"
        )
        return {self._show(doc_id): self._show(digest) if digest else "" for doc_id, digest in rows}

    def entries(self) -> list[tuple[str, int, int, str]]:
        """Id, chunks, tokens and time of ingestion (UTC, ``YYYY-MM-DD HH:MM:SS``) of every document, by id."""
        rows = self._rows("SELECT doc_id, chunks, tokens, ingested_at FROM documents")
        return sorted(
            (self._show(doc_id), int(chunks), int(tokens), str(at)) for doc_id, chunks, tokens, at in rows
        )

    def owners(self) -> dict[str, dict[str, Any]]:
        """Owner of every document by id, see `ManifestEntry`; those that an earlier release wrote are left out."""
        rows = self._rows("SELECT doc_id, owner FROM documents WHERE owner IS NOT NULL")
        return {self._show(doc_id): json.loads(self._show(owner)) for doc_id, owner in rows}

    def outdated(self, versions: Mapping[str, int]) -> list[str]:
        """Of these documents, those that an older version of their reader has read.

        Args:
            versions: Document -> version of the reader that would read it now.
        """
        newest = max(versions.values(), default=0)
        with self._using():
            rows = self._connection.execute(
                "SELECT doc_id, coalesce(reader_version, 0) FROM documents WHERE coalesce(reader_version, 0) < ?",
                [newest],
            ).fetchall()
        read_by = {self._show(doc_id): int(version) for doc_id, version in rows}
        return [
            doc_id for doc_id, version in versions.items() if doc_id in read_by and read_by[doc_id] < version
        ]

    def languages(self) -> dict[str, list[str]]:
        """Language -> ids of its documents; those that an earlier release wrote, or that do not tell, are left out."""
        rows = self._rows(
            "SELECT language, doc_id FROM documents WHERE language IS NOT NULL AND language != '' ORDER BY doc_id"
        )
        found: dict[str, list[str]] = {}
        for language, doc_id in rows:
            found.setdefault(language, []).append(self._show(doc_id))
        return found

    def other_languages(self, known: Iterable[str]) -> list[str]:
        """Languages of its documents beside these; fast, as no ids are read."""
        rows = self._rows(
            "SELECT DISTINCT language FROM documents WHERE language IS NOT NULL AND language != ''"
        )
        return sorted({language for (language,) in rows} - set(known))

    def version(self) -> tuple[int, int]:
        """Mark that differs after every change, by this process or another."""
        with self._using():
            row = self._connection.execute("PRAGMA data_version").fetchone()
            return int(row[0]), self._connection.total_changes

    def state(self) -> str | None:
        """Mark of the documents that differs after every change, by whichever process, and outlives them; None while a
        change is under way, or was when a process died.

        It is drawn at random with each change, so that a manifest that is made again has another. A release that does
        not draw one changes the last row.
        """
        rows = self._rows(
            "SELECT (SELECT count(*) FROM changes) + (SELECT count(*) FROM permissions WHERE pending), count(*), "
            "coalesce(max(rowid), 0), (SELECT user_version FROM pragma_user_version) FROM documents"
        )
        open_changes, count, last, drawn = rows[0]
        return None if open_changes else f"{drawn}/{count}/{last}"

    def leftovers(self) -> list[str]:
        """Documents that may have chunks in the store and are not in the index.

        Their first ingest, or their removal, did not come to its end.
        """
        rows = self._rows(
            "SELECT doc_id FROM changes WHERE doc_id NOT IN (SELECT doc_id FROM documents) ORDER BY rowid"
        )
        return [self._show(doc_id) for (doc_id,) in rows]

    def unfinished(self) -> list[str]:
        """Documents whose ingest is under way or did not finish: new ones and changed ones."""
        rows = self._rows(
            "SELECT doc_id FROM changes WHERE doc_id NOT IN (SELECT doc_id FROM removals) ORDER BY rowid"
        )
        return [self._show(doc_id) for (doc_id,) in rows]

    def removals(self) -> list[str]:
        """Of the `leftovers`, those whose removal did not come to its end."""
        rows = self._rows("SELECT doc_id FROM removals ORDER BY rowid")
        return [self._show(doc_id) for (doc_id,) in rows]

    def totals(self) -> tuple[int, int]:
        """Number of documents and of chunks."""
        with self._using():
            row = self._connection.execute(
                "SELECT count(*), coalesce(sum(chunks), 0) FROM documents"
            ).fetchone()
        return int(row[0]), int(row[1])

    def settled_totals(self) -> tuple[int, int]:
        """Number of documents and of chunks that the store holds, whoever changes it now.

        Documents are left out whose change is under way, or did not come to its end: the next ingest sees to them.
        """
        with self._using():
            row = self._connection.execute(
                "SELECT count(*), coalesce(sum(chunks), 0) FROM documents "
                "WHERE doc_id NOT IN (SELECT doc_id FROM changes)"
            ).fetchone()
        return int(row[0]), int(row[1])

    def begin(self, doc_ids: Iterable[str]) -> None:
        """Log the intent to write these documents to the store; `record` ends it."""
        with self._changing():
            self._mark(self._ids(doc_ids))

    def begin_again(self, doc_ids: Iterable[str]) -> None:
        """Note that these documents are to be read again; `record` ends it for each, also in a later run."""
        with self._changing():
            self._connection.executemany(
                "UPDATE documents SET content_hash = '' WHERE doc_id = ?", self._ids(doc_ids)
            )

    def begin_removal(self, doc_ids: Iterable[str]) -> None:
        """Log the intent to remove these documents from the store; `forget` ends it."""
        ids = self._ids(doc_ids)
        with self._changing():
            self._mark(ids)
            self._connection.executemany("INSERT OR IGNORE INTO removals (doc_id) VALUES (?)", ids)
            self._connection.executemany("DELETE FROM documents WHERE doc_id = ?", ids)
            self._connection.executemany("DELETE FROM permissions WHERE doc_id = ?", ids)

    def record(self, entries: Iterable[ManifestEntry]) -> None:
        """Record documents that are in the store, replacing earlier entries."""
        rows = [
            (
                self._hide(one.doc_id),
                self._hide(one.content_hash),
                one.chunks,
                one.tokens,
                self._owner(one),
                one.language,
                one.reader_version,
            )
            for one in entries
        ]
        with self._changing():
            self._connection.executemany(
                "INSERT OR REPLACE INTO documents "
                "(doc_id, content_hash, chunks, tokens, owner, language, reader_version) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._unmark([(row[0],) for row in rows])

    def forget(self, doc_ids: Iterable[str]) -> None:
        """Delete the entries of documents that left the store; unknown ids are fine."""
        ids = self._ids(doc_ids)
        with self._changing():
            self._connection.executemany("DELETE FROM documents WHERE doc_id = ?", ids)
            self._unmark(ids)

    def begin_permissions(self, allowed: Mapping[str, Sequence[str]]) -> None:
        """Record who may see these documents from now on, before the store is changed; `end_permissions` ends it."""
        rows = [
            (self._hide(doc_id), self._hide(json.dumps(list(names)))) for doc_id, names in allowed.items()
        ]
        with self._changing():
            self._connection.executemany(
                "INSERT OR REPLACE INTO permissions (doc_id, allowed, pending) VALUES (?, ?, 1)", rows
            )

    def end_permissions(self, doc_ids: Iterable[str]) -> None:
        """Record that the store has the permissions of these documents."""
        with self._changing():
            self._connection.executemany(
                "UPDATE permissions SET pending = 0 WHERE doc_id = ?", self._ids(doc_ids)
            )

    def forget_permissions(self, doc_ids: Iterable[str]) -> None:
        """Let the documents themselves say again who may see them; unknown ids are fine."""
        with self._changing():
            self._connection.executemany(
                "DELETE FROM permissions WHERE doc_id = ? AND pending = 0", self._ids(doc_ids)
            )

    def permissions(self) -> dict[str, list[str]]:
        """Names set by hand, by document."""
        rows = self._rows("SELECT doc_id, allowed FROM permissions")
        return {self._show(doc_id): json.loads(self._show(allowed)) for doc_id, allowed in rows}

    def pending_permissions(self) -> frozenset[str]:
        """Documents whose permissions are being changed, or were when a process died: nobody may see them."""
        rows = self._rows("SELECT doc_id FROM permissions WHERE pending")
        return frozenset(self._show(doc_id) for (doc_id,) in rows)

    def compact(self) -> None:
        """Rewrite the file, so that nothing of deleted entries is left in it or its log.

        Raises:
            StoreLockedError: Other processes used it for a minute without a break.
            StoreWriteError: The disk is full, or cannot be written; the file is as it was.
        """
        try:
            rewrite(self._path, self._locked_connection, what="manifest")
        except sqlite3.OperationalError as error:
            step = "Make room on its disk" if is_full(error) else "Fix the disk, or its rights"
            raise StoreWriteError(
                f"The manifest '{self._path}' cannot be compacted ({error}). {step}, and run it again."
            ) from error

    @contextmanager
    def _locked_connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            yield self._connection

    def close(self) -> None:
        """Close the file."""
        with self._using():
            self._connection.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One transaction.

        Raises:
            StoreWriteError: The disk is full or failed; the manifest is as it was.
        """
        with self._using():
            try:
                with self._connection:
                    yield
                    self._connection.execute(f"PRAGMA user_version = {secrets.randbelow(2**31 - 1) + 1}")
            except sqlite3.OperationalError as error:
                step = "Make room on its disk" if is_full(error) else "Check the folder"
                raise StoreWriteError(
                    f"The manifest '{self._path}' cannot be written ({error}) and is as it was. {step}, then run it "
                    "again: what is in the index already costs nothing."
                ) from error

    def _rows(self, query: str) -> list[Any]:
        with self._using():
            return self._connection.execute(query).fetchall()

    def _ids(self, doc_ids: Iterable[str]) -> list[tuple[str]]:
        return [(self._hide(doc_id),) for doc_id in doc_ids]

    def _owner(self, entry: ManifestEntry) -> str:
        return self._hide(json.dumps(dict(entry.owner), default=str))

    def _mark(self, ids: list[tuple[str]]) -> None:
        self._connection.executemany("INSERT OR IGNORE INTO changes (doc_id) VALUES (?)", ids)

    def _unmark(self, ids: list[tuple[str]]) -> None:
        self._connection.executemany("DELETE FROM changes WHERE doc_id = ?", ids)
        self._connection.executemany("DELETE FROM removals WHERE doc_id = ?", ids)


def _damaged(path: Path, error: Exception) -> StoreCorruptError:
    return StoreCorruptError(
        f"'{path}' is damaged ({error}). Delete it and ingest again: unchanged chunks keep their ids."
    )
