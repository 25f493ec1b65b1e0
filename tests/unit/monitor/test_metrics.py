"""Metrics over OTLP: what a real receiver is sent of calls and questions, and that a dead one is not felt."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.servers.otlp import Receiver

from llama_index_presets import Ledger, build
from llama_index_presets.monitor.traces.metrics import RunMetrics


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


def points(metric: Any) -> list[tuple[dict[str, Any], Any]]:
    """Labels and point of each series of a metric."""
    data = getattr(metric, metric.WhichOneof("data"))
    return [
        ({item.key: getattr(item.value, item.value.WhichOneof("value")) for item in point.attributes}, point)
        for point in data.data_points
    ]


def test_calls_are_counted_under_the_names_of_the_conventions(receiver: Receiver, tmp_path: Path) -> None:
    """Seconds, tokens by type, dollars, errors and cache hits, from the ledger's own rows."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        metrics = RunMetrics(receiver.endpoint, project="tests", ledger=ledger, preset="p")
        call = {"kind": "llm", "provider": "openai", "model": "gpt-4o-mini"}
        ledger.record(**call, prompt_tokens=1_000, completion_tokens=500, latency_ms=250.0)
        ledger.record(**call, status="error", error_type="TimeoutError", latency_ms=750.0)
        ledger.record(**call, cache_hit=True, saved_usd=Decimal("0.25"))
        assert metrics.flush()
        metrics.close()
    sent = receiver.metrics()
    of_model = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
    }  # fmt: skip
    seconds = {
        labels.get("error.type", ""): point.sum
        for labels, point in points(sent["gen_ai.client.operation.duration"])
    }
    assert (
        seconds == {"": 0.25, "TimeoutError": 0.75} and sent["gen_ai.client.operation.duration"].unit == "s"
    )
    tokens = {
        labels["gen_ai.token.type"]: point.sum for labels, point in points(sent["gen_ai.client.token.usage"])
    }
    assert tokens == {"input": 1_000, "output": 500}
    [(labels, cost)] = points(sent["llama_presets.cost"])
    assert labels == of_model and cost.as_double == pytest.approx(1_000 * 0.15e-6 + 500 * 0.6e-6)
    assert [point.as_int for _, point in points(sent["llama_presets.cache.hits"])] == [1]
    assert [point.as_double for _, point in points(sent["llama_presets.cost.saved"])] == [0.25]
    assert "/v1/metrics" in receiver.paths


def test_questions_of_an_engine_are_counted_by_outcome(receiver: Receiver, tmp_path: Path) -> None:
    """The setting of the traces sends them: answered, cached, abstained and failed; no text leaves."""
    settings = {
        "trace_endpoint": receiver.endpoint, "store": "duckdb", "answer_cache": "on", "answer_floor": -1.0,
        "monitoring": "basic",
    }  # fmt: skip
    llm = ScriptedLLM()
    with build(
        "knowledge-base", storage=tmp_path, llm=llm, embed_model=WordEmbedding(), settings=settings
    ) as engine:
        engine.ingest([Document(text="Parcels are returned within 30 days.")])
        for _ in range(2):
            engine.query("When are parcels returned?")
        llm.says = "I don't know."
        "".join(engine.stream("Who was Quirinus?").response_gen)
        engine.stream("Who was Florus?").response_gen.close()
    found = points(receiver.metrics()["llama_presets.requests"])
    outcomes = {(labels["outcome"], labels["cached"]): point.as_int for labels, point in found}
    assert outcomes == {
        ("known", False): 1,
        ("known", True): 1,
        ("abstained", False): 1,
        ("abandoned", False): 1,
    }
    [seconds] = [
        p for labels, p in points(receiver.metrics()["llama_presets.request.duration"]) if labels["cached"]
    ]
    assert seconds.count == 1 and seconds.sum > 0
    assert not any(b"quirinus" in body.lower() for body in receiver.bodies)


def test_a_collector_that_is_gone_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No error, no log: the traces say once that nothing answers."""
    with Receiver() as gone:
        endpoint = gone.endpoint
    with Ledger(tmp_path / "calls.duckdb") as ledger, caplog.at_level(logging.WARNING):
        metrics = RunMetrics(endpoint, project="tests", ledger=ledger, preset="p")
        ledger.record(kind="llm", provider="local", model="m")
        metrics.flush()
        metrics.close()
        metrics.close()
    assert caplog.records == []
