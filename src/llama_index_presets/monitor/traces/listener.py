"""Stage events in a trace: questions, hits, legs, fusion, documents and runs, beyond the model calls themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.query import QueryEndEvent, QueryStartEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index_presets.events import DocumentEndEvent, FusionEvent, LegEndEvent, RunEndEvent, RunStartEvent
from llama_index_presets.monitor.calls import call_events
from llama_index_presets.monitor.listener import DispatcherListener
from llama_index_presets.monitor.traces.attributes import Hit, label
from llama_index_presets.monitor.traces.spans import OpenSpan, SpanTree
from llama_index_presets.provenance import RankedIds, RankedNode

__all__ = ["listen"]


_MOST_DOCUMENTS: Final = 1_000
_MOST_SHOWN: Final = 100
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
    if (span := tree.at(event.span_id)) is not None:
        (span.into or span).facts.setdefault("input.value", _asked(event.query))


def _end_query(tree: SpanTree, event: Any) -> None:
    if (span := tree.at(event.span_id)) is not None:
        response = getattr(event.response, "response", None)
        (span.into or span).facts["output.value"] = response if isinstance(response, str) else None
        if not hasattr(event.response, "response_gen") and not hasattr(event.response, "async_response_gen"):
            tree.close(span)


def _start_retrieval(tree: SpanTree, event: Any) -> None:
    asked = _asked(event.str_or_query_bundle)
    span = tree.at(event.span_id)
    if span is None:
        return
    span.facts["input.value"] = asked
    if "rag.leg" not in span.facts and span.parent is not None and span.parent.parent is None:
        span.parent.facts.setdefault("input.value", asked)


def _end_retrieval(tree: SpanTree, event: Any) -> None:
    if (span := tree.at(event.span_id)) is not None:
        _show_hits(span, hits_of(event.nodes))
        tree.close(span)


def _show_hits(span: OpenSpan, hits: list[Hit]) -> None:
    """Note what a retriever found."""
    span.facts["retrieval.documents"] = hits
    span.facts["rag.hits"] = len(hits)


def _leg_begins(tree: SpanTree, key: str, leg: str) -> None:
    """Open the span of one leg of a hybrid search."""
    above = tree.nearest(key, "RETRIEVER")
    if above is not None and above.facts.get("rag.leg") != leg:
        span = tree.open(f"retrieve: {label(leg) or 'leg'}", "RETRIEVER", key)
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
    span = tree.add("fusion", "CHAIN", above, event.latency_ms)
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
    span = tree.at(event.span_id)
    if span is None:
        return
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


_STARTED: Final[dict[type, Step]] = {
    RunStartEvent: _start_run,
    QueryStartEvent: _start_query,
    RetrievalStartEvent: _start_retrieval,
    ReRankStartEvent: _start_rerank,
}
"""Events that say more of what begins; taken only where the work belongs to the handle."""

_ENDED: Final[dict[type, Step]] = {
    RunEndEvent: _end_run,
    QueryEndEvent: _end_query,
    RetrievalEndEvent: _end_retrieval,
    ReRankEndEvent: _end_rerank,
    LegEndEvent: _end_leg,
    FusionEvent: _fusion,
    DocumentEndEvent: _document,
}
"""Events that say more of what is over; they find nothing where no span was opened."""

_log = logging.getLogger(__name__)


def listen(tree: SpanTree, accepts: Callable[[], bool]) -> DispatcherListener:
    """Tell a tree what the root dispatcher says, until the listener is detached.

    Args:
        tree: Shows it.
        accepts: Whether work that begins here and now belongs to the tree.
    """
    calls = tree.calls
    starts = call_events.STARTS.keys() | _STARTED.keys()

    def on_event(event: BaseEvent) -> None:
        kind = type(event)
        if kind in starts:
            if accepts():
                call_events.STARTS.get(kind, _nothing)(calls, event)
                _STARTED.get(kind, _nothing)(tree, event)
            return
        _ENDED.get(kind, _nothing)(tree, event)
        call_events.ENDS.get(kind, _nothing)(calls, event)
        if (complete := call_events.COMPLETIONS.get(kind)) is not None:
            complete(calls, event, True)

    def on_enter(
        span_id: str, parent_id: str | None, instance: Any, arguments: Any, tags: dict[str, Any] | None
    ) -> None:
        calls.enter(span_id, parent_id, instance)
        if tags and "leg" in tags:
            _leg_begins(tree, span_id, tags["leg"])

    def on_leave(span_id: str, result: Any, error: BaseException | None) -> None:
        if isinstance(result, RankedIds) and (span := tree.at(span_id)) is not None:
            _show_ids(span, result.pairs)
        tree.leave(span_id, result, error)

    listener = DispatcherListener(
        on_event=on_event, on_enter=on_enter, on_leave=on_leave, on_fault=_log_fault
    )
    listener.listen(starts | _ENDED.keys() | call_events.ENDS.keys() | call_events.COMPLETIONS.keys())
    return listener


def _nothing(tree: object, event: object) -> None:
    """Most events say nothing more."""


def _show_ids(span: OpenSpan, pairs: Sequence[tuple[str, float]]) -> None:
    """A leg that gives ids and scores, no nodes yet."""
    if span.kind == "RETRIEVER" and "rag.hits" not in span.facts:
        _show_hits(span, [Hit(name, score) for name, score in pairs[:_MOST_SHOWN]])
        span.facts["rag.hits"] = len(pairs)


def _log_fault(where: str, error: Exception) -> None:
    """Log the class of a fault and where; its message may hold a text."""
    _log.error("Tracing failed on a %s (%s); the call itself goes on.", where, type(error).__name__)
