"""The usage of streams is asked for wherever OpenAI's protocol is spoken, and a server that refuses costs nothing."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai as sdk
import pytest
from llama_index.core import Document
from llama_index.core.llms import ChatMessage
from llama_index.llms.azure_openai import AzureOpenAI
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from tests.fakes import WordEmbedding
from tests.servers.openai import Fault, OpenAIServer

from llama_index_presets import CostTrackingHandler, Ledger, build
from llama_index_presets.monitor.calls import stream_usage
from llama_index_presets.monitor.calls.stream_usage import ask_for_usage
from llama_index_presets.monitor.retry import RetryPolicy, retrying

MESSAGES = [ChatMessage(content="Hello")]
REPORTED, ESTIMATED = ("reported", 1000, 100), "estimated"


class Vendor(OpenAILike):
    """A class of a vendor, made from `OpenAILike`, as most are."""


def azure(url: str, **options: Any) -> AzureOpenAI:
    return AzureOpenAI(
        model="gpt-4o-mini",
        engine="chat",
        api_key="k",
        azure_endpoint=url.removesuffix("/v1"),
        api_version="2024-10-21",
        **options,
    )


def like(kind: Any) -> Callable[..., Any]:
    return lambda url, **options: kind(model="m", api_key="k", api_base=url, is_chat_model=True, **options)


MODELS: dict[str, Callable[..., Any]] = {
    "OpenAI": lambda url, **options: OpenAI(model="gpt-4o-mini", api_key="k", api_base=url, **options),
    "AzureOpenAI": azure,
    "OpenAILike": like(OpenAILike),
    "a subclass": like(Vendor),
    "OpenAILike, legacy": lambda url, **options: OpenAILike(
        model="m", api_key="k", api_base=url, is_chat_model=False, **options
    ),
    "retried": lambda url, **options: retrying(
        OpenAI(model="gpt-4o-mini", api_key="k", api_base=url), RetryPolicy(first_wait_s=0)
    ),
}


def stream(llm: Any) -> str:
    return "".join(piece.delta or "" for piece in llm.stream_chat(MESSAGES))


def astream(llm: Any) -> str:
    async def read() -> str:
        return "".join([piece.delta or "" async for piece in await llm.astream_chat(MESSAGES)])

    return asyncio.run(read())


def complete(llm: Any) -> str:
    return "".join(piece.delta or "" for piece in llm.stream_complete("Hello"))


WAYS = {"stream_chat": stream, "astream_chat": astream, "stream_complete": complete}


@pytest.fixture(autouse=True)
def _ask_every_server() -> Iterator[None]:
    stream_usage._accepting.clear()  # a port may be used again
    stream_usage._refusing.clear()
    yield


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.duckdb") as opened:
        handler = CostTrackingHandler(opened).instrument()
        yield opened
        handler.close()


def usage(ledger: Ledger) -> list[tuple[str, int, int]]:
    statement = "SELECT usage_source, prompt_tokens, completion_tokens FROM llm_calls WHERE kind = 'llm'"
    return ledger.sql(statement).fetchall()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_every_class_of_the_protocol_is_asked(ledger: Ledger, model: str, way: str) -> None:
    """The row of a stream has the tokens of the bill, and the model keeps its settings."""
    with OpenAIServer() as server:
        llm = MODELS[model](server.url)
        assert WAYS[way](llm) == "The answer is 42."
        assert server.requests[0][1]["stream_options"] == {"include_usage": True}
    assert usage(ledger) == [REPORTED]
    assert llm.additional_kwargs == {}


NAMED = (400, "Unrecognized request argument supplied: stream_options")
UNNAMED = (422, "Extra inputs are not permitted")


@pytest.mark.parametrize("refusal", [NAMED, UNNAMED], ids=["named", "unnamed"])
@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_refuses_is_asked_once(
    ledger: Ledger, way: str, refusal: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    """The first stream is sent again without the question, the second is sent without at once; one warning."""
    with OpenAIServer(refusal=refusal) as server, caplog.at_level(logging.WARNING):
        llm = MODELS["OpenAILike"](server.url)
        other = MODELS["OpenAILike"](server.url)
        assert [WAYS[way](llm), WAYS[way](other)] == ["The answer is 42."] * 2
        asked = ["stream_options" in body for _, body in server.requests]
    assert asked == [True, False, False]
    assert [row[0] for row in usage(ledger)] == [ESTIMATED] * 2
    assert caplog.text.count("refuses stream_options for model 'm'") == 1


def test_another_model_of_the_same_server_is_asked_itself(ledger: Ledger) -> None:
    """What is remembered is remembered of one server and one model."""
    with OpenAIServer(refusal=NAMED) as server:
        for name in ("m", "n", "m", "n"):
            stream(OpenAILike(model=name, api_key="k", api_base=server.url, is_chat_model=True))
        asked = [body["model"] for _, body in server.requests if "stream_options" in body]
    assert asked == ["m", "n"]


def test_a_bad_request_stays_the_callers_error(ledger: Ledger) -> None:
    """A refusal that has another reason is raised, and the server is asked again the next time."""
    with OpenAIServer() as server:
        server.fail_always = Fault(status=400)
        with pytest.raises(sdk.BadRequestError, match="scripted 400"):
            stream(MODELS["OpenAI"](server.url))
        server.fail_always = None
        assert stream(MODELS["OpenAI"](server.url)) == "The answer is 42."
    assert usage(ledger)[-1] == REPORTED


def test_options_of_the_model_go_first(ledger: Ledger) -> None:
    """A model that has `stream_options` of its own is sent as it is."""
    own = {"stream_options": {"include_usage": False}}
    with OpenAIServer() as server:
        stream(MODELS["OpenAI"](server.url, additional_kwargs=own))
        assert [body["stream_options"] for _, body in server.requests] == [own["stream_options"]]


def test_a_client_of_the_application_is_not_changed(ledger: Ledger) -> None:
    """What the application streams through the same client has no further chunk at its end."""
    with OpenAIServer() as server:
        client = sdk.OpenAI(api_key="k", base_url=server.url)
        stream(OpenAI(model="gpt-4o-mini", api_key="k", openai_client=client))
        request: Any = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "x"}],
            "stream": True,
        }
        chunks = list(client.chat.completions.create(**request))
    assert all(chunk.choices for chunk in chunks)
    assert usage(ledger) == [REPORTED]


def test_a_model_that_was_asked_can_be_copied_pickled_and_closed(ledger: Ledger) -> None:
    """It stays what it was: its client is a client, and nobody asks after the handler is closed."""
    with OpenAIServer() as server:
        llm = MODELS["OpenAI"](server.url)
        stream(llm)
        assert isinstance(llm._get_client(), sdk.OpenAI)
        assert stream(pickle.loads(pickle.dumps(llm))) == stream(llm.model_copy()) == "The answer is 42."
        assert stream(retrying(llm)) == "The answer is 42."
        ledger.close()
        stream(llm)
        assert "stream_options" not in server.requests[-1][1]


@pytest.mark.parametrize(
    "host", ["api.openai.com", "me.openai.azure.com", "127.0.0.1", "openai.com.example.org"]
)
def test_clients_for_one_request_are_asked_where_the_answer_is_known(ledger: Ledger, host: str) -> None:
    """A model without a client of its own cannot send again what is refused."""
    llm = OpenAI(model="gpt-4o-mini", api_key="k", api_base=f"https://{host}/v1", reuse_client=False)
    ask_for_usage(llm, ledger.__repr__, asynchronous=False)  # type: ignore[arg-type]
    assert ("stream_options" in llm.additional_kwargs) == (host in ("api.openai.com", "me.openai.azure.com"))


@pytest.mark.parametrize(("setting", "requests"), [(True, [True, False]), (False, [False])])
def test_a_preset_streams_from_a_server_that_refuses(
    openai: OpenAIServer, tmp_path: Path, setting: bool, requests: list[bool]
) -> None:
    """With `stream_usage` turned off it does not even ask."""
    openai.refusal = NAMED
    openai.words = ("The key is blue", " [1].")
    settings = {"stream_usage": setting, "answer_floor": -1.0}
    with build("knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), settings=settings) as engine:
        engine.ingest([Document(text="The key is blue.", doc_id="a")])
        assert "".join(engine.stream("Which key?").response_gen).strip() == "The key is blue [1]."
    chats = [body for path, body in openai.requests if path == "/chat/completions"]
    assert ["stream_options" in body for body in chats] == requests
