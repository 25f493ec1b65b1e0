"""Every provider of language models against a server on loopback that speaks its protocol, through its real client.

The bill of each call equals what the server reported: one row a call, whichever way it is made.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from tests.fakes import WordEmbedding
from tests.servers.chat_protocols import ChatServer
from tests.servers.openai import Fault, OpenAIServer

from llama_index_presets import CostTrackingHandler, Ledger, build
from llama_index_presets.advise.eject import eject
from llama_index_presets.monitor.retry import RetryPolicy
from llama_index_presets.providers.language_models import make_language_model
from llama_index_presets.providers.language_providers import PROVIDERS

FISH = [Document(text=f"The {word} fish lives in lake {word}.", doc_id=word) for word in ("red", "blue")]
PLAIN = {"store": "duckdb", "embedding_cache": "off", "answer_floor": -1.0}
MESSAGES = [ChatMessage(role="system", content="Rules."), ChatMessage(role="user", content="How many roads?")]
KEYS = {
    "OPENAI_API_VERSION": "2024-10-21",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "sk-secret",
    "AWS_SECRET_ACCESS_KEY": "sk-secret",
}


@dataclass(frozen=True)
class Vendor:
    """A spelling, the server that answers it, and the variable that leads to that server."""

    name: str
    server: str
    variable: str = ""
    path: str = ""


VENDORS = [
    Vendor("openai/gpt-5-mini", "openai", "OPENAI_BASE_URL", "/v1"),
    Vendor("gpt-4.1-mini", "openai", "OPENAI_API_BASE", "/v1"),
    Vendor("openai/of-next-year", "openai", "OPENAI_BASE_URL", "/v1"),
    Vendor("azure/my-deployment", "openai", "AZURE_OPENAI_ENDPOINT"),
    Vendor("groq/llama-3.3-70b-versatile", "openai", "GROQ_BASE_URL", "/v1"),
    Vendor("http://{server}/v1#qwen3", "openai"),
    Vendor("mistral/mistral-small-2603", "mistral", "MISTRAL_ENDPOINT"),
    Vendor("anthropic/claude-sonnet-4-5", "chat", "ANTHROPIC_BASE_URL"),
    Vendor("claude-haiku-4-5", "chat", "ANTHROPIC_BASE_URL"),
    Vendor("gemini/gemini-2.5-flash", "chat", "GOOGLE_GEMINI_BASE_URL"),
    Vendor("bedrock/anthropic.claude-3-haiku-20240307-v1:0", "chat", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
    Vendor("ollama/llama3.2", "chat", "OLLAMA_HOST"),
]
ONE_EACH = [VENDORS[place] for place in (0, 6, 7, 9, 10, 11)]
"""Of each SDK one."""


class Fixture:
    """A vendor's server, and the environment that leads to it."""

    def __init__(self, vendor: Vendor, server: Any) -> None:
        self.server = server
        self.name = vendor.name.format(server=server.url.removeprefix("http://").removesuffix("/v1"))

    @property
    def bill(self) -> list[tuple[int, int, int, int]]:
        """Prompt, completion, cached and reasoning tokens of each chat call."""
        return [
            (one.prompt, one.completion, one.cached, one.reasoning)
            for one in self.server.served
            if one.completion
        ]


@pytest.fixture
def vendor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fixture]:
    """The server of a `Vendor`; its own keys and addresses are set, and no others."""
    one: Vendor = request.param
    for provider in PROVIDERS.values():
        for variable in (*provider.keys, *provider.endpoints):
            monkeypatch.delenv(variable, raising=False)
        for variable in provider.keys[:1]:
            monkeypatch.setenv(variable, "sk-secret")
    for variable, value in KEYS.items():
        monkeypatch.setenv(variable, value)
    reports_reasoning = one.server != "chat" or "gemini" in one.name
    reports_cached = "ollama" not in one.name
    counts: dict[str, Any] = {
        "prompt": 1000,
        "completion": 100,
        "cached": 400 if reports_cached else 0,
        "reasoning": 30 if reports_reasoning else 0,
    }
    serving: Any = ChatServer(**counts) if one.server == "chat" else OpenAIServer(**counts)
    if one.server == "mistral":
        serving.mistral = True
    with serving as server:
        if one.variable:
            monkeypatch.setenv(one.variable, server.url.removesuffix("/v1") + one.path)
        yield Fixture(one, server)


def rows(ledger: Ledger, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of the rows of language models, in order."""
    return list(
        ledger.sql(
            f"select {', '.join(columns)} from llm_calls where kind = 'llm' order by timestamp"
        ).fetchall()
    )


def quick(llm: Any) -> Any:
    """The model, with short waits where an SDK hides the header Retry-After (Ollama's)."""
    llm._retry_policy = RetryPolicy(first_wait_s=0.01, longest_wait_s=0.01)
    return llm


USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda one: one.name, indirect=True)
def test_a_knowledge_base_is_asked_streamed_and_chatted_with(tmp_path: Path, vendor: Fixture) -> None:
    """The ledger equals the server's own count, and no key is shown anywhere."""
    with build(
        "knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), llm=vendor.name, settings=PLAIN
    ) as engine:
        engine.ingest(FISH)
        whole = str(engine.query("Where does the red fish live?"))
        awaited = str(asyncio.run(engine.aquery("Where does the blue fish live?")))
        streamed = "".join(engine.stream("Where does the red fish live?").response_gen)
        conversation = engine.as_chat_engine()
        said = [
            str(conversation.chat(message)) for message in ("Where is the red fish?", "And the blue one?")
        ]
        shown = repr(engine.synthesizer.llm) + str(engine.explain()) + str(engine.synthesizer.llm.to_dict())
        assert rows(engine.ledger, *USAGE) == vendor.bill
        assert rows(engine.ledger, "status", "usage_source") == [("success", "reported")] * 6
    assert {whole, awaited, streamed, *said} == {"".join(vendor.server.words)}
    assert "sk-secret" not in shown


async def _read(pieces: Any) -> list[Any]:
    return [piece async for piece in await pieces]


def _weather(city: str) -> str:
    """Weather of a city."""
    return city


TOOL = FunctionTool.from_defaults(_weather, name="weather")
SHAPES: dict[str, Callable[[Any], Any]] = {
    "chat": lambda llm: llm.chat(MESSAGES),
    "achat": lambda llm: asyncio.run(llm.achat(MESSAGES)),
    "stream_chat": lambda llm: list(llm.stream_chat(MESSAGES)),
    "astream_chat": lambda llm: asyncio.run(_read(llm.astream_chat(MESSAGES))),
    "complete": lambda llm: llm.complete("x"),
    "tools": lambda llm: llm.get_tool_calls_from_response(llm.chat_with_tools([TOOL], user_msg="x")),
}
"""Ways of a call; each async one has an event loop of its own, as scripts have."""


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda one: one.name, indirect=True)
def test_each_way_of_a_call_is_one_row_with_the_tokens_of_the_server(tmp_path: Path, vendor: Fixture) -> None:
    """Cached and reasoning tokens included, also those that an Anthropic stream says at its beginning alone."""
    llm: Any = make_language_model(vendor.name, {"max_tokens": 64})
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger).instrument()
        answers = {shape: call(llm) for shape, call in SHAPES.items()}
        handler.close()
        assert rows(ledger, *USAGE, "usage_source") == [(*counts, "reported") for counts in vendor.bill]
        assert len(vendor.bill) == len(SHAPES)
    assert answers["tools"][0].tool_name == "weather"


@pytest.mark.parametrize("how", ["chat", "achat", "stream_chat"])
@pytest.mark.parametrize("vendor", ONE_EACH, ids=lambda one: one.name, indirect=True)
def test_a_refusal_to_retry_is_a_row_of_its_own(tmp_path: Path, vendor: Fixture, how: str) -> None:
    """Status 429 with Retry-After, 500, and the page of a proxy: tried again in one layer, the SDK's own is off."""
    llm = quick(make_language_model(vendor.name))
    vendor.server.faults.extend([Fault(status=429, retry_after="0.01"), Fault(html=True, retry_after="0.01")])
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger).instrument()
        SHAPES[how](llm)
        handler.close()
        assert rows(ledger, "status", "attempt") == [("error", 1), ("error", 2), ("success", 3)]
    assert len(vendor.bill) == 1


@pytest.mark.parametrize("vendor", ONE_EACH, ids=lambda one: one.name, indirect=True)
def test_a_server_that_hangs_is_given_up_after_the_timeout(vendor: Fixture) -> None:
    """The option `timeout_s` reaches each SDK, and the next attempt answers."""
    llm = quick(make_language_model(vendor.name, {"timeout_s": 1}))
    vendor.server.faults.append(Fault(stall_s=1.5))
    assert llm.chat(MESSAGES).message.content == "".join(vendor.server.words)


@pytest.mark.parametrize("vendor", ONE_EACH, ids=lambda one: one.name, indirect=True)
def test_a_stream_that_breaks_says_so_and_an_empty_answer_is_no_answer(
    tmp_path: Path, vendor: Fixture
) -> None:
    """What a broken stream said is billed as an estimate."""
    with build(
        "knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), llm=vendor.name, settings=PLAIN
    ) as engine:
        engine.ingest(FISH)
        vendor.server.faults.append(Fault(disconnect_after=4))
        with pytest.raises(Exception, match="(?i)closed|incomplete|prematurely|protocol"):
            list(engine.stream("Where does the red fish live?").response_gen)
        assert rows(engine.ledger, "status", "completion_tokens > 0")[-1] == ("error", True)
        vendor.server.faults.append(Fault(empty=True))
        response = engine.query("Where does the red fish live?")
    assert response.metadata["known"] is False
    assert "The language model wrote no answer" in str(response)


@pytest.mark.parametrize("vendor", ONE_EACH, ids=lambda one: one.name, indirect=True)
def test_a_model_that_refuses_a_temperature_is_asked_without(
    vendor: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    """The call itself succeeds, the log says so once, and the next call does not ask again."""
    message = (
        "Unsupported value: 'temperature' does not support 0.1 with this model. Only the default (1) value."
    )
    llm: Any = make_language_model(vendor.name)
    vendor.server.faults.append(Fault(status=400, message=message))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert llm.chat(MESSAGES).message.content == "".join(vendor.server.words)
    assert [record.getMessage() for record in caplog.records if "does not take" in record.message] == [
        f"'{llm.model}' does not take temperature: sent without from now on."
    ]
    assert len(vendor.server.requests) - sum("show" in one[0] for one in vendor.server.requests) == 3
    assert "'temperature': 0.1" not in str(vendor.server.requests[-1])


@pytest.mark.parametrize("vendor", [VENDORS[3]], ids=lambda one: one.name, indirect=True)
def test_a_limit_of_another_name_is_sent_under_that_name(vendor: Fixture) -> None:
    """A deployment has any name, so that only its server can say that a reasoning model is behind it."""
    message = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    llm = make_language_model(vendor.name, {"max_tokens": 64})
    vendor.server.faults.append(Fault(status=400, message=message))
    llm.chat(MESSAGES)
    sent = [body for _, body in vendor.server.requests]
    assert [(body.get("max_tokens"), body.get("max_completion_tokens")) for body in sent] == [
        (64, None),
        (None, 64),
    ]


@pytest.mark.parametrize("vendor", [VENDORS[0]], ids=lambda one: one.name, indirect=True)
def test_a_known_reasoning_model_is_never_sent_what_it_refuses(vendor: Fixture) -> None:
    """Not even once: the name says it."""
    make_language_model(vendor.name, {"max_tokens": 64}).chat(MESSAGES)
    ((_, body),) = vendor.server.requests
    assert {"temperature", "max_tokens"}.isdisjoint(body) and body["max_completion_tokens"] == 64


@pytest.mark.parametrize("vendor", [VENDORS[5], VENDORS[11]], ids=lambda one: one.name, indirect=True)
def test_a_server_without_usage_gives_an_estimate_that_says_so(tmp_path: Path, vendor: Fixture) -> None:
    """Never a zero that looks like a count."""
    vendor.server.reports_usage = vendor.server.usage = False
    llm = make_language_model(vendor.name)
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger).instrument()
        llm.chat(MESSAGES)
        handler.close()
        ((prompt, completion, source),) = rows(ledger, "prompt_tokens", "completion_tokens", "usage_source")
    assert (prompt > 0, completion > 0, source) == (True, True, "estimated")


@pytest.mark.parametrize(
    "vendor", [VENDORS[7], VENDORS[9], VENDORS[11]], ids=lambda one: one.name, indirect=True
)
def test_thinking_in_the_vendors_own_field_is_not_shown(tmp_path: Path, vendor: Fixture) -> None:
    """Whole and streamed."""
    vendor.server.thinking = "Is it the second passage [2]?"
    with build(
        "knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), llm=vendor.name, settings=PLAIN
    ) as engine:
        engine.ingest(FISH)
        whole = engine.query("Where does the red fish live?")
        streamed = "".join(engine.stream("Where does the red fish live?").response_gen)
    assert str(whole) == streamed == "".join(vendor.server.words)
    assert [one["n"] for one in whole.metadata["citations"]] == [1]


@pytest.mark.parametrize("vendor", [VENDORS[5]], ids=lambda one: one.name, indirect=True)
@pytest.mark.parametrize(
    "entry",
    [{"max_model_len": 32_768}, {"context_window": 32_768}, {"meta": {"n_ctx_train": 32_768}}],
    ids=["vllm", "groq", "llama.cpp"],
)
def test_the_server_says_how_much_its_model_reads(vendor: Fixture, entry: dict[str, Any]) -> None:
    """Under the name of each server; an option goes before it."""
    vendor.server.models = [{"id": "other", "max_model_len": 1}, {"id": "qwen3", "object": "model", **entry}]
    assert make_language_model(vendor.name).metadata.context_window == 32_768
    assert make_language_model(vendor.name, {"context_window": 99}).metadata.context_window == 99


@pytest.mark.parametrize("vendor", [VENDORS[5]], ids=lambda one: one.name, indirect=True)
def test_a_window_that_nobody_knows_is_small_and_said(
    vendor: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    """A guess that is too large would cut the prompt without a word."""
    with caplog.at_level(logging.WARNING):
        assert make_language_model(vendor.name).metadata.context_window == 8_192
    assert "The context window of 'qwen3' is not known" in caplog.text


@pytest.mark.parametrize("vendor", [VENDORS[1]], ids=lambda one: one.name, indirect=True)
def test_the_stable_part_of_the_prompt_comes_first(tmp_path: Path, vendor: Fixture) -> None:
    """So that the vendor's cache, which matches beginnings, can hit; the ledger shows what it read."""
    with build(
        "knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), llm=vendor.name, settings=PLAIN
    ) as engine:
        engine.ingest(FISH)
        for question in ("Where does the red fish live?", "Who lives in lake blue?"):
            engine.query(question)
        assert rows(engine.ledger, "cached_tokens") == [(400,)] * 2
    first, second = (body["messages"] for _, body in vendor.server.requests)
    assert first[0] == second[0] and first[0]["role"] == "system"
    assert "fish" not in str(first[0]) and first[1:] != second[1:]


@pytest.mark.parametrize(
    "vendor", [*ONE_EACH, VENDORS[1], VENDORS[3], VENDORS[5]], ids=lambda one: one.name, indirect=True
)
def test_an_ejected_project_asks_the_same_model(tmp_path: Path, vendor: Fixture) -> None:
    """In plain code, without a key in it."""
    settings = {"llm": {"name": vendor.name, "max_tokens": 64}}
    project = eject("knowledge-base", tmp_path, settings=settings)
    code = (project.folder / "app.py").read_text("utf-8")
    spec = importlib.util.spec_from_file_location("ejected", project.folder / "app.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.make_llm().chat(MESSAGES).message.content == "".join(vendor.server.words)
    assert "sk-secret" not in code and "presets.build" not in code
