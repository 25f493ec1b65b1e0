"""Recorder of calls: instrumentation events to ledger rows, by kind of call."""

from __future__ import annotations

import functools
import inspect
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.events.query import QueryEndEvent, QueryStartEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent

from llama_index_presets.errors import BudgetExceededError, MonitorError
from llama_index_presets.events import AttemptFailedEvent, EmbeddingUsageEvent, RerankUsageEvent
from llama_index_presets.loading import ModelLoadEvent
from llama_index_presets.monitor.budgets import Budgets, admit
from llama_index_presets.monitor.call_tree import CallTree, OpenCall
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.row import LOAD_KIND, Call
from llama_index_presets.monitor.prices import FREE_PROVIDER
from llama_index_presets.monitor.usage import (
    Usage,
    count_embedding,
    estimate_chat,
    estimate_text,
    merged,
    provider_of,
    reported_usage,
    reranker_model,
)

__all__ = ["COMPLETIONS", "ENDS", "STARTS", "CallRecorder", "finish_from_payload", "start_from_payload"]

_provider_of = functools.lru_cache(maxsize=1024)(provider_of)
_log = logging.getLogger(__name__)
_MODELS: Final = ("llm", "embedding", "rerank")


class CallRecorder:
    """Turns starts, chunks, usage reports and ends into rows of one ledger.

    Args:
        ledger: Where the rows go.
        budgets: Limits that calls are held to.
    """

    def __init__(self, ledger: Ledger, *, budgets: Budgets | None = None) -> None:
        self.ledger = ledger
        self.tracker = CallTree(ledger)
        self.budgets = budgets
        self._to_embed: dict[str, list[str]] = {}
        self._usage: dict[str, deque[EmbeddingUsageEvent]] = {}

    # -- spans ---------------------------------------------------------------------------------------------

    def is_quiet(self, span_id: str) -> bool:
        """Tell whether a span can end without anything to close."""
        return not (self._usage or self._to_embed or self.tracker.has_open(span_id))

    def enter(self, span_id: str, instance: Any, arguments: Any) -> None:
        """With budgets, remember the texts that a span is to embed."""
        if self.budgets is not None and isinstance(instance, BaseEmbedding) and arguments is not None:
            self._to_embed[span_id] = _texts_of(arguments.arguments)

    def leave(self, span_id: str, result: Any, error: BaseException | None) -> None:
        """Close the calls that a span leaves open, unless they are streams that are still to be read."""
        for call in self.tracker.leave(span_id):
            if error is not None:
                self.fail(call, error)
            elif inspect.isgenerator(result) or inspect.isasyncgen(result):
                self.tracker.streams.add(result, span_id)
                weakref.finalize(result, self.abandon, call).atexit = False
            elif call.kind != "llm" or result is not None:
                self._close(call, self.tracker.row(call))
        for event in self._usage.pop(span_id, ()):
            self.record_embedding_usage(event)
        self._to_embed.pop(span_id, None)

    def admit(self, call: OpenCall, payload: dict[str, Any]) -> None:
        """Reserve what a call may cost.

        Raises:
            BudgetExceededError: A budget refuses the call; its row says so.
        """
        if self.budgets is None or call.kind not in ("llm", "embedding"):
            return
        texts = prompt_texts(call.prompt) if call.kind == "llm" else self._next_batch(call)
        try:
            admit(self.budgets, call, payload, texts)
        except BudgetExceededError as error:
            self.fail(call, error)
            raise

    def _next_batch(self, call: OpenCall) -> list[str]:
        """Give the texts of the batch that begins: models announce each batch of a call in turn."""
        waiting = self._to_embed.get(call.span_id or "", [])
        size = getattr(call.instance, "embed_batch_size", len(waiting))
        batch = waiting[:size]
        del waiting[:size]
        return batch

    # -- starts --------------------------------------------------------------------------------------------

    def start_llm(self, span_id: str | None, described: dict[str, Any], prompt: Any) -> OpenCall:
        """Open a call of a language model; the prompt is a text or chat messages."""
        call = self.tracker.begin("llm", span_id)
        _describe(call, described)
        call.prompt = prompt if isinstance(prompt, str) else list(prompt)  # the caller goes on with its own
        if self.ledger.prompts is not None:
            self.ledger.prompts[call.call_id] = "\n".join(prompt_texts(prompt))
        return call

    def _identify(self, call: OpenCall) -> OpenCall:
        """Hash the prompt, once; without the key, which a full disk keeps from being made, the row has no hash."""
        if call.prompt is not None and not call.prompt_sha256:
            try:
                call.prompt_sha256 = self.ledger.hash_prompt("\x1e".join(prompt_texts(call.prompt)))
            except (MonitorError, OSError) as error:
                _log.error("A call is recorded without the hash of its prompt: %s", error)
        return call

    def start_embedding(self, span_id: str | None, described: dict[str, Any]) -> OpenCall:
        """Open a call of an embedding model: one batch."""
        call = self.tracker.begin("embedding", span_id)
        _describe(call, described)
        return call

    def start_rerank(self, span_id: str | None, model: str) -> OpenCall:
        """Open a reranking."""
        call = self.tracker.begin("rerank", span_id)
        call.model = model or reranker_model(call.instance)
        call.provider = _provider_of(type(call.instance).__name__, call.model)
        return call

    def start_stage(self, kind: str, span_id: str | None) -> OpenCall:
        """Open a retrieval or a whole query."""
        return self.tracker.begin(kind, span_id)

    # -- chunks --------------------------------------------------------------------------------------------

    def chunk(self, span_id: str | None, response: Any) -> None:
        """Note a piece of a stream: its usage if it has one, and what was said so far."""
        call = self.tracker.first("llm", span_id)
        if call is not None:
            call.chunk = response
            delta = getattr(response, "delta", None)
            if delta and not response_text(response):  # a model that says only what is new
                call.pieces = call.pieces or []
                call.pieces.append(delta)
            if (usage := reported_usage(response)) is not None:
                call.stream_usage = merged(call.stream_usage, usage)

    # -- ends ----------------------------------------------------------------------------------------------

    def finish_stage(self, call: OpenCall) -> None:
        """Close a retrieval, a query or a reranking that said nothing of its usage."""
        self._close(call, self.tracker.row(call))

    def finish_llm(self, call: OpenCall, response: Any) -> None:
        """Close a call of a language model with its last response.

        Whoever waits for the answer does not wait for its row: without budgets, which must know the cost at
        once, reading the usage and hashing the prompt are left to the thread that writes the ledger.
        """
        if call.wraps:
            self._close(call)
        elif self.budgets is not None:
            self._close(call, self._llm_row(call, response))
        else:
            ended_us, elapsed_ms = time.time_ns() // 1000, call.elapsed_ms
            self._close_later(
                call,
                functools.partial(self._llm_row, call, response, ended_us=ended_us, latency_ms=elapsed_ms),
            )

    def _llm_row(self, call: OpenCall, response: Any, **fields: Any) -> Call:
        usage, source = self._llm_usage(call, response)
        return self.tracker.row(self._identify(call), usage, source=source, **fields)

    def _llm_usage(self, call: OpenCall, response: Any) -> tuple[Usage, str]:
        usage = reported_usage(response)
        if call.stream_usage is not None:
            usage = merged(call.stream_usage, usage)
        if usage is not None:
            return usage, "reported"
        said = response_text(response if response is not None else call.chunk) or "".join(call.pieces or ())
        prompt = estimate_chat(call.provider, call.model, prompt_texts(call.prompt))
        return Usage(prompt, estimate_text(call.provider, call.model, [said])), "estimated"

    def fail(self, call: OpenCall, error: BaseException) -> None:
        """Close a call that raised; a stream that its reader left is abandoned, not failed."""
        if isinstance(error, GeneratorExit):
            self.abandon(call)
            return
        status = "refused" if isinstance(error, BudgetExceededError) and call.kind in _MODELS else "error"
        self._close(
            call, self.tracker.row(self._identify(call), status=status, error_type=type(error).__name__)
        )

    def abandon(self, call: OpenCall) -> None:
        """Close a stream that nobody reads to its end; what it said is counted, since it is billed."""
        if not call.done:
            self._close(call, self._llm_row(call, call.chunk, status="abandoned"))

    def finish_embedding(self, call: OpenCall, texts: list[Any]) -> None:
        """Close an embedding call: what its model said, else what its inner calls said, else a count."""
        waiting = self._usage.get(call.span_id or "")
        event = waiting.popleft() if waiting else None
        if event is not None and (event.prompt_tokens or not call.nested):
            self._close(call, self._embedding_row(call, event))
        elif call.nested:
            self._close(call, *call.nested)
        else:
            elapsed_ms = call.elapsed_ms  # counting is our work, not the model's
            strings = [text for text in texts if isinstance(text, str)]
            tokens, source = count_embedding(call.provider, call.model, strings)
            row = self.tracker.row(call, Usage(tokens), source=source, latency_ms=elapsed_ms)
            self._close(call, row)

    def _embedding_row(self, call: OpenCall, event: EmbeddingUsageEvent) -> Call:
        call.provider, call.model = event.provider, event.model
        return self.tracker.row(
            call,
            Usage(event.prompt_tokens),
            source=event.usage_source,
            cache_hit=event.texts > 0 and event.cached_texts >= event.texts,
            attempt=max(event.attempt, call.attempt),
        )

    # -- usage events of our own ---------------------------------------------------------------------------

    def embedding_usage(self, event: EmbeddingUsageEvent, *, may_begin: bool) -> None:
        """Keep what an embedding model says it used for the end of its call; without one, it is a row."""
        call = self.tracker.around("embedding", event.span_id)
        if call is not None and call.span_id is not None:
            self._usage.setdefault(call.span_id, deque()).append(event)
        elif may_begin:
            self.record_embedding_usage(event)

    def record_embedding_usage(self, event: EmbeddingUsageEvent) -> None:
        """Record a usage report that belongs to no open call."""
        call = self.tracker.begin("embedding", None)
        call.parent = self.tracker.nearest(event.span_id)
        self._close(call, self._embedding_row(call, event))

    def attempt_failed(self, event: AttemptFailedEvent) -> None:
        """Record an attempt that failed inside a call that goes on."""
        call = self.tracker.around("embedding", event.span_id) or self.tracker.around("llm", event.span_id)
        if call is not None:
            row = self.tracker.row(
                self._identify(call),
                status="error",
                error_type=event.error_type,
                attempt=max(event.attempt, call.attempt),
                latency_ms=event.latency_ms,
                call_id=self.ledger.next_call_id(),
            )
            self.ledger.add(row)
            call.attempt = event.attempt + 1
            call.started = time.perf_counter()

    def model_loaded(self, event: ModelLoadEvent, *, may_begin: bool) -> None:
        """Record the loading of a model, and leave it out of the calls that waited for it."""
        around = self.tracker.note_load(event.span_id, event.latency_ms)
        if around is None and not may_begin:
            return
        call = self.tracker.begin(LOAD_KIND, None)
        call.parent, call.provider, call.model = around, FREE_PROVIDER, event.model
        call.query_id = call.query_id or (around.query_id if around is not None else "")
        row = self.tracker.row(
            call,
            status="error" if event.error else "success",
            error_type=event.error or "",
            cache_hit=event.waited,
            latency_ms=event.latency_ms,
        )
        self._close(call, row)

    def rerank_usage(self, event: RerankUsageEvent, *, may_begin: bool) -> None:
        """Record what a reranker says it used, in place of its own start and end."""
        call = self.tracker.around("rerank", event.span_id)
        if call is None and not may_begin:
            return
        if call is None:
            call = self.tracker.begin("rerank", None)
            call.parent = self.tracker.nearest(event.span_id)
            call.query_id = call.query_id or (call.parent.query_id if call.parent else "")
        call.provider, call.model = event.provider, event.model
        usage = Usage(event.prompt_tokens)
        self._close(call, self.tracker.row(call, usage, source="counted", latency_ms=event.latency_ms))

    # -- rows ----------------------------------------------------------------------------------------------

    def _close(self, call: OpenCall, *rows: Call) -> None:
        """End a call once; a wrapper leaves no row, a nested embedding leaves its row to the outer one."""
        if not self.tracker.take(call):
            return
        call.prompt = call.chunk = None
        if call.reservation is not None and (call.wraps or call.call_id not in [row.call_id for row in rows]):
            self.budgets.release(call.reservation)  # type: ignore[union-attr]
        if call.wraps:
            if self.ledger.prompts is not None:
                self.ledger.prompts.pop(call.call_id, None)
            return
        outer = call.parent
        if call.kind == "embedding" and outer is not None and outer.kind == "embedding" and not outer.done:
            outer.nested = [*(outer.nested or ()), *rows]
            return
        for row in rows:
            self.ledger.add(row)
        if self.budgets is not None:
            self._settle_now()

    def _close_later(self, call: OpenCall, make_row: Callable[[], Call]) -> None:
        """End a call once, as `_close` does; its row is made when the ledger is written."""
        if self.tracker.take(call):
            self.ledger.add_later(make_row)

    def _settle_now(self) -> None:
        """Turn estimates into true costs at once, so that the next call is judged by them."""
        try:
            self.ledger.flush()
        except MonitorError as error:
            _log.error("%s", error)


def _texts_of(arguments: dict[str, Any]) -> list[str]:
    """Give what an embedding method was asked to embed, under whichever name it takes it."""
    for name in ("texts", "queries", "text", "query"):
        value = arguments.get(name)
        if value is not None:
            return [text for text in ([value] if isinstance(value, str) else value) if isinstance(text, str)]
    return []


def _describe(call: OpenCall, described: dict[str, Any]) -> None:
    call.model = described.get("model_name") or described.get("model") or ""
    call.provider = _provider_of(described.get("class_name") or "", call.model)


def prompt_texts(prompt: Any) -> list[str]:
    """Give the texts of a prompt, which is a text, chat messages, or None."""
    return [prompt] if isinstance(prompt, str) else message_texts(prompt or ())


def message_texts(messages: Any) -> list[str]:
    """Give role and text of each chat message."""
    return [
        f"{getattr(message.role, 'value', message.role)}: {message.content or ''}" for message in messages
    ]


def response_text(response: Any) -> str:
    """Give the text of a chat or completion response, so far; empty where there is none."""
    if response is None:
        return ""
    message = getattr(response, "message", None)
    text = getattr(response, "text", None) if message is None else message.content
    return text or ""


# What is heard: instrumentation events and callback payloads, each mapped to a step of the `CallRecorder`.


Step = Callable[[CallRecorder, Any], object]


def start_from_payload(
    observer: CallRecorder, kind: str, span_id: str | None, payload: dict[str, Any]
) -> OpenCall:
    """Open a call that a callback announces."""
    # Looking an enum up costs half a microsecond, so what is there most often is asked for first.
    if kind == "llm":
        prompt = payload.get(EventPayload.MESSAGES)
        if prompt is None:
            prompt = payload.get(EventPayload.PROMPT) or ""
        return observer.start_llm(span_id, payload.get(EventPayload.SERIALIZED) or {}, prompt)
    if kind == "embedding":
        return observer.start_embedding(span_id, payload.get(EventPayload.SERIALIZED) or {})
    if kind == "rerank":
        return observer.start_rerank(span_id, payload.get(EventPayload.MODEL_NAME) or "")
    return observer.start_stage(kind, span_id)


def finish_from_payload(observer: CallRecorder, call: OpenCall, payload: dict[str, Any]) -> None:
    """Close a call whose end a callback announces."""
    if call.kind == "llm" and (response := payload.get(EventPayload.RESPONSE)) is not None:
        observer.finish_llm(call, response)
    elif (error := payload.get(EventPayload.EXCEPTION)) is not None:
        observer.fail(call, error)
    elif call.kind == "llm":
        observer.finish_llm(call, payload.get(EventPayload.COMPLETION))
    elif call.kind == "embedding":
        observer.finish_embedding(call, payload.get(EventPayload.CHUNKS) or [])
    else:
        observer.finish_stage(call)


def _end_llm(observer: CallRecorder, event: Any) -> None:
    if (call := observer.tracker.first("llm", event.span_id)) is not None:
        observer.finish_llm(call, event.response)


def _end_embedding(observer: CallRecorder, event: Any) -> None:
    if (call := observer.tracker.first("embedding", event.span_id)) is not None:
        observer.finish_embedding(call, event.chunks)


def _end_stage(kind: str) -> Step:
    def end(observer: CallRecorder, event: Any) -> None:
        if (call := observer.tracker.first(kind, event.span_id)) is not None:
            observer.finish_stage(call)

    return end


def _fail_stream(observer: CallRecorder, event: Any) -> None:
    if (call := observer.tracker.first("llm", event.span_id)) is not None:
        observer.fail(call, event.exception)


STARTS: Final[dict[type, Step]] = {
    LLMChatStartEvent: lambda observer, event: observer.start_llm(
        event.span_id, event.model_dict, event.messages
    ),
    LLMCompletionStartEvent: lambda observer, event: observer.start_llm(
        event.span_id, event.model_dict, event.prompt
    ),
    EmbeddingStartEvent: lambda observer, event: observer.start_embedding(event.span_id, event.model_dict),
    ReRankStartEvent: lambda observer, event: observer.start_rerank(event.span_id, event.model_name),
    RetrievalStartEvent: lambda observer, event: observer.start_stage("retrieval", event.span_id),
    QueryStartEvent: lambda observer, event: observer.start_stage("query", event.span_id),
}
"""Events that open a call."""

ENDS: Final[dict[type, Step]] = {
    LLMChatEndEvent: _end_llm,
    LLMCompletionEndEvent: _end_llm,
    EmbeddingEndEvent: _end_embedding,
    ReRankEndEvent: _end_stage("rerank"),
    RetrievalEndEvent: _end_stage("retrieval"),
    QueryEndEvent: _end_stage("query"),
}
"""Events that close one."""

COMPLETIONS: Final[dict[type, Callable[[CallRecorder, Any, bool], object]]] = {
    LLMChatInProgressEvent: lambda observer, event, _: observer.chunk(event.span_id, event.response),
    LLMCompletionInProgressEvent: lambda observer, event, _: observer.chunk(event.span_id, event.response),
    ExceptionEvent: lambda observer, event, _: _fail_stream(observer, event),
    AttemptFailedEvent: lambda observer, event, _: observer.attempt_failed(event),
    EmbeddingUsageEvent: lambda observer, event, heard: observer.embedding_usage(event, may_begin=heard),
    RerankUsageEvent: lambda observer, event, heard: observer.rerank_usage(event, may_begin=heard),
    ModelLoadEvent: lambda observer, event, heard: observer.model_loaded(event, may_begin=heard),
}
"""Events that complete calls however these were opened; the flag says whether they may open one themselves."""
