"""Span attributes from events of language and embedding models."""

from __future__ import annotations

import time
from typing import Any, Final

from llama_index.core.instrumentation.events.llm import LLMChatStartEvent

from llama_index_presets.events import AttemptFailedEvent, EmbeddingUsageEvent
from llama_index_presets.monitor.recorder import prompt_texts, response_text
from llama_index_presets.monitor.traces.attributes import Billed, Message
from llama_index_presets.monitor.traces.spans import OpenSpan, SpanTree
from llama_index_presets.monitor.usage import Usage, merged, provider_of, reported_usage

__all__ = [
    "attempt_failed",
    "chunk",
    "embedding_usage",
    "end_embedding",
    "end_llm",
    "start_embedding",
    "start_llm",
    "stream_failed",
]

_MOST_PIECES: Final = 20_000


# -- language models ---------------------------------------------------------------------------------------------------


def _messages(prompt: Any) -> list[Message]:
    if isinstance(prompt, str):
        return [Message("user", prompt)]
    return [
        Message(getattr(message.role, "value", str(message.role)), message.content or "")
        for message in prompt
    ]


def start_llm(tree: SpanTree, event: Any) -> None:
    """Open the span of a call of a language model, or show it as part of the one around it."""
    key, instance = event.span_id, tree.instance(event.span_id)
    outer = tree.nearest(key, "LLM")
    prompt = event.messages if isinstance(event, LLMChatStartEvent) else event.prompt
    if outer is not None and outer.instance is instance:
        tree.merge(key, outer)
        (outer.into or outer).prompt = prompt
        return
    if outer is not None:  # a router, a retry, a cache: the call is the inner one
        (outer.into or outer).facts["openinference.span.kind"] = "CHAIN"
    described = event.model_dict
    model = described.get("model_name") or described.get("model") or ""
    span = tree.open("llm", "LLM", key)
    span.prompt = prompt
    span.facts |= {
        "llm.model_name": model,
        "llm.provider": provider_of(described.get("class_name") or "", model),
        "llm.input_messages": _messages(prompt),
    }


def chunk(tree: SpanTree, event: Any) -> None:
    """Note a piece of a stream."""
    span = tree.at(event.span_id)
    if span is not None:
        if span.chunk is None:
            (span.into or span).happened("first piece")
        span.chunk = event.response
        if len(span.pieces) < _MOST_PIECES:
            span.pieces.append(getattr(event.response, "delta", None) or "")
        if (usage := reported_usage(event.response)) is not None:
            span.stream_usage = merged(span.stream_usage, usage)


def end_llm(tree: SpanTree, event: Any) -> None:
    """End a call of a language model."""
    if (span := tree.at(event.span_id)) is not None:
        close_llm(tree, span, event.response)


def close_llm(tree: SpanTree, span: OpenSpan, response: Any) -> None:
    """End a call of a language model with its last response, or with what a broken stream has said."""
    shown = span.into or span
    usage = reported_usage(response)
    if span.stream_usage is not None:
        usage = merged(span.stream_usage, usage)
    said = response_text(response) or "".join(span.pieces)
    if shown.kind == "LLM" and (usage is not None or "rag.billed" not in shown.facts):
        shown.facts["rag.billed"] = Billed(
            shown.facts.get("llm.provider", ""),
            shown.facts.get("llm.model_name", ""),
            usage,
            time.time(),
            prompt_texts(shown.prompt),
            said,
        )
    shown.facts["llm.output_messages"] = [Message("assistant", said)]
    root = shown
    while root.parent is not None:
        root = root.parent
    root.facts["output.value"] = said  # a whole answer, if one comes, replaces it
    tree.close(span)


def stream_failed(tree: SpanTree, event: Any) -> None:
    """End a stream that broke, or that its reader left."""
    span = tree.at(event.span_id)
    if span is not None:
        if isinstance(event.exception, GeneratorExit):
            span.facts["rag.stream_abandoned"] = True
        else:
            tree.mark_failed(span, type(event.exception).__name__)
        close_llm(tree, span, span.chunk) if span.chunk is not None else tree.close(span)


# -- embeddings --------------------------------------------------------------------------------------------------------


def start_embedding(tree: SpanTree, event: Any) -> None:
    """Open the span of a call of an embedding model; its further batches are part of it."""
    own = tree.at(event.span_id)
    if own is not None:  # the next batch of the same call
        own.facts["rag.batches"] = own.facts.get("rag.batches", 1) + 1
        return
    outer = tree.nearest(event.span_id, "EMBEDDING")
    if outer is not None:
        tree.merge(event.span_id, outer)
        return
    described = event.model_dict
    model = described.get("model_name") or described.get("model") or ""
    span = tree.open("embed", "EMBEDDING", event.span_id)
    span.facts |= {
        "embedding.model_name": model,
        "llm.provider": provider_of(described.get("class_name") or "", model),
    }


def embedding_usage(tree: SpanTree, event: EmbeddingUsageEvent) -> None:
    """Bill what an embedding model says it used."""
    span = tree.nearest(event.span_id, "EMBEDDING")
    if span is None or "answered by the cache" in span.facts:
        _answered_by_cache(tree, event)
        return
    shown = span.into or span
    if span.into is None:
        shown.owned += event.prompt_tokens
    else:
        shown.inner += event.prompt_tokens
    shown.facts["embedding.model_name"] = event.model
    shown.facts["rag.billed"] = Billed(
        event.provider, event.model, Usage(shown.owned or shown.inner), time.time(), source=event.usage_source
    )
    if event.attempt > 1:
        shown.facts["rag.attempt"] = event.attempt
    if event.cached_texts:
        shown.facts["rag.cached_texts"] = shown.facts.get("rag.cached_texts", 0) + event.cached_texts


def _answered_by_cache(tree: SpanTree, event: EmbeddingUsageEvent) -> None:
    """A cache in front of a model tells only how many texts it knew: one span for those of a call."""
    if tree.nearest(event.span_id) is None or not event.cached_texts:
        return
    span = tree.at(event.span_id) or tree.open("embed", "EMBEDDING", event.span_id)
    known = span.facts.get("rag.texts", 0) + event.texts
    span.facts |= {
        "answered by the cache": True,
        "embedding.model_name": event.model,
        "rag.texts": known,
        "rag.cached_texts": known,
        "rag.cache_hit": True,
    }


def end_embedding(tree: SpanTree, event: Any) -> None:
    """Count what was embedded; the span ends with its call, which may have more batches. Vectors are not looked at."""
    span = tree.at(event.span_id)
    if span is None or span.into is not None:
        return
    span.facts["rag.texts"] = texts_so_far = span.facts.get("rag.texts", 0) + len(event.chunks)
    if (cached := span.facts.get("rag.cached_texts")) is not None:
        span.facts["rag.cache_hit"] = cached >= texts_so_far
    billed = span.facts.get("rag.billed")
    if billed is None or billed.usage is None:
        texts = [text for text in event.chunks if isinstance(text, str)]
        asked = [*billed.asked, *texts] if billed is not None else texts
        span.facts["rag.billed"] = Billed(
            span.facts["llm.provider"], span.facts["embedding.model_name"], None, time.time(), asked
        )


def attempt_failed(tree: SpanTree, event: AttemptFailedEvent) -> None:
    """Note an attempt that failed inside a call that goes on."""
    span = tree.nearest(event.span_id)
    if span is not None:
        (span.into or span).happened(
            "attempt failed",
            rag_attempt=event.attempt,
            rag_latency_ms=event.latency_ms,
            exception_type=event.error_type,
        )
