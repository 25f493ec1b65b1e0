"""Events of LlamaIndex and of ours, and payloads of its callbacks, translated into steps of a `CallTree`."""

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

from llama_index_presets.events import (
    AttemptFailedEvent,
    EmbeddingUsageEvent,
    ModelLoadEvent,
    RerankUsageEvent,
)
from llama_index_presets.monitor.calls.call_tree import CallTree
from llama_index_presets.monitor.calls.model_call import OpenCall

__all__ = ["COMPLETIONS", "ENDS", "STARTS", "finish_from_payload", "start_from_payload"]

Step = Callable[[CallTree, Any], object]


def _end_llm(tree: CallTree, event: Any) -> None:
    if (call := tree.first("llm", event.span_id)) is not None:
        tree.finish_llm(call, event.response)


def _end_embedding(tree: CallTree, event: Any) -> None:
    if (call := tree.first("embedding", event.span_id)) is not None:
        tree.finish_embedding(call, event.chunks)


def _end_stage(kind: str) -> Step:
    def end(tree: CallTree, event: Any) -> None:
        if (call := tree.first(kind, event.span_id)) is not None:
            tree.finish_stage(call)

    return end


def _fail_stream(tree: CallTree, event: Any) -> None:
    if (call := tree.first("llm", event.span_id)) is not None:
        tree.fail(call, event.exception)


STARTS: Final[dict[type, Step]] = {
    LLMChatStartEvent: lambda tree, event: tree.start_llm(event.span_id, event.model_dict, event.messages),
    LLMCompletionStartEvent: lambda tree, event: tree.start_llm(
        event.span_id, event.model_dict, event.prompt
    ),
    EmbeddingStartEvent: lambda tree, event: tree.start_embedding(event.span_id, event.model_dict),
    ReRankStartEvent: lambda tree, event: tree.start_rerank(event.span_id, event.model_name),
    RetrievalStartEvent: lambda tree, event: tree.start_stage("retrieval", event.span_id),
    QueryStartEvent: lambda tree, event: tree.start_stage("query", event.span_id),
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

COMPLETIONS: Final[dict[type, Callable[[CallTree, Any, bool], object]]] = {
    LLMChatInProgressEvent: lambda tree, event, _: tree.chunk(event.span_id, event.response),
    LLMCompletionInProgressEvent: lambda tree, event, _: tree.chunk(event.span_id, event.response),
    ExceptionEvent: lambda tree, event, _: _fail_stream(tree, event),
    AttemptFailedEvent: lambda tree, event, _: tree.attempt_failed(event),
    EmbeddingUsageEvent: lambda tree, event, heard: tree.embedding_usage(event, may_begin=heard),
    RerankUsageEvent: lambda tree, event, heard: tree.rerank_usage(event, may_begin=heard),
    ModelLoadEvent: lambda tree, event, heard: tree.model_loaded(event, may_begin=heard),
}
"""Events that complete calls however these were opened; the flag says whether they may open one themselves."""


def start_from_payload(tree: CallTree, kind: str, span_id: str | None, payload: dict[str, Any]) -> OpenCall:
    """Open a call that a callback announces."""
    # Looking an enum up costs half a microsecond, so what is there most often is asked for first.
    if kind == "llm":
        prompt = payload.get(EventPayload.MESSAGES)
        if prompt is None:
            prompt = payload.get(EventPayload.PROMPT) or ""
        return tree.start_llm(span_id, payload.get(EventPayload.SERIALIZED) or {}, prompt)
    if kind == "embedding":
        return tree.start_embedding(span_id, payload.get(EventPayload.SERIALIZED) or {})
    if kind == "rerank":
        return tree.start_rerank(span_id, payload.get(EventPayload.MODEL_NAME) or "")
    return tree.start_stage(kind, span_id)


def finish_from_payload(tree: CallTree, call: OpenCall, payload: dict[str, Any]) -> None:
    """Close a call whose end a callback announces."""
    if call.kind == "llm" and (response := payload.get(EventPayload.RESPONSE)) is not None:
        tree.finish_llm(call, response)
    elif (error := payload.get(EventPayload.EXCEPTION)) is not None:
        tree.fail(call, error)
    elif call.kind == "llm":
        tree.finish_llm(call, payload.get(EventPayload.COMPLETION))
    elif call.kind == "embedding":
        tree.finish_embedding(call, payload.get(EventPayload.CHUNKS) or [])
    else:
        tree.finish_stage(call)
