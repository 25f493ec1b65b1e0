"""The cost in a trace is that of the ledger's row, also where the price needs more than the name of a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import NodeWithScore, TextNode
from tests.servers.chat_protocols import ChatServer
from tests.servers.openai import OpenAIServer
from tests.servers.otlp import Receiver
from tests.unit.monitor.test_traces import Seen

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.monitor.traces.tracing import Traces, trace_to
from llama_index_presets.providers.language_models import make_language_model
from llama_index_presets.providers.rerankers import make_reranker, read_reranker_name

HITS = [NodeWithScore(node=TextNode(text=f"Fish {number}."), score=0.5) for number in range(3)]
BOOK = '[models."cohere/rerank-v3.5"]\nsearches = 2\n'


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Ledger, Traces, Receiver]]:
    (tmp_path / "prices.toml").write_text(BOOK)
    with (
        Receiver() as receiver,
        Ledger(tmp_path / "calls.duckdb", prices=tmp_path / "prices.toml") as ledger,
        trace_to(receiver.endpoint, ledger=ledger) as traces,
        CostTrackingHandler(ledger, scope="bound").instrument() as handler,
        attributed(ledger=ledger),
    ):
        yield ledger, traces, receiver
        handler.close()


def billed(ledger: Ledger, kind: str) -> float:
    return float(ledger.sql("SELECT cost_usd FROM llm_calls WHERE kind = ?", [kind]).fetchall()[0][0])


@pytest.mark.parametrize(("model", "tier"), [("qwen3", ""), ("gpt-5-mini", "flex"), ("gpt-5-mini", "")])
def test_a_language_model(watched: tuple[Ledger, Traces, Receiver], model: str, tier: str) -> None:
    """One of a server on this machine was unpriced in traces and free in the ledger."""
    ledger, traces, receiver = watched
    with OpenAIServer() as server:
        llm: Any = make_language_model(f"{server.url}#{model}", {"context_window": 8_000})
        llm.additional_kwargs = {"service_tier": tier} if tier else {}
        llm.chat([ChatMessage("hi")])
    told = Seen(traces, receiver).of("llm")
    assert "rag.unpriced" not in told
    assert told["llm.cost.total"] == billed(ledger, "llm")
    assert (told["llm.cost.total"] == 0) == (model == "qwen3")


@pytest.mark.parametrize("here", [False, True])
def test_a_reranker(
    watched: tuple[Ledger, Traces, Receiver], monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    """Searches of Cohere, and a server on this machine."""
    ledger, traces, receiver = watched
    with ChatServer() as server:
        monkeypatch.setenv("CO_API_KEY", "sk-x")
        monkeypatch.setenv("CO_API_URL", server.url)
        name = f"{server.url}#bge" if here else "cohere/rerank-v3.5"
        reranker = make_reranker(read_reranker_name(name), {}, top_n=2)
        reranker.postprocess_nodes(HITS, query_str="fish")
    told = Seen(traces, receiver).of("rerank")
    assert told["llm.cost.total"] == billed(ledger, "rerank") == (0.0 if here else 0.002)
