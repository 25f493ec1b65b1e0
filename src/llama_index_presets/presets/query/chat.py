"""Chat engine: each message is condensed to a standalone question, which the query engine answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate

from llama_index_presets._options import strict
from llama_index_presets.answer.context import check_template
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.answer.follow_up import make_whole
from llama_index_presets.answer.response import PlainResult
from llama_index_presets.answer.thinking import without_thinking
from llama_index_presets.concurrency.sync_async import Core, Step, arun, run
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.query.fallback import falls_back
from llama_index_presets.presets.query.query_run import QueryRun

__all__ = ["ChatAnswer", "PresetChatEngine", "StreamingChatAnswer"]


def _condense_prompt() -> PromptTemplate:
    """LlamaIndex's own; its module brings SQLAlchemy and a template engine, which a question does not need."""
    from llama_index.core.chat_engine.condense_question import DEFAULT_TEMPLATE

    return PromptTemplate(DEFAULT_TEMPLATE)


@dataclass(repr=False)
class ChatAnswer(PlainResult, AgentChatResponse):
    """A chat answer; ``metadata`` and ``to_dict`` as `PresetEngine.query` gives them."""


@dataclass(repr=False)
class StreamingChatAnswer(PlainResult, StreamingAgentChatResponse):
    """A chat answer that comes piece by piece; `to_dict` is complete when they are used up.

    Attributes:
        metadata: As `PresetEngine.query` gives it; complete when the pieces are used up.
    """

    metadata: dict[str, Any] = field(default_factory=dict)


@strict()
class PresetChatEngine(BaseChatEngine):
    """Chat with memory; the filters of the engine hold for every message, whatever it says.

    With a generative LLM the message and the history are condensed into one question, which is charged to the same
    query. Without one (`ExtractiveLLM`), a message that leans on the question before it ("and for children?",
    "how is it spread?") is made whole by its words and by the title of what was cited last; see `answer.follow_up`.

    Args:
        parts: Of the engine that answers.
        memory_tokens: How much of the history is kept, in tokens.
        history: Messages of an earlier conversation.
        condense_question_prompt: How message and history are condensed, with ``{question}`` and ``{chat_history}``;
            None takes LlamaIndex's.

    Raises:
        SettingsError: The prompt is no template, or lacks a variable.
    """

    def __init__(
        self,
        parts: EngineParts,
        *,
        memory_tokens: int = 3_000,
        history: list[ChatMessage] | None = None,
        condense_question_prompt: BasePromptTemplate | None = None,
    ) -> None:
        self._parts = parts
        self._condense_prompt = check_template(
            "condense_question_prompt",
            condense_question_prompt or _condense_prompt(),
            ("question", "chat_history"),
        )
        self._last_metadata: dict[str, Any] = {}
        self._last_question = _last_question(history or [])
        self._memory = ChatMemoryBuffer.from_defaults(chat_history=history or [], token_limit=memory_tokens)

    @property
    def chat_history(self) -> list[ChatMessage]:
        """All messages so far."""
        return self._memory.get_all()

    def reset(self) -> None:
        """Forget the conversation."""
        self._last_metadata, self._last_question = {}, ""
        self._memory.reset()

    def chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> ChatAnswer:
        """Answer a message; ``metadata`` is that of `PresetEngine.query`, its cost and time include the condensing."""
        return run(self._respond(message, chat_history))

    async def achat(self, message: str, chat_history: list[ChatMessage] | None = None) -> ChatAnswer:
        """Answer a message, without blocking the event loop."""
        return await arun(self._respond(message, chat_history))

    def stream_chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> StreamingChatAnswer:
        """Answer a message piece by piece (``response_gen``)."""
        query_run = run(self._begin(message, chat_history))
        streaming = query_run.stream()
        response = StreamingChatAnswer(
            chat_stream=_chat_stream(streaming.response_gen),
            source_nodes=streaming.source_nodes,
            metadata=streaming.metadata or {},
        )
        self._remember(message, query_run, response.metadata)
        Thread(target=response.write_response_to_history, args=(self._memory,), daemon=True).start()
        return response

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingChatAnswer:
        """Answer a message piece by piece (``async_response_gen``), without blocking the event loop."""
        query_run = await arun(self._begin(message, chat_history))
        streaming = await query_run.astream()
        response = StreamingChatAnswer(
            achat_stream=_achat_stream(streaming.async_response_gen()),
            source_nodes=streaming.source_nodes,
            metadata=streaming.metadata or {},
        )
        self._remember(message, query_run, response.metadata)
        response.awrite_response_to_history_task = asyncio.create_task(
            response.awrite_response_to_history(self._memory)
        )
        return response

    def begin(self, message: str) -> QueryRun:
        """Condense a message to a question that stands alone, and give it as a query run to be answered or streamed.

        Everything happens on the calling thread; the answer does not join the memory.
        """
        return run(self._begin(message, None))

    def _respond(self, message: str, chat_history: list[ChatMessage] | None) -> Core[ChatAnswer]:
        query_run = yield from self._begin(message, chat_history)
        response = yield from query_run.respond()
        self._remember(message, query_run, response.metadata)
        self._memory.put(ChatMessage(role=MessageRole.ASSISTANT, content=str(response)))
        return ChatAnswer(str(response), source_nodes=response.source_nodes, metadata=response.metadata)

    def _begin(self, message: str, chat_history: list[ChatMessage] | None) -> Core[QueryRun]:
        """Make a question that stands alone of a message; what that costs is charged to the question."""
        query_run = QueryRun.of(self._parts, message)
        if chat_history is not None:
            self._memory.set(chat_history)
            self._last_metadata, self._last_question = {}, _last_question(chat_history)
        with query_run.failing(), query_run.billed():
            query_run.question = yield from self._condense(message)
        return query_run

    def _remember(self, message: str, query_run: QueryRun, metadata: dict[str, Any] | None) -> None:
        """Keep a message; the answer of a stream joins the memory when it has been read."""
        self._last_metadata, self._last_question = metadata or {}, query_run.question
        self._memory.put(ChatMessage(role=MessageRole.USER, content=message))

    def _condense(self, message: str) -> Core[str]:
        if not self._history_matters():
            return make_whole(message, self._last_question, topic=self._topic())
        llm, prompt = self._parts.synthesizer.llm, self._condense_prompt
        variables = {"question": message, "chat_history": self._transcript()}
        try:
            question: str = yield Step(
                lambda: llm.predict(prompt, **variables), lambda: llm.apredict(prompt, **variables)
            )
        except Exception as error:
            if not falls_back(error, self._parts):
                raise
            # as without a language model; the answer will say what is wrong
            return make_whole(message, self._last_question, topic=self._topic())
        return without_thinking(question).strip() or message

    def _history_matters(self) -> bool:
        return bool(self._memory.get_all()) and not isinstance(self._parts.synthesizer.llm, ExtractiveLLM)

    def _topic(self) -> str:
        """Title of what was cited last; empty where nothing was."""
        headings = [citation.get("heading") for citation in self._last_metadata.get("citations", [])]
        return next((heading.split(" > ")[0] for heading in headings if heading), "")

    def _transcript(self) -> str:
        return "\n".join(f"{message.role.value}: {message.content}" for message in self._memory.get())


def _last_question(history: list[ChatMessage]) -> str:
    return next((str(one.content) for one in reversed(history) if one.role is MessageRole.USER), "")


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
