"""Span tree from instrumentation events: few spans, named after operations, none twice.

LlamaIndex opens a span for nearly every method; here a span is opened only by an event that says that a stage
begins, and belongs below the nearest open stage around it. So `retrieve` and `_retrieve` are one span, and so
are a caching model and the model behind it.
"""

from __future__ import annotations

import inspect
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from opentelemetry import context as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from llama_index_presets.errors import BudgetExceededError
from llama_index_presets.monitor.attribution import attempt_number, attribution
from llama_index_presets.monitor.open_streams import OpenStreams
from llama_index_presets.monitor.traces.attributes import Outgoing, attributes
from llama_index_presets.monitor.usage import Usage

__all__ = ["EndedSpan", "OpenSpan", "SpanTree", "resume_instrumentation", "suppress_instrumentation"]

# A span under way, and the OpenTelemetry span that it becomes when it ends.


_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SCOPE: Final = InstrumentationScope("llama_index_presets")
_OK: Final = Status(StatusCode.OK)


class OpenSpan:
    """A span under way. Plain mutable fields with class defaults: many are made, few fields are set.

    Attributes:
        name: What is shown.
        parent: The span around it; None for the root of a trace.
        facts: What is known of it; `trace_attributes.ALLOWED` says what leaves.
    """

    instance: Any = None
    key = ""
    error = ""
    done = False
    into: OpenSpan | None = None  # an inner call that is shown as part of this one
    stream_usage: Usage | None = None
    chunk: Any = None
    prompt: Any = None  # of the innermost call that is shown here, which is the one that is billed
    token: Any = None
    owned = 0  # tokens that the call itself reported
    inner = 0  # tokens that calls inside it reported

    def __init__(self, name: str, kind: str, parent: OpenSpan | None) -> None:
        self.name = name
        self.parent = parent
        self.trace_id: int = parent.trace_id if parent else secrets.randbits(128) or 1
        self.span_id: int = secrets.randbits(64) or 1
        self.started = time.time_ns()
        self.facts: dict[str, Any] = {"openinference.span.kind": kind}
        self.pieces: list[str] = []
        self.events: list[tuple[str, int, dict[str, Any]]] = []

    @property
    def kind(self) -> str:
        """OpenInference kind."""
        return str(self.facts["openinference.span.kind"])

    def happened(self, name: str, **facts: Any) -> None:
        """Note something that happened inside; keys as in `ALLOWED`, with ``_`` for the first dot."""
        self.events.append(
            (name, time.time_ns(), {key.replace("_", ".", 1): value for key, value in facts.items()})
        )


class EndedSpan(ReadableSpan):
    """What is exported: texts are hashed and calls are priced when it is read, on the exporter's thread."""

    def __init__(self, span: OpenSpan, resource: Resource, outgoing: Outgoing) -> None:
        parent = span.parent
        super().__init__(
            span.name,
            context=SpanContext(span.trace_id, span.span_id, False, _SAMPLED),
            parent=SpanContext(parent.trace_id, parent.span_id, False, _SAMPLED) if parent else None,
            resource=resource,
            status=Status(StatusCode.ERROR, span.error) if span.error else _OK,
            start_time=span.started,
            end_time=time.time_ns(),
            instrumentation_scope=_SCOPE,
        )
        self._facts = span.facts
        self._happened = span.events
        self._outgoing = outgoing

    @property
    def attributes(self) -> Any:
        """The facts, through the allow-list."""
        return attributes(self._facts, self._outgoing)

    @property
    def events(self) -> Sequence[Event]:
        """What happened inside, through the allow-list."""
        return [
            Event(name, attributes(facts, self._outgoing), timestamp)
            for name, timestamp, facts in self._happened
        ]


def suppress_instrumentation(who: object) -> Any:
    """Silence SDK instrumentors in this context; returns a token for `resume_instrumentation`."""
    return otel.attach(otel.set_value(otel._SUPPRESS_INSTRUMENTATION_KEY, who))


def resume_instrumentation(who: object, token: Any) -> None:
    """Let them speak again, unless this is another context than the one they were silenced in."""
    if otel.get_value(otel._SUPPRESS_INSTRUMENTATION_KEY) is who:
        otel.detach(token)


_MOST_SPANS: Final = 50_000


class SpanTree:
    """The open spans of one trace handle. Thread safe: each step is a dictionary operation or holds the lock.

    Args:
        emit: Takes each span that ends.
    """

    def __init__(self, emit: Callable[[OpenSpan], None]) -> None:
        self._emit = emit
        self._around: dict[str, tuple[str | None, Any]] = {}
        self._open: dict[str, OpenSpan] = {}
        self.runs: dict[str, OpenSpan] = {}
        self._streams = OpenStreams()
        self._lock = threading.Lock()

    # -- the dispatcher's spans ------------------------------------------------------------------------------------

    def enter(self, key: str, parent: str | None, instance: Any) -> None:
        """Note that a span of the dispatcher begins."""
        if self._streams:
            parent = self._streams.around(parent, self._around)
        if len(self._around) >= _MOST_SPANS:  # spans that never end, such as those of killed tasks
            self._around.pop(next(iter(self._around)), None)
        self._around[key] = (parent, instance)

    def leave(self, key: str, result: Any = None, error: BaseException | None = None) -> None:
        """End what is open in a span of the dispatcher, unless it is a stream that is still to be read."""
        self._around.pop(key, None)
        span = self._open.get(key)
        if span is None:
            return
        self._unhush(span)
        if error is not None:
            self.fail(span, error)
        elif inspect.isgenerator(result) or inspect.isasyncgen(result):
            self._streams.add(result, key)
            weakref.finalize(result, self.abandon, span).atexit = False
        else:
            self.close(span)

    def _unhush(self, span: OpenSpan) -> None:
        if span.token is not None:
            resume_instrumentation(span, span.token)
            span.token = None

    def instance(self, key: str | None) -> Any:
        """Give the object whose method a span of the dispatcher is."""
        return self._around.get(key or "", (None, None))[1]

    def _outward(self, key: str | None) -> Iterator[str]:
        while key is not None:
            yield key
            key = self._around.get(key, (None, None))[0]

    # -- finding ---------------------------------------------------------------------------------------------------

    def at(self, key: str | None) -> OpenSpan | None:
        """Give the span that was opened in exactly this span of the dispatcher."""
        return self._open.get(key or "")

    def nearest(self, key: str | None, kind: str | None = None) -> OpenSpan | None:
        """Give the innermost open span around a place, of one kind or of any; last the run it is attributed to."""
        for place in self._outward(key):
            span = self._open.get(place)
            if span is not None and (kind is None or span.kind == kind):
                return span
        return self.runs.get(attribution().query_id) if kind is None else None

    # -- opening and closing ---------------------------------------------------------------------------------------

    def open(self, name: str, kind: str, key: str | None, parent: OpenSpan | None = None) -> OpenSpan:
        """Open a span below the nearest one."""
        above = parent or self.nearest(key)
        span = OpenSpan(name, kind, above.into or above if above else None)
        span.key = key or ""
        span.instance = self.instance(key)
        if span.parent is None:
            self._describe(span)
        if (attempt := attempt_number.get()) > 1:
            span.facts["rag.attempt"] = attempt
        if key is not None:
            self._open[key] = span
            if kind in ("LLM", "EMBEDDING"):
                span.token = suppress_instrumentation(span)
        return span

    def _describe(self, root: OpenSpan) -> None:
        who = attribution()
        root.facts |= {
            "rag.preset": who.preset or None,
            "rag.tenant": who.tenant or None,
            "rag.query_id": who.query_id or None,
            "session.id": who.session or None,
            "tag.tags": who.tags or None,
        }

    def merge(self, key: str | None, outer: OpenSpan) -> None:
        """Show what begins at a place as part of a span that is open already."""
        inner = OpenSpan(outer.name, outer.kind, outer.parent)
        inner.key, inner.into, inner.instance = key or "", outer.into or outer, self.instance(key)
        if key is not None:
            self._open[key] = inner

    def close(self, span: OpenSpan) -> None:
        """End a span once."""
        with self._lock:
            if span.done:
                return
            span.done = True
            if self._open.get(span.key) is span:
                del self._open[span.key]
        span.instance = None
        self._unhush(span)
        if span.into is None:
            self._emit(span)

    def fail(self, span: OpenSpan, error: BaseException) -> None:
        """End a span with the class of an exception, and never its message."""
        if isinstance(error, GeneratorExit):
            self.abandon(span)
            return
        self.mark_failed(span, type(error).__name__)
        if isinstance(error, BudgetExceededError):
            span.facts["rag.budget_refused"] = True
        self.close(span)

    def mark_failed(self, span: OpenSpan, error: str) -> None:
        """Note the class of an exception, in the span and in what it is shown as part of."""
        for holder in (span, span.into):
            if holder is not None and not holder.error:
                holder.error = error
                holder.happened("exception", exception_type=error)

    def abandon(self, span: OpenSpan) -> None:
        """End a stream that nobody reads to its end."""
        if not span.done:
            span.facts["rag.stream_abandoned"] = True
            self.close(span)

    # -- runs ------------------------------------------------------------------------------------------------------

    def begin_run(self, run_id: str, kind: str) -> None:
        """Open the root of an engine's run."""
        self.runs[run_id] = self.open(kind, "CHAIN", None)

    def end_run(self, run_id: str, facts: dict[str, Any], error: str | None) -> None:
        """End it."""
        root = self.runs.pop(run_id, None)
        if root is not None:
            root.facts |= facts
            if error:
                self.mark_failed(root, error)
            self.close(root)

    def add(self, name: str, kind: str, parent: OpenSpan | None, latency_ms: float) -> OpenSpan:
        """Make a span of something that is over; `close` it."""
        span = OpenSpan(name, kind, parent)
        span.started = time.time_ns() - int(latency_ms * 1e6)
        return span
