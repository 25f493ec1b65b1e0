"""A conversation over an engine: each message becomes a question that stands alone, then the engine answers it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from threading import Thread
from typing import TYPE_CHECKING

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.chat_engine.condense_question import DEFAULT_TEMPLATE
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.memory import ChatMemoryBuffer

from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.monitor.context import attributed

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["PresetChatEngine"]

_REFERS_BACK = re.compile(
    r"\b(it|its|they|them|their|this|that|these|those|he|she|his|her|there|one|ones)\b", re.IGNORECASE
)


class PresetChatEngine(BaseChatEngine):
    """Chat with memory; the filters of the engine hold for every message, whatever it says.

    With a generative LLM the message and the history are condensed into one question. Without one
    (`ExtractiveLLM`), a message that refers back ("its", "they") is asked together with the title of what was cited
    last, or with the question before it where nothing was.

    Args:
        engine: What answers.
        memory_tokens: How much of the history is kept, in tokens.
        history: Messages of an earlier conversation.
    """

    def __init__(
        self, engine: PresetEngine, *, memory_tokens: int = 3_000, history: list[ChatMessage] | None = None
    ) -> None:
        self._engine = engine
        self._topic = ""
        self._memory = ChatMemoryBuffer.from_defaults(chat_history=history or [], token_limit=memory_tokens)

    @property
    def chat_history(self) -> list[ChatMessage]:
        """All messages so far."""
        return self._memory.get_all()

    def reset(self) -> None:
        """Forget the conversation."""
        self._topic = ""
        self._memory.reset()

    def chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        """Answer a message."""
        self._begin(chat_history)
        response = self._engine.query(self._condense(message))
        self._remember(message, response)
        return AgentChatResponse(
            str(response), source_nodes=response.source_nodes, metadata=response.metadata
        )

    async def achat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        """Answer a message, without blocking the event loop."""
        self._begin(chat_history)
        response = await self._engine.aquery(await self._acondense(message))
        self._remember(message, response)
        return AgentChatResponse(
            str(response), source_nodes=response.source_nodes, metadata=response.metadata
        )

    def stream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        """Answer a message piece by piece (``response_gen``)."""
        self._begin(chat_history)
        streaming = self._engine.stream(self._condense(message))
        self._memory.put(ChatMessage(role=MessageRole.USER, content=message))
        self._topic = self._topic or message
        response = StreamingAgentChatResponse(
            chat_stream=_chat_stream(streaming.response_gen), source_nodes=streaming.source_nodes
        )
        Thread(target=response.write_response_to_history, args=(self._memory,), daemon=True).start()
        return response

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        """Answer a message piece by piece (``async_response_gen``), without blocking the event loop."""
        import asyncio

        self._begin(chat_history)
        streaming = await self._engine.astream(await self._acondense(message))
        self._memory.put(ChatMessage(role=MessageRole.USER, content=message))
        self._topic = self._topic or message
        response = StreamingAgentChatResponse(
            achat_stream=_achat_stream(streaming.async_response_gen()), source_nodes=streaming.source_nodes
        )
        response.awrite_response_to_history_task = asyncio.create_task(
            response.awrite_response_to_history(self._memory)
        )
        return response

    def _begin(self, chat_history: list[ChatMessage] | None) -> None:
        if chat_history is not None:
            self._memory.set(chat_history)

    def _remember(self, message: str, response: RESPONSE_TYPE) -> None:
        self._memory.put(ChatMessage(role=MessageRole.USER, content=message))
        self._memory.put(ChatMessage(role=MessageRole.ASSISTANT, content=str(response)))
        headings = [citation.get("heading") for citation in (response.metadata or {}).get("citations", [])]
        self._topic = next((heading.split(" > ")[0] for heading in headings if heading), message)

    def _condense(self, message: str) -> str:
        if not self._history_matters():
            return self._with_topic(message)
        with attributed(ledger=self._engine.ledger):
            found = self._engine.llm.predict(
                DEFAULT_TEMPLATE, question=message, chat_history=self._transcript()
            )
        return found.strip() or message

    async def _acondense(self, message: str) -> str:
        if not self._history_matters():
            return self._with_topic(message)
        with attributed(ledger=self._engine.ledger):
            found = await self._engine.llm.apredict(
                DEFAULT_TEMPLATE, question=message, chat_history=self._transcript()
            )
        return found.strip() or message

    def _history_matters(self) -> bool:
        return bool(self._memory.get_all()) and not isinstance(self._engine.llm, ExtractiveLLM)

    def _with_topic(self, message: str) -> str:
        return f"{self._topic}: {message}" if self._topic and _REFERS_BACK.search(message) else message

    def _transcript(self) -> str:
        return "\n".join(f"{message.role.value}: {message.content}" for message in self._memory.get())


def _chat_stream(pieces: Iterator[str]) -> Generator[ChatResponse, None, None]:
    text = ""
    for piece in pieces:
        text += piece
        yield _chat_response(text, piece)


async def _achat_stream(pieces: AsyncIterator[str]) -> AsyncGenerator[ChatResponse, None]:
    text = ""
    async for piece in pieces:
        text += piece
        yield _chat_response(text, piece)


def _chat_response(text: str, delta: str) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=delta)
