"""Event and span handlers of a trace handle. They hold the handle weakly, and log what fails in it."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
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
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
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
from llama_index_presets.loading import ModelLoadEvent
from llama_index_presets.monitor.traces.attributes import Billed, Hit, label
from llama_index_presets.monitor.traces.calls import (
    attempt_failed,
    chunk,
    embedding_usage,
    end_embedding,
    end_llm,
    start_embedding,
    start_llm,
    stream_failed,
)
from llama_index_presets.monitor.traces.spans import OpenSpan, SpanTree
from llama_index_presets.monitor.usage import Usage
from llama_index_presets.provenance import RankedNode

if TYPE_CHECKING:
    from llama_index_presets.monitor.traces.tracing import Traces

__all__ = ["ENDS", "STARTS", "leg_begins", "listen", "show_hits"]

# What each instrumentation event says of a span: a table from event to step.


_MOST_DOCUMENTS: Final = 1_000
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


def _loaded(tree: SpanTree, event: ModelLoadEvent) -> None:
    """Show the loading of a model by itself, in the call that waited for it."""
    above = tree.nearest(event.span_id)
    if above is None:
        return
    span = tree.add("load", "CHAIN", above.into or above, event.latency_ms)
    name = "reranker.model_name" if event.purpose == "rerank" else "embedding.model_name"
    span.facts |= {
        name: event.model,
        "rag.latency_ms": event.latency_ms,
        "rag.cache_hit": event.waited or None,
    }
    if event.error:
        tree.mark_failed(span, event.error)
    tree.close(span)


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
    LLMChatStartEvent: start_llm,
    LLMCompletionStartEvent: start_llm,
    EmbeddingStartEvent: start_embedding,
}
"""Events that may open a span; heard only where the work belongs to the handle."""

ENDS: Final[dict[type, Step]] = {
    RunEndEvent: _end_run,
    QueryEndEvent: _end_query,
    RetrievalEndEvent: _end_retrieval,
    ReRankEndEvent: _end_rerank,
    LLMChatInProgressEvent: chunk,
    LLMCompletionInProgressEvent: chunk,
    LLMChatEndEvent: end_llm,
    LLMCompletionEndEvent: end_llm,
    ExceptionEvent: stream_failed,
    EmbeddingEndEvent: end_embedding,
    EmbeddingUsageEvent: embedding_usage,
    RerankUsageEvent: _rerank_usage,
    AttemptFailedEvent: attempt_failed,
    ModelLoadEvent: _loaded,
    LegEndEvent: _end_leg,
    FusionEvent: _fusion,
    DocumentEndEvent: _document,
}
"""Events that add to spans, or end them; they find nothing where no span was opened."""


_log = logging.getLogger(__name__)


def listen(traces: Traces) -> Callable[[], None]:
    """Put ears on the root dispatcher; gives what takes them off."""
    events, spans = _EventEar(traces), _SpanEar(traces.tree)
    root = get_dispatcher()
    root.add_event_handler(events)
    root.add_span_handler(spans)

    def silence() -> None:
        # By identity: ears of different handles compare equal.
        root.event_handlers = [known for known in root.event_handlers if known is not events]
        root.span_handlers = [known for known in root.span_handlers if known is not spans]

    return silence


class _EventEar(BaseEventHandler):
    """Takes the events of the process."""

    def __init__(self, traces: Traces) -> None:
        super().__init__()
        object.__setattr__(self, "_owner", weakref.ref(traces))

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "TracesEventEar"

    def handle(self, event: BaseEvent, **kwargs: Any) -> Any:
        """Take one event; the dispatcher would swallow a fault, so it is logged."""
        owner: Traces | None = self._owner()  # type: ignore[attr-defined]
        if owner is None:
            return
        try:
            if (start := STARTS.get(type(event))) is not None:
                if owner.hears():
                    start(owner.tree, event)
            elif (end := ENDS.get(type(event))) is not None:
                end(owner.tree, event)
        except Exception as error:
            _told(error, type(event).__name__)


class _SpanEar(BaseSpanHandler[BaseSpan]):
    """Takes the beginnings and ends of the dispatcher's spans."""

    def __init__(self, tree: SpanTree) -> None:
        super().__init__()
        object.__setattr__(self, "_tree", tree)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "TracesSpanEar"

    def span_enter(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note that a span begins; the legs of a hybrid search are known by their tag."""
        tree: SpanTree = self._tree  # type: ignore[attr-defined]
        tree.enter(id_, parent_id, instance)
        if tags and "leg" in tags:
            try:
                leg_begins(tree, id_, tags["leg"])
            except Exception as error:
                _told(error, "leg")
        elif "HybridFusionRetriever.rank-" in id_ and (above := tree.nearest(id_)) is not None:
            above.facts["fusion under way"] = OpenSpan("fusion", "CHAIN", above)

    def span_exit(
        self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> None:
        """Note that a span ends."""
        tree: SpanTree = self._tree  # type: ignore[attr-defined]
        span = tree.at(id_)
        if span is not None and span.kind == "RETRIEVER" and "rag.hits" not in span.facts:
            pairs = getattr(result, "pairs", None)  # a keyword leg: ids and scores, no nodes yet
            if isinstance(pairs, list):
                show_hits(span, [Hit(name, score) for name, score in pairs[:100]])
                span.facts["rag.hits"] = len(pairs)
        tree.leave(id_, result)

    def span_drop(
        self, id_: str, bound_args: Any, instance: Any = None, err: BaseException | None = None, **kwargs: Any
    ) -> None:
        """Note that a span fails."""
        tree: SpanTree = self._tree  # type: ignore[attr-defined]
        tree.leave(id_, error=err or RuntimeError())

    def new_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_enter` does the work."""
        return None

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_exit` does the work."""
        return None

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_drop` does the work."""
        return None


def _told(error: Exception, what: str) -> None:
    """Log the class of a fault and where; its message may hold a text."""
    _log.error("Tracing failed on a %s (%s); the call itself goes on.", what, type(error).__name__)
