"""Replies of every vendor that say success and hold no answer: named, tried again, and billed with what they report.

Each vendor's own client, against a server on loopback that speaks its protocol; OpenAI's is in `test_empty_replies`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from tests.journeys.test_models_by_name import ONE_EACH, Fixture, vendor
from tests.servers.chat_protocols import EVENTS, event_frame
from tests.servers.openai import Fault
from tests.servers.recorded import ledger

from llama_index_presets import Ledger
from llama_index_presets.answer.finish import finish_reason
from llama_index_presets.errors import ModelReplyError
from llama_index_presets.monitor.retry import RetryPolicy
from llama_index_presets.providers.language_models import make_language_model

__all__ = ["ledger", "vendor"]

MESSAGES = [ChatMessage("hi")]
BY_NAME = {one.name.partition("/")[0]: one for one in ONE_EACH}
JSON, SSE, LINES = "application/json", "text/event-stream", "application/x-ndjson"


def make(name: str) -> Any:
    """A model that tries twice, at once."""
    llm: Any = make_language_model(name, {"context_window": 8_000})
    llm._retry_policy = RetryPolicy(attempts=2, first_wait_s=0.0, longest_wait_s=0.0)
    return llm


def rows(ledger: Ledger, *columns: str) -> list[Any]:
    ledger.flush()
    return ledger.sql(f"select {', '.join(columns)} from llm_calls order by timestamp").fetchall()


async def _all(pieces: Any) -> list[Any]:
    return [piece async for piece in await pieces]


WHOLE: dict[str, Callable[[Any], Any]] = {
    "chat": lambda llm: llm.chat(MESSAGES),
    "complete": lambda llm: llm.complete("hi"),
    "achat": lambda llm: asyncio.run(llm.achat(MESSAGES)),
}
STREAMS: dict[str, Callable[[Any], Any]] = {
    "stream_chat": lambda llm: list(llm.stream_chat(MESSAGES)),
    "stream_complete": lambda llm: list(llm.stream_complete("hi")),
    "astream_chat": lambda llm: asyncio.run(_all(llm.astream_chat(MESSAGES))),
}
WAYS = {**WHOLE, **STREAMS}


def _sse(*events: dict[str, Any]) -> bytes:
    named = (f"event: {one['type']}\n" if "type" in one else "" for one in events)
    pairs = zip(named, events, strict=True)
    return "".join(f"{name}data: {json.dumps(one)}\n\n" for name, one in pairs).encode()


def _frames(**events: dict[str, Any]) -> bytes:
    return b"".join(event_frame(kind, value) for kind, value in events.items())


OPENAI_USAGE = {"prompt_tokens": 300, "completion_tokens": 0, "total_tokens": 300}
OPENAI = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [],
    "usage": OPENAI_USAGE,
}
MESSAGE = {
    "id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "stop_reason": None,
    "usage": {"input_tokens": 300, "output_tokens": 0},
}  # fmt: skip
GEMINI = {"usageMetadata": {"promptTokenCount": 300, "totalTokenCount": 300}}
BEDROCK = {"usage": {"inputTokens": 300, "outputTokens": 0, "totalTokens": 300}}
START = {"type": "message_start", "message": MESSAGE}

NOTHING: dict[str, bytes] = {
    "mistral": json.dumps(OPENAI).encode(),
    "anthropic": json.dumps(MESSAGE).encode(),
    "gemini": json.dumps(GEMINI).encode(),
    "bedrock": json.dumps(BEDROCK).encode(),
}
"""Whole replies that are billed and have no answer, and no reason why."""
NOTHING_STREAMED: dict[str, tuple[bytes, str]] = {
    "mistral": (_sse(OPENAI), SSE),
    "anthropic": (_sse(START), SSE),
    "gemini": (_sse(GEMINI), SSE),
    "bedrock": (_frames(messageStart={"role": "assistant"}, metadata=BEDROCK), EVENTS),
}
ERRORS_STREAMED: dict[str, tuple[bytes, str]] = {
    "openai": (_sse({"error": {"message": "backend down"}}), SSE),
    "anthropic": (_sse(START, {"type": "error", "error": {"type": "busy", "message": "backend down"}}), SSE),
    "ollama": (b'{"error": "backend down"}\n', LINES),
}  # fmt: skip
"""Streams that begin with status 200 and hold an error."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", [b"<html>gateway</html>", b"{}", b"[]", b'{"error": {"message": "down"}}'])
@pytest.mark.parametrize("vendor", ONE_EACH, ids=lambda one: one.name, indirect=True)
def test_a_reply_of_another_kind_is_named_and_tried_again(
    vendor: Fixture,
    ledger: Ledger,
    body: bytes,
    way: str,
) -> None:
    """Pages of gateways and JSON of another shape, with status 200."""
    vendor.server.fail_always = Fault(body=body, body_type="text/html" if b"<" in body else JSON)
    if "gemini" in vendor.name and "stream" in way and b"error" in body:
        with pytest.raises(TypeError):  # of Google's SDK, which compares the code that this error lacks
            WAYS[way](make(vendor.name))
        assert rows(ledger, "status", "error_type") == [("error", "TypeError")]
        return
    with pytest.raises(ModelReplyError, match=r"at 127.* replied without an answer: .*name another model"):
        WAYS[way](make(vendor.name))
    assert rows(ledger, "status", "error_type") == [("error", "ModelReplyError")] * 2


@pytest.mark.parametrize("vendor", ONE_EACH, ids=lambda one: one.name, indirect=True)
@pytest.mark.parametrize("way", WAYS)
def test_a_second_attempt_answers(vendor: Fixture, way: str) -> None:
    """One page of a gateway does not fail a call, and calls in one event loop after another are looked at, too."""
    llm = make(vendor.name)
    for _ in range(2):
        vendor.server.faults.append(Fault(body=b"<html>gateway</html>", body_type="text/html"))
        said = WAYS[way](llm)
        last = str(said[-1] if isinstance(said, list) else said).removeprefix("assistant: ")
        assert last.endswith("".join(vendor.server.words).strip())


@pytest.mark.parametrize("way", WHOLE)
@pytest.mark.parametrize(
    "vendor", [BY_NAME[name] for name in NOTHING], ids=lambda one: one.name, indirect=True
)
def test_a_reply_with_nothing_in_it_is_billed(vendor: Fixture, ledger: Ledger, way: str) -> None:
    """Both attempts have the tokens that the provider bills."""
    vendor.server.fail_always = Fault(body=NOTHING[vendor.name.partition("/")[0]], body_type=JSON)
    with pytest.raises(ModelReplyError, match="without an answer"):
        WHOLE[way](make(vendor.name))
    assert (
        rows(ledger, "status", "prompt_tokens", "usage_source", "cost_usd > 0")
        == [("error", 300, "reported", True)] * 2
    )


@pytest.mark.parametrize("way", STREAMS)
@pytest.mark.parametrize(
    "vendor", [BY_NAME[name] for name in NOTHING_STREAMED], ids=lambda one: one.name, indirect=True
)
def test_a_stream_with_nothing_in_it_is_billed(vendor: Fixture, ledger: Ledger, way: str) -> None:
    """A stream that ends without any piece of an answer was given out as an empty one."""
    body, kind = NOTHING_STREAMED[vendor.name.partition("/")[0]]
    vendor.server.fail_always = Fault(body=body, body_type=kind)
    with pytest.raises(ModelReplyError, match="its stream had no answer"):
        STREAMS[way](make(vendor.name))
    assert rows(ledger, "status", "prompt_tokens", "usage_source") == [("error", 300, "reported")] * 2


@pytest.mark.parametrize("way", STREAMS)
@pytest.mark.parametrize(
    "vendor", [BY_NAME[name] for name in ERRORS_STREAMED], ids=lambda one: one.name, indirect=True
)
def test_an_error_in_a_stream_is_tried_again(vendor: Fixture, way: str) -> None:
    """Its status is 200, so that no layer took it for a fault of the server."""
    body, kind = ERRORS_STREAMED[vendor.name.partition("/")[0]]
    vendor.server.faults.append(Fault(body=body, body_type=kind))
    assert str(STREAMS[way](make(vendor.name))[-1])
    vendor.server.fail_always = Fault(body=body, body_type=kind)
    with pytest.raises(ModelReplyError, match="It says: backend down"):
        STREAMS[way](make(vendor.name))


@pytest.mark.parametrize("way", STREAMS)
@pytest.mark.parametrize("vendor", [BY_NAME["gemini"]], ids=["gemini"], indirect=True)
def test_an_error_in_a_stream_of_google_has_its_own_status(vendor: Fixture, way: str) -> None:
    """Its SDK raises it with the response, whose status is 200."""
    body = b'{"error": {"message": "backend down", "code": 503}}'
    vendor.server.faults.append(Fault(body=body, body_type=JSON))
    assert str(STREAMS[way](make(vendor.name))[-1])


ENDED: dict[str, tuple[dict[str, Any], str]] = {
    "prompt refused": ({"promptFeedback": {"blockReason": "SAFETY"}}, "content_filter"),
    "prompt refused otherwise": ({"promptFeedback": {"blockReason": "OTHER"}}, "content_filter"),
    "answer refused": ({"candidates": [{"finishReason": "SAFETY"}]}, "content_filter"),
    "reasoning used the limit up": (
        {"candidates": [{"finishReason": "MAX_TOKENS", "content": {}}]},
        "length",
    ),
    "cut off": (
        {
            "candidates": [
                {"finishReason": "MAX_TOKENS", "content": {"role": "model", "parts": [{"text": "Red"}]}}
            ]
        },
        "length",
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ending", ENDED)
@pytest.mark.parametrize("vendor", [BY_NAME["gemini"]], ids=["gemini"], indirect=True)
def test_an_answer_of_gemini_that_ends_early_says_why(
    vendor: Fixture,
    ledger: Ledger,
    ending: str,
    way: str,
) -> None:
    """One request, billed, with a finish reason as of any other provider; its class raises, or leaves the piece out."""
    reply, reason = ENDED[ending]
    whole = {**reply, **GEMINI}
    body = _sse(whole) if "stream" in way else json.dumps(whole).encode()
    vendor.server.fail_always = Fault(body=body, body_type=SSE if "stream" in way else JSON)
    said = WAYS[way](make(vendor.name))
    last = said[-1] if isinstance(said, list) else said
    if hasattr(last, "message"):
        assert finish_reason(last) == reason
        assert (last.message.content or "") == ("Red" if ending == "cut off" else "")
    assert rows(ledger, "status", "prompt_tokens", "usage_source") == [("success", 300, "reported")]


@pytest.mark.parametrize("vendor", [BY_NAME["gemini"]], ids=["gemini"], indirect=True)
def test_a_malformed_call_of_a_tool_is_tried_again(vendor: Fixture, ledger: Ledger) -> None:
    """Gemini ends with a reason that a second attempt does not have."""
    reply = {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}], **GEMINI}
    vendor.server.faults.append(Fault(body=json.dumps(reply).encode(), body_type=JSON))
    assert "Red" in str(make(vendor.name).chat(MESSAGES))
    assert rows(ledger, "status", "prompt_tokens") == [("error", 300), ("success", 1000)]


@pytest.mark.parametrize(
    "vendor", [BY_NAME["mistral"], BY_NAME["anthropic"]], ids=lambda one: one.name, indirect=True
)
def test_a_key_that_a_provider_repeats_is_not_passed_on(vendor: Fixture) -> None:
    """Providers name the key in what they say of it."""
    body = b'{"error": {"message": "The key sk-secret is not known."}}'
    vendor.server.fail_always = Fault(body=body, body_type=JSON)
    with pytest.raises(ModelReplyError, match=r"The key \(key\) is not known"):
        make(vendor.name).chat(MESSAGES)
