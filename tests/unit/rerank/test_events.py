"""What listeners see of a reranking."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import NodeWithScore
from pydantic import Field

from llama_index_presets import CrossEncoderRerank
from llama_index_presets.events import RerankUsageEvent

QUERY = "How is botulism treated?"


class Recorder(BaseEventHandler):
    events: list[Any] = Field(default_factory=list)
    threads: list[int] = Field(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        self.events.append(event)
        self.threads.append(threading.get_ident())


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, SimpleSpanHandler]]:
    """Listen on the root dispatcher, and stop afterwards."""
    root = get_dispatcher()
    events, spans = Recorder(), SimpleSpanHandler()
    before = list(root.event_handlers), list(root.span_handlers)
    root.add_event_handler(events)
    root.add_span_handler(spans)
    yield events, spans
    root.event_handlers, root.span_handlers = before


def test_start_usage_and_end_are_sent_in_one_span(
    model: str, hits: list[NodeWithScore], recorder: tuple[Recorder, SimpleSpanHandler]
) -> None:
    """The ledger finds the usage inside the span, between start and end."""
    events, spans = recorder
    reranker = CrossEncoderRerank(model).warm_up()
    events.events.clear()  # the load has an event of its own
    found = reranker.postprocess_nodes(hits, query_str=QUERY)
    start, usage, end = events.events
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(usage, RerankUsageEvent)
    assert isinstance(end, ReRankEndEvent)
    assert start.span_id == usage.span_id == end.span_id
    assert (start.model_name, start.top_n, len(start.nodes)) == (model, 5, 10)
    assert [hit.node_id for hit in end.nodes] == [hit.node_id for hit in found]
    assert [span.id_ for span in spans.completed_spans] == [start.span_id]


def test_usage_counts_pairs_and_tokens_and_carries_no_text(
    model: str, hits: list[NodeWithScore], recorder: tuple[Recorder, SimpleSpanHandler]
) -> None:
    """One row for the ledger: local, so it costs nothing."""
    events, _ = recorder
    found = CrossEncoderRerank(model).postprocess_nodes(hits, query_str=QUERY)
    usage = next(event for event in events.events if isinstance(event, RerankUsageEvent))
    assert (usage.provider, usage.model, usage.pairs, usage.cut) == ("local", model, 10, False)
    assert usage.prompt_tokens == found.report.prompt_tokens > 0
    assert usage.latency_ms == found.report.latency_ms > 0
    assert "botulism" not in usage.model_dump_json().lower()


def test_the_span_carries_model_hash_and_counts(
    model: str, hits: list[NodeWithScore], recorder: tuple[Recorder, SimpleSpanHandler]
) -> None:
    """Tags are written at the end, when the truncated count is known."""
    CrossEncoderRerank(model, max_length=16).postprocess_nodes(hits, query_str=QUERY)
    tags = recorder[1].completed_spans[0].tags
    assert tags["rerank.model"] == model
    assert tags["rerank.query_sha256"] == hashlib.sha256(QUERY.encode()).hexdigest()[:16]
    assert tags["rerank.candidates"] == 10
    assert tags["rerank.truncated"] > 0


async def test_async_sends_the_events_from_another_thread(
    model: str, hits: list[NodeWithScore], recorder: tuple[Recorder, SimpleSpanHandler]
) -> None:
    """Scoring is off the loop, and the events keep their span."""
    events, _ = recorder
    await CrossEncoderRerank(model).apostprocess_nodes(hits, query_str=QUERY)
    assert threading.get_ident() not in events.threads
    assert len({event.span_id for event in events.events}) == 1


def test_a_callback_event_brackets_the_reranking(model: str, hits: list[NodeWithScore]) -> None:
    """Apps on the older callback system see one RERANKING event with its hits."""
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = CrossEncoderRerank(model, callback_manager=CallbackManager([debug]))
    rerank.postprocess_nodes(hits, query_str=QUERY)
    ((start, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert len(start.payload["nodes"]) == 10
    assert len(end.payload["nodes"]) == 5
