"""Journals of the ledger: one append-only file a process, so that writers never wait for each other.

A journal is JSON lines in the folder ``<ledger>.journal``. Its writer holds a lock on it for as long as it lives;
the operating system drops the lock when the process dies, however it dies. So a journal whose lock can be taken has
no writer and can be folded into the table.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from llama_index_presets.errors import MonitorError
from llama_index_presets.files.disk_faults import BINARY, write_all
from llama_index_presets.files.locks import FileLock, delete_lone_neighbours
from llama_index_presets.files.private_files import private_folder
from llama_index_presets.monitor.ledger.row import Call, as_stored_fields

__all__ = [
    "IN_MEMORY",
    "JUMP_S",
    "Journal",
    "MemoryJournal",
    "delete_old_drafts",
    "journal_folder",
    "journal_size",
    "journals",
    "locked",
    "prompt_key",
]

IN_MEMORY: Final = ":memory:"
"""Path of a ledger that no file keeps."""

JUMP_S: Final = 365 * 86_400.0
"""A clock that is so far after the rows of a ledger is not believed at once."""


_DRAFT: Final = ".draft"
_OLD_DRAFT_S: Final = 3600.0


def journal_folder(ledger: Path) -> Path:
    """Give the folder of a ledger's journals: ``calls.duckdb`` has ``calls.duckdb.journal``."""
    return ledger.with_name(ledger.name + ".journal")


def journals(folder: Path) -> list[Path]:
    """List the journals that hold rows, oldest first."""
    return sorted(path for path in folder.glob("*.jsonl") if journal_size(path))


def journal_size(path: Path) -> int:
    """Bytes of a journal; 0 of one that another process has folded since it was listed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class Journal:
    """One process's journal; opened at the first write. Not thread safe: the ledger serialises its writes.

    Args:
        folder: Where journals live; made when missing.
        durable: Whether each write waits until the disk has it.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._folder = folder
        self._durable = durable
        self._fd: int | None = None
        self._lock: FileLock | None = None
        self.path: Path | None = None
        self.size = 0

    def append(self, calls: Iterable[Call]) -> None:
        """Write rows with one system call, so that a kill leaves all of them or a line that does not parse.

        Raises:
            MonitorError: The folder or file cannot be written; nothing is lost, the rows can be offered
                again.
        """
        data = "".join(json.dumps(as_stored_fields(call)) + "\n" for call in calls).encode()
        try:
            fd = self._fd if self._fd is not None else self._open()
            write_all(fd, data, durable=self._durable)
        except OSError as error:
            raise MonitorError(
                f"Ledger journal in '{self._folder}' cannot be written: {error}. Expected a writable folder "
                "with space left; the rows are kept in memory until it is."
            ) from error
        self.size += len(data)

    def close(self) -> None:
        """Close the file and release its lock: any process may fold it from now on."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd, self.path, self.size = None, None, 0
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open(self) -> int:
        private_folder(self._folder)
        # The name sorts by time, so that folding keeps the order in which journals began.
        name = f"{time.time_ns()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        draft, path = self._folder / f".{name}{_DRAFT}", self._folder / name
        # It gets the name by which others find it with the lock on it: an unlocked journal would be folded and
        # deleted under its writer.
        lock = FileLock(draft, renamed_to=path)
        try:
            lock.acquire()
            draft.rename(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | BINARY)
        except BaseException:
            lock.close()
            draft.unlink(missing_ok=True)
            raise
        self._lock, self.path = lock, path
        return self._fd


class MemoryJournal:
    """Journal of a ledger in memory: the same lines, kept by this process. Thread safe for one writer.

    Attributes:
        size: 0: it is never folded.
    """

    size = 0

    def __init__(self) -> None:
        self._rows: list[tuple[int, bytes]] = []

    def append(self, calls: Iterable[Call]) -> None:
        """Keep rows."""
        self._rows += [
            (call.timestamp, json.dumps(as_stored_fields(call)).encode() + b"\n") for call in calls
        ]

    def forget_before(self, timestamp_us: int) -> int:
        """Delete rows that are older, gives how many; none by a clock that has jumped far beyond them all."""
        if self._rows and timestamp_us > max(row[0] for row in self._rows) + JUMP_S * 1e6:
            return 0
        kept = [row for row in self._rows if row[0] >= timestamp_us]
        forgotten, self._rows = len(self._rows) - len(kept), kept
        return forgotten

    def lines(self) -> list[bytes]:
        """The rows as a journal has them, in order."""
        return [line for _, line in self._rows]

    def close(self) -> None:
        """Do nothing: the rows can be read for as long as the ledger lives."""


@contextlib.contextmanager
def locked(path: Path, *, exclusive: bool, timeout_s: float = 0.0) -> Iterator[bool]:
    """Lock file shared by readers, exclusive for compaction.

    Args:
        path: The lock file; made when missing.
        exclusive: Whether no other may hold it meanwhile.
        timeout_s: How long to try; 0 tries once.

    Yields:
        Whether the lock was taken.
    """
    with FileLock(path) as lock:
        yield lock.acquire(shared=not exclusive, timeout_s=timeout_s)


def is_orphan(path: Path) -> bool:
    """Whether a journal has no writer: closed, rotated, or its process died."""
    try:
        with FileLock(path, create=False) as lock:
            return lock.acquire(timeout_s=0)
    except FileNotFoundError:
        return False


def prompt_key(folder: Path) -> bytes:
    """Give the ledger's key for prompt hashes; made on first use, readable by its owner only.

    All processes of a ledger share it, so equal prompts have equal hashes; without it a hash of a short
    prompt cannot be guessed by trying prompts.

    Raises:
        MonitorError: It cannot be made.
    """
    path = folder / "prompt.key"
    with contextlib.suppress(FileNotFoundError):
        if key := path.read_bytes():
            return key
        path.unlink(missing_ok=True)  # a crash of the machine before the disk had it
    draft = folder / f".key-{secrets.token_hex(8)}{_DRAFT}"
    try:
        private_folder(folder)
        fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | BINARY, 0o600)
        try:
            write_all(fd, secrets.token_bytes(32), durable=True)
        finally:
            os.close(fd)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # atomic, and only the first process wins
        return path.read_bytes()
    except OSError as error:
        raise MonitorError(
            f"The key of prompt hashes '{path}' cannot be made: {error}. Expected a writable folder with space left."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def delete_old_drafts(folder: Path) -> None:
    """Delete draft files of killed processes; they are empty or have no reader."""
    oldest = time.time() - _OLD_DRAFT_S
    for draft in folder.glob(f".*{_DRAFT}"):
        with contextlib.suppress(FileNotFoundError):
            if draft.stat().st_mtime < oldest:
                draft.unlink()
    delete_lone_neighbours(folder, "*.jsonl")
