"""Span export: in the background, in batches, never blocking the application.

A collector that is down, slow or gone costs spans, not time: before each batch a connection is tried, for at
most half a second, on the exporter's thread; after a failure batches are dropped for a while. That is said
once, in one warning.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from llama_index_presets.errors import SettingsError

__all__ = ["Sender", "is_reachable", "post_session", "quieten", "sending", "traces_url"]

_log = logging.getLogger(__name__)
_PORTS: Final = {"http": 80, "https": 443}
_CONNECT_S: Final = 0.5
_REQUEST_S: Final = 5.0
_FIRST_PAUSE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 60.0
_BATCH: Final = 256
_MOST_WAITING: Final = 4_096
_sending = threading.local()


def traces_url(endpoint: str) -> str:
    """Give the address that spans are posted to.

    Args:
        endpoint: Base address of a collector, or the whole address.

    Raises:
        SettingsError: It is no http(s) address, or holds a password.

    Example:
        >>> traces_url("http://127.0.0.1:6006")
        'http://127.0.0.1:6006/v1/traces'
    """
    parts = _split(endpoint)
    if parts.path.rstrip("/").endswith("/v1/traces"):
        return endpoint
    return f"{endpoint.rstrip('/')}/v1/traces"


def _split(endpoint: str) -> SplitResult:
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or parts.query:
        raise SettingsError(
            f"Trace endpoint '{_without_user(endpoint)}' is no address. Expected one such as 'http://127.0.0.1:6006'."
        )
    if parts.username or parts.password:
        raise SettingsError(
            f"Trace endpoint '{_without_user(endpoint)}' holds a user or a password, which logs would show. "
            "Set OTEL_EXPORTER_OTLP_HEADERS instead."
        )
    return parts


def _without_user(endpoint: str) -> str:
    scheme, mark, rest = endpoint.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


class Sender:
    """Queue of ended spans, sent by a thread of its own.

    Args:
        endpoint: Base address of the collector.
        interval_s: Longest time that a span waits, in seconds.
    """

    def __init__(self, endpoint: str, *, interval_s: float = 1.0) -> None:
        self._exporter = _PatientExporter(traces_url(endpoint))
        self._batches = BatchSpanProcessor(
            self._exporter,
            max_queue_size=_MOST_WAITING,
            schedule_delay_millis=interval_s * 1000,
            max_export_batch_size=_BATCH,
        )

    @property
    def dropped(self) -> int:
        """Spans that did not reach the collector."""
        return self._exporter.dropped

    def take(self, span: ReadableSpan) -> None:
        """Queue a span; when the queue is full the oldest is dropped."""
        self._batches.on_end(span)

    def flush(self) -> bool:
        """Send what waits; whether the collector took all of it."""
        before = self.dropped
        self._exporter.resume()
        return bool(self._batches.force_flush()) and self.dropped == before

    def close(self) -> None:
        """Send what waits and stop; a dead collector delays this by seconds at most."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]


class _PatientExporter(SpanExporter):
    """The OTLP exporter, with a pause after a failure and one warning in place of its own messages."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._otlp = OTLPSpanExporter(endpoint=url, timeout=_REQUEST_S, session=post_session(url))
        self._pause_s = _FIRST_PAUSE_S
        self._silent_until = 0.0
        self._warned = False
        self.dropped = 0
        quieten(OTLPSpanExporter.__module__)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, or drop it."""
        if time.monotonic() < self._silent_until:
            self.dropped += len(spans)
            return SpanExportResult.FAILURE
        if is_reachable(self._url) and self._send(spans) is SpanExportResult.SUCCESS:
            self._pause_s, self._silent_until = _FIRST_PAUSE_S, 0.0
            return SpanExportResult.SUCCESS
        self._failed(len(spans))
        return SpanExportResult.FAILURE

    def _send(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with sending():
            return self._otlp.export(spans)

    def _failed(self, spans: int) -> None:
        self.dropped += spans
        self._silent_until = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        if not self._warned:
            self._warned = True
            _log.warning(
                "Traces do not reach %s and are dropped until they do; nothing else is affected. Start a collector "
                "there (docs/how-to/phoenix.md), or set trace_endpoint to another address or to 'off'.",
                self._url,
            )

    def resume(self) -> None:
        """Try again at the next batch."""
        self._silent_until = 0.0

    def shutdown(self) -> None:
        """Stop."""
        self._otlp.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True


def is_reachable(url: str) -> bool:
    """Whether something listens at the host and port of an address, asked for half a second at most."""
    parts = urlsplit(url)
    try:
        socket.create_connection(
            (parts.hostname or "", parts.port or _PORTS[parts.scheme]), _CONNECT_S
        ).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def sending() -> Iterator[None]:
    """Keep what the OTLP exporters log about our exports out of the log."""
    _sending.active = True
    try:
        yield
    finally:
        _sending.active = False


def post_session(url: str) -> requests.Session:
    """Follow no redirection, and ask no proxy for a collector on this machine: spans go where they were sent."""
    session = requests.Session()
    session.max_redirects = 0
    if _split(url).hostname in ("localhost", "127.0.0.1", "::1"):  # by name alone: this waits for no resolver
        session.trust_env = False
    return session


class _Ours(logging.Filter):
    """Log filter: drops messages of the OTLP exporter during our exports."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep what others cause."""
        return not getattr(_sending, "active", False)


_OURS: Final[Any] = _Ours()


def quieten(exporter: str) -> None:
    """Let an exporter's logger, by its module, say nothing about our exports."""
    logger = logging.getLogger(exporter)
    if _OURS not in logger.filters:
        logger.addFilter(_OURS)
