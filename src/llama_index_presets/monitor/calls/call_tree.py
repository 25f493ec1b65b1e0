"""Call tree: open model calls, paired and nested, until each ends; the one place that decides what a model call is.

Knows nothing of LlamaIndex's events (`call_events` translates them) or of what becomes of a call: a `CallSink` makes
ledger rows or trace spans of what the tree says. The rules, held by `tests/contracts/call_tree.py`:

* A call of a language model with another one inside, however deep, is a wrapper: only the innermost counts, so
  `CustomLLM.chat` and retrying or routing models are counted once.
* An embedding call with embedding calls inside gives way to them, unless its model said itself what it used.
* A stream ends when it has been read; one that is left, or a call that is cancelled, is abandoned. Its prompt or its
  texts, and what a stream said before it was left or broke, count, since they are billed. So do those of a call whose
  answer was lost on the way.
* A span that begins while a stream is read is inside the call that gave the stream out (`open_streams`).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final

from llama_index_presets.errors import BudgetExceededError, ModelReplyError
from llama_index_presets.events import (
    AttemptFailedEvent,
    EmbeddingUsageEvent,
    ModelLoadEvent,
    RerankUsageEvent,
)
from llama_index_presets.monitor.calls.model_call import (
    NO_USAGE,
    CallEnded,
    CallSink,
    OpenCall,
    answer_was_lost,
    response_text,
)
from llama_index_presets.monitor.calls.open_streams import OpenStreams
from llama_index_presets.monitor.calls.usage import (
    Usage,
    merged,
    provider_of,
    reported_usage,
    reranker_model,
)
from llama_index_presets.monitor.ledger.row import BILLABLE_KINDS, LOAD_KIND, forget_oldest
from llama_index_presets.monitor.prices import FREE_PROVIDER

__all__ = ["CallTree"]

_provider_of = functools.lru_cache(maxsize=1024)(provider_of)
_UNKNOWN: Final[tuple[str | None, Any]] = (None, None)
_GIVEN_UP: Final = (asyncio.CancelledError, KeyboardInterrupt)
_RETRIED: Final = ("embedding", "llm", "rerank")
_MOST_SPANS: Final = 50_000


class CallTree:
    """The open calls of one listener. Thread safe: every step is one dictionary operation or holds the lock.

    Args:
        sink: Takes what begins and ends.
        next_call_id: Makes ids of calls.

    Attributes:
        spans: Id of each open span -> id of the span around it, and the object whose method it is.
        streams: What calls gave out to be read; a span that begins while one is read is inside of it.
    """

    def __init__(self, sink: CallSink, next_call_id: Callable[[], str] = str) -> None:
        self.sink = sink
        self.next_call_id = next_call_id
        self.spans: dict[str, tuple[str | None, Any]] = {}
        self.streams = OpenStreams()
        self._open: dict[str, list[OpenCall]] = {}
        self._usage: dict[str, deque[EmbeddingUsageEvent]] = {}
        self._lock = threading.Lock()

    # -- spans ---------------------------------------------------------------------------------------------

    def enter(self, span_id: str, parent_id: str | None, instance: Any) -> None:
        """Note that a span begins."""
        if self.streams:
            parent_id = self.streams.around(parent_id, self.spans)
        if len(self.spans) >= _MOST_SPANS:  # spans that never end, such as those of killed tasks
            forget_oldest(self.spans)
        self.spans[span_id] = (parent_id, instance)

    def is_quiet(self, span_id: str) -> bool:
        """Tell whether a span can end without anything to close."""
        return not (self._usage or span_id in self._open)

    def leave(self, span_id: str, result: Any, error: BaseException | None) -> None:
        """Close the calls that a span leaves open, unless they are streams that are still to be read."""
        self.spans.pop(span_id, None)
        for call in list(self._open.get(span_id, ())):
            if error is not None:
                self.fail(call, error)
            elif inspect.isgenerator(result) or inspect.isasyncgen(result):
                self.streams.add(result, span_id)
                weakref.finalize(result, self.abandon, call).atexit = False
            elif call.kind != "llm" or result is not None:
                self._end(call)
        for event in self._usage.pop(span_id, ()):
            self._report_embedding(event)

    def outward(self, span_id: str | None) -> Iterator[str]:
        """Give a span and the spans around it, innermost first."""
        while span_id is not None:
            yield span_id
            span_id = self.spans.get(span_id, _UNKNOWN)[0]

    def instance(self, span_id: str | None) -> Any:
        """Give the object whose method a span is."""
        return self.spans.get(span_id or "", _UNKNOWN)[1]

    # -- finding -------------------------------------------------------------------------------------------

    def nearest(self, span_id: str | None) -> OpenCall | None:
        """Give the innermost open call in this span or the spans around it."""
        while span_id is not None:
            if calls := self._open.get(span_id):
                return calls[-1]
            span_id = self.spans.get(span_id, _UNKNOWN)[0]
        return None

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
        return next((call for place in self.outward(span_id) if (call := self.first(kind, place))), None)

    @property
    def open_calls(self) -> int:
        """How many calls are open now."""
        return sum(len(calls) for calls in self._open.values())

    # -- starts --------------------------------------------------------------------------------------------

    def start_llm(self, span_id: str | None, described: dict[str, Any], prompt: Any) -> OpenCall:
        """Open a call of a language model; the prompt is a text or chat messages."""
        call = self._begin("llm", span_id)
        _describe(call, described)
        call.prompt = prompt if isinstance(prompt, str) else list(prompt)  # the caller goes on with its own
        self.sink.started(call)
        return call

    def start_embedding(self, span_id: str | None, described: dict[str, Any]) -> OpenCall:
        """Open a call of an embedding model: one batch."""
        call = self._begin("embedding", span_id)
        _describe(call, described)
        self.sink.started(call)
        return call

    def start_rerank(self, span_id: str | None, model: str) -> OpenCall:
        """Open a reranking."""
        call = self._begin("rerank", span_id)
        call.model = model or reranker_model(call.instance)
        call.provider = _provider_of(type(call.instance).__name__, call.model)
        self.sink.started(call)
        return call

    def start_stage(self, kind: str, span_id: str | None) -> OpenCall:
        """Open a retrieval or a whole query."""
        call = self._begin(kind, span_id)
        if not call.query_id and kind == "query":
            call.query_id = call.call_id
        self.sink.started(call)
        return call

    def _begin(self, kind: str, span_id: str | None) -> OpenCall:
        call = OpenCall(kind, span_id, self.next_call_id())
        if self._open:
            self._place(call, self.nearest(span_id))
        if span_id is not None:
            call.instance = self.spans.get(span_id, _UNKNOWN)[1]
            with self._lock:
                self._open.setdefault(span_id, []).append(call)
        return call

    def _place(self, call: OpenCall, outer: OpenCall | None) -> None:
        """Put a call below the nearest one that is open around it, and note the wrapper that it serves."""
        call.parent = outer
        if outer is None:
            return
        call.query_id = call.query_id or outer.query_id
        if outer.kind == "rerank":
            outer.asks = True
        if call.kind in ("llm", "embedding"):
            while outer is not None and outer.kind != call.kind:
                outer = outer.parent
            call.serves = outer
            if outer is not None and call.kind == "llm":
                outer.wraps = True

    # -- chunks --------------------------------------------------------------------------------------------

    def chunk(self, span_id: str | None, response: Any) -> None:
        """Note a piece of a stream: its usage if it has one, and what was said so far."""
        call = self.first("llm", span_id)
        if call is not None:
            begins, call.chunk = call.chunk is None, response
            delta = getattr(response, "delta", None)
            if delta and not response_text(response):  # a model that says only what is new
                call.pieces = call.pieces or []
                call.pieces.append(delta)
            if (usage := reported_usage(response)) is not None:
                call.stream_usage = merged(call.stream_usage, usage)
            if begins:
                self.sink.first_chunk(call)

    # -- ends ----------------------------------------------------------------------------------------------

    def finish_stage(self, call: OpenCall) -> None:
        """Close a retrieval, a query or a reranking that said nothing of its usage."""
        self._end(call)

    def finish_llm(self, call: OpenCall, response: Any) -> None:
        """Close a call of a language model with its last response."""
        self._end(call, usage=None, response=response)

    def fail(self, call: OpenCall, error: BaseException) -> None:
        """Close a call that raised; one of a model that its caller gave up is abandoned, not failed."""
        given_up = call.kind in ("llm", "embedding") and isinstance(error, _GIVEN_UP)
        if given_up or isinstance(error, GeneratorExit):
            self.abandon(call)
            return
        refused = isinstance(error, BudgetExceededError) and call.kind in BILLABLE_KINDS
        spoke = call.chunk is not None
        lost = call.kind in ("llm", "embedding") and answer_was_lost(error)
        if isinstance(error, ModelReplyError) and call.kind == "llm" and not spoke:
            billed = reported_usage(SimpleNamespace(raw={"usage": error.usage}))
            if billed is not None:
                self._end(call, "error", error_type=type(error).__name__, usage=billed, source="reported")
                return
        self._end(
            call,
            "refused" if refused else "error",
            error_type=type(error).__name__,
            usage=None if spoke or lost else NO_USAGE,
            response=call.sent if call.kind == "embedding" else call.chunk,
        )

    def abandon(self, call: OpenCall) -> None:
        """Close a call that its caller gave up, or a stream that its reader left.

        The prompt, or the texts, have been sent then: they and what was said are counted, since they are billed.
        Between two attempts nothing is under way.
        """
        if call.done:
            return
        waits = time.perf_counter() < call.resumes
        sent = call.sent if call.kind == "embedding" else call.chunk
        self._end(call, "abandoned", usage=NO_USAGE if waits else None, response=sent)

    def finish_embedding(self, call: OpenCall, texts: Sequence[Any]) -> None:
        """Close an embedding call: what its model said, else what its inner calls said, else a count."""
        waiting = self._usage.get(call.span_id or "")
        event = waiting.popleft() if waiting else None
        if event is not None and (event.prompt_tokens or not call.nested):
            self._end(call, **_reported(call, event), response=texts)
        else:
            self._end(call, usage=None, response=texts)

    def _end(
        self, call: OpenCall, status: str = "success", latency_ms: float | None = None, **facts: Any
    ) -> None:
        """End a call once, and say so; the end of a nested embedding waits until its wrapper is known to give way."""
        if not self._take(call):
            return
        elapsed_ms = call.elapsed_ms if latency_ms is None else latency_ms
        if call.nested and "report" not in facts:
            call.wraps = True
        facts.setdefault("attempt", call.attempt)
        end = CallEnded(call, status, elapsed_ms, time.time_ns() // 1000, not call.wraps, **facts)
        outer = call.serves
        if call.kind == "embedding" and outer is not None and not outer.done:
            outer.nested = [*(outer.nested or ()), *self._nested(call), end]
            return
        if call.nested:
            for nested in self._nested(call):
                self.sink.ended(nested)
        self.sink.ended(end)

    def _nested(self, call: OpenCall) -> Iterator[CallEnded]:
        """Give the ends inside a call; they count where it gave way."""
        for end in call.nested or ():
            yield end if call.wraps else end._replace(counts=False)

    def _take(self, call: OpenCall) -> bool:
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

    # -- events of our own -----------------------------------------------------------------------------------

    def embedding_usage(self, event: EmbeddingUsageEvent, *, may_begin: bool) -> None:
        """Keep what an embedding model says it used for the end of its call; without one, it is a call by itself."""
        call = self.around("embedding", event.span_id)
        if call is not None and call.span_id is not None:
            self._usage.setdefault(call.span_id, deque()).append(event)
        elif may_begin:
            self._report_embedding(event)

    def _report_embedding(self, event: EmbeddingUsageEvent) -> None:
        call = self._begin_at("embedding", event.span_id)
        self._end(call, **_reported(call, event))

    def _begin_at(self, kind: str, span_id: str | None) -> OpenCall:
        """Begin a call that is over when it is heard of."""
        call = self._begin(kind, None)
        self._place(call, self.nearest(span_id))
        return call

    def attempt_failed(self, event: AttemptFailedEvent) -> None:
        """Note an attempt that failed inside a call that goes on; its clock begins anew."""
        call = next((call for kind in _RETRIED if (call := self.around(kind, event.span_id))), None)
        if call is not None:
            self.sink.attempt_failed(call, event)
            call.attempt = event.attempt + 1
            call.started = time.perf_counter()
            call.resumes = call.started + event.wait_s

    def model_loaded(self, event: ModelLoadEvent, *, may_begin: bool) -> None:
        """Take the loading of a model for a call by itself, and leave it out of the calls that waited for it."""
        innermost = around = self.nearest(event.span_id)
        while around is not None:
            around.loaded(event.latency_ms)
            around = around.parent
        if innermost is None and not may_begin:
            return
        call = self._begin_at(LOAD_KIND, event.span_id)
        call.provider, call.model = FREE_PROVIDER, event.model
        status = "error" if event.error else "success"
        self._end(
            call,
            status,
            error_type=event.error or "",
            cache_hit=event.waited,
            latency_ms=event.latency_ms,
            report=event,
        )

    def rerank_usage(self, event: RerankUsageEvent, *, may_begin: bool) -> None:
        """End a reranking with what it says it used."""
        call = self.around("rerank", event.span_id)
        if call is None and not may_begin:
            return
        call = call or self._begin_at("rerank", event.span_id)
        call.provider, call.model = event.provider, event.model
        usage = Usage(event.prompt_tokens)
        source = event.usage_source or ""
        self._end(call, usage=usage, source=source, latency_ms=event.latency_ms, report=event)


def _reported(call: OpenCall, event: EmbeddingUsageEvent) -> dict[str, Any]:
    """What an embedding model says it used, as facts of its end."""
    call.provider, call.model = event.provider, event.model
    return {
        "usage": Usage(event.prompt_tokens),
        "source": event.usage_source,
        "cache_hit": event.texts > 0 and event.cached_texts >= event.texts,
        "attempt": max(event.attempt, call.attempt),
        "report": event,
    }


def _describe(call: OpenCall, described: dict[str, Any]) -> None:
    call.model = described.get("model_name") or described.get("model") or ""
    call.provider = _provider_of(described.get("class_name") or "", call.model)
