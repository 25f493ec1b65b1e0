"""What is heard: instrumentation events and callback payloads, each mapped to a step of the `Observer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

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

from llama_index_presets.events import AttemptFailedEvent, EmbeddingUsageEvent, RerankUsageEvent
from llama_index_presets.loading import ModelLoadEvent
from llama_index_presets.monitor.observe import Observer
from llama_index_presets.monitor.tracker import OpenCall

__all__ = ["COMPLETIONS", "ENDS", "STARTS", "finish_from_payload", "start_from_payload"]

Step = Callable[[Observer, Any], object]


def start_from_payload(
    observer: Observer, kind: str, span_id: str | None, payload: dict[str, Any]
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


def finish_from_payload(observer: Observer, call: OpenCall, payload: dict[str, Any]) -> None:
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


def _end_llm(observer: Observer, event: Any) -> None:
    if (call := observer.tracker.first("llm", event.span_id)) is not None:
        observer.finish_llm(call, event.response)


def _end_embedding(observer: Observer, event: Any) -> None:
    if (call := observer.tracker.first("embedding", event.span_id)) is not None:
        observer.finish_embedding(call, event.chunks)


def _end_stage(kind: str) -> Step:
    def end(observer: Observer, event: Any) -> None:
        if (call := observer.tracker.first(kind, event.span_id)) is not None:
            observer.finish_stage(call)

    return end


def _fail_stream(observer: Observer, event: Any) -> None:
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

COMPLETIONS: Final[dict[type, Callable[[Observer, Any, bool], object]]] = {
    LLMChatInProgressEvent: lambda observer, event, _: observer.chunk(event.span_id, event.response),
    LLMCompletionInProgressEvent: lambda observer, event, _: observer.chunk(event.span_id, event.response),
    ExceptionEvent: lambda observer, event, _: _fail_stream(observer, event),
    AttemptFailedEvent: lambda observer, event, _: observer.attempt_failed(event),
    EmbeddingUsageEvent: lambda observer, event, heard: observer.embedding_usage(event, may_begin=heard),
    RerankUsageEvent: lambda observer, event, heard: observer.rerank_usage(event, may_begin=heard),
    ModelLoadEvent: lambda observer, event, heard: observer.model_loaded(event, may_begin=heard),
}
"""Events that complete calls however these were opened; the flag says whether they may open one themselves."""
