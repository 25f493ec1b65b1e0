"""Hosted rerankers against a server of Cohere's protocol: what a search costs is in the ledger, and in budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from tests.servers.chat_protocols import ChatServer
from tests.servers.openai import Fault

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.errors import BudgetExceededError
from llama_index_presets.monitor.budgets import Budget
from llama_index_presets.providers.rerankers import make_reranker, read_reranker_name

BOOK = """
[models."cohere/rerank-v3.5"]
searches = "2.00"
[models."bge-by-the-token"]
input = 1
"""
COLUMNS = "status, provider, prompt_tokens, searches, cost_usd"
HITS = [NodeWithScore(node=TextNode(text=f"Fish {number}."), score=0.5) for number in range(3)]
SEARCH = Decimal("0.002")


class AskingReranker(BaseNodePostprocessor):
    """Says what `StructuredLLMRerank` says, and asks a model."""

    def _postprocess_nodes(self, nodes: Any, query_bundle: Any = None) -> Any:
        dispatcher = get_dispatcher(__name__)
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=1, model_name="unheard-of"))
        MockLLM(max_tokens=2).complete("Which is best?")
        dispatcher.event(ReRankEndEvent(nodes=nodes))
        return nodes


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer() as running:
        monkeypatch.setenv("CO_API_KEY", "sk-x")
        monkeypatch.setenv("CO_API_URL", running.url)
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    (tmp_path / "prices.toml").write_text(BOOK)
    with Ledger(tmp_path / "calls.duckdb", prices=tmp_path / "prices.toml") as opened:
        yield opened


@pytest.fixture(params=["instrument", "callback"])
def handler(request: pytest.FixtureRequest, ledger: Ledger) -> Iterator[CostTrackingHandler]:
    """A handler that listens to the process, or in the reranker's own callbacks."""
    made = CostTrackingHandler(ledger)
    if request.param == "instrument":
        made.instrument()
    yield made
    made.close()


def make(name: str, handler: CostTrackingHandler | None = None) -> Any:
    made: Any = make_reranker(read_reranker_name(name), {}, top_n=2)
    if handler is not None and not handler.instrumented:
        made.inner.callback_manager.add_handler(handler)
    return made


def rows(ledger: Ledger, columns: str = COLUMNS) -> list[tuple[Any, ...]]:
    asked = f"SELECT {columns} FROM llm_calls WHERE kind = 'rerank' ORDER BY timestamp"
    return list(ledger.sql(asked).fetchall())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_search_of_cohere_is_counted_and_priced(
    server: ChatServer, ledger: Ledger, handler: CostTrackingHandler, asynchronous: bool
) -> None:
    """The row had no search, and no price could be given for one."""
    server.searches = 2
    reranker = make("cohere/rerank-v3.5", handler)
    if asynchronous:
        asyncio.run(reranker.apostprocess_nodes(HITS, query_str="fish"))
    else:
        reranker.postprocess_nodes(HITS, query_str="fish")
    assert rows(ledger) == [("success", "cohere", 0, 2, 2 * SEARCH)]
    assert ledger.costs(by="kind")[0].cost_usd == 2 * SEARCH


def test_without_a_price_it_is_unpriced_and_not_free(server: ChatServer, ledger: Ledger) -> None:
    """A price of tokens alone says nothing of a search: it made it free."""
    with CostTrackingHandler(ledger).instrument() as handler:
        make("cohere/rerank-v3.0").postprocess_nodes(HITS, query_str="fish")
        server.searches = 0  # a reply that says nothing
        make("cohere/rerank-v3.5").postprocess_nodes(HITS, query_str="fish")
        handler.close()
    assert rows(ledger) == [("success", "cohere", 0, 1, None), ("success", "cohere", 0, 0, None)]
    ledger.record(kind="rerank", model="bge-by-the-token", usage_source="")
    assert rows(ledger)[-1] == ("success", "", 0, 0, None)


def test_a_server_that_counts_tokens_is_priced_by_them(server: ChatServer, ledger: Ledger) -> None:
    """As vLLM, Infinity and Jina do; the name is in the price book, so that it is not free."""
    server.searches = None
    with CostTrackingHandler(ledger).instrument() as handler:
        make(f"{server.url}#bge-by-the-token").postprocess_nodes(HITS, query_str="fish")
        handler.close()
    assert rows(ledger) == [("success", "", 180, 0, 180 * Decimal("1e-6"))]


def test_a_server_on_this_machine_is_free(
    server: ChatServer, ledger: Ledger, handler: CostTrackingHandler
) -> None:
    """It made every question cost null, while answers and vectors of such a server were free."""
    make(f"{server.url}#bge-reranker", handler).postprocess_nodes(HITS, query_str="fish")
    assert rows(ledger) == [("success", "local", 0, 1, 0)]


def test_a_reranker_that_asks_a_language_model_costs_nothing_itself(ledger: Ledger) -> None:
    """Its calls have rows of their own; its row was unpriced, and with it the question."""
    with CostTrackingHandler(ledger).instrument() as handler:
        AskingReranker().postprocess_nodes(HITS, query_str="fish")
        handler.close()
    assert [row[-1] for row in rows(ledger)] == [0]


@pytest.mark.parametrize("way", ["instrument", "callback"])
def test_a_budget_holds_searches(server: ChatServer, ledger: Ledger, way: str) -> None:
    """Rerankings were in no budget before they were made, so that it was exceeded by as many as were made."""
    handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=SEARCH * 2)])
    if way == "instrument":
        handler.instrument()
    reranker = make("cohere/rerank-v3.5", handler)
    for _ in range(2):
        reranker.postprocess_nodes(HITS, query_str="fish")
    with pytest.raises(BudgetExceededError, match=r"\$0.004 of \$0.004 is spent"):
        reranker.postprocess_nodes(HITS, query_str="fish")
    assert len(server.served) == 2
    assert [row[0] for row in rows(ledger)] == ["success", "success", "refused"]
    free = make(f"{server.url}#bge-reranker", handler)
    assert len(free.postprocess_nodes(HITS, query_str="fish")) == 2
    with pytest.raises(BudgetExceededError, match="No price is known for model 'rerank-v9'"):
        make("cohere/rerank-v9", handler).postprocess_nodes(HITS, query_str="fish")
    handler.close()


def test_an_outage_is_tried_three_times_and_not_nine(
    server: ChatServer, ledger: Ledger, handler: CostTrackingHandler
) -> None:
    """The SDK and the class of LlamaIndex each tried again; each attempt is a row, and Retry-After holds."""
    server.fail_always = Fault(status=503, retry_after="0.01")
    with pytest.raises(Exception, match="scripted 503"):
        make("cohere/rerank-v3.5", handler).postprocess_nodes(HITS, query_str="fish")
    assert len(server.requests) == 3
    assert rows(ledger, "status, attempt, cost_usd") == [("error", one, 0) for one in (1, 2, 3)]


def test_a_limit_of_requests_is_waited_for(
    server: ChatServer, ledger: Ledger, handler: CostTrackingHandler
) -> None:
    """The second attempt answers."""
    server.faults.append(Fault(status=429, retry_after="0.01"))
    make("cohere/rerank-v3.5", handler).postprocess_nodes(HITS, query_str="fish")
    assert rows(ledger, "status, attempt, searches") == [("error", 1, 0), ("success", 2, 1)]


def test_no_passage_is_no_search(server: ChatServer, ledger: Ledger, handler: CostTrackingHandler) -> None:
    """Nothing is asked, so nothing is recorded."""
    assert make("cohere/rerank-v3.5", handler).postprocess_nodes([], query_str="fish") == []
    assert rows(ledger) == [] and server.served == []
