"""JSON log: one line a call, with correlation ids and without the prompt.

Subscribe a `JsonLog` to a ledger; it writes through `structlog` when given a structlog logger, else through
a standard `logging.Logger`, or to a file of its own.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from llama_index_presets.errors import MonitorError
from llama_index_presets.files.private_files import private_folder, private_open
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.row import Call, as_json_fields

__all__ = ["JsonLog", "StructuredLogger"]

_log = logging.getLogger(__name__)
_ALWAYS: Final = frozenset(
    {"call_id", "timestamp", "kind", "status", "latency_ms", "cost_usd", "total_tokens"}
)


class StructuredLogger(Protocol):
    """Protocol of structlog's loggers: an event and its fields."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log one event."""


class JsonLog:
    """Writes each row of a ledger as one JSON object, when the row is flushed.

    Fields are the columns of `Call`; empty ones are left out. A row has no prompt, no passage and no answer, only a
    keyed hash.

    Args:
        ledger: Whose rows are logged.
        to: A file (opened for appending), a `logging.Logger` or a structlog logger.
        log_prompts: Add the field ``prompt``, in clear: a reader of the log then reads every question and every
            passage sent to a model, and backups of the log keep them. A warning says so.

    Raises:
        MonitorError: The file cannot be opened.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Ledger(folder / "calls.duckdb") as ledger:
        ...     log = JsonLog(ledger, to=folder / "calls.log")
        ...     _ = ledger.record(kind="llm", provider="local", model="m", query_id="q1")
        >>> log.close()
        >>> json.loads((folder / "calls.log").read_text())["query_id"]
        'q1'
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        to: str | os.PathLike[str] | logging.Logger | StructuredLogger,
        log_prompts: bool = False,
    ) -> None:
        self._ledger = ledger
        self._prompts = log_prompts
        if log_prompts:
            _log.warning("log_prompts=True: prompts are written in clear to %s.", to)
            ledger.prompts = {}
        self._logger: logging.Logger | StructuredLogger | None = None
        self._file = None
        if isinstance(to, (str, os.PathLike)):
            self._file = _opened(Path(to))
        else:
            self._logger = to
        ledger.subscribe(self._write)

    def close(self) -> None:
        """Stop logging; rows that are still in memory are flushed first."""
        try:
            if not self._ledger.closed:
                self._ledger.flush()
        finally:
            self._ledger.unsubscribe(self._write)
            if self._file is not None:
                self._file.close()

    def _write(self, rows: list[Call]) -> None:
        for call in rows:
            fields = log_fields(call)
            if self._prompts and self._ledger.prompts is not None:
                fields["prompt"] = self._ledger.prompts.pop(call.call_id, "")
            if self._file is not None:
                self._file.write(json.dumps(fields, ensure_ascii=False) + "\n")
            elif isinstance(self._logger, logging.Logger):
                self._logger.info(json.dumps(fields, ensure_ascii=False), extra={"call": fields})
            elif self._logger is not None:
                self._logger.info("call", **fields)
        if self._file is not None:
            self._file.flush()


def log_fields(call: Call) -> dict[str, Any]:
    """Give a row as the fields of a log line: time as ISO 8601 (UTC), dollars as text, empty fields left out."""
    fields = {name: value for name, value in as_json_fields(call).items() if value or name in _ALWAYS}
    fields["timestamp"] = datetime.fromtimestamp(call.timestamp / 1e6, UTC).isoformat(timespec="milliseconds")
    return fields


def _opened(path: Path) -> Any:
    try:
        private_folder(path.parent)
        return private_open(path, "a", encoding="utf-8")
    except OSError as error:
        raise MonitorError(
            f"Log file '{path}' cannot be opened: {error}. Expected a writable folder."
        ) from error
