"""From instrumentation events to a tree of spans: few, named for what happens, each thing once.

LlamaIndex opens a span for nearly every method; here a span is opened only by an event that says that a stage
begins, and belongs below the nearest open stage around it. So `retrieve` and `_retrieve` are one span, and so
are a caching model and the model behind it.
"""

from __future__ import annotations

import inspect
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from llama_index_presets.errors import BudgetExceededError
from llama_index_presets.monitor.context import attempt_number, attribution
from llama_index_presets.monitor.open_streams import OpenStreams
from llama_index_presets.monitor.trace_span import OpenSpan, hush, unhush

__all__ = ["SpanTree"]

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
            unhush(span, span.token)
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
                span.token = hush(span)
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
