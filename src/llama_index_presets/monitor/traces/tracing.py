"""Tracing: a query as one tree of few spans, sent over OTLP to Arize Phoenix or any other collector.

`trace_to` listens to LlamaIndex's instrumentation and to our own events. What leaves is on an allow-list
(`trace_attributes`), and texts leave as keyed hashes unless the application asks otherwise.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from llama_index_presets._addresses import is_loopback
from llama_index_presets._options import strict
from llama_index_presets.concurrency.closing import close_behind
from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.attribution import attribution
from llama_index_presets.packages.extras import require

if TYPE_CHECKING:
    from llama_index_presets.monitor.ledger.ledger import Ledger
    from llama_index_presets.monitor.traces.attributes import Content, Redactor
    from llama_index_presets.monitor.traces.spans import OpenSpan

__all__ = ["Traces", "exclusive_tracing", "trace_to"]

_PHOENIX = "http://127.0.0.1:6006"
"""Where Phoenix listens when it is started on this machine."""

_VOICE = object()
_live: dict[tuple[Any, ...], Traces] = {}
_lock = threading.Lock()


@strict()
def trace_to(
    endpoint: str = _PHOENIX,
    *,
    project: str = "default",
    content: Content = "hash",
    ledger: Ledger | None = None,
    local_only: bool = False,
    interval_s: float = 1.0,
) -> Traces:
    """Send a trace of every query and every ingest to a collector.

    Needs no server: while nothing answers at `endpoint`, spans are dropped, and one warning says so. Calling it again
    with the same arguments gives the same handle.

    Args:
        endpoint: Base address of an OTLP/HTTP collector, such as Phoenix; credentials for it come from
            ``OTEL_EXPORTER_OTLP_HEADERS``.
        project: Under which name Phoenix files the traces.
        content: What leaves of questions, passages, prompts and answers: ``"hash"`` (a keyed hash and the length),
            ``"text"`` (all of it, in clear) or ``"none"``.
        ledger: Trace only calls of this ledger, and hash with its key, so that equal texts match from run to run; None
            traces every call of the process that no traced ledger claims.
        local_only: Refuse an endpoint that is not on this machine.
        interval_s: Longest time that a span waits before it is sent, in seconds, > 0.

    Returns:
        The handle: ``flush()`` sends what waits, ``close()`` stops.

    Raises:
        MissingExtraError: The extra ``tracing`` is not installed.
        SettingsError: The endpoint is no address, is remote though it must not be, or `content` is unknown.

    Example:
        >>> traces = trace_to("http://127.0.0.1:6006", project="docs")
        >>> traces is trace_to("http://127.0.0.1:6006", project="docs")
        True
        >>> traces.close()
    """
    require("opentelemetry.exporter.otlp.proto.http.trace_exporter", extra="tracing")
    require("openinference.semconv.trace", extra="tracing")
    from llama_index_presets.monitor.traces.attributes import Redactor
    from llama_index_presets.monitor.traces.exporter import traces_url

    url = traces_url(endpoint)
    if local_only and not is_loopback(url):
        raise SettingsError(
            f"Trace endpoint '{endpoint}' is not on this machine, and nothing may leave it. "
            f"Use '{_PHOENIX}' or the like."
        )
    if not interval_s > 0:
        raise SettingsError(f"interval_s is {interval_s}. Expected seconds > 0.")
    name = (url, project, content, id(ledger))
    with _lock:
        if name not in _live:
            _live[name] = Traces(
                name, project, Redactor(content, ledger.hash_prompt if ledger else None), ledger, interval_s
            )
        return _live[name]


@strict()
class Traces:
    """A running trace; made by `trace_to`. Thread safe."""

    def __init__(
        self,
        name: tuple[Any, ...],
        project: str,
        redactor: Redactor,
        ledger: Ledger | None,
        interval_s: float,
    ) -> None:
        from opentelemetry.sdk.resources import Resource

        from llama_index_presets.monitor.prices import Pricer
        from llama_index_presets.monitor.traces.attributes import Outgoing
        from llama_index_presets.monitor.traces.exporter import Sender
        from llama_index_presets.monitor.traces.listener import listen
        from llama_index_presets.monitor.traces.spans import SpanTree

        self._name = name
        self._ledger = ledger
        self._resource = Resource(
            {"service.name": "llama-index-presets", "openinference.project.name": project}
        )
        self._outgoing = Outgoing(redactor, ledger.pricer if ledger is not None else Pricer())
        self._sender = Sender(name[0], interval_s=interval_s)
        self._closed = False
        self.tree = SpanTree(self._emit)
        self._listener = listen(self.tree, self.hears)
        self._at_exit = functools.partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)

    @property
    def endpoint(self) -> str:
        """Where spans are posted to."""
        return str(self._name[0])

    @property
    def dropped(self) -> int:
        """Spans that did not reach the collector so far."""
        return self._sender.dropped

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def hears(self) -> bool:
        """Whether a call made here and now belongs to this handle."""
        bound = attribution().ledger
        if self._ledger is not None:
            return bound is self._ledger
        return bound is None or not any(known._ledger is bound for known in list(_live.values()))

    def _emit(self, span: OpenSpan) -> None:
        from llama_index_presets.monitor.traces.spans import EndedSpan

        if not self._closed:
            self._sender.take(EndedSpan(span, self._resource, self._outgoing))

    def flush(self) -> bool:
        """Send what waits; whether the collector took all of it."""
        return not self._closed and self._sender.flush()

    def close(self) -> None:
        """Stop listening, and send what waits; a dead collector delays this by seconds at most. May be called twice."""
        with _lock:
            if self._closed:
                return
            _live.pop(self._name, None)
            self._listener.detach()
            self._closed = True
        atexit.unregister(self._at_exit)
        self._sender.close()

    def __enter__(self) -> Traces:
        """Use the handle as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what goes wrong there never replaces the block's own error."""
        close_behind(self.close, error, "closing the traces")

    def __repr__(self) -> str:
        return f"Traces(endpoint={self.endpoint!r}, project={self._name[1]!r}, content={self._name[2]!r})"


def _close_at_exit(reference: weakref.ref[Traces]) -> None:
    traces = reference()
    if traces is not None:
        traces.close()


@contextlib.contextmanager
def exclusive_tracing() -> Iterator[None]:
    """Keep the instrumentors of SDKs, such as OpenAI's, silent inside while traces run: a call is one span.

    Does nothing while no trace runs.
    """
    if not _live:
        yield
        return
    from llama_index_presets.monitor.traces.spans import resume_instrumentation, suppress_instrumentation

    token = suppress_instrumentation(_VOICE)
    try:
        yield
    finally:
        resume_instrumentation(_VOICE, token)
