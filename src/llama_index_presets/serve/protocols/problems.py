"""Problems: what a request is refused with, as an HTTP status and one JSON shape (that of OpenAI's API).

    400 malformed, empty, unknown field value    413 body too large          500 a fault of ours
    401 no key, wrong or expired key             415 not the media type      502 a model or store failed
    402 budget used up; says when it resets      422 cannot be ingested      503 not ready, overloaded
    403 not allowed for this caller, wrong host  429 too many requests       504 took too long
    404 unknown path, engine, model, document    408 body came too slowly
    409 storage in use by an ingest              507 the server's disk is full

A message says what the caller can act on. What only the operator can act on is in the log, and never the text of a
question, a passage or an error of a library.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from llama_index_presets.errors import (
    AnswerError,
    BudgetExceededError,
    EncryptionError,
    FilterError,
    FingerprintError,
    ImageError,
    IngestError,
    MissingExtraError,
    MonitorError,
    PermissionsError,
    PresetsError,
    QueryError,
    SettingsError,
    StoreCorruptError,
    StoreLockedError,
    StoreUnavailableError,
    StoreWriteError,
)
from llama_index_presets.files.disk_faults import is_full
from llama_index_presets.monitor.retry import retry_after_s
from llama_index_presets.presets.query.fallback import is_outage

__all__ = ["Problem", "log_fault", "problem_of"]

_log = logging.getLogger("llama_index_presets.serve")

_KINDS: dict[int, str] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Problem(Exception):
    """Reason that a request is refused.

    Attributes:
        status: HTTP status.
        message: For the caller.
        code: One word for programs, such as ``"budget_exceeded"``.
        headers: Response headers, such as ``Retry-After``.
        extra: More fields of the JSON error.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})
        super().__init__(message)

    def to_dict(self) -> dict[str, Any]:
        """As the JSON body of a response."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {
            "error": {"message": self.message, "type": kind, "code": self.code, "param": None, **self.extra}
        }


def problem_of(error: BaseException) -> Problem:
    """Problem that an error of the package, or any other, is answered with.

    Example:
        >>> problem_of(AnswerError("The question is empty. Ask something.")).status
        400
        >>> problem_of(KeyError("secret")).message
        'The server failed (KeyError). Its log says where.'
    """
    chain = list(_causes(error))
    for known in chain:
        if isinstance(known, Problem):
            return known
        if isinstance(known, BudgetExceededError):
            return _over_budget(known)
    if isinstance(error, StoreLockedError):  # its message has a folder and a process of the server
        return Problem(
            409,
            "The index is in use: something is ingested or removed. Try again in a moment.",
            code="storage_in_use",
            headers={"Retry-After": "5"},
        )
    for kinds, status, code in _STATUSES:
        if isinstance(error, kinds):
            return Problem(status, str(error), code=code)
    log_fault("a request", error)
    if isinstance(error, OSError | PresetsError) and any(is_full(one) for one in chain):
        return Problem(507, "The server's disk is full. Its operator makes room.", code="disk_full")
    names = " from ".join(type(one).__name__ for one in chain)
    if isinstance(error, PresetsError) or is_outage(error):
        waits = [wait_s for one in chain if (wait_s := retry_after_s(one)) is not None]
        return Problem(
            502,
            f"A model or the index failed ({names}). The server's log says where.",
            code="upstream_failed",
            headers={"Retry-After": str(math.ceil(min(waits[0], _LONGEST_WAIT_S)))} if waits else {},
        )
    return Problem(500, f"The server failed ({names}). Its log says where.", code="internal")


_LONGEST_WAIT_S: Final = 86_400
_STATUSES: tuple[tuple[tuple[type[BaseException], ...], int, str], ...] = (
    ((AnswerError, QueryError, FilterError, ImageError), 400, "bad_question"),
    ((PermissionsError,), 403, "not_permitted"),
    ((MissingExtraError,), 501, "missing_extra"),
    ((IngestError,), 422, "cannot_ingest"),
    ((SettingsError,), 400, "bad_value"),
)


def _over_budget(error: BudgetExceededError) -> Problem:
    """402, with the end of the period for people and programs."""
    resets = error.resets_at
    seconds = 0 if resets is None else max(1, int((resets - datetime.now(UTC)).total_seconds()))
    when = f"It resets at {resets:%Y-%m-%d %H:%M} UTC." if resets else "It does not reset by time."
    limit = "" if error.limit_usd is None else f"${error.limit_usd.normalize():f} "
    why = "is used up" if error.estimate_usd == 0 else "does not cover what this may cost"
    message = f"The budget {limit}{why}; no model was called. {when}"
    if error.limit_usd is None:
        message = "A model of this engine has no known price, so no budget can hold it; it was not called."
    return Problem(
        402,
        message,
        code="budget_exceeded",
        headers={"Retry-After": str(seconds)} if seconds else {},
        extra={"resets_at": resets.isoformat() if resets else None},
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


_TOLD: tuple[type[PresetsError], ...] = (
    EncryptionError,
    FingerprintError,
    StoreCorruptError,
    StoreLockedError,
    StoreUnavailableError,
    StoreWriteError,
    MonitorError,
)
"""Errors whose message names a storage or ledger, its state and what to do, and nothing of what is in it."""


def log_fault(where: str, error: BaseException) -> None:
    """Log classes and places of an error; its message only where that is about a storage or the system.

    Other messages may quote questions, passages or keys.
    """
    lines = []
    for one in _causes(error):
        lines += [
            _named(one),
            *(f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(one.__traceback__)),
        ]
    _log.error("%s failed: %s", where, "\n  ".join(lines))


def _named(error: BaseException) -> str:
    """Class of an error, with what may be said of it."""
    name = type(error).__name__
    if isinstance(error, _TOLD):
        return f"{name}: {error}"
    if (
        isinstance(error, OSError)
        and isinstance(error.strerror, str)
        and type(error).__module__ == "builtins"
    ):
        return f"{name}: {error.strerror}"
    return name
