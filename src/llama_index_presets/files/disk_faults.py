"""Disk faults: detection of a full disk, atomic writes, and the leftovers of a killed DuckDB process.

DuckDB makes a file by writing three headers of 4,096 bytes one after the other, and writes nothing else, not even
its log, before the disk has them. A process that dies in between leaves a file that holds nothing, and that no
DuckDB opens again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from llama_index_presets.files.locks import has_record_lock

__all__ = ["BINARY", "finish", "is_full", "is_half_made", "write_all", "write_at"]

BINARY: Final[int] = getattr(os, "O_BINARY", 0)
"""Flag for `os.open`: without it Windows changes the ends of lines."""

_FULL_NUMBERS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_TEXTS: Final = ("no space left", "disk quota", "file too large", "disk is full")

_HEADER: Final = 4096
_ALL_HEADERS: Final = 3 * _HEADER
_SECTOR: Final = 512
_MAGIC: Final = slice(8, 12)
_FULL_SQLITE: Final = {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_WRITE"}
_log = logging.getLogger(__name__)


def is_full(error: BaseException) -> bool:
    """Whether an error, of the system or of a database, means a full disk or an exceeded quota.

    Example:
        >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(ValueError("no"))
        (True, False)
    """
    if isinstance(error, OSError) and error.errno in _FULL_NUMBERS:
        return True
    if getattr(error, "sqlite_errorname", "") in _FULL_SQLITE:
        return True
    text = str(error).lower()
    return any(sign in text for sign in _FULL_TEXTS)


def write_all(fd: int, data: bytes, *, durable: bool) -> None:
    """Append everything to a file, or nothing: a partial write is truncated away.

    Args:
        fd: The file, opened for appending, with no other writer at work.
        data: What to append.
        durable: Whether to wait until the disk has it.

    Raises:
        OSError: The disk is full or failed.
    """
    start, view = os.lseek(fd, 0, os.SEEK_END), memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            getattr(os, "fdatasync", os.fsync)(fd)  # macOS and Windows have fsync alone
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, start)
        raise


def write_at(file: RawIOBase | IO[bytes], place: int, content: Any) -> None:
    """Write all bytes of a buffer at a place of an unbuffered file, which may take them in parts.

    Raises:
        OSError: The disk is full or failed.
    """
    file.seek(place)
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def is_half_made(path: str | os.PathLike[str]) -> bool:
    """Whether a file is the beginning of an empty DuckDB database; call it when DuckDB cannot open the file.

    A full disk or a kill cuts a file between two writes or two sectors of the disk, a crash of the machine may
    leave zeros. A file cut anywhere else is a broken copy of something, and not half made.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "calls.duckdb"
        >>> path.touch()
        >>> is_half_made(path)
        True
    """
    try:
        with Path(path).open("rb") as file:
            return _holds_nothing(file, path)
    except OSError:
        return False


def _holds_nothing(file: BinaryIO, path: str | os.PathLike[str]) -> bool:
    log = Path(f"{path}.wal")
    if log.exists() and log.stat().st_size:
        return False
    content = file.read(_ALL_HEADERS + 1)
    return len(content) <= _ALL_HEADERS and _is_beginning(content)


def _is_beginning(content: bytes) -> bool:
    if not content.strip(b"\0"):
        return True
    if content[_MAGIC] != b"DUCK" or len(content) % _SECTOR:
        return False
    missing = len(content) < _ALL_HEADERS
    return missing or any(not content[at : at + _HEADER].strip(b"\0") for at in (_HEADER, 2 * _HEADER))


def finish(path: str | os.PathLike[str], make: Callable[[str], None]) -> bool:
    """Turn a half-made file into an empty database, in place.

    The file is written while this process holds DuckDB's own lock on it, and keeps its inode: another process
    that is opening it meets either the lock or a whole database.

    Args:
        path: The file.
        make: Makes an empty database at the path that it is called with, as it would be made at `path`.

    Returns:
        Whether there was a half-made file, so that opening it is worth another try.

    Raises:
        OSError: The file cannot be written; it is as half made as before.
    """
    if not is_half_made(path):
        return False
    with tempfile.TemporaryDirectory(prefix="llama-index-presets-") as folder:
        empty = Path(folder) / "empty.duckdb"
        make(str(empty))
        content = empty.read_bytes()
    with Path(path).open("r+b") as file:
        # A faster process may have finished the file, and filled it. It is read through the file that holds the lock:
        # the system drops all locks of a process on a file as soon as any of its openings is closed.
        if has_record_lock(file) or not _holds_nothing(file, path):
            return True
        file.seek(0)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _log.warning("The making of '%s' had been cut short; it held nothing and is made again.", path)
    return True
