"""Translation of DuckDB's errors into this package's, with what to do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from llama_index_presets.errors import (
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreWriteError,
)

__all__ = ["error_of", "is_conflict", "translated"]

_FULL = ("No space left", "File too large", "disk quota", "Disk quota", "could not write", "Could not write")
_CORRUPT = (
    "not a valid DuckDB database",
    "Could not read enough bytes",
    "Corrupt",
    "corrupt",
    "checksum",
    "Failed to deserialize",
    "newer version of DuckDB",
    "older version of DuckDB",
)


def is_conflict(error: duckdb.Error) -> bool:
    """Whether a transaction met that of another connection and may be tried again."""
    return isinstance(error, duckdb.TransactionException) and "onflict" in str(error)


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Translate errors of DuckDB into errors of this package, with what to do about them."""
    try:
        yield
    except duckdb.Error as error:
        if is_conflict(error):
            raise  # the caller that began the transaction decides whether to try again
        raise error_of(error, path) from error


def error_of(error: duckdb.Error, path: str) -> StoreError:
    """Error of this package for one of DuckDB."""
    text = _in_one_line(str(error))
    where = f"'{path}'" if path else "the given connection"
    if "Conflicting lock" in text or "Could not set lock" in text:
        return _locked(text, where)
    if any(sign in text for sign in _FULL):
        return StoreWriteError(
            f"{where} could not be written: {text}. The call changed nothing; what was there before is still "
            "readable. Make room and try again."
        )
    if "without a key" in text:
        return StoreError(f"{where} is encrypted. Open it with its encryption_key.")
    if any(sign in text for sign in _CORRUPT):
        return StoreCorruptError(
            f"{where} cannot be read: {text}. Nothing was changed. Restore a copy, or open it with the version "
            "of DuckDB that wrote it."
        )
    if "read-only" in text or "Permission denied" in text or "Cannot open file" in text:
        return StoreWriteError(f"{where} cannot be opened or written: {text}. Check the path and its rights.")
    return StoreError(f"DuckDB refused the operation on {where}: {text}")


def _in_one_line(text: str) -> str:
    """DuckDB's reason, without the operation that met it, which may stand in lines before.

    Example:
        >>> _in_one_line("FATAL Error: CHECKPOINT failed. \\nFailed because of error: Disk full\\n\\nLINE 1")
        'Disk full'
    """
    for told in ("because of error: ", "Failed to commit: "):
        text = text.rpartition(told)[2]
    return " ".join(text.partition("\n\n")[0].split()).removesuffix(".")


def _locked(text: str, where: str) -> StoreLockedError:
    found = re.search(r"PID (\d+)", text)
    pid = int(found[1]) if found else None
    holder = f"process {pid}" if pid is not None else "another process"
    return StoreLockedError(
        f"{where} is held by {holder}. Close it there; or open it with shared=True there and here, so that both take "
        "turns; or with read_only=True where all of them only read.",
        pid,
    )
