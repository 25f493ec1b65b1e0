"""Span sink: the calls of a `CallTree` and the stages around them as a tree of few spans, each thing once.

LlamaIndex opens a span for nearly every method; here a span is opened only by an event that says that a stage
begins, and belongs below the nearest open stage around it. So `retrieve` and `_retrieve` are one span, and so
are a chat and the completion that serves it. What is a model call, and which one counts, the `CallTree` decides.
"""

from __future__ import annotations

import inspect
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry import context as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from llama_index_presets.errors import BudgetExceededError
from llama_index_presets.events import (
    AttemptFailedEvent,
    EmbeddingUsageEvent,
    ModelLoadEvent,
    RerankUsageEvent,
)
from llama_index_presets.monitor.attribution import attempt_number, attribution
from llama_index_presets.monitor.calls.call_tree import CallTree
from llama_index_presets.monitor.calls.model_call import CallEnded, OpenCall
from llama_index_presets.monitor.traces.attributes import Billed, Message, Outgoing, attributes

__all__ = ["EndedSpan", "OpenSpan", "SpanTree", "resume_instrumentation", "suppress_instrumentation"]

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
    token: Any = None

    def __init__(self, name: str, kind: str, parent: OpenSpan | None) -> None:
        self.name = name
        self.parent = parent
        self.trace_id: int = parent.trace_id if parent else secrets.randbits(128) or 1
        self.span_id: int = secrets.randbits(64) or 1
        self.started = time.time_ns()
        self.facts: dict[str, Any] = {"openinference.span.kind": kind}
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


_KIND: Final = "openinference.span.kind"


class SpanTree:
    """The open spans of one trace handle. Thread safe: each step is a dictionary operation or holds the lock.

    Args:
        emit: Takes each span that ends.

    Attributes:
        calls: Decides what the calls are; this is its sink.
        runs: Run id -> the root of an engine's run.
    """

    def __init__(self, emit: Callable[[OpenSpan], None]) -> None:
        self._emit = emit
        self.calls = CallTree(self)
        self._open: dict[str, OpenSpan] = {}
        self.runs: dict[str, OpenSpan] = {}
        self._lock = threading.Lock()

    def leave(self, key: str, result: Any = None, error: BaseException | None = None) -> None:
        """End what is open in a span of the dispatcher, unless it is a stream that is still to be read."""
        self.calls.leave(key, result, error)
        span = self._open.get(key)
        if span is None:
            return
        self._resume_instrumentation(span)
        if error is not None:
            self.mark_failed(span, type(error).__name__)
            self.close(span)
        elif not (inspect.isgenerator(result) or inspect.isasyncgen(result)):
            self.close(span)

    def _resume_instrumentation(self, span: OpenSpan) -> None:
        if span.token is not None:
            resume_instrumentation(span, span.token)
            span.token = None

    # -- finding ---------------------------------------------------------------------------------------------------

    def at(self, key: str | None) -> OpenSpan | None:
        """Give the span that was opened in exactly this span of the dispatcher."""
        return self._open.get(key or "")

    def nearest(self, key: str | None, kind: str | None = None) -> OpenSpan | None:
        """Give the innermost open span around a place, of one kind or of any; last the run it is attributed to."""
        for place in self.calls.outward(key):
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
        span.instance = self.calls.instance(key)
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

    def merge(self, key: str | None, outer: OpenSpan) -> OpenSpan:
        """Show what begins at a place as part of a span that is open already."""
        inner = OpenSpan(outer.name, outer.kind, outer.parent)
        inner.key, inner.into = key or "", outer.into or outer
        if key is not None:
            self._open[key] = inner
        return inner

    def close(self, span: OpenSpan) -> None:
        """End a span once."""
        with self._lock:
            if span.done:
                return
            span.done = True
            if self._open.get(span.key) is span:
                del self._open[span.key]
        span.instance = None
        self._resume_instrumentation(span)
        if span.into is None:
            self._emit(span)

    def mark_failed(self, span: OpenSpan, error: str) -> None:
        """Note the class of an exception, in the span and in what it is shown as part of."""
        for holder in (span, span.into):
            if holder is not None and not holder.error:
                holder.error = error
                holder.happened("exception", exception_type=error)
                if error == BudgetExceededError.__name__:
                    holder.facts["rag.budget_refused"] = True

    # -- what the tree of calls says -----------------------------------------------------------------------------

    def started(self, call: OpenCall) -> None:
        """Open the span of a call, or show it as part of the one around it."""
        open_span = {"llm": self._start_llm, "embedding": self._start_embedding, "query": self._start_query}
        call.shown = open_span.get(call.kind, self._start_stage)(call)

    def _start_llm(self, call: OpenCall) -> OpenSpan:
        outer = call.serves
        if outer is not None and outer is call.parent and outer.instance is call.instance:
            return self.merge(call.span_id, outer.shown)
        if outer is not None:  # a router, a retry, a cache: the call is the inner one
            (outer.shown.into or outer.shown).facts[_KIND] = "CHAIN"
        span = self.open("llm", "LLM", call.span_id)
        prompt = call.prompt
        span.facts |= {
            "llm.model_name": call.model,
            "llm.provider": call.provider,
            "llm.input_messages": [Message("user", prompt)]
            if isinstance(prompt, str)
            else [
                Message(getattr(message.role, "value", str(message.role)), message.content or "")
                for message in prompt
            ],
        }
        return span

    def _start_embedding(self, call: OpenCall) -> OpenSpan:
        """Further batches, and calls inside, are shown as part of the call."""
        own = self.at(call.span_id)
        if own is not None:
            own.facts["rag.batches"] = own.facts.get("rag.batches", 1) + 1
            return own
        if call.serves is not None:
            return self.merge(call.span_id, call.serves.shown)
        span = self.open("embed", "EMBEDDING", call.span_id)
        span.facts |= {"embedding.model_name": call.model, "llm.provider": call.provider}
        return span

    def _start_query(self, call: OpenCall) -> OpenSpan:
        """The query of LlamaIndex's engine is shown as part of the run of ours."""
        above = self.nearest(call.span_id)
        if above is not None and above.parent is None and above.name == "query":
            return self.merge(call.span_id, above)
        return self.open("query", "CHAIN", call.span_id)

    def _start_stage(self, call: OpenCall) -> OpenSpan:
        """A leg of a hybrid search is open already."""
        name, kind = ("rerank", "RERANKER") if call.kind == "rerank" else ("retrieve", "RETRIEVER")
        return self.at(call.span_id) or self.open(name, kind, call.span_id)

    def first_chunk(self, call: OpenCall) -> None:
        """Note when a stream began to answer."""
        (call.shown.into or call.shown).happened("first piece")

    def attempt_failed(self, call: OpenCall, event: AttemptFailedEvent) -> None:
        """Note an attempt that failed inside a call that goes on."""
        (call.shown.into or call.shown).happened(
            "attempt failed",
            rag_attempt=event.attempt,
            rag_latency_ms=event.latency_ms,
            exception_type=event.error_type,
        )

    def ended(self, end: CallEnded) -> None:
        """Note what a call used, and end its span; embeddings may have more batches, stages more to show."""
        span: OpenSpan | None = end.call.shown
        if isinstance(end.report, ModelLoadEvent):
            self._show_load(end.report)
        elif isinstance(end.report, RerankUsageEvent):
            self._show_rerank(span, end, end.report)
        elif end.call.kind == "embedding":
            self._show_embedding(span, end)
        elif end.call.kind == "llm" and span is not None:
            self._show_llm(span, end)
        if span is not None and end.status != "success":
            if end.error_type:
                self.mark_failed(span, end.error_type)
            self.close(span)

    def _show_llm(self, span: OpenSpan, end: CallEnded) -> None:
        shown = span.into or span
        if end.status == "abandoned":
            shown.facts["rag.stream_abandoned"] = True
        if end.usage is None:  # it said something
            said = end.call.said(end.response)
            shown.facts["llm.output_messages"] = [Message("assistant", said)]
            root = shown
            while root.parent is not None:
                root = root.parent
            root.facts["output.value"] = said  # a whole answer, if one comes, replaces it
            if end.counts:
                shown.facts["rag.billed"] = Billed([end])
        if end.status == "success":
            self.close(span)

    def _show_embedding(self, span: OpenSpan | None, end: CallEnded) -> None:
        """Vectors are not looked at."""
        event = end.report if isinstance(end.report, EmbeddingUsageEvent) else None
        if span is None and event is not None:
            span = self.nearest(event.span_id, "EMBEDDING")
            if span is None or "answered by the cache" in span.facts:
                self._show_cache(event)
                return
        if span is None:
            return
        facts = (span.into or span).facts
        if end.counts and (end.usage is None or end.source):
            facts.setdefault("rag.billed", Billed([])).ends.append(end)
        if event is not None:
            facts["embedding.model_name"] = event.model
            if event.attempt > 1:
                facts["rag.attempt"] = event.attempt
            if event.cached_texts:
                facts["rag.cached_texts"] = facts.get("rag.cached_texts", 0) + event.cached_texts
        if span.into is None and end.response is not None:
            facts["rag.texts"] = texts_so_far = facts.get("rag.texts", 0) + len(end.response)
            if (cached := facts.get("rag.cached_texts")) is not None:
                facts["rag.cache_hit"] = cached >= texts_so_far

    def _show_cache(self, event: EmbeddingUsageEvent) -> None:
        """A cache in front of a model says only how many texts it knew: one span for those of a call."""
        if self.nearest(event.span_id) is None or not event.cached_texts:
            return
        span = self.at(event.span_id) or self.open("embed", "EMBEDDING", event.span_id)
        known = span.facts.get("rag.texts", 0) + event.texts
        span.facts |= {
            "answered by the cache": True,
            "embedding.model_name": event.model,
            "rag.texts": known,
            "rag.cached_texts": known,
            "rag.cache_hit": True,
        }

    def _show_rerank(self, span: OpenSpan | None, end: CallEnded, event: RerankUsageEvent) -> None:
        if span is not None:
            span.facts |= {
                "reranker.model_name": event.model,
                "rag.pairs": event.pairs,
                "rag.truncated": event.truncated or None,
                "rag.deadline_cut": event.cut or None,
                "rag.billed": Billed([end]),
            }
            if event.cut:
                span.happened("deadline cut", rag_pairs=event.pairs, rag_latency_ms=event.latency_ms)

    def _show_load(self, event: ModelLoadEvent) -> None:
        """Show the loading of a model by itself, in the call that waited for it."""
        above = self.nearest(event.span_id)
        if above is None:
            return
        span = self.add("load", "CHAIN", above.into or above, event.latency_ms)
        name = "reranker.model_name" if event.purpose == "rerank" else "embedding.model_name"
        span.facts |= {
            name: event.model,
            "rag.latency_ms": event.latency_ms,
            "rag.cache_hit": event.waited or None,
        }
        if event.error:
            self.mark_failed(span, event.error)
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
