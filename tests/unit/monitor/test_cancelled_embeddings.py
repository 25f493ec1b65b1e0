"""Embedding calls that were sent and never answered: billed by the provider, so an estimate in the ledger."""

from __future__ import annotations

import asyncio
import socket
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from tests.servers.openai import Fault, OpenAIServer
from tests.servers.recorded import ledger, server

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding
from llama_index_presets.embed.openai import BatchedOpenAIEmbedding
from llama_index_presets.errors import BudgetExceededError
from llama_index_presets.monitor.budgets import Budget
from llama_index_presets.monitor.retry import RetryPolicy, retrying
from llama_index_presets.providers.openai_llm import OpenAI

__all__ = ["ledger", "server"]

TEXTS = [f"The valve number {number} opens." for number in range(6)]
TOKENS = 7  # of each


def rows(ledger: Ledger) -> list[tuple[Any, ...]]:
    """Status, tokens, and whether they cost something."""
    ledger.flush()
    asked = (
        "select status, prompt_tokens, cost_usd > 0 from llm_calls where kind <> 'query' order by timestamp"
    )
    return list(ledger.sql(asked).fetchall())


def make(server: OpenAIServer, *, attempts: int = 1, **options: Any) -> Any:
    model = BatchedOpenAIEmbedding(
        api_key="sk-x", api_base=server.url, embed_batch_size=2, concurrency=2, **options
    )
    return retrying(model, RetryPolicy(attempts=attempts, first_wait_s=0.0, longest_wait_s=0.0))


async def _given_up(work: Any, server: OpenAIServer, requests: int, later_s: float = 0.0) -> None:
    """Cancel it when the server has got this many requests more, or some seconds later."""
    task = asyncio.ensure_future(work)
    wanted = len(server.requests) + requests
    while len(server.requests) < wanted and not task.done():
        await asyncio.sleep(0.01)
    await asyncio.sleep(later_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_batch_counts_what_was_sent(server: OpenAIServer, ledger: Ledger) -> None:
    """Two requests are under way, and the third was never sent."""
    server.fail_always = Fault(stall_s=3.0)
    asyncio.run(_given_up(make(server).aget_text_embedding_batch(TEXTS), server, 2))
    assert rows(ledger) == [("abandoned", 2 * TOKENS, True)] * 2


def test_what_was_answered_before_counts_once(server: OpenAIServer, ledger: Ledger) -> None:
    """Of three requests one is answered, and one is under way when the caller gives up."""
    server.faults.append(None)
    server.fail_always = Fault(stall_s=3.0)
    model = make(server)
    model.concurrency = 1
    asyncio.run(_given_up(model.aget_text_embedding_batch(TEXTS), server, 2))
    assert [one[0] for one in rows(ledger)] == ["success", "abandoned"]
    assert rows(ledger)[1] == ("abandoned", 2 * TOKENS, True)


@pytest.mark.parametrize("way", ["aget_text_embedding", "aget_query_embedding"])
def test_a_cancelled_text_counts(server: OpenAIServer, ledger: Ledger, way: str) -> None:
    """A single passage, and a question."""
    server.fail_always = Fault(stall_s=3.0)
    asyncio.run(_given_up(getattr(make(server), way)(TEXTS[0]), server, 1))
    assert rows(ledger) == [("abandoned", TOKENS, True)]


def test_behind_a_cache_it_counts_once(server: OpenAIServer, ledger: Ledger, tmp_path: Path) -> None:
    """The wrapper sends nothing itself."""
    server.fail_always = Fault(stall_s=3.0)
    model = CachedEmbedding(make(server), EmbeddingCache(tmp_path / "cache"))
    asyncio.run(_given_up(model.aget_text_embedding_batch(TEXTS[:2]), server, 1))
    assert rows(ledger) == [("abandoned", 2 * TOKENS, True)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_answer_that_is_lost_counts(server: OpenAIServer, ledger: Ledger, asynchronous: bool) -> None:
    """Both attempts time out after the texts were sent."""
    server.fail_always = Fault(stall_s=3.0)
    model = make(server, attempts=2, timeout=0.2)
    with pytest.raises(Exception, match="timed out"):
        if asynchronous:
            asyncio.run(model.aget_text_embedding_batch(TEXTS[:2]))
        else:
            model.get_text_embedding_batch(TEXTS[:2])
    assert rows(ledger) == [("error", 2 * TOKENS, True)] * 2


def test_an_answer_of_a_language_model_that_is_lost_counts(server: OpenAIServer, ledger: Ledger) -> None:
    """Its prompt was read."""
    server.fail_always = Fault(stall_s=3.0)
    llm = OpenAI("gpt-4o-mini", api_key="sk-x", api_base=server.url, timeout=0.2, max_retries=0)
    with pytest.raises(Exception, match="timed out"):
        llm.chat([ChatMessage("hi")])
    assert rows(ledger) == [("error", 3 + 4 + 3, True)]


def test_what_was_refused_or_never_sent_costs_nothing(server: OpenAIServer, ledger: Ledger) -> None:
    """A status that says no, and a port that nobody listens on."""
    server.fail_always = Fault(status=429)
    with pytest.raises(Exception, match="429"):
        make(server).get_text_embedding(TEXTS[0])
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with pytest.raises(Exception, match="Connection"):
            retrying(
                BatchedOpenAIEmbedding(api_key="sk-x", api_base=url), RetryPolicy(attempts=1)
            ).get_text_embedding(TEXTS[0])
    assert [one[:2] for one in rows(ledger)] == [("error", 0)] * 2


def test_between_two_attempts_nothing_is_under_way(server: OpenAIServer, ledger: Ledger) -> None:
    """The first attempt was refused, and the caller gives up while the second waits."""
    server.fail_always = Fault(status=429, retry_after="5")
    model = make(server, attempts=3)
    asyncio.run(_given_up(model.aget_text_embedding(TEXTS[0]), server, 1, later_s=1.5))
    assert [one[:2] for one in rows(ledger)] == [("error", 0), ("abandoned", 0)]


def test_a_budget_counts_what_was_given_up(server: OpenAIServer, tmp_path: Path) -> None:
    """Calls that are cancelled again and again were free, so that no budget ended them."""
    each = Decimal("0.02") * 2 * TOKENS / 1_000_000
    server.fail_always = Fault(stall_s=3.0)
    with Ledger(tmp_path / "calls.duckdb") as opened:
        handler = CostTrackingHandler(opened, budgets=[Budget(limit_usd=each * 3, per="ever")])
        handler.instrument()
        refused = 0
        for _ in range(4):
            try:
                asyncio.run(_given_up(make(server).aget_text_embedding_batch(TEXTS[:2]), server, 1))
            except BudgetExceededError:
                refused += 1
        handler.close()
        spent = sum(1 for status, *_ in rows(opened) if status == "abandoned")
    assert refused and spent * each <= each * 3
