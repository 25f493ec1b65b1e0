"""OpenAI's protocol, spoken by the official client and by LlamaIndex's own."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from llama_index.core.llms import ChatMessage
from tests.unit.serve.conftest import Running

QUESTION = "What do cats do all day?"


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="not needed", max_retries=0) as one:
        yield one


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(
        model="kb", messages=[{"role": "user", "content": QUESTION}], **options
    )


def test_models_are_the_engines(client: openai.OpenAI) -> None:
    """Listed and fetched one by one; an unknown one is not found."""
    assert [model.id for model in client.models.list()] == ["kb"]
    assert client.models.retrieve("kb").owned_by == "llama-index-presets"
    with pytest.raises(openai.NotFoundError, match="no engine 'other'"):
        client.models.retrieve("other")


def test_a_completion_has_usage_annotations_and_citations(client: openai.OpenAI) -> None:
    """Markers are annotations with their place in the text; the extra field has what the protocol lacks."""
    found = ask(client, temperature=0.2, max_tokens=50)
    message = found.choices[0].message
    assert (message.content, found.choices[0].finish_reason) == ("Yes [1].", "stop")
    mark = message.annotations[0].url_citation
    assert (message.content[mark.start_index : mark.end_index], mark.title) == ("[1]", "cats.txt")
    assert found.usage.prompt_tokens > 0
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    extra = found.llama_presets
    assert (extra["citations"][0]["source"], extra["known"]) == ("cats.txt", True)
    assert extra["cost_usd"] > 0


def test_a_stream_ends_with_annotations_and_usage(client: openai.OpenAI) -> None:
    """Pieces add up to the answer; the last choice carries the citations, the chunk after it the usage."""
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    last = [chunk for chunk in chunks if chunk.choices][-1]
    assert text == "Yes [1]."
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].delta.annotations[0]["url_citation"]["title"] == "cats.txt"
    assert last.llama_presets["citations"][0]["n"] == 1
    assert chunks[-1].usage.total_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_conversation_is_understood(client: openai.OpenAI, server: Running) -> None:
    """Earlier messages count; what a system message says does not reach the model."""
    messages: list[Any] = [
        {"role": "system", "content": "Say ahoy."},
        {"role": "user", "content": "Do cats purr all day?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [{"type": "text", "text": "Cats all day?"}]},
    ]
    prompts = server.engine.llm.prompts  # type: ignore[attr-defined]
    before = len(prompts)
    assert (
        client.chat.completions.create(model="kb", messages=messages).choices[0].message.content is not None
    )
    assert len(prompts) > before
    assert not any("ahoy" in prompt for prompt in prompts)


def test_responses_are_answered_whole_and_as_a_stream(client: openai.OpenAI) -> None:
    """The newer protocol: output text, annotations, usage, and the events of a stream in order."""
    whole = client.responses.create(model="kb", input=QUESTION)
    assert whole.output_text == "Yes [1]."
    assert whole.output[0].content[0].annotations[0].title == "cats.txt"  # type: ignore[union-attr]
    assert whole.usage is not None and whole.usage.total_tokens > 0
    events = list(
        client.responses.create(model="kb", input=[{"role": "user", "content": QUESTION}], stream=True)
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert (
        "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Yes [1]."
    )


def test_embeddings_are_those_of_the_engine(client: openai.OpenAI, server: Running) -> None:
    """As the client decodes them (base64), and as plain numbers; in the order of the texts."""
    mine = server.engine.embed_model.get_text_embedding_batch(["cats", "dogs"])
    found = client.embeddings.create(model="kb", input=["cats", "dogs"])
    for vector, embedding in zip(mine, found.data, strict=True):
        assert embedding.embedding == pytest.approx(vector, abs=1e-6)
    body = {"model": "kb", "input": "cats", "encoding_format": "base64"}
    raw = httpx.post(f"{server.url}/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert struct.unpack("<64f", base64.b64decode(raw)) == pytest.approx(mine[0], abs=1e-6)


def test_llamaindex_openai_like_works_unchanged(server: Running) -> None:
    """`OpenAILike` chats and streams, so an engine can be another application's model."""
    from llama_index.llms.openai_like import OpenAILike

    llm = OpenAILike(
        model="kb", api_base=f"{server.url}/v1", api_key="not needed", is_chat_model=True, max_retries=0
    )
    message = ChatMessage(role="user", content=QUESTION)
    assert llm.chat([message]).message.content == "Yes [1]."
    assert [piece.message.content for piece in llm.stream_chat([message])][-1] == "Yes [1]."


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"messages": []}, "messages is empty"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "not of role 'user'"),
        ({"messages": [{"role": "user", "content": ""}]}, "empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "more than text"),
        ({"n": 2}, "n is not 1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_bad_completions_are_refused(
    client: openai.OpenAI, options: dict[str, Any], reason: str, stream: bool
) -> None:
    """The client raises its own error with our reason, for a stream before the stream begins."""
    asked = {"messages": [{"role": "user", "content": QUESTION}], **options}
    with pytest.raises(openai.BadRequestError, match=reason):
        client.chat.completions.create(model="kb", stream=stream, **asked)


def test_unknown_models_are_not_found(client: openai.OpenAI) -> None:
    """Of chats and of embeddings; the code is the one that clients look for."""
    with pytest.raises(openai.NotFoundError) as chat:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert chat.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        client.embeddings.create(model="gpt-9", input="x")
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.embeddings.create(model="kb", input=[])
