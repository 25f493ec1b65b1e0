"""What each instrumentation event says of a span: a table from event to step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

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
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index_presets.events import (
    AttemptFailedEvent,
    DocumentEndEvent,
    EmbeddingUsageEvent,
    FusionEvent,
    LegEndEvent,
    RerankUsageEvent,
    RunEndEvent,
    RunStartEvent,
)
from llama_index_presets.monitor.observe import response_text
from llama_index_presets.monitor.providers import provider_of
from llama_index_presets.monitor.trace_attributes import Billed, Hit, Message
from llama_index_presets.monitor.trace_span import OpenSpan
from llama_index_presets.monitor.trace_tree import SpanTree
from llama_index_presets.monitor.usage import Usage, merged, reported_usage
from llama_index_presets.provenance import RankedNode

__all__ = ["ENDS", "STARTS", "close_llm", "leg_begins"]

_MOST_DOCUMENTS: Final = 1_000
_MOST_PIECES: Final = 20_000
Step = Callable[[SpanTree, Any], object]


def hits_of(nodes: Sequence[NodeWithScore]) -> list[Hit]:
    """Give what a trace shows of hits: texts by reference, hashed only when the span leaves."""
    return [
        Hit(
            hit.node.node_id,
            hit.score,
            hit.node.text if isinstance(hit.node, TextNode) else None,
            {name: (stage.rank, stage.score) for name, stage in hit.stages.items()}
            if isinstance(hit, RankedNode)
            else {},
        )
        for hit in nodes
    ]


def _asked(question: object) -> str | None:
    return (
        question.query_str
        if isinstance(question, QueryBundle)
        else question
        if isinstance(question, str)
        else None
    )


# -- queries and retrieval ---------------------------------------------------------------------------------------------


def _start_query(tree: SpanTree, event: Any) -> None:
    above = tree.nearest(event.span_id)
    if above is not None and above.parent is None and above.name == "query":
        above.facts.setdefault("input.value", _asked(event.query))
        tree.merge(event.span_id, above)
        return
    tree.open("query", "CHAIN", event.span_id).facts["input.value"] = _asked(event.query)


def _end_query(tree: SpanTree, event: Any) -> None:
    if (span := tree.at(event.span_id)) is not None:
        response = getattr(event.response, "response", None)
        (span.into or span).facts["output.value"] = response if isinstance(response, str) else None
        if not hasattr(event.response, "response_gen") and not hasattr(event.response, "async_response_gen"):
            tree.close(span)


def _start_retrieval(tree: SpanTree, event: Any) -> None:
    asked = _asked(event.str_or_query_bundle)
    if (leg := tree.at(event.span_id)) is not None:  # a leg, opened by its tag
        leg.facts["input.value"] = asked
        return
    span = tree.open("retrieve", "RETRIEVER", event.span_id)
    span.facts["input.value"] = asked
    if span.parent is not None and span.parent.parent is None:
        span.parent.facts.setdefault("input.value", asked)


def _end_retrieval(tree: SpanTree, event: Any) -> None:
    if (span := tree.at(event.span_id)) is not None:
        show_hits(span, hits_of(event.nodes))
        tree.close(span)


def show_hits(span: OpenSpan, hits: list[Hit]) -> None:
    """Note what a retriever found."""
    span.facts["retrieval.documents"] = hits
    span.facts["rag.hits"] = len(hits)


def leg_begins(tree: SpanTree, key: str, leg: str) -> None:
    """Open the span of one leg of a hybrid search."""
    above = tree.nearest(key, "RETRIEVER")
    if above is not None and above.facts.get("rag.leg") != leg:
        span = tree.open(f"retrieve: {leg}", "RETRIEVER", key)
        span.facts["rag.leg"] = leg
        span.facts["rag.retriever"] = type(span.instance).__name__
        span.facts["input.value"] = above.facts.get("input.value")


def _end_leg(tree: SpanTree, event: LegEndEvent) -> None:
    above = tree.nearest(event.span_id)
    if above is not None:
        told: dict[str, Any] = {
            "rag_leg": event.leg,
            "rag_hits": event.hits,
            "rag_latency_ms": event.latency_ms,
        }
        name = "leg failed" if event.error else "leg"
        above.happened(name, **told, exception_type=event.error)


def _fusion(tree: SpanTree, event: FusionEvent) -> None:
    above = tree.nearest(event.span_id)
    if above is None:
        return
    span: OpenSpan | None = above.facts.pop("fusion under way", None)
    span = span or OpenSpan("fusion", "CHAIN", above)
    span.facts |= {
        "rag.fusion": event.fusion,
        "rag.legs": event.legs,
        "rag.degraded": event.degraded or None,
        "rag.candidates": event.candidates,
        "rag.hits": event.hits,
    }
    above.facts |= {"rag.fusion": event.fusion, "rag.degraded": event.degraded or None}
    tree.close(span)


# -- reranking ---------------------------------------------------------------------------------------------------------


def _start_rerank(tree: SpanTree, event: Any) -> None:
    span = tree.open("rerank", "RERANKER", event.span_id)
    span.facts |= {
        "reranker.model_name": event.model_name,
        "reranker.top_k": event.top_n,
        "reranker.query": _asked(event.query),
        "reranker.input_documents": hits_of(event.nodes),
        "rag.candidates": len(event.nodes),
    }


def _end_rerank(tree: SpanTree, event: Any) -> None:
    if (span := tree.at(event.span_id)) is not None:
        span.facts |= {"reranker.output_documents": hits_of(event.nodes), "rag.hits": len(event.nodes)}
        tree.close(span)


def _rerank_usage(tree: SpanTree, event: RerankUsageEvent) -> None:
    span = tree.nearest(event.span_id, "RERANKER")
    if span is not None:
        span.facts |= {
            "reranker.model_name": event.model,
            "rag.pairs": event.pairs,
            "rag.truncated": event.truncated or None,
            "rag.deadline_cut": event.cut or None,
            "rag.billed": Billed(
                event.provider, event.model, Usage(event.prompt_tokens), time.time(), source="counted"
            ),
        }
        if event.cut:
            span.happened("deadline cut", rag_pairs=event.pairs, rag_latency_ms=event.latency_ms)


# -- language models ---------------------------------------------------------------------------------------------------


def _messages(prompt: Any) -> list[Message]:
    if isinstance(prompt, str):
        return [Message("user", prompt)]
    return [
        Message(getattr(message.role, "value", str(message.role)), message.content or "")
        for message in prompt
    ]


def _start_llm(tree: SpanTree, event: Any) -> None:
    key, instance = event.span_id, tree.instance(event.span_id)
    outer = tree.nearest(key, "LLM") or _async_stream(tree, key, instance)
    if outer is not None and outer.instance is instance:
        tree.merge(key, outer)
        return
    if outer is not None:  # a router, a retry, a cache: the call is the inner one
        (outer.into or outer).facts["openinference.span.kind"] = "CHAIN"
    described = event.model_dict
    model = described.get("model_name") or described.get("model") or ""
    span = tree.open("llm", "LLM", key)
    prompt = event.messages if isinstance(event, LLMChatStartEvent) else event.prompt
    span.facts |= {
        "llm.model_name": model,
        "llm.provider": provider_of(described.get("class_name") or "", model),
        "llm.input_messages": _messages(prompt),
    }


def _async_stream(tree: SpanTree, key: str | None, instance: Any) -> OpenSpan | None:
    """Find the async stream that a sync one serves: `CustomLLM.astream_*` starts it late, outside its own span."""
    method = (key or "").partition(".")[2].partition("-")[0]
    return tree.streaming(instance, method) if method.startswith("stream_") and instance is not None else None


def _chunk(tree: SpanTree, event: Any) -> None:
    span = tree.at(event.span_id)
    if span is not None:
        if span.chunk is None:
            (span.into or span).happened("first piece")
        span.chunk = event.response
        if len(span.pieces) < _MOST_PIECES:
            span.pieces.append(getattr(event.response, "delta", None) or "")
        if (usage := reported_usage(event.response)) is not None:
            span.stream_usage = merged(span.stream_usage, usage)


def _end_llm(tree: SpanTree, event: Any) -> None:
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
        asked = [f"{message.role}: {message.text}" for message in shown.facts.get("llm.input_messages", ())]
        shown.facts["rag.billed"] = Billed(
            shown.facts.get("llm.provider", ""),
            shown.facts.get("llm.model_name", ""),
            usage,
            time.time(),
            asked,
            said,
        )
    shown.facts["llm.output_messages"] = [Message("assistant", said)]
    root = shown
    while root.parent is not None:
        root = root.parent
    root.facts["output.value"] = said  # a whole answer, if one comes, replaces it
    tree.close(span)


def _stream_failed(tree: SpanTree, event: Any) -> None:
    span = tree.at(event.span_id)
    if span is not None:
        if isinstance(event.exception, GeneratorExit):
            span.facts["rag.stream_abandoned"] = True
        else:
            tree.mark_failed(span, type(event.exception).__name__)
        close_llm(tree, span, span.chunk) if span.chunk is not None else tree.close(span)


# -- embeddings --------------------------------------------------------------------------------------------------------


def _start_embedding(tree: SpanTree, event: Any) -> None:
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


def _embedding_usage(tree: SpanTree, event: EmbeddingUsageEvent) -> None:
    span = tree.nearest(event.span_id, "EMBEDDING")
    if span is None:
        return
    shown = span.into or span
    if span.into is None:
        shown.owned += event.prompt_tokens
        if event.cached_texts:
            shown.facts["rag.cached_texts"] = shown.facts.get("rag.cached_texts", 0) + event.cached_texts
    else:
        shown.inner += event.prompt_tokens
    shown.facts["embedding.model_name"] = event.model
    shown.facts["rag.billed"] = Billed(
        event.provider, event.model, Usage(shown.owned or shown.inner), time.time(), source=event.usage_source
    )
    if event.attempt > 1:
        shown.facts["rag.attempt"] = event.attempt


def _end_embedding(tree: SpanTree, event: Any) -> None:
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


def _attempt_failed(tree: SpanTree, event: AttemptFailedEvent) -> None:
    span = tree.nearest(event.span_id)
    if span is not None:
        (span.into or span).happened(
            "attempt failed",
            rag_attempt=event.attempt,
            rag_latency_ms=event.latency_ms,
            exception_type=event.error_type,
        )


# -- runs --------------------------------------------------------------------------------------------------------------


def _start_run(tree: SpanTree, event: RunStartEvent) -> None:
    tree.begin_run(event.run_id, event.kind)


def _end_run(tree: SpanTree, event: RunEndEvent) -> None:
    facts: dict[str, Any] = {f"rag.{name}": count for name, count in event.counts.items()}
    facts |= {"rag.cost_usd": event.cost_usd, "rag.stream_abandoned": event.abandoned or None}
    if event.known is not None:
        facts |= {"rag.known": event.known, "rag.citations": event.citations}
        if not event.known and (root := tree.runs.get(event.run_id)) is not None:
            root.happened("I don't know")
    tree.end_run(event.run_id, facts, event.error)


def _document(tree: SpanTree, event: DocumentEndEvent) -> None:
    """One span a document, as far as a person would read; the others are counted in the root."""
    root = tree.nearest(event.span_id)
    if root is None:
        return
    shown = root.facts.get("documents shown", 0)
    if shown >= _MOST_DOCUMENTS and not event.error:
        root.facts["rag.not_shown"] = root.facts.get("rag.not_shown", 0) + 1
        return
    root.facts["documents shown"] = shown + 1
    span = tree.add("document", "CHAIN", root, event.latency_ms)
    span.facts |= {"rag.document": event.document, "rag.chunks": event.chunks}
    if event.error:
        tree.mark_failed(span, event.error)
    tree.close(span)


STARTS: Final[dict[type, Step]] = {
    RunStartEvent: _start_run,
    QueryStartEvent: _start_query,
    RetrievalStartEvent: _start_retrieval,
    ReRankStartEvent: _start_rerank,
    LLMChatStartEvent: _start_llm,
    LLMCompletionStartEvent: _start_llm,
    EmbeddingStartEvent: _start_embedding,
}
"""Events that may open a span; heard only where the work belongs to the handle."""

ENDS: Final[dict[type, Step]] = {
    RunEndEvent: _end_run,
    QueryEndEvent: _end_query,
    RetrievalEndEvent: _end_retrieval,
    ReRankEndEvent: _end_rerank,
    LLMChatInProgressEvent: _chunk,
    LLMCompletionInProgressEvent: _chunk,
    LLMChatEndEvent: _end_llm,
    LLMCompletionEndEvent: _end_llm,
    ExceptionEvent: _stream_failed,
    EmbeddingEndEvent: _end_embedding,
    EmbeddingUsageEvent: _embedding_usage,
    RerankUsageEvent: _rerank_usage,
    AttemptFailedEvent: _attempt_failed,
    LegEndEvent: _end_leg,
    FusionEvent: _fusion,
    DocumentEndEvent: _document,
}
"""Events that add to spans, or end them; they find nothing where no span was opened."""
