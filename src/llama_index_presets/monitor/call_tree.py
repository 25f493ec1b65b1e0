"""Call tree: open model calls, paired and nested, until each ends as one ledger row or none.

Knows nothing of callbacks or events, only of spans (text ids with a parent) and calls. A call of a language
model that has another one inside it is a wrapper: only the innermost is a row, so `CustomLLM.chat` and
retrying or routing models are counted once. An embedding call with embedding calls inside it gives way to
them, unless its model said itself what it used.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from llama_index_presets.monitor.attribution import Attribution, attempt_number, attribution
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.row import Call, covered_s
from llama_index_presets.monitor.open_streams import OpenStreams
from llama_index_presets.monitor.usage import Usage

__all__ = ["CallTree", "OpenCall"]

_NO_USAGE: Final = Usage()
_UNKNOWN: Final[tuple[str | None, Any]] = (None, None)


class OpenCall:
    """A call that has begun. Plain mutable fields with class defaults: one is made for each call, so few are set."""

    provider = ""
    model = ""
    prompt_sha256 = ""
    instance: Any = None
    parent: OpenCall | None = None
    prompt: Any = None
    reservation: Any = None
    chunk: Any = None
    pieces: list[str] | None = None
    stream_usage: Usage | None = None
    wraps = False
    nested: list[Call] | None = None
    done = False
    loads: list[tuple[float, float]] | None = None  # beginnings and ends, on the performance counter

    def __init__(self, kind: str, span_id: str | None, call_id: str, who: Attribution) -> None:
        self.kind = kind
        self.span_id = span_id
        self.call_id = call_id
        self.who = who
        self.query_id = who.query_id
        self.attempt = attempt_number.get()
        self.started = time.perf_counter()

    def loaded(self, latency_ms: float) -> None:
        """Note that a model was loaded inside this call until now."""
        now = time.perf_counter()
        self.loads = [*(self.loads or ()), (now - latency_ms / 1000, now)]

    @property
    def elapsed_ms(self) -> float:
        """How long it has taken so far, in milliseconds, without the loading of models."""
        now = time.perf_counter()
        waited_s = covered_s(self.loads, self.started) if self.loads else 0.0
        return (now - self.started - waited_s) * 1000


class CallTree:
    """The open calls of one handler. Thread safe: every step is one dictionary operation or holds the lock.

    Args:
        ledger: Where finished calls go.

    Attributes:
        spans: Id of each open span -> id of the span around it, and the object whose method it is.
        streams: What calls gave out to be read; a span that begins while one is read is inside of it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.spans: dict[str, tuple[str | None, Any]] = {}
        self.streams = OpenStreams()
        self._open: dict[str, list[OpenCall]] = {}
        self._lock = threading.Lock()

    # -- spans ---------------------------------------------------------------------------------------------

    def enter(self, span_id: str, parent_id: str | None, instance: Any) -> None:
        """Note that a span begins."""
        if self.streams:
            parent_id = self.streams.around(parent_id, self.spans)
        self.spans[span_id] = (parent_id, instance)

    def has_open(self, span_id: str) -> bool:
        """Tell whether a call is open in exactly this span."""
        return span_id in self._open

    def leave(self, span_id: str) -> list[OpenCall]:
        """Forget a span; give the calls in it that are still open."""
        self.spans.pop(span_id, None)
        return list(self._open.get(span_id, ()))

    # -- calls ---------------------------------------------------------------------------------------------

    def begin(self, kind: str, span_id: str | None, who: Attribution | None = None) -> OpenCall:
        """Open a call in a span, below the nearest open call around it."""
        call = OpenCall(kind, span_id, self.ledger.next_call_id(), attribution() if who is None else who)
        if self._open:
            self._place(call)
        if not call.query_id and kind == "query":
            call.query_id = call.call_id
        if span_id is not None:
            call.instance = self.spans.get(span_id, _UNKNOWN)[1]
            with self._lock:
                self._open.setdefault(span_id, []).append(call)
        return call

    def _place(self, call: OpenCall) -> None:
        """Put a call below the nearest one that is open around it."""
        outer = call.parent = self.nearest(call.span_id)
        if outer is None:
            return
        if call.kind == "llm" and outer.kind == "llm":
            outer.wraps = True
        call.query_id = call.query_id or outer.query_id

    def nearest(self, span_id: str | None) -> OpenCall | None:
        """Give the innermost open call in this span or the spans around it."""
        while span_id is not None:
            if calls := self._open.get(span_id):
                return calls[-1]
            span_id = self.spans.get(span_id, _UNKNOWN)[0]
        return None

    def note_load(self, span_id: str | None, latency_ms: float) -> OpenCall | None:
        """Leave a load out of the latency of the calls around it; give the innermost of them."""
        innermost = call = self.nearest(span_id)
        while call is not None:
            call.loaded(latency_ms)
            call = call.parent
        return innermost

    def first(self, kind: str, span_id: str | None) -> OpenCall | None:
        """Give the oldest open call of a kind in exactly this span."""
        for call in self._open.get(span_id, ()) if span_id else ():
            if call.kind == kind:
                return call
        return None

    def last(self, kind: str, span_id: str | None) -> OpenCall | None:
        """Give the newest open call of a kind in exactly this span."""
        for call in reversed(self._open.get(span_id, ()) if span_id else ()):
            if call.kind == kind:
                return call
        return None

    def around(self, kind: str, span_id: str | None) -> OpenCall | None:
        """Give the oldest open call of a kind in this span or the nearest span around it that has one."""
        while span_id is not None:
            if found := self.first(kind, span_id):
                return found
            span_id = self.spans.get(span_id, _UNKNOWN)[0]
        return None

    def take(self, call: OpenCall) -> bool:
        """Close a call; False when it was closed before, so that each call ends once."""
        with self._lock:
            if call.done:
                return False
            call.done = True
            if call.span_id is not None and (calls := self._open.get(call.span_id)):
                calls.remove(call)
                if not calls:
                    del self._open[call.span_id]
        return True

    def row(
        self,
        call: OpenCall,
        usage: Usage = _NO_USAGE,
        *,
        source: str = "",
        status: str = "success",
        error_type: str = "",
        cache_hit: bool = False,
        latency_ms: float | None = None,
        attempt: int | None = None,
        call_id: str | None = None,
        ended_us: int | None = None,
    ) -> Call:
        """Make the row of a call; without `ended_us`, in microseconds since 1970, it ends now."""
        who = call.who
        elapsed = call.elapsed_ms if latency_ms is None else latency_ms
        parent = call.parent
        while parent is not None and parent.wraps:  # leaves no row that this one could be below
            parent = parent.parent
        return Call(
            call_id or call.call_id,
            time.time_ns() // 1000 if ended_us is None else ended_us,
            call.kind,
            call.provider,
            call.model,
            usage.prompt,
            usage.completion,
            usage.total or usage.prompt + usage.completion,
            None,
            elapsed,
            status,
            who.preset,
            call.query_id,
            parent.call_id if parent is not None else "",
            who.session,
            who.tenant,
            who.tags,
            attempt or call.attempt,
            error_type,
            usage.cached,
            usage.cache_write,
            usage.reasoning,
            source,
            cache_hit,
            call.prompt_sha256,
            "",
        )

    @property
    def open_calls(self) -> int:
        """How many calls are open now."""
        return sum(len(calls) for calls in self._open.values())
