"""The monitoring level full: traces and alerts beside the ledger, one query_id, and nothing that leaves unasked."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.llms.openai import OpenAI
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.servers.openai import OpenAIServer
from tests.servers.otlp import Receiver
from tests.unit.monitor.test_traces import values
from tests.unit.rerank.conftest import save_model

from llama_index_presets import CrossEncoderRerank, build
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.settings import Settings

FISH = [Document(text=f"The {word} fish lives in lake {word}.") for word in ("red", "blue", "green")]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


def fish_engine(
    folder: Path, receiver: Receiver, llm: Any = None, reranker: Any = None, **settings: Any
) -> PresetEngine:
    told = {"monitoring": "full", "trace_endpoint": receiver.endpoint, "answer_floor": -1.0, **settings}
    return build(
        "knowledge-base",
        storage=folder,
        embed_model=WordEmbedding(),
        llm=llm or ScriptedLLM(),
        reranker=reranker,
        offline=True,
        settings=told,
    )


def traces(receiver: Receiver) -> list[list[Any]]:
    """The spans of each trace, root first, in the order in which they began."""
    found: dict[bytes, list[Any]] = {}
    for span in sorted(receiver.spans(), key=lambda span: span.start_time_unix_nano):
        found.setdefault(span.trace_id, []).append(span)
    for members in found.values():
        known = {span.span_id for span in members}
        assert [span.parent_span_id for span in members if span.parent_span_id not in known] == [b""], (
            "one root"
        )
    return list(found.values())


@pytest.mark.parametrize(("pattern", "most"), [("simple", 8), ("hybrid", 12)])
def test_every_way_to_ask_is_one_small_trace(
    tmp_path: Path, receiver: Receiver, pattern: str, most: int
) -> None:
    """Query, stream, chat, and their asynchronous twins, with a re-ranker for the hybrid search."""
    model = save_model(tmp_path / "model") if pattern == "hybrid" else None
    reranker = CrossEncoderRerank(model, top_n=2).warm_up() if model else None
    with fish_engine(tmp_path / "s", receiver, reranker=reranker, pattern=pattern) as engine:
        engine.ingest(FISH)

        async def ask() -> None:
            await engine.aquery("red")
            _ = [piece async for piece in (await engine.astream("red")).async_response_gen()]

        engine.query("red")
        str(engine.stream("red"))
        engine.as_chat_engine().chat("red")
        asyncio.run(ask())
    asked = traces(receiver)[1:]
    assert [spans[0].name for spans in asked] == ["query"] * 5
    assert {len(spans) for spans in asked} == {4 if pattern == "simple" else 8}
    assert all(len(spans) <= most for spans in asked)
    names = {span.name for spans in asked for span in spans}
    assert {"rerank", "fusion", "retrieve: vector", "retrieve: bm25"} <= names or pattern == "simple"
    for spans in asked:
        root = values(spans[0].attributes)
        assert root["rag.known"] is True
        assert "output.value" in root and "input.value" in root


def test_the_trace_has_the_query_id_of_response_and_ledger(tmp_path: Path, receiver: Receiver) -> None:
    """So whoever sees one finds the others."""
    with fish_engine(tmp_path, receiver) as engine:
        engine.ingest(FISH)
        query_id = engine.query("red").metadata["query_id"]
        rows = engine.ledger.sql("SELECT count(*) FROM llm_calls WHERE query_id = ?", [query_id]).fetchall()
    (root,) = [spans[0] for spans in traces(receiver) if spans[0].name == "query"]
    assert values(root.attributes)["rag.query_id"] == query_id
    assert values(root.attributes)["rag.preset"] == "knowledge-base"
    assert rows[0][0] > 0


def test_i_dont_know_is_seen(tmp_path: Path, receiver: Receiver) -> None:
    """As an attribute to filter by and as an event."""
    with fish_engine(tmp_path, receiver, answer_floor=1.0) as engine:
        engine.ingest(FISH)
        engine.query("Who sings?")
    (root,) = [spans[0] for spans in traces(receiver) if spans[0].name == "query"]
    assert values(root.attributes)["rag.known"] is False
    assert [event.name for event in root.events] == ["I don't know"]


@pytest.mark.parametrize("read", [0, 1])
def test_a_stream_that_is_left_is_one_closed_trace(tmp_path: Path, receiver: Receiver, read: int) -> None:
    """Unread or half read, it ends when the reader lets go of it."""
    with fish_engine(tmp_path, receiver) as engine:
        engine.ingest(FISH)
        stream = engine.stream("red").response_gen
        for _ in range(read):
            next(stream)
        del stream
        gc.collect()
    root = traces(receiver)[1][0]
    assert root.name == "query"
    assert values(root.attributes)["rag.stream_abandoned"] is True


def test_what_the_cache_answers_is_seen(tmp_path: Path, receiver: Receiver) -> None:
    """A second engine with the same cache computes nothing, and its span says so."""
    cache = str(tmp_path / "cache")
    for folder in ("first", "second"):
        settings = {"monitoring": "full", "trace_endpoint": receiver.endpoint, "embedding_cache": cache}
        with build("knowledge-base", storage=tmp_path / folder, offline=True, settings=settings) as engine:
            engine.ingest(FISH)
    embedded = [values(span.attributes) for span in receiver.spans() if span.name == "embed"]
    assert [told.get("rag.cache_hit", False) for told in embedded] == [False, True]
    assert [told["rag.texts"] for told in embedded] == [3, 3]
    assert embedded[1].get("llm.token_count.prompt", 0) == 0


def test_a_failing_run_shows_the_class_of_its_error(tmp_path: Path, receiver: Receiver) -> None:
    """On the root, and never the message."""

    class Failing(ScriptedLLM):
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            raise ConnectionError("no route to Ada")

    with fish_engine(tmp_path, receiver, llm=Failing()) as engine:
        engine.ingest(FISH)
        with pytest.raises(ConnectionError, match="no route"):
            engine.query("red")
    root = traces(receiver)[1][0]
    assert root.status.message == "ConnectionError"
    assert all(b"Ada" not in body for body in receiver.bodies)


def test_an_ingest_is_one_trace_with_a_span_a_document(tmp_path: Path, receiver: Receiver) -> None:
    """Twenty documents of several chunks, one broken: within 25 kB of attributes, without vectors."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(20):
        text = " ".join(f"The {word} fish lives in lake {number}." for word in ("red", "blue") * 30)
        (folder / f"moira-{number}.txt").write_text(text)
    (folder / "moira.pdf").write_bytes(b"broken")
    with fish_engine(tmp_path / "s", receiver) as engine:
        report = engine.ingest(folder)
        chunks = report.chunks
    (spans,) = traces(receiver)
    names = [span.name for span in spans]
    root = values(spans[0].attributes)
    assert (names.count("document"), names.count("embed"), names[0]) == (21, 1, "ingest")
    assert (root["rag.documents"], root["rag.failed"], root["rag.chunks"]) == (20, 1, chunks)
    assert chunks > 40
    assert sum(item.ByteSize() for span in spans for item in span.attributes) < 25_000
    assert [span.status.message for span in spans if span.status.message] == ["IngestError"]
    assert all(b"moira" not in body for body in receiver.bodies)


def test_a_long_ingest_does_not_flood_the_collector(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what a person would read, documents are counted and not shown; failed ones are."""
    monkeypatch.setattr("llama_index_presets.monitor.traces.listener._MOST_DOCUMENTS", 2)
    with fish_engine(tmp_path, receiver) as engine:
        engine.ingest(FISH)
    (spans,) = traces(receiver)
    assert [span.name for span in spans].count("document") == 2
    assert values(spans[0].attributes)["rag.not_shown"] == 1


def test_a_stream_of_an_engine_is_told_of_once(tmp_path: Path, receiver: Receiver) -> None:
    """OpenInference's OpenAI instrumentor stays silent while pieces are made, and speaks between them."""
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    try:
        with OpenAIServer() as server:
            llm = OpenAI(model="gpt-4o-mini", api_key="sk-test", api_base=server.url)
            with fish_engine(tmp_path, receiver, llm=llm) as engine:
                engine.ingest(FISH)
                str(engine.stream("red"))
    finally:
        OpenAIInstrumentor().uninstrument()
    assert kept.get_finished_spans() == ()
    (told,) = [values(s.attributes) for spans in traces(receiver) for s in spans if s.name == "llm"]
    assert told["llm.token_count.total"] == 1100


# -- where it may be sent ----------------------------------------------------------------------------------------------


def test_without_a_collector_full_works_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has to run Phoenix to use a preset of this level."""
    settings = {"monitoring": "full", "trace_endpoint": "http://127.0.0.1:9"}
    with (
        caplog.at_level(logging.WARNING),
        build("knowledge-base", storage=tmp_path, offline=True, settings=settings) as engine,
    ):
        engine.ingest(FISH)
        assert engine.query("Where does the red fish live?").metadata["known"]
    told = [record for record in caplog.records if record.name.endswith("traces.exporter")]
    assert len(told) == 1


@pytest.mark.parametrize("setting", ["trace_endpoint", "alert_webhook"])
@pytest.mark.parametrize("preset", ["healthcare", "knowledge-base"])
def test_a_remote_address_is_refused_where_nothing_may_leave(
    tmp_path: Path, preset: str, setting: str
) -> None:
    """By the monitoring level local, and offline."""
    with pytest.raises(SettingsError, match=f"{setting} is on 'collector.example', and nothing may leave"):
        build(preset, storage=tmp_path, offline=True, settings={setting: "https://collector.example:4318"})


def test_the_local_level_may_be_traced_on_this_machine(tmp_path: Path, receiver: Receiver) -> None:
    """A collector on loopback is on this machine; without one no trace is sent."""
    for endpoint in (receiver.endpoint, "off"):
        with build("healthcare", storage=tmp_path, settings={"trace_endpoint": endpoint}) as engine:
            engine.ingest(FISH)
    assert len(traces(receiver)) == 1


def test_a_webhook_is_not_shown(tmp_path: Path, receiver: Receiver) -> None:
    """Its address is a password."""
    secret = "http://127.0.0.1:9/hook/s3cret"
    with fish_engine(tmp_path, receiver, alert_webhook=secret) as engine:
        assert "s3cret" not in json.dumps(engine.explain())
        assert engine.explain()["settings"]["alert_webhook"]["value"] == "(set)"
    assert "s3cret" not in repr(Settings(alert_webhook=secret))


def test_alerts_reach_the_webhook(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The level watches its ledger in the background, with the thresholds of the settings."""
    heard: list[dict[str, Any]] = []
    ready = threading.Event()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            ready.set()

        def log_message(self, format: str, *args: Any) -> None:
            """Stay silent."""

    monkeypatch.setattr("llama_index_presets.presets.components.monitoring._ALERT_EVERY_S", 0.05)
    hook = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{hook.server_port}/hook"
    with fish_engine(tmp_path, receiver, alert_webhook=url, alert_error_rate=0.5) as engine:
        for _ in range(30):
            engine.ledger.record(kind="llm", status="error")
        assert ready.wait(20)
    hook.shutdown()
    assert heard[0]["name"] == "error_rate"
    assert heard[0]["threshold"] == 0.5


class Numbering(ScriptedLLM):
    """Says which question it is that it answers."""

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        self.says = f"Yes, number {len(self.prompts) + 1} [1]."
        return super().stream_complete(prompt, formatted, **kwargs)


def test_each_of_two_async_streams_has_its_own_answer_in_its_trace(
    tmp_path: Path, receiver: Receiver
) -> None:
    """Two readers of one engine, a piece at a time in turns: no trace shows what the other was told."""
    told: dict[str, str] = {}
    with fish_engine(tmp_path, receiver, llm=Numbering(), trace_content="text") as engine:
        engine.ingest(FISH)

        async def read(color: str) -> None:
            response = await engine.astream(f"Where does the {color} fish live?")
            pieces = []
            async for piece in response.async_response_gen():
                pieces.append(piece)
                await asyncio.sleep(0)
            told[response.metadata["query_id"]] = "".join(pieces).strip()

        async def both() -> None:
            await asyncio.gather(read("red"), read("blue"))

        asyncio.run(both())
        rows = dict(
            engine.ledger.sql("SELECT query_id, prompt_tokens FROM llm_calls WHERE kind = 'llm'").fetchall()
        )
    shown = {}
    for root, *inner in traces(receiver):
        if root.name == "query":
            facts = values(root.attributes)
            (call,) = [values(span.attributes) for span in inner if span.name == "llm"]
            shown[facts["rag.query_id"]] = facts["output.value"].strip()
            assert call["llm.token_count.prompt"] == rows[facts["rag.query_id"]]
    assert len(set(told.values())) == 2
    assert shown == told
