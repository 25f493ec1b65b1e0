"""Ledger and traces see the same model calls in every sequence of events; where they differ, ADR 0110 says why."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.call_tree import SEQUENCES, Expected, Sequence
from tests.servers.otlp import Receiver
from tests.unit.monitor.test_traces import values

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.monitor.budgets import Budget, Budgets
from llama_index_presets.monitor.traces.tracing import trace_to

KINDS = {
    "LLM": "llm",
    "EMBEDDING": "embedding",
    "RERANKER": "rerank",
    "RETRIEVER": "retrieval",
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


def rows(ledger: Ledger) -> list[Expected]:
    found = ledger.sql(
        "SELECT kind, coalesce((SELECT kind FROM llm_calls AS outer_call "
        "WHERE outer_call.call_id = llm_calls.parent_id), ''), "
        "status, prompt_tokens, completion_tokens, usage_source, attempt, parent_id FROM llm_calls"
    ).fetchall()
    for row in found:
        assert not row[7] or row[1], "parent_id names no row"
    return sorted(
        Expected(kind, below, status, (prompt, completion) if source else None, source, attempt)
        for kind, below, status, prompt, completion, source, attempt, _ in found
    )


def kind_of(span: Any) -> str:
    facts = values(span.attributes)
    if span.name in ("query", "load"):
        return str(span.name)
    return KINDS.get(facts["openinference.span.kind"], "")


def spans(receiver: Receiver) -> list[Expected]:
    known = {span.span_id: span for span in receiver.spans()}
    return sorted(_call(span, known) for span in known.values() if kind_of(span))


def _call(span: Any, known: dict[bytes, Any]) -> Expected:
    facts, below = values(span.attributes), known.get(span.parent_span_id)
    while below is not None and not kind_of(below):
        below = known.get(below.parent_span_id)
    status = "error" if span.status.message else "success"
    status = "refused" if "rag.budget_refused" in facts and kind_of(span) == "llm" else status
    status = "abandoned" if "rag.stream_abandoned" in facts else status
    source = facts.get("rag.usage_source", "")
    tokens = (facts.get("llm.token_count.prompt", 0), facts.get("llm.token_count.completion", 0))
    return Expected(
        kind_of(span),
        kind_of(below) if below is not None else "",
        status,
        tokens if source else None,
        source,
        facts.get("rag.attempt", 1),
    )


@pytest.mark.parametrize("name", SEQUENCES)
def test_ledger_and_trace_see_these_calls(tmp_path: Path, receiver: Receiver, name: str) -> None:
    """Kind, what is around it, status, tokens, who counted, attempt: in rows and in spans."""
    sequence: Sequence = SEQUENCES[name]
    receiver.bodies.clear()
    ledger = Ledger(tmp_path / "calls.duckdb", flush_interval_s=60)
    limit = sequence.budget_usd and [Budget(limit_usd=Decimal(sequence.budget_usd))]
    budgets = Budgets(ledger, limit, unpriced="allow") if limit else None
    with (
        trace_to(receiver.endpoint, content="text") as traces,
        CostTrackingHandler(ledger, budgets=budgets).instrument() as handler,
    ):
        sequence.run(tmp_path)
        gc.collect()
        assert handler.observer.tracker.open_calls == 0
        assert traces.flush()
    in_rows, in_spans = rows(ledger), spans(receiver)
    handler.close()
    ledger.close()
    assert in_rows == sorted(sequence.rows or sequence.calls)
    assert in_spans == sorted(sequence.calls)
