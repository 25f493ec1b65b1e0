"""Models of a server on this machine: free everywhere, unless a list of prices knows the name."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from llama_index.core import Document
from tests.servers.openai import OpenAIServer

from llama_index_presets import build
from llama_index_presets.monitor.budgets import Budget
from llama_index_presets.monitor.prices import Pricer, free_here

FISH = [Document(text="The red fish lives in lake red.", doc_id="red")]
PLAIN = {"store": "duckdb", "answer_floor": -1.0, "embedding_cache": "off"}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def test_ledger_answer_budget_and_estimate_agree(server: OpenAIServer, tmp_path: Path) -> None:
    """They said null, null, refused and 0."""
    settings = {**PLAIN, "embedding": f"{server.url}#bge-m3"}
    with build("knowledge-base", storage=tmp_path, llm=f"{server.url}#qwen3", settings=settings) as engine:
        assert engine.estimate(FISH).cost_usd == 0
        assert engine.ingest(FISH).cost_usd == 0.0
        engine.hold_to_budgets([Budget(limit_usd=Decimal("0.01"))])
        assert engine.query("Where does the red fish live?").metadata["cost_usd"] == 0.0  # type: ignore[index]
        asked = "select distinct provider, cost_usd from llm_calls where kind in ('llm', 'embedding')"
        assert engine.ledger.sql(asked).fetchall() == [("local", Decimal(0))]
        assert engine.ledger.get_usage_stats().unpriced_calls == 0


def test_a_name_that_the_prices_know_keeps_its_price(server: OpenAIServer, tmp_path: Path) -> None:
    """A gateway passes the bill on."""
    settings = {**PLAIN, "embedding": f"{server.url}#bge-m3"}
    with build(
        "knowledge-base", storage=tmp_path, llm=f"{server.url}#gpt-4o-mini", settings=settings
    ) as engine:
        engine.ingest(FISH)
        assert engine.query("Where does the red fish live?").metadata["cost_usd"] > 0  # type: ignore[index]


@pytest.mark.parametrize("address", ["http://10.0.0.7:8080/v1", "https://example.invalid/v1", ""])
def test_a_server_elsewhere_has_no_price(address: str) -> None:
    """Null, and never a guess."""
    assert not free_here(Pricer(), "qwen3", address)
