"""Chat engine: each message is condensed to a standalone question, which the query engine answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.chat_engine.condense_question import DEFAULT_TEMPLATE
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate

from llama_index_presets._options import strict
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.presets.fallback import is_outage
from llama_index_presets.presets.query_run import QueryRun, aanswer, answer, astream, stream

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["PresetChatEngine", "StreamingChatAnswer"]

_CONDENSE = PromptTemplate(DEFAULT_TEMPLATE)
_REFERS_BACK = re.compile(
    r"\b(it|its|they|them|their|this|that|these|those|he|she|his|her|there|one|ones)\b", re.IGNORECASE
)


@dataclass
class StreamingChatAnswer(StreamingAgentChatResponse):
    """A chat answer that comes piece by piece.

    Attributes:
        metadata: As `PresetEngine.query` gives it; complete when the pieces are used up.
    """

    metadata: dict[str, Any] = field(default_factory=dict)


@strict()
class PresetChatEngine(BaseChatEngine):
    """Chat with memory; the filters of the engine hold for every message, whatever it says.

    With a generative LLM the message and the history are condensed into one question, which is charged to the same
    query. Without one
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
        self._said: dict[str, Any] = {}
        self._asked = ""
        self._memory = ChatMemoryBuffer.from_defaults(chat_history=history or [], token_limit=memory_tokens)

    @property
    def chat_history(self) -> list[ChatMessage]:
        """All messages so far."""
        return self._memory.get_all()

    def reset(self) -> None:
        """Forget the conversation."""
        self._said, self._asked = {}, ""
        self._memory.reset()

    def chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        """Answer a message; ``metadata`` is that of `PresetEngine.query`, its cost and time include the condensing."""
        turn = self._begin(message, chat_history)
        self._condense_into(turn)
        response = answer(self._engine, turn)
        return self._remember(message, response)

    async def achat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        """Answer a message, without blocking the event loop."""
        turn = self._begin(message, chat_history)
        await self._acondense_into(turn)
        response = await aanswer(self._engine, turn)
        return self._remember(message, response)

    def stream_chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> StreamingChatAnswer:
        """Answer a message piece by piece (``response_gen``)."""
        turn = self._begin(message, chat_history)
        self._condense_into(turn)
        streaming = stream(self._engine, turn)
        response = StreamingChatAnswer(
            chat_stream=_chat_stream(streaming.response_gen),
            source_nodes=streaming.source_nodes,
            metadata=streaming.metadata or {},
        )
        self._begin_remembering(message, response)
        Thread(target=response.write_response_to_history, args=(self._memory,), daemon=True).start()
        return response

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingChatAnswer:
        """Answer a message piece by piece (``async_response_gen``), without blocking the event loop."""
        turn = self._begin(message, chat_history)
        await self._acondense_into(turn)
        streaming = await astream(self._engine, turn)
        response = StreamingChatAnswer(
            achat_stream=_achat_stream(streaming.async_response_gen()),
            source_nodes=streaming.source_nodes,
            metadata=streaming.metadata or {},
        )
        self._begin_remembering(message, response)
        response.awrite_response_to_history_task = asyncio.create_task(
            response.awrite_response_to_history(self._memory)
        )
        return response

    def _begin(self, message: str, chat_history: list[ChatMessage] | None) -> QueryRun:
        turn = self._engine.turn(message)
        if chat_history is not None:
            self._memory.set(chat_history)
        return turn

    def _remember(self, message: str, response: RESPONSE_TYPE) -> AgentChatResponse:
        self._said, self._asked = response.metadata or {}, message
        self._memory.put(ChatMessage(role=MessageRole.USER, content=message))
        self._memory.put(ChatMessage(role=MessageRole.ASSISTANT, content=str(response)))
        return AgentChatResponse(
            str(response), source_nodes=response.source_nodes, metadata=response.metadata
        )

    def _begin_remembering(self, message: str, response: StreamingChatAnswer) -> None:
        """Add the answer to the memory when it has been read."""
        self._said, self._asked = response.metadata, message
        self._memory.put(ChatMessage(role=MessageRole.USER, content=message))

    def _condense_into(self, turn: QueryRun) -> None:
        try:
            with turn.billed():
                turn.question = self._condense(turn.asked)
        except BaseException as error:
            turn.failed(error)
            raise

    async def _acondense_into(self, turn: QueryRun) -> None:
        try:
            with turn.billed():
                turn.question = await self._acondense(turn.asked)
        except BaseException as error:
            turn.failed(error)
            raise

    def _condense(self, message: str) -> str:
        if not self._history_matters():
            return self._with_topic(message)
        try:
            found = self._engine.llm.predict(_CONDENSE, question=message, chat_history=self._transcript())
        except Exception as error:
            return self._uncondensed(message, error)
        return found.strip() or message

    async def _acondense(self, message: str) -> str:
        if not self._history_matters():
            return self._with_topic(message)
        try:
            found = await self._engine.llm.apredict(
                _CONDENSE, question=message, chat_history=self._transcript()
            )
        except Exception as error:
            return self._uncondensed(message, error)
        return found.strip() or message

    def _uncondensed(self, message: str, error: Exception) -> str:
        """With the language model down, search as if there were none; the answer will say what is wrong."""
        if self._engine.settings.on_outage == "raise" or not is_outage(error):
            raise error
        return self._with_topic(message)

    def _history_matters(self) -> bool:
        return bool(self._memory.get_all()) and not isinstance(self._engine.llm, ExtractiveLLM)

    def _with_topic(self, message: str) -> str:
        topic = self._topic()
        return f"{topic}: {message}" if topic and _REFERS_BACK.search(message) else message

    def _topic(self) -> str:
        """Title of what was cited last, or the question before where nothing was."""
        headings = [citation.get("heading") for citation in self._said.get("citations", [])]
        return next((heading.split(" > ")[0] for heading in headings if heading), self._asked)

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
