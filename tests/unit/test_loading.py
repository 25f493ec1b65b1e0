"""A model is loaded once, and whoever waits for it says how long, apart from the call."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.servers.otlp import Receiver
from tests.tiny_clip import tiny_clip
from tests.unit.monitor.test_traces import Seen
from tests.unit.rerank.conftest import save_model

from llama_index_presets import CostTrackingHandler, CrossEncoderRerank, Ledger, build
from llama_index_presets.embed.clip.embedding import ClipEmbedding
from llama_index_presets.embed.local import encoders as encoder
from llama_index_presets.embed.local.embedding import LocalEmbedding
from llama_index_presets.events import ModelLoadEvent
from llama_index_presets.inference.loading import LoadOnce, loading
from llama_index_presets.monitor.alerts import AlertMonitor, Thresholds
from llama_index_presets.monitor.ledger.row import covered_s
from llama_index_presets.monitor.traces.tracing import trace_to

SLEEP_S = 0.05


class Heard(BaseEventHandler):
    """Keeps the loads of the process."""

    events: list[ModelLoadEvent] = []

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, ModelLoadEvent):
            self.events.append(event)


@pytest.fixture
def heard() -> Iterator[list[ModelLoadEvent]]:
    root, handler = get_dispatcher(), Heard()
    root.add_event_handler(handler)
    yield handler.events
    root.event_handlers = [known for known in root.event_handlers if known is not handler]


def slow(name: str) -> list[str]:
    time.sleep(SLEEP_S)
    return [name]


def use(load: LoadOnce[Any], name: str = "m") -> Any:
    with loading(name, "embedding"):
        return load(name)


class Lazy(WordEmbedding):
    """Loads at first use, as local models do."""

    load: Any = None

    def _vector(self, text: str) -> list[float]:
        use(self.load)
        return super()._vector(text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._vector, query)


# -- once --------------------------------------------------------------------------------------------------------------


def test_a_model_is_loaded_and_reported_once(heard: list[ModelLoadEvent]) -> None:
    """What is loaded already says nothing."""
    load = LoadOnce(slow)
    assert use(load) is use(load)
    (event,) = heard
    assert (event.model, event.purpose, event.waited, event.error) == ("m", "embedding", False, None)
    assert event.latency_ms >= SLEEP_S * 1000


def test_parts_that_are_loaded_together_are_one_load(heard: list[ModelLoadEvent]) -> None:
    """Weights, tokenizer and model of one call are one event, with the name of the outermost."""
    first, second = LoadOnce(slow), LoadOnce(slow)
    with loading("whole", "rerank"):
        use(first)
        use(second)
    assert [(event.model, event.latency_ms >= 2 * SLEEP_S * 1000) for event in heard] == [("whole", True)]


def test_a_load_that_fails_says_so_and_is_tried_again(heard: list[ModelLoadEvent]) -> None:
    """The class of the error, never its message."""

    def broken(name: str) -> None:
        raise OSError("secret path")

    load = LoadOnce(broken)
    for _ in range(2):
        with pytest.raises(OSError, match="secret path"):
            use(load)
    assert [event.error for event in heard] == ["OSError"] * 2


class Announced:
    """A lock that tells when somebody wants it."""

    def __init__(self) -> None:
        self.lock, self.wanted = threading.Lock(), threading.Semaphore(0)

    def __enter__(self) -> None:
        self.wanted.release()
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def test_a_thread_that_waits_for_another_ones_load_says_that(heard: list[ModelLoadEvent]) -> None:
    """Its call waited as long, but the model was loaded once."""
    lock = Announced()

    def load_when_both_are_here(name: str) -> list[str]:
        for _ in range(2):
            assert lock.wanted.acquire(timeout=60)
        return [name]

    load = LoadOnce(load_when_both_are_here)
    load._lock = lock  # type: ignore[assignment]
    threads = [threading.Thread(target=use, args=(load,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(event.waited for event in heard) == [False, True]


@pytest.mark.parametrize(
    ("intervals", "start", "covered"),
    [
        ([], 0.0, 0.0),
        ([(1, 3)], 0.0, 2.0),
        ([(1, 3)], 2.0, 1.0),
        ([(1, 3), (2, 4), (6, 7)], 0.0, 3 + 1),
        ([(1, 2)], 5, 0),
    ],
)
def test_time_that_is_covered_twice_counts_once(
    intervals: list[tuple[float, float]], start: float, covered: float
) -> None:
    """Legs that load at the same time do not make a call faster than it was."""
    assert covered_s(intervals, start) == covered


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.duckdb") as opened:
        handler = CostTrackingHandler(opened).instrument()
        yield opened
        handler.close()


HITS = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in ("red fish", "blue fish")]


def rerank(folder: Path) -> Any:
    return CrossEncoderRerank(save_model(folder)).postprocess_nodes(HITS, query_bundle=QueryBundle("red"))


def clip(folder: Path) -> Any:
    return ClipEmbedding(str(shutil.copytree(tiny_clip(), folder))).get_text_embedding("red")


def local(folder: Path) -> Any:
    return LocalEmbedding(precision="float32", device="cpu").get_text_embedding("red")


def own(folder: Path) -> Any:
    return Lazy(load=LoadOnce(slow)).get_query_embedding("red")


@pytest.mark.parametrize("first_call", [rerank, clip, local, own])
def test_a_load_is_a_row_of_its_own(
    ledger: Ledger, tmp_path: Path, first_call: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that waited and the load together took no longer than the caller waited."""
    monkeypatch.setattr(encoder._encoders, "_loaded", {})  # another test may have loaded it
    began = time.perf_counter()
    first_call(tmp_path / "model")
    whole_ms = (time.perf_counter() - began) * 1000
    rows = ledger.sql("SELECT kind, latency_ms, cost_usd, provider, status FROM llm_calls").fetchall()
    (load,) = [row for row in rows if row[0] == "load"]
    (call,) = [row for row in rows if row[0] != "load"]
    assert load[2:] == (0, "local", "success")
    assert 0 <= call[1] <= whole_ms - load[1]


def test_a_second_call_loads_nothing(ledger: Ledger) -> None:
    """One row of kind load for any number of calls."""
    model = Lazy(load=LoadOnce(slow))
    for text in ("a", "b"):
        model.get_text_embedding(text)
    assert sorted(row[0] for row in ledger.sql("SELECT kind FROM llm_calls").fetchall()) == [
        "embedding",
        "embedding",
        "load",
    ]


def test_no_percentile_and_no_alert_knows_of_a_load(tmp_path: Path) -> None:
    """An engine that took a minute to load is not a slow one."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        for _ in range(20):
            ledger.record(kind="embedding", provider="local", latency_ms=10.0)
        ledger.record(kind="load", provider="local", model="m", latency_ms=60_000.0)
        stats = ledger.get_usage_stats()
        assert (stats.total_calls, stats.p99_latency_ms, stats.avg_latency_ms) == (20, 10.0, 10.0)
        assert [row.calls for row in ledger.costs(by="kind")] == [20]
        alerts: list[Any] = []
        assert AlertMonitor(ledger, [alerts.append], Thresholds(latency_s=30.0)).check() == alerts == []


@pytest.mark.parametrize("way", ["query", "aquery", "stream", "astream"])
def test_the_first_question_is_not_slow_because_a_model_loads(tmp_path: Path, way: str) -> None:
    """Neither in its metadata nor in its row; the load has the query_id of the question and a span below it."""
    model = Lazy(load=LoadOnce(slow))
    question = "Where is the red fish?"

    def ask(engine: Any) -> Any:
        async def later() -> Any:
            response = await getattr(engine, way)(question)
            if way == "astream":
                async for _ in response.async_response_gen():
                    pass
            return response

        if way.startswith("a"):
            return asyncio.run(later())
        response = getattr(engine, way)(question)
        str(response)
        return response

    with Receiver() as receiver:
        settings = {"monitoring": "full", "trace_endpoint": receiver.endpoint, "answer_floor": -1.0}
        options = {"embed_model": model, "llm": ScriptedLLM(), "offline": True, "settings": settings}
        with build("knowledge-base", storage=tmp_path, **options) as engine:
            engine.ingest([Document(text="The red fish is here.", doc_id="a")])
            model.load = LoadOnce(slow)
            began = time.perf_counter()
            metadata = ask(engine).metadata
            whole_ms = (time.perf_counter() - began) * 1000
            rows = engine.ledger.sql(
                "SELECT kind, latency_ms FROM llm_calls WHERE query_id = ?", [metadata["query_id"]]
            ).fetchall()
        spans = [span.name for span in receiver.spans()]
    found = dict(rows)
    assert spans.count("load") == 2  # one at the ingest
    for latency_ms in (
        metadata["latency_ms"] - 0.1,
        found["embedding"],
        found.get("query", 0),
        found["retrieval"],
    ):
        assert latency_ms <= whole_ms - found["load"]  # the first is rounded to a tenth


def test_a_load_is_a_span_in_the_call_that_waited(tmp_path: Path) -> None:
    """With the name of the model, below the embedding."""
    with Receiver() as receiver, trace_to(receiver.endpoint, project="loads") as traces:
        Lazy(load=LoadOnce(slow)).get_text_embedding("x")
        seen = Seen(traces, receiver)
    assert seen.trees() == [("embed", "load")]
    assert seen.of("load")["embedding.model_name"] == "m"
    assert seen.of("load")["rag.latency_ms"] >= SLEEP_S * 1000


def test_a_ledger_without_loads_opens_as_it_did(tmp_path: Path) -> None:
    """The kind is a text: rows of before and after stand in one table, and a reader that knows no loads reads them."""
    path = tmp_path / "calls.duckdb"
    for kind in ("embedding", "load"):
        with Ledger(path) as ledger:
            ledger.record(kind=kind, provider="local", latency_ms=1.0)
    with Ledger(path) as ledger:
        assert ledger.sql("SELECT kind FROM llm_calls ORDER BY 1").fetchall() == [("embedding",), ("load",)]
