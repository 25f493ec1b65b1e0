"""Failure policy of an ingest: a document's own error skips that document, any other ends the run.

| the run's | a document's |
|---|---|
| the key, the budget or a setting is refused | it cannot be read or cut, whatever its reader raises |
| the embedding service is down, busy or unreachable | the model raises anything else over its text |
| the store is locked, damaged, full, or of another model | the store refuses its nodes |
| the disk is full, no more files can be opened | |

Some can be either: another `ModelError` or `StoreError`, a service that refuses the request (400, 413, 422), a timeout,
a missing package. They are the documents' when another document goes through, and the run's when none does. Ctrl-C ends
the run.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from llama_index_presets.errors import (
    EncryptionError,
    FingerprintError,
    MissingExtraError,
    ModelError,
    MonitorError,
    NodeRejectedError,
    SettingsError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreWriteError,
)

__all__ = ["Blame", "UndecidedErrors", "blame", "file_problem"]

Blame = Literal["run", "document", "either"]

_RUN_ERRORS: Final = (
    EncryptionError,
    FingerprintError,
    MonitorError,
    SettingsError,
    StoreCorruptError,
    StoreLockedError,
    StoreWriteError,
    ConnectionError,
    sqlite3.OperationalError,
)
_EITHER: Final = (ModelError, StoreError, TimeoutError, MissingExtraError)
_RUN_NAMES: Final = frozenset({"APIConnectionError", "APITimeoutError", "TransportError", "RequestException"})
"""Classes of openai, httpx and requests, by name, so that none of them need be installed."""
_MACHINE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})
_FULL: Final = ("No space left on device", "os error 28")  # as libraries write it that are not Python's
_REFUSES_THE_TEXT: Final = frozenset({400, 413, 422})
_MOST_UNDECIDED: Final = 20  # documents in a row


def blame(error: BaseException) -> Blame:
    """Classify an error: the document's, the run's, or undecided.

    Example:
        >>> blame(ValueError("odd")), blame(StoreLockedError("held")), blame(ModelError("odd"))
        ('document', 'run', 'either')
    """
    chain = list(_chain(error))
    if any(map(_is_runs, chain)):
        return "run"
    if isinstance(error, NodeRejectedError):
        return "document"
    refused = any(_status(cause) in _REFUSES_THE_TEXT for cause in chain)
    return "either" if refused or isinstance(error, _EITHER) else "document"


def file_problem(error: OSError) -> str:
    """What to say of a file that the system does not let us read, for the report of an ingest.

    Example:
        >>> file_problem(PermissionError(errno.EACCES, "Permission denied"))
        'The file cannot be opened (Permission denied). Check its rights, and ingest again.'
    """
    if isinstance(error, FileNotFoundError):
        return "The file vanished while it was being read. If it is back, or has another name, ingest again."
    return f"The file cannot be opened ({error.strerror or error}). Check its rights, and ingest again."


def _is_runs(error: BaseException) -> bool:
    if isinstance(error, _RUN_ERRORS) or any(kind.__name__ in _RUN_NAMES for kind in type(error).__mro__):
        return True
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return True
    status = _status(error)
    refused = status is not None and status >= 400 and status not in _REFUSES_THE_TEXT
    return refused or any(sign in str(error) for sign in _FULL)


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from; ten are enough."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


@dataclass(slots=True)
class UndecidedErrors:
    """Undecided errors: the run's when no document succeeds.

    Attributes:
        errors: Those since the last document that went through.
        settled: Whether a document went through.
    """

    errors: list[BaseException] = field(default_factory=list)
    settled: bool = False

    def add(self, error: BaseException) -> None:
        """Record one; after 20 in a row without a success, the first is raised."""
        self.errors.append(error)
        if len(self.errors) >= _MOST_UNDECIDED:
            self.raise_if_none_succeeded()

    def success(self) -> None:
        """Record a success: the errors so far were their documents' own."""
        self.settled = True
        self.errors.clear()

    def raise_if_none_succeeded(self) -> None:
        """Raise the first error if no document went through."""
        if self.errors and not self.settled:
            raise self.errors[0]
