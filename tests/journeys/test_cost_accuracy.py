"""The bill of a loopback server against the ledger, for every shape of call, through the real OpenAI client."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage, MockLLM
from tests.servers.call_shapes import MESSAGES, SHAPES, Models
from tests.servers.openai import Fault, OpenAIServer

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.monitor.attribution import attributed

TOKENS = "prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens"
WAYS = ("instrument", "callbacks", "both")


@pytest.fixture(scope="module", params=WAYS)
def bench(request, tmp_path_factory) -> Iterator[tuple[OpenAIServer, Ledger, Models]]:
    """A server, a ledger and real models; the handler listens in one way or in both."""
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "calls.duckdb")
    handler = CostTrackingHandler(ledger)
    if request.param != "callbacks":
        handler.instrument()
    manager = CallbackManager([] if request.param == "instrument" else [handler])
    with OpenAIServer(cached=900, reasoning=40) as server:
        models = Models(server.url, manager)
        yield server, ledger, models
        models.close()
    assert handler.observer.tracker.open_calls == 0
    handler.close()
    ledger.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ledger_equals_the_bill_of_the_server(bench, shape):
    """Each shape of call leaves exactly the rows, and exactly the tokens, that the server billed."""
    server, ledger, models = bench
    billed, query_id = len(server.served), f"query-{shape}"
    with attributed(query_id=query_id):
        SHAPES[shape](models)
    rows = ledger.sql(f"SELECT {TOKENS} FROM llm_calls WHERE query_id = ?", [query_id]).fetchall()
    truth = [(call.prompt, call.completion, call.cached, call.reasoning) for call in server.served[billed:]]
    assert truth and sorted(rows) == sorted(truth)


def rows_of(ledger: Ledger, columns: str = "kind, status") -> list[tuple]:
    return ledger.sql(f"SELECT {columns} FROM llm_calls ORDER BY timestamp").fetchall()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        yield ledger


@pytest.fixture
def handler(ledger: Ledger) -> Iterator[CostTrackingHandler]:
    with CostTrackingHandler(ledger).instrument() as handler:
        yield handler
    handler.close()


def test_the_cost_is_what_the_price_list_says(ledger, handler):
    """1,000 input tokens of which 900 were cached and 100 output tokens cost the sum of three prices."""
    with OpenAIServer(cached=900) as server:
        Models(server.url).llm.complete("x")
    (cost,) = rows_of(ledger, "cost_usd")[0]
    assert float(cost) == pytest.approx((100 * 0.15 + 900 * 0.075 + 100 * 0.60) / 1e6)


def test_an_abandoned_stream_is_closed_and_marked(ledger, handler):
    """A stream that its reader leaves after one word is a row, with what was said counted."""
    with OpenAIServer() as server:
        stream = Models(server.url).llm.stream_chat(MESSAGES)
        next(stream)
        del stream
        gc.collect()
    ((status, source, completion),) = rows_of(ledger, "status, usage_source, completion_tokens")
    assert (status, source, completion) == ("abandoned", "estimated", 1)
    assert handler.observer.tracker.open_calls == 0


def test_a_stream_that_was_never_read_is_closed_and_marked(ledger, handler):
    """A stream that nobody began to read leaves a row when it is dropped, not an open call for ever."""
    with OpenAIServer() as server:
        stream = Models(server.url).llm.stream_chat(MESSAGES)
        del stream
        gc.collect()
    assert rows_of(ledger, "status") == [("abandoned",)]


@pytest.mark.parametrize(
    ("fault", "error_type"),
    [
        (Fault(status=500), "InternalServerError"),
        (Fault(status=429, retry_after="1"), "RateLimitError"),
        (Fault(malformed=True), "JSONDecodeError"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_a_failed_call_is_one_row_with_its_error(ledger, fault, error_type, way):
    """A failed call is one row with status and error type, and costs nothing."""
    handler = CostTrackingHandler(ledger)
    manager = CallbackManager([] if way == "instrument" else [handler])
    if way != "callbacks":
        handler.instrument()
    with OpenAIServer(fail_always=fault) as server, pytest.raises(Exception, match=r".+"):
        Models(server.url, manager).llm.chat(MESSAGES)
    handler.close()
    assert [row[:3] for row in rows_of(ledger, "status, error_type, cost_usd")] == [("error", error_type, 0)]


def test_a_stream_cut_by_the_server_is_a_failed_row(ledger, handler):
    """A connection lost in mid-stream is an error, not an abandoned stream."""
    with OpenAIServer(faults=[]) as server:
        server.fail_always = Fault(disconnect_after=2)
        with pytest.raises(Exception, match=r"(?i)connection|peer|incomplete"):
            list(Models(server.url).llm.stream_chat(MESSAGES))
    assert rows_of(ledger, "status") == [("error",)]


CUSTOM_SHAPES = {
    "chat": lambda llm: llm.chat([ChatMessage(content="x")]),
    "stream_chat": lambda llm: list(llm.stream_chat([ChatMessage(content="x")])),
    "acomplete": lambda llm: asyncio.run(llm.acomplete("x")),
    "achat": lambda llm: asyncio.run(llm.achat([ChatMessage(content="x")])),
}


@pytest.mark.parametrize("shape", CUSTOM_SHAPES)
def test_a_custom_llm_that_calls_itself_is_counted_once(ledger, handler, shape):
    """`CustomLLM.chat` calls `complete`: the innermost call alone is a row."""
    CUSTOM_SHAPES[shape](MockLLM(max_tokens=3))
    assert rows_of(ledger) == [("llm", "success")]


def test_concurrent_async_streams_of_a_custom_llm_are_counted_once_each(ledger, handler):
    """`CustomLLM.astream_chat` starts its inner stream outside its span; five equal ones are still five rows."""

    async def read(llm: MockLLM) -> None:
        async for _ in await llm.astream_chat([ChatMessage(content="x")]):
            pass

    async def five() -> None:
        llm = MockLLM(max_tokens=3)
        await asyncio.gather(*[read(llm) for _ in range(5)])

    asyncio.run(five())
    assert rows_of(ledger) == [("llm", "success")] * 5


def test_a_query_has_rows_for_itself_its_retrieval_its_embedding_and_its_answer(ledger, handler):
    """One query of a stock engine leaves four rows that share a query id, and the embedding of the index one."""
    with OpenAIServer() as server:
        models = Models(server.url)
        index = VectorStoreIndex.from_documents(
            [Document(text="The answer is 42.")], embed_model=models.embedding
        )
        index.as_query_engine(llm=models.llm).query("What is the answer?")
    ledger.flush()
    query = "SELECT kind FROM llm_calls WHERE query_id <> '' ORDER BY kind"
    assert [kind for (kind,) in ledger.sql(query).fetchall()] == ["embedding", "llm", "query", "retrieval"]
    assert ledger.sql("SELECT count(DISTINCT query_id) FROM llm_calls WHERE query_id <> ''").fetchone() == (
        1,
    )
    assert ledger.get_usage_stats().total_calls == 3


def test_two_ledgers_in_one_process_never_record_each_others_calls(tmp_path, ledger, handler):
    """A call made for one ledger is recorded there alone; one made for nobody is recorded by both."""
    with Ledger(tmp_path / "other.duckdb") as other, CostTrackingHandler(other).instrument() as second:
        with attributed(ledger=ledger):
            MockLLM().complete("mine")
        with attributed(ledger=other):
            MockLLM().complete("yours")
            MockLLM().complete("yours")
        assert (len(rows_of(ledger)), len(rows_of(other))) == (1, 2)
        MockLLM().complete("anyone's")
        assert (len(rows_of(ledger)), len(rows_of(other))) == (2, 3)
        second.close()


def test_a_bound_handler_leaves_calls_of_nobody_alone(ledger):
    """With scope 'bound' only calls made for the ledger are recorded."""
    with CostTrackingHandler(ledger, scope="bound").instrument() as handler:
        MockLLM().complete("nobody's")
        with attributed(ledger=ledger):
            MockLLM().complete("ours")
    handler.close()
    assert len(rows_of(ledger)) == 1


def test_a_handler_that_does_not_hear_a_model_leaves_it_as_it_is(ledger):
    """Only a handler that will record the stream asks for its usage; opting out leaves the model alone."""
    silent = CostTrackingHandler(ledger)
    deaf = CostTrackingHandler(ledger, stream_usage=False).instrument()
    with OpenAIServer() as server:
        models = Models(server.url)
        with attributed(ledger=ledger):  # so that no handler of another test hears it
            list(models.llm.stream_chat(MESSAGES))
    deaf.close()
    silent.close()
    assert models.llm.additional_kwargs == {}
    assert rows_of(ledger, "usage_source") == [("estimated",)]
