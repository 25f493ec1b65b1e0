"""One query is one small tree of spans, whatever way it is asked; nothing that goes wrong with tracing is felt."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.llms.openai import OpenAI
from opentelemetry import context as otel
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.servers.openai import Fault, OpenAIServer
from tests.servers.otlp import Receiver

from llama_index_presets import BM25Index, CostTrackingHandler, HybridFusionRetriever, Ledger
from llama_index_presets.errors import BudgetExceededError, SettingsError
from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.monitor.budgets import Budget, Budgets
from llama_index_presets.monitor.prices import Pricer
from llama_index_presets.monitor.retry import RetryPolicy, retrying
from llama_index_presets.monitor.traces.attributes import ALLOWED, Outgoing, Redactor, attributes
from llama_index_presets.monitor.traces.tracing import Traces, trace_to

NODES = [TextNode(id_=name * 32, text=f"{word} fish") for name, word in (("a", "red"), ("b", "blue"))]
INDEX = VectorStoreIndex(NODES, embed_model=WordEmbedding())


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture
def traces(receiver: Receiver) -> Iterator[Traces]:
    with trace_to(receiver.endpoint, project="tests") as handle:
        yield handle


def values(attributes: Any) -> dict[str, Any]:
    """Attributes of a protobuf span as a dictionary."""
    found = {}
    for item in attributes:
        kind = item.value.WhichOneof("value")
        value = getattr(item.value, kind)
        found[item.key] = [part.string_value for part in value.values] if kind == "array_value" else value
    return found


class Seen:
    """What a receiver has, as trees of names and as attributes by name."""

    def __init__(self, traces: Traces, receiver: Receiver) -> None:
        assert traces.flush()
        self.spans = list(receiver.spans())

    def trees(self) -> list[Any]:
        return [self._below(span) for span in self._children(b"")]

    def _children(self, parent: bytes) -> list[Any]:
        found = [span for span in self.spans if span.parent_span_id == parent]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def _below(self, span: Any) -> Any:
        below = [self._below(child) for child in self._children(span.span_id)]
        return (span.name, *below) if below else span.name

    def only(self, name: str) -> Any:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def of(self, name: str) -> dict[str, Any]:
        return values(self.only(name).attributes)

    def events(self, name: str) -> dict[str, dict[str, Any]]:
        return {event.name: values(event.attributes) for event in self.only(name).events}


def engine(llm: Any = None, **options: Any) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(INDEX.as_retriever(), llm=llm or ScriptedLLM(), **options)


SIMPLE = [("query", ("retrieve", "embed"), "llm")]


def test_a_simple_query_is_four_spans(traces: Traces, receiver: Receiver) -> None:
    """LlamaIndex itself makes fifteen, and shows each method twice."""
    engine().query("red")
    seen = Seen(traces, receiver)
    assert seen.trees() == SIMPLE
    assert seen.of("retrieve")["retrieval.documents.0.document.id"] == "a" * 32
    assert seen.of("llm")["llm.model_name"] == "scripted"
    assert seen.of("llm")["openinference.span.kind"] == "LLM"


def test_an_asynchronous_query_is_the_same_tree(traces: Traces, receiver: Receiver) -> None:
    """Also when several run at once: no span ends up in another's tree."""

    async def ask() -> None:
        asked = engine()
        await asyncio.gather(*(asked.aquery("red") for _ in range(5)))

    asyncio.run(ask())
    assert Seen(traces, receiver).trees() == SIMPLE * 5


def test_threads_keep_their_trees_apart(traces: Traces, receiver: Receiver) -> None:
    """Eight threads, one tree each."""
    asked = engine()
    threads = [threading.Thread(target=asked.query, args=("red",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Seen(traces, receiver).trees() == SIMPLE * 8


def test_a_stream_ends_when_it_has_been_read(traces: Traces, receiver: Receiver) -> None:
    """The language model's span covers the reading, and has the whole answer's tokens."""
    response = engine(streaming=True).query("red")
    assert "llm" not in [span.name for span in Seen(traces, receiver).spans]
    text = str(response)
    seen = Seen(traces, receiver)
    assert text == "Yes [1]."
    assert seen.of("llm")["llm.token_count.completion"] > 0
    assert "first piece" in seen.events("llm")


def test_a_stream_that_nobody_reads_on_is_closed(traces: Traces, receiver: Receiver) -> None:
    """It says that it was abandoned, and no span stays open."""
    stream = ScriptedLLM().stream_complete("hello")
    next(stream)
    del stream
    gc.collect()
    assert Seen(traces, receiver).of("llm")["rag.stream_abandoned"] is True


def test_a_wrapper_around_a_model_is_no_second_call(traces: Traces, receiver: Receiver) -> None:
    """Chat over completion, sync under async: the tokens are there once."""
    ScriptedLLM().chat([ChatMessage("hello")])
    asyncio.run(ScriptedLLM().achat([ChatMessage("hello")]))

    async def stream() -> None:
        async for _ in await ScriptedLLM().astream_chat([ChatMessage("hello")]):
            pass

    asyncio.run(stream())
    assert Seen(traces, receiver).trees() == ["llm"] * 3


class Routing(ScriptedLLM):
    """Answers with another model."""

    inner: Any = None

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return self.inner.complete(prompt)


def test_of_a_router_only_the_call_inside_is_a_model_call(traces: Traces, receiver: Receiver) -> None:
    """Phoenix prices what has the kind LLM: the router has not."""
    Routing(inner=ScriptedLLM()).complete("hello")
    seen = Seen(traces, receiver)
    assert seen.trees() == [("llm", "llm")]
    kinds = [values(span.attributes)["openinference.span.kind"] for span in seen.spans]
    assert sorted(kinds) == ["CHAIN", "LLM"]


# -- hybrid search -----------------------------------------------------------------------------------------------------


class Broken(BaseRetriever):
    """A leg that fails, with a name in its message."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        raise ConnectionError("no route to Ada Lovelace")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_hybrid_search_shows_its_legs_and_the_fusion(
    traces: Traces, receiver: Receiver, asynchronous: bool
) -> None:
    """Each leg with its own ranking, the fused one around them with the history of each hit."""
    hybrid = HybridFusionRetriever.from_index(INDEX)
    asyncio.run(hybrid.aretrieve("red")) if asynchronous else hybrid.retrieve("red")
    seen = Seen(traces, receiver)
    assert seen.trees() == [("retrieve", "retrieve: bm25", ("retrieve: vector", "embed"), "fusion")]
    assert seen.of("retrieve: bm25")["retrieval.documents.0.document.id"] == "a" * 32
    assert '"bm25": {"rank": 1' in seen.of("retrieve")["retrieval.documents.0.document.metadata"]
    assert seen.of("fusion")["rag.legs"] == ["vector", "bm25"]


def test_a_leg_that_fails_is_seen(traces: Traces, receiver: Receiver) -> None:
    """Which leg, with what class of error; never its message."""
    words = BM25Index.from_nodes(NODES)
    HybridFusionRetriever(Broken(), words, on_leg_error="degrade").retrieve("red")
    seen = Seen(traces, receiver)
    assert seen.of("retrieve")["rag.degraded"] == ["vector"]
    assert seen.only("retrieve: vector").status.message == "ConnectionError"
    assert seen.events("retrieve")["leg failed"]["exception.type"] == "ConnectionError"
    assert all(b"Lovelace" not in body for body in receiver.bodies)


# -- the bill ----------------------------------------------------------------------------------------------------------


def test_tokens_and_cost_are_those_of_the_ledger(receiver: Receiver, tmp_path: Path) -> None:
    """Cached tokens included, at the same price, under the same query_id."""
    ledger = Ledger(tmp_path / "calls.duckdb")
    with (
        OpenAIServer(cached=400) as server,
        trace_to(receiver.endpoint, ledger=ledger) as traces,
        CostTrackingHandler(ledger, scope="bound").instrument(),
        attributed(ledger=ledger, query_id="q1", tenant="acme", session="s1", preset="p"),
    ):
        engine(OpenAI(model="gpt-4o-mini", api_key="sk-test", api_base=server.url)).query("red")
        seen = Seen(traces, receiver)
    told = seen.of("llm")
    row = ledger.sql(
        "SELECT prompt_tokens, cached_tokens, cost_usd FROM llm_calls WHERE kind = 'llm'"
    ).fetchall()[0]
    ledger.close()
    assert (told["llm.token_count.prompt"], told["llm.token_count.prompt_details.cache_read"]) == row[:2]
    assert told["llm.cost.total"] == float(row[2]) == pytest.approx(0.00018)
    root = seen.of("query")
    assert (root["rag.query_id"], root["rag.tenant"], root["session.id"], root["rag.preset"]) == (
        "q1",
        "acme",
        "s1",
        "p",
    )


def test_an_unknown_model_is_unpriced(traces: Traces, receiver: Receiver) -> None:
    """No price is no zero."""
    ScriptedLLM().complete("hello")
    told = Seen(traces, receiver).of("llm")
    assert told["rag.unpriced"] is True
    assert "llm.cost.total" not in told


def test_retries_are_seen(traces: Traces, receiver: Receiver) -> None:
    """Of a language model as calls of their own, the failed ones marked."""
    with OpenAIServer() as server:
        server.faults.append(Fault(status=429, retry_after="0.01"))
        plain = OpenAI(model="gpt-4o-mini", api_key="sk-test", api_base=server.url)
        retrying(plain, RetryPolicy(first_wait_s=0.01)).complete("hello")
    spans = sorted(Seen(traces, receiver).spans, key=lambda span: span.start_time_unix_nano)
    assert [span.status.message for span in spans] == ["RateLimitError", ""]
    assert values(spans[1].attributes)["rag.attempt"] == 2


def test_a_refusal_by_a_budget_is_seen(traces: Traces, receiver: Receiver, tmp_path: Path) -> None:
    """The call that was not made is marked as refused, and so is what asked for it."""
    ledger = Ledger(tmp_path / "calls.duckdb")
    budgets = Budgets(ledger, [Budget(limit_usd=Decimal("0.0000001"))], unpriced="allow")
    with OpenAIServer() as server, CostTrackingHandler(ledger, budgets=budgets).instrument() as handler:
        llm = OpenAI(model="gpt-4o-mini", api_key="sk-test", api_base=server.url)
        with pytest.raises(BudgetExceededError, match="limit"):
            engine(llm).query("red")
        handler.close()
    ledger.close()
    seen = Seen(traces, receiver)
    assert seen.of("llm")["rag.budget_refused"] is True
    assert seen.only("query").status.message == "BudgetExceededError"


# -- instrumentors of SDKs ---------------------------------------------------------------------------------------------


@pytest.fixture
def openai_spans() -> Iterator[Callable[[], list[str]]]:
    """OpenInference's own instrumentor of the OpenAI SDK, with an exporter of its own."""
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    instrumentor = OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield lambda: [span.name for span in kept.get_finished_spans()]
    instrumentor.uninstrument()


def test_the_openai_instrumentor_does_not_tell_of_a_call_twice(
    receiver: Receiver, openai_spans: Callable[[], list[str]]
) -> None:
    """It is silent inside our spans, and speaks again when they are over and when tracing is off."""
    with OpenAIServer() as server:
        llm = OpenAI(model="gpt-4o-mini", api_key="sk-test", api_base=server.url)
        with trace_to(receiver.endpoint) as traces:
            llm.complete("hello")
            asyncio.run(llm.acomplete("hello"))
            assert openai_spans() == []
            assert Seen(traces, receiver).trees() == ["llm", "llm"]
        llm.complete("hello")
    assert len(openai_spans()) == 1


@pytest.mark.usefixtures("traces")
def test_nothing_of_ours_stays_in_the_callers_context() -> None:
    """After a call, an error and a stream, other instrumentors speak as before."""
    engine().query("red")
    str(engine(streaming=True).query("red"))
    with pytest.raises(ConnectionError, match="no route"):
        Broken().retrieve("red")
    assert otel.get_value(otel._SUPPRESS_INSTRUMENTATION_KEY) is None


# -- ingest and caches -------------------------------------------------------------------------------------------------


def test_a_batch_of_embeddings_is_one_span_without_vectors(traces: Traces, receiver: Receiver) -> None:
    """Forty texts in batches of ten are one span of a few hundred bytes."""
    MockEmbedding(embed_dim=1536, embed_batch_size=10).get_text_embedding_batch(
        [f"text {n}" for n in range(40)]
    )
    seen = Seen(traces, receiver)
    assert seen.trees() == ["embed"]
    assert (seen.of("embed")["rag.texts"], seen.of("embed")["rag.batches"]) == (40, 4)
    assert sum(map(len, receiver.bodies)) < 1_000


# -- what leaves -------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), st.text(min_size=1)), st.sampled_from(["hash", "none"]))
def test_only_facts_of_the_allow_list_leave(facts: dict[str, str], content: Any) -> None:
    """Whatever else is put into a span stays."""
    assert set(attributes(facts, Outgoing(Redactor(content), Pricer()))) <= set(ALLOWED)


@pytest.mark.parametrize("key", sorted(ALLOWED))
def test_a_fact_of_another_type_does_not_leave(key: str) -> None:
    """A slip of ours is no error of the application, and no leak."""
    taken = attributes({key: "Ada Lovelace, 36"}, Outgoing(Redactor(), Pricer()))
    assert "Ada" not in str(taken)


@given(st.text(alphabet=st.characters(categories=["L"]), min_size=12))
def test_no_text_leaves_through_any_key_that_takes_texts(text: str) -> None:
    """Hashed, it is another text; a label that is longer than a name, or no plain name, does not leave at all."""
    outgoing = Outgoing(Redactor(), Pricer())
    for key in ("input.value", "output.value", "reranker.query", "rag.document"):
        assert text not in str(attributes({key: f"{text} {text}"}, outgoing))


def test_digests_match_under_one_key_only(tmp_path: Path) -> None:
    """With a ledger, equal texts match from run to run; without its key nobody can try names."""
    first, second = Ledger(tmp_path / "calls.duckdb"), Ledger(tmp_path / "calls.duckdb")
    same = [Redactor("hash", ledger.hash_prompt).text("Ada") for ledger in (first, second)]
    assert same[0] == same[1]
    assert Redactor().text("Ada") not in (same[0], Redactor().text("Ada"))
    first.close()
    second.close()


def test_no_content_is_no_content(receiver: Receiver) -> None:
    """With content="none" not even digests leave; ids and scores do."""
    with trace_to(receiver.endpoint, content="none") as traces:
        engine().query("red")
        seen = Seen(traces, receiver)
    assert "input.value" not in seen.of("query")
    assert "retrieval.documents.0.document.score" in seen.of("retrieve")


# -- life of the handle ------------------------------------------------------------------------------------------------


def test_the_same_call_gives_the_same_handle(traces: Traces, receiver: Receiver) -> None:
    """A second trace_to makes no second set of spans."""
    assert trace_to(receiver.endpoint, project="tests") is traces
    engine().query("red")
    assert Seen(traces, receiver).trees() == SIMPLE


def test_close_ends_it(receiver: Receiver) -> None:
    """After close nothing is heard; closing twice is fine, and a new handle begins anew."""
    traces = trace_to(receiver.endpoint)
    traces.close()
    traces.close()
    engine().query("red")
    assert traces.closed
    assert not traces.flush()
    assert receiver.bodies == []
    with trace_to(receiver.endpoint) as again:
        assert again is not traces


def test_an_engine_with_a_trace_of_its_own_is_not_traced_twice(
    traces: Traces, receiver: Receiver, tmp_path: Path
) -> None:
    """The trace of the whole process leaves the calls of a traced ledger to that ledger's."""
    ledger = Ledger(tmp_path / "calls.duckdb")
    with Receiver() as other, trace_to(other.endpoint, ledger=ledger) as own:
        with attributed(ledger=ledger):
            engine().query("red")
        engine().query("blue")
        assert Seen(own, other).trees() == SIMPLE
        assert Seen(traces, receiver).trees() == SIMPLE
    ledger.close()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_dead_collector_is_told_of_once_and_never_felt(caplog: pytest.LogCaptureFixture) -> None:
    """Queries answer, spans are dropped, one warning is logged, and closing does not hang."""
    with caplog.at_level(logging.WARNING):
        traces = trace_to(f"http://127.0.0.1:{closed_port()}")
        for _ in range(3):
            assert str(engine().query("red")) == "Yes [1]."
            assert not traces.flush()
        traces.close()
    assert traces.dropped == 12
    assert [record.name for record in caplog.records] == ["llama_index_presets.monitor.traces.exporter"]
    assert "are dropped until they do" in caplog.text


def test_a_collector_that_never_answers_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    """It accepts the connection and stays silent: queries go on, and close gives up."""
    with socket.create_server(("127.0.0.1", 0)) as silent, caplog.at_level(logging.WARNING):
        traces = trace_to(f"http://127.0.0.1:{silent.getsockname()[1]}", interval_s=0.05)
        engine().query("red")
        time.sleep(0.2)  # the batch is on its way
        assert str(engine().query("red")) == "Yes [1]."
        traces.close()
    assert traces.dropped > 0


def test_spans_reach_a_collector_that_comes_back() -> None:
    """A pause follows a failure, and flush ends the pause."""
    port = closed_port()
    with trace_to(f"http://127.0.0.1:{port}") as traces:
        engine().query("red")
        assert not traces.flush()
        with Receiver(port) as late:
            engine().query("red")
            assert traces.flush()
            assert len(list(late.spans())) == 4


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("127.0.0.1:6006", "is no address"),
        ("ftp://127.0.0.1", "is no address"),
        ("http://127.0.0.1:0", "is no address"),
        ("http://127.0.0.1:99999", "is no address"),
        ("http://ada:secret@127.0.0.1:6006", "holds a user or a password"),
    ],
)
def test_a_wrong_endpoint_is_refused(endpoint: str, message: str) -> None:
    """At once, by name, and without repeating a password."""
    with pytest.raises(SettingsError, match=message) as refused:
        trace_to(endpoint)
    assert "secret" not in str(refused.value)


def test_other_wrong_arguments_are_refused() -> None:
    """A remote endpoint where nothing may leave, an unknown choice, no time."""
    with pytest.raises(SettingsError, match="nothing may leave it"):
        trace_to("http://collector.example:4318", local_only=True)
    trace_to("http://127.0.0.2:4318", local_only=True).close()
    with pytest.raises(SettingsError, match="Expected one of hash, text, none"):
        trace_to(content="all")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="Expected seconds > 0"):
        trace_to(interval_s=0)


def test_documents_of_an_index_are_traced_without_their_text(traces: Traces, receiver: Receiver) -> None:
    """A stock index, with a file name that names a person; no hash spells a name that is not hexadecimal."""
    VectorStoreIndex.from_documents(
        [Document(text="Moira Lovelace has a cough.", doc_id="/patients/moira.txt")],
        embed_model=WordEmbedding(),
    )
    assert Seen(traces, receiver).trees() == ["embed"]
    assert all(b"moira" not in body.lower() for body in receiver.bodies)
