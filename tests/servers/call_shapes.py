"""Every way to call OpenAI through LlamaIndex: what the accuracy test and the benchmark go through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI, OpenAIResponses
from pydantic import BaseModel

from llama_index_presets.monitor.calls.usage import _encoding

MESSAGES = [ChatMessage(role="user", content="How many roads?")]
PROMPT = PromptTemplate("Describe {x}.")
TEXTS = [f"Text number {n} of a small batch." for n in range(25)]


class City(BaseModel):
    """A city."""

    name: str
    people: int


class Models:
    """The real LlamaIndex integrations, pointed at a server; one event loop, as in an app."""

    def __init__(self, url: str, manager: CallbackManager | None = None, **options: Any) -> None:
        common: dict[str, Any] = {"api_key": "sk-test", "api_base": url, "max_retries": 0, **options}
        _encoding("cl100k_base")  # the legacy API's client would download it
        common["callback_manager"] = manager or CallbackManager([])
        self.llm = OpenAI(model="gpt-4o-mini", **common)
        self.responses = OpenAIResponses(model="gpt-4o-mini", **common)
        self.legacy = OpenAI(model="gpt-3.5-turbo-instruct", **common)
        self.embedding = OpenAIEmbedding(model="text-embedding-3-small", embed_batch_size=10, **common)
        self.tool = FunctionTool.from_defaults(lambda city: city, name="weather", description="Weather.")
        self.loop = asyncio.new_event_loop()

    def wait(self, work: Awaitable[Any]) -> Any:
        """Run a coroutine in the loop."""
        return self.loop.run_until_complete(work)

    def drain(self, stream: Awaitable[AsyncIterator[Any]]) -> Any:
        """Read an async stream to its end."""

        async def read() -> list[Any]:
            return [piece async for piece in await stream]

        return self.wait(read())

    def close(self) -> None:
        """Close the clients and the loop."""
        self.loop.close()


SHAPES: dict[str, Callable[[Models], Any]] = {
    "complete": lambda m: m.llm.complete("x"),
    "chat": lambda m: m.llm.chat(MESSAGES),
    "stream_complete": lambda m: list(m.llm.stream_complete("x")),
    "stream_chat": lambda m: list(m.llm.stream_chat(MESSAGES)),
    "acomplete": lambda m: m.wait(m.llm.acomplete("x")),
    "achat": lambda m: m.wait(m.llm.achat(MESSAGES)),
    "astream_complete": lambda m: m.drain(m.llm.astream_complete("x")),
    "astream_chat": lambda m: m.drain(m.llm.astream_chat(MESSAGES)),
    "predict": lambda m: m.llm.predict(PROMPT, x="y"),
    "stream": lambda m: list(m.llm.stream(PROMPT, x="y")),
    "structured_predict": lambda m: m.llm.structured_predict(City, PROMPT, x="y"),
    "astructured_predict": lambda m: m.wait(m.llm.astructured_predict(City, PROMPT, x="y")),
    "stream_structured_predict": lambda m: list(m.llm.stream_structured_predict(City, PROMPT, x="y")),
    "structured llm": lambda m: m.llm.as_structured_llm(City).chat(MESSAGES),
    "chat_with_tools": lambda m: m.llm.chat_with_tools([m.tool], user_msg="hi"),
    "stream_chat_with_tools": lambda m: list(m.llm.stream_chat_with_tools([m.tool], user_msg="hi")),
    "achat_with_tools": lambda m: m.wait(m.llm.achat_with_tools([m.tool], user_msg="hi")),
    "legacy complete": lambda m: m.legacy.complete("x"),
    "legacy chat": lambda m: m.legacy.chat(MESSAGES),
    "legacy stream": lambda m: list(m.legacy.stream_complete("x")),
    "responses chat": lambda m: m.responses.chat(MESSAGES),
    "responses complete": lambda m: m.responses.complete("x"),
    "responses stream": lambda m: list(m.responses.stream_chat(MESSAGES)),
    "responses achat": lambda m: m.wait(m.responses.achat(MESSAGES)),
    "responses astream": lambda m: m.drain(m.responses.astream_chat(MESSAGES)),
    "embed query": lambda m: m.embedding.get_query_embedding("What is it?"),
    "embed batches": lambda m: m.embedding.get_text_embedding_batch(TEXTS),
    "aembed query": lambda m: m.wait(m.embedding.aget_query_embedding("What is it?")),
    "aembed batches": lambda m: m.wait(m.embedding.aget_text_embedding_batch(TEXTS)),
}
"""Name of the shape -> how to make the call."""
