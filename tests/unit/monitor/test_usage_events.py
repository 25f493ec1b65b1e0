"""Usage events of our own embedding models and rerankers: they replace the handler's own counting."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from llama_index.core import MockEmbedding
from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.events import EmbeddingUsageEvent, RerankUsageEvent
from llama_index_presets.monitor.attribution import attributed, attribution
from llama_index_presets.monitor.calls.usage import count_embedding

dispatcher = get_dispatcher(__name__)
COLUMNS = "kind, provider, model, prompt_tokens, usage_source, cache_hit, cost_usd"


class TellingEmbedding(MockEmbedding):
    """Says what each batch used, as our own models do; texts that begin with 'c' come from its cache."""

    provider: str = "openai"

    def _tell(self, texts: list[str]) -> None:
        cached = sum(text.startswith("c") for text in texts)
        event = EmbeddingUsageEvent(
            provider=self.provider,
            model="text-embedding-3-small",
            texts=len(texts),
            cached_texts=cached,
            prompt_tokens=1000 * (len(texts) - cached),
            usage_source="reported",
        )
        dispatcher.event(event)

    def _get_text_embeddings(self, texts):
        self._tell(texts)
        return [[1.0] * self.embed_dim for _ in texts]

    async def _aget_text_embeddings(self, texts):
        return self._get_text_embeddings(texts)


class TellingReranker(BaseNodePostprocessor):
    """Says what it used, in a span of its own."""

    @dispatcher.span
    def _postprocess_nodes(self, nodes, query_bundle=None):
        event = RerankUsageEvent(
            provider="local", model="mini", pairs=len(nodes), prompt_tokens=70, latency_ms=9.0
        )
        dispatcher.event(event)
        return nodes


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        yield ledger


@pytest.fixture(params=["instrument", "callbacks", "both"])
def manager(request, ledger):
    handler = CostTrackingHandler(ledger)
    if request.param != "callbacks":
        handler.instrument()
    yield CallbackManager([] if request.param == "instrument" else [handler])
    handler.close()


def rows(ledger: Ledger, columns: str = COLUMNS) -> list[tuple]:
    return ledger.sql(f"SELECT {columns} FROM llm_calls ORDER BY timestamp").fetchall()


def test_a_batch_is_one_row_with_what_its_model_said(ledger, manager):
    """The event replaces the count of the texts; there is no second row."""
    TellingEmbedding(embed_dim=2, embed_batch_size=2, callback_manager=manager).get_text_embedding_batch(
        ["a"] * 3
    )
    assert [row[3:5] for row in rows(ledger)] == [(2000, "reported"), (1000, "reported")]


def test_async_batches_are_one_row_each(ledger, manager):
    """Async batches announce all their starts first; each still gets its own report."""
    model = TellingEmbedding(embed_dim=2, embed_batch_size=2, callback_manager=manager)
    asyncio.run(model.aget_text_embedding_batch(["a"] * 5))
    assert sorted(row[3] for row in rows(ledger)) == [1000, 2000, 2000]


def test_a_batch_from_our_cache_is_a_row_that_costs_nothing(ledger, manager):
    """All texts cached: cache_hit, 0 tokens, 0 dollars, although the model has a price."""
    TellingEmbedding(embed_dim=2, callback_manager=manager).get_text_embedding_batch(["c1", "c2"])
    assert rows(ledger, "prompt_tokens, cache_hit, cost_usd") == [(0, True, 0)]
    assert ledger.get_usage_stats().cache_hit_rate == 1


class WrappingEmbedding(TellingEmbedding):
    """Asks another model, as a cache in front of it does, and reports nothing itself."""

    def _get_text_embeddings(self, texts):
        inner = TellingEmbedding(embed_dim=self.embed_dim, callback_manager=self.callback_manager)
        return inner.get_text_embedding_batch(texts)


def test_a_wrapper_around_an_embedding_model_is_not_counted_again(ledger, manager):
    """The inner model's row stands, the wrapper's does not."""
    WrappingEmbedding(embed_dim=2, callback_manager=manager).get_text_embedding_batch(["a"])
    assert [row[3] for row in rows(ledger)] == [1000]


def test_a_reranking_is_one_row_with_its_own_numbers(ledger):
    """Tokens and time are the reranker's; a local one costs nothing."""
    handler = CostTrackingHandler(ledger).instrument()
    TellingReranker().postprocess_nodes([NodeWithScore(node=TextNode(text="a"))], query_str="q")
    handler.close()
    assert rows(ledger, "kind, provider, model, prompt_tokens, latency_ms, cost_usd") == [
        ("rerank", "local", "mini", 70, 9.0, 0)
    ]


def test_attribution_follows_tasks_and_copied_contexts_but_not_plain_threads(ledger):
    """asyncio carries it; a plain thread starts empty unless it is given a copied context."""
    seen: list[str] = []

    def look() -> None:
        seen.append(attribution().tenant)

    async def tasks() -> None:
        await asyncio.gather(asyncio.to_thread(look), asyncio.create_task(asyncio.sleep(0)))

    with attributed(tenant="acme"):
        asyncio.run(tasks())
        context = contextvars.copy_context()
        for target in (look, lambda: context.run(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert seen == ["acme", "", "acme"]


def test_a_forgotten_handler_stops_listening(ledger):
    """A handler that nobody holds and that is not instrumented leaves the dispatcher."""
    root = get_dispatcher()
    before = len(root.event_handlers), len(root.span_handlers)
    handler = CostTrackingHandler(ledger)
    assert len(root.event_handlers) == before[0] + 1
    del handler
    assert (len(root.event_handlers), len(root.span_handlers)) == before


def test_a_closed_ledger_never_breaks_a_call(tmp_path, caplog):
    """A handler that outlives its ledger stays out of the way."""
    ledger = Ledger(tmp_path / "calls.duckdb")
    handler = CostTrackingHandler(ledger).instrument()
    ledger.close()
    manager = CallbackManager([handler])
    assert MockLLM(max_tokens=1, callback_manager=manager).complete("x").text == "text"
    handler.close()
    assert caplog.records == []


def test_embeddings_under_a_name_of_ones_own_are_counted_with_openais_tokenizer():
    """All embedding models of OpenAI have one tokenizer; only under a name of theirs is the count exact."""
    texts = ["今天天气很好，我们去公园散步。", "The pump alarm is reset with the blue key."]
    exact, source = count_embedding("openai", "text-embedding-3-small", texts)
    assert source == "counted"
    assert count_embedding("azure", "my-deployment", texts) == (exact, "estimated")
    # Elsewhere nobody knows the tokenizer: four characters a token, each text rounded up.
    assert count_embedding("", "unknown", texts) == (-(-15 // 4) + -(-43 // 4), "estimated")
