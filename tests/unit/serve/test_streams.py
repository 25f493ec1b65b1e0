"""Streams whose client leaves, and answers of many callers at once: billed once, never crossed, nothing left open."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core import Document
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen
from llama_index.core.llms.callbacks import llm_completion_callback
from tests.unit.serve.conftest import PaidLLM, Running, add_keys, config_of, opener, running, wait_for

from llama_index_presets.serve.protocols.sse import EventStream

ASKED = "What do cats do all day?"
QUESTION = {"question": ASKED}


class Dripping(PaidLLM):
    """Gives a word every 20 ms until the end of a long answer; counts the streams that are open."""

    open_streams: list[int] = []

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def pieces() -> CompletionResponseGen:
            self.open_streams.append(1)
            try:
                text = ""
                for _ in range(500):
                    text += "word "
                    time.sleep(0.02)
                    yield CompletionResponse(text=text, delta="word ")
            finally:
                self.open_streams.pop()

        return pieces()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(config_of(tmp_path), opener(Dripping)) as one:
        yield one


def rows(server: Running) -> list[Any]:
    return server.engine.ledger.sql(
        "SELECT query_id, status, completion_tokens FROM llm_calls WHERE kind = 'llm'"
    ).fetchall()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/query/stream", QUESTION),
        ("/v1/chat/completions", {"model": "kb", "stream": True, "messages": [{"role": "user", "content": ASKED}]}),
        ("/v1/responses", {"model": "kb", "stream": True, "input": ASKED}),
    ],
)  # fmt: skip
def test_a_client_that_leaves_ends_the_stream(server: Running, path: str, body: dict[str, Any]) -> None:
    """The model's stream is closed, the place is free, and the ledger has one row of what was said till then."""
    with server.client() as client, client.stream("POST", path, json=body) as response:
        for line in response.iter_lines():
            if "word" in line:
                break
        assert server.engine.llm.open_streams == [1]  # type: ignore[attr-defined]
    wait_for(lambda: server.engine.llm.open_streams == [])  # type: ignore[attr-defined]
    wait_for(lambda: server.process.server.answers.slots.taken == 0)
    billed = rows(server)
    assert len(billed) == 1
    assert 0 < billed[0][2] < 500
    with server.client() as client:
        metrics = wait_for(lambda: text if "abandoned" in (text := client.get("/metrics").text) else None)
    assert 'llama_presets_answers_total{engine="kb",outcome="abandoned"} 1.0' in metrics


def test_a_client_that_leaves_before_the_first_byte_costs_one_row_at_most(server: Running) -> None:
    """Leaving at once leaves nothing open."""
    with server.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/query/stream", json=QUESTION, timeout=httpx.Timeout(5, read=0.001))
    wait_for(lambda: server.process.server.answers.slots.taken == 0)
    assert server.engine.llm.open_streams == []  # type: ignore[attr-defined]
    assert len(rows(server)) <= 1


def test_a_stop_lets_answers_end(tmp_path: Path) -> None:
    """A signal in the midst of an answer: it is answered whole, and the process ends after it."""

    class Late(PaidLLM):
        @llm_completion_callback()
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            begun.set()
            time.sleep(0.5)
            return CompletionResponse(text="Late [1].")

    begun = threading.Event()
    answers: list[Any] = []
    with running(config_of(tmp_path), opener(Late)) as server:

        def ask() -> None:
            with server.client() as client:
                answers.append(client.post("/query", json=QUESTION).json()["answer"])

        thread = threading.Thread(target=ask)
        thread.start()
        begun.wait(30)
        server.process.stop()
        thread.join()
    assert answers == ["Late [1]."]


def test_answers_of_many_callers_are_never_crossed(tmp_path: Path) -> None:
    """Five tenants ask at once, whole and as streams: each is answered from its own documents, on its own bill."""
    names = [f"t{number}" for number in range(5)]
    keys = add_keys(tmp_path / "keys.json", {name: {"tenant": name} for name in names})

    from llama_index_presets.answer.extractive import ExtractiveLLM

    with running(config_of(tmp_path, keys=str(tmp_path / "keys.json")), opener(ExtractiveLLM)) as server:
        for name in names:
            document = Document(text=f"The password is sesame{name}.", id_=f"{name}.txt")
            server.engine.for_tenant(name).ingest([document], show_progress=False)
        crossed: list[str] = []
        bills: dict[str, list[str]] = {name: [] for name in names}

        def ask(name: str) -> None:
            with server.client(keys[name]) as client:
                for number in range(4):
                    path = "/query" if number % 2 else "/query/stream"
                    text = client.post(path, json={"question": "What is the password?"}).text
                    if f"sesame{name}" not in text or any(
                        f"sesame{other}" in text for other in names if other != name
                    ):
                        crossed.append(text)
                    bills[name].append(text)

        threads = [threading.Thread(target=ask, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert crossed == []
        by_tenant = dict(
            server.engine.ledger.sql(
                "SELECT tenant, count(DISTINCT query_id) FROM llm_calls WHERE kind = 'llm' GROUP BY tenant"
            ).fetchall()
        )
        assert by_tenant == dict.fromkeys(names, 4)


@pytest.mark.parametrize("rounds", range(6))
def test_a_client_that_leaves_at_the_end_leaves_no_word_in_the_log(rounds: int) -> None:
    """asyncio logged "Task exception was never retrieved" where the events ended in the moment of leaving."""
    faults: list[Any] = []

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context["message"]))
        end = asyncio.Event()

        async def events() -> AsyncIterator[bytes]:
            await end.wait()
            return
            yield b""

        pieces = EventStream(events())._pieces
        reader = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0.01)
        end.set()
        for _ in range(rounds):
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await pieces.aclose()
        del reader, pieces
        gc.collect()
        await asyncio.sleep(0)

    # A client of OpenAI that an earlier test left closes itself in the loop that runs when it is collected, and fails.
    gc.collect()
    asyncio.run(leave())
    assert faults == []
