"""Streams that are read in turns, of one model or of several: each keeps its own answer, tokens, tenant and trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import ChatMessage, CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from tests.servers.otlp import Receiver
from tests.unit.monitor.test_traces import Seen, values

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.monitor.budgets import Budget, Budgets
from llama_index_presets.monitor.calls.open_streams import OpenStreams
from llama_index_presets.monitor.prices import PriceBook, Rates
from llama_index_presets.monitor.retry import retrying
from llama_index_presets.monitor.traces.tracing import trace_to

TENANTS = ("ann", "bob")


class Counting(CustomLLM):
    """Says to the n-th question, in three pieces, that it is the n-th; streams only what is new."""

    asked: list[str] = []

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="counting")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise NotImplementedError

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        self.asked.append(prompt)
        number = len(self.asked)
        return (CompletionResponse(text="", delta=piece) for piece in ("answer ", "no. ", "I" * number * 8))


class Routing(Counting):
    """Another model answers; it is asked at the first piece."""

    inner: Any = None

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        yield from self.inner.stream_complete(prompt, formatted=formatted, **kwargs)


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[tuple[Ledger, Callable[[], Seen]]]:
    """A ledger, and what a collector has seen of its calls so far."""
    ledger = Ledger(tmp_path / "calls.duckdb")
    with (
        Receiver() as receiver,
        trace_to(receiver.endpoint, ledger=ledger, content="text") as traces,
        CostTrackingHandler(ledger, scope="bound").instrument() as handler,
    ):
        yield ledger, lambda: Seen(traces, receiver)
        assert handler.observer.tracker.open_calls == 0
        assert not handler.observer.tracker.streams
    ledger.close()


SYNC = {
    "stream_complete": lambda llm, prompt: llm.stream_complete(prompt),
    "stream_chat": lambda llm, prompt: llm.stream_chat([ChatMessage(prompt)]),
}
ASYNC = {
    "astream_complete": lambda llm, prompt: llm.astream_complete(prompt),
    "astream_chat": lambda llm, prompt: llm.astream_chat([ChatMessage(prompt)]),
}
PROMPTS = {"one prompt": ("Who?", "Who?"), "two prompts": ("Who?", "Who is it, please?")}
MODELS: dict[str, Callable[[], Any]] = {
    "a model": Counting,
    "a retried model": lambda: retrying(Counting()),
    "a routed model": lambda: Routing(inner=Counting()),
}


def read_in_turns(
    start: Callable[[Any, str], Any], llm: Any, prompts: tuple[str, str], ledger: Ledger
) -> None:
    """Begin two streams, then read the second before the first, a piece at a time."""
    streams = []
    for tenant, prompt in zip(TENANTS, prompts, strict=True):
        with attributed(ledger=ledger, tenant=tenant, query_id=tenant):
            streams.append((tenant, iter(start(llm, prompt))))
    while streams:
        for tenant, stream in reversed(streams.copy()):
            with attributed(ledger=ledger, tenant=tenant, query_id=tenant):
                if next(stream, None) is None:
                    streams.remove((tenant, stream))


async def aread_in_turns(
    start: Callable[[Any, str], Any], llm: Any, prompts: tuple[str, str], ledger: Ledger
) -> None:
    streams = []
    for tenant, prompt in zip(TENANTS, prompts, strict=True):
        with attributed(ledger=ledger, tenant=tenant, query_id=tenant):
            streams.append((tenant, await start(llm, prompt)))
    while streams:
        for tenant, stream in reversed(streams.copy()):
            with attributed(ledger=ledger, tenant=tenant, query_id=tenant):
                if await anext(stream, None) is None:
                    streams.remove((tenant, stream))


def roots_and_calls(seen: Seen) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The root of each trace, and the one model call in it."""
    spans = [(span.trace_id, span.parent_span_id, values(span.attributes)) for span in seen.spans]
    for trace, parent, root in spans:
        if not parent:
            (call,) = [
                found for own, _, found in spans if own == trace and found["openinference.span.kind"] == "LLM"
            ]
            assert root["output.value"] == call["llm.output_messages.0.message.content"]
            yield root, call


def check(ledger: Ledger, seen: Seen, prompts: tuple[str, str]) -> None:
    """The answer, the prompt and the tokens of each tenant are in its own rows and spans, once."""
    rows = ledger.sql(
        "SELECT tenant, prompt_tokens, completion_tokens FROM llm_calls WHERE kind = 'llm' ORDER BY tenant"
    ).fetchall()
    assert [row[0] for row in rows] == list(TENANTS)
    traces = {root["rag.tenant"]: call for root, call in roots_and_calls(seen)}
    assert len(traces) == 2
    for (tenant, prompt_tokens, completion_tokens), prompt in zip(rows, prompts, strict=True):
        call = traces[tenant]
        assert prompt in call["llm.input_messages.0.message.content"]
        assert call["llm.token_count.prompt"] == prompt_tokens
        assert call["llm.token_count.completion"] == completion_tokens
    answers = [traces[tenant]["llm.output_messages.0.message.content"] for tenant in TENANTS]
    assert sorted(answers) == ["answer no. " + "I" * 8, "answer no. " + "I" * 16]
    # Estimated from the text, at four characters a token: rounded up.
    assert [row[2] for row in rows] == [-(-len(answer) // 4) for answer in answers]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("way", SYNC)
def test_streams_read_in_turns_are_kept_apart(heard, way, prompts, model):
    """Two synchronous streams of one object: two rows, two spans, each with its own answer."""
    ledger, seen = heard
    read_in_turns(SYNC[way], MODELS[model](), PROMPTS[prompts], ledger)
    check(ledger, seen(), PROMPTS[prompts])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("way", ASYNC)
def test_async_streams_read_in_turns_are_kept_apart(heard, way, prompts, model):
    """The synchronous stream that serves an asynchronous one begins at its first piece, whoever began before."""
    ledger, seen = heard
    asyncio.run(aread_in_turns(ASYNC[way], MODELS[model](), PROMPTS[prompts], ledger))
    check(ledger, seen(), PROMPTS[prompts])


def test_a_reader_that_asks_again_meanwhile_opens_a_call_of_its_own(heard):
    """What a reader does between two pieces is not inside the stream that it reads."""
    ledger, seen = heard
    llm = Counting()

    async def read() -> None:
        async for _ in await llm.astream_complete("first"):
            if len(llm.asked) == 1:
                list(llm.stream_complete("second"))

    with attributed(ledger=ledger, tenant="ann"):
        asyncio.run(read())
    assert ledger.sql("SELECT count(*) FROM llm_calls WHERE kind = 'llm'").fetchone() == (2,)
    assert seen().trees() == ["llm", "llm"]


def test_an_async_stream_reserves_its_budget_once(tmp_path):
    """The asynchronous call gives its reservation to the synchronous one that serves it."""
    dollar_a_token = Rates(input=Decimal(0), output=Decimal(1_000_000), version="test")
    ledger = Ledger(tmp_path / "calls.duckdb", prices=PriceBook(rates={"counting": dollar_a_token}))
    budgets = Budgets(ledger, [Budget(limit_usd=Decimal(150))], default_output_tokens=100)
    handler = CostTrackingHandler(ledger, budgets=budgets)
    with handler.instrument():

        async def read() -> None:
            async for _ in await Counting().astream_complete("x"):
                pass

        asyncio.run(read())  # 100 dollars are reserved: twice would be refused
    assert ledger.sql("SELECT status, cost_usd FROM llm_calls").fetchall() == [("success", Decimal(5))]
    handler.close()
    ledger.close()


def test_only_the_stack_tells_whose_stream_is_read():
    """Two generators of the same code are told apart; one that is forgotten leaves nothing."""
    streams = OpenStreams()

    def pieces() -> Iterator[str | None]:
        while True:
            yield streams.around(None, {})

    first, second = pieces(), pieces()
    streams.add(first, "first")
    streams.add(second, "second")
    assert [next(second), next(first), next(second)] == ["second", "first", "second"]
    assert streams.around("outside", {}) == "outside"
    del first, second
    assert not streams


def test_a_span_inside_the_stream_keeps_its_parent():
    """The dispatcher's parent is nearer than the stream when it is inside of it."""
    streams = OpenStreams()
    spans = {"inner": ("first", None)}

    def pieces() -> Iterator[str | None]:
        yield streams.around("inner", spans)

    stream = pieces()
    streams.add(stream, "first")
    assert next(stream) == "inner"
