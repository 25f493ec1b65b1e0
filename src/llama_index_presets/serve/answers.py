"""Answers of an engine for one caller: whole, or as a stream of sources, text and bill.

An engine's work runs on threads, where nothing that blocks can stop the event loop. A stream is read on its thread at
the model's own speed, whatever the client's, so that a slow client keeps no model call open; it is bounded by the
longest answer. When the client leaves, the thread closes the stream at the next piece, and the question is billed once.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.schema import MetadataMode, NodeWithScore

from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.monitor.retry import answering_within
from llama_index_presets.provenance import source_name
from llama_index_presets.serve.callers.key_file import Caller
from llama_index_presets.serve.callers.limits import Limits, Slots
from llama_index_presets.serve.engines import Engines, Served, engine_tag
from llama_index_presets.serve.metrics import Metrics
from llama_index_presets.serve.protocols.problems import Problem

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["Answer", "AnswerStream", "Answers", "Bill", "Question", "Sources", "narrowed", "source_dict"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of which engine by whom.

    Attributes:
        caller: Who asks.
        engine: Name of the engine; None takes the default.
        text: The question.
        history: Earlier messages of the conversation; the question may refer back to them.
        filters: Conditions on metadata that narrow the search, as text.
    """

    caller: Caller
    text: str
    engine: str | None = None
    history: Sequence[ChatMessage] = ()
    filters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Whole answer.

    Attributes:
        engine: Name of the engine.
        text: The text; of a stream, its pieces together.
        metadata: Of the response.
        result: The response's own ``to_dict()``.
    """

    engine: str
    text: str
    metadata: Mapping[str, Any]
    result: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: the response's ``to_dict()``, the engine's name and why the model ended."""
        finish = self.metadata.get("finish_reason")
        return {**self.result, "answer": self.text, "finish_reason": finish, "engine": self.engine}


def source_dict(hit: NodeWithScore) -> dict[str, Any]:
    """A passage as JSON values."""
    node, metadata = hit.node, hit.node.metadata
    return {
        "id": node.node_id,
        "text": node.get_content(MetadataMode.NONE),
        "source": source_name(node),
        "page": metadata.get("page"),
        "score": hit.score,
    }


@dataclass(frozen=True, slots=True)
class Sources:
    """First event of a stream: the passages."""

    passages: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Bill:
    """Last event of a stream: the whole answer with its bill."""

    answer: Answer


class AnswerStream:
    """Events of one answer: `Sources`, then pieces of text, then a `Bill`.

    Iterate it once, and close it; closing early gives the question up.
    """

    def __init__(self, limit_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + limit_s
        self._limit_s = limit_s
        self._events: asyncio.Queue[Sources | str | Bill | BaseException] = asyncio.Queue()
        self._stopped = Event()
        self.ended: asyncio.Future[None] | None = None

    def put(self, event: Sources | str | Bill | BaseException) -> None:
        """Hand an event over, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def is_closed(self) -> bool:
        """Whether the reader is gone."""
        return self._stopped.is_set()

    def close(self) -> None:
        """Give the question up, unless it has ended."""
        self._stopped.set()

    async def next(self) -> Sources | str | Bill:
        """The next event.

        Raises:
            Problem: 504, the answer took too long.
            Exception: What ended the question.
        """
        try:
            event = await asyncio.wait_for(self._events.get(), max(0.001, self._deadline - self._loop.time()))
        except TimeoutError:
            self.close()
            raise _too_long(self._limit_s) from None
        if isinstance(event, BaseException):
            raise event
        return event

    async def __aiter__(self) -> AsyncIterator[Sources | str | Bill]:
        try:
            while True:
                event = await self.next()
                yield event
                if isinstance(event, Bill):
                    return
        finally:
            self.close()


@dataclass(slots=True)
class Answers:
    """Answers questions of callers within the limits.

    Attributes:
        engines: The engines.
        limits: Sizes, times and counts.
        metrics: Told of each outcome.
    """

    engines: Engines
    limits: Limits
    metrics: Metrics
    _slots: Slots | None = None
    _threads: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.limits.running, thread_name_prefix="llama-presets-serve")

    @property
    def slots(self) -> Slots:
        """Places; made on the event loop that uses them."""
        if self._slots is None:
            self._slots = Slots(self.limits)
        return self._slots

    async def run(
        self,
        caller: Caller,
        name: str | None,
        work: Callable[[PresetEngine, Served], T],
        *,
        paid: bool = True,
    ) -> T:
        """Do something with an engine as a caller sees it, on a thread.

        Args:
            caller: Who asks.
            name: Of the engine.
            work: Gets the caller's engine.
            paid: Whether models may be called, so that a spent budget refuses at once.

        Raises:
            Problem: No such engine, not allowed, busy, over budget, or too slow.
        """
        future = await self._start(caller, name, work, paid=paid)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self.limits.answer_s)
        except TimeoutError:
            future.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise _too_long(self.limits.answer_s) from None

    async def _start(
        self, caller: Caller, name: str | None, work: Callable[[PresetEngine, Served], T], *, paid: bool
    ) -> asyncio.Future[T]:
        """Begin on a thread; place and lease are given back when the thread is done, not when the client has left."""
        slots = self.slots
        await slots.acquire()
        deadline = time.monotonic() + self.limits.answer_s
        try:
            served = self.engines.take(name)
        except BaseException:
            slots.release()
            raise

        def task() -> T:
            view = served.view(caller)
            tags = (*caller.tags, engine_tag(served.name))
            if paid:
                view.refuse_spent_budgets(tags=tags)
            with attributed(tags=tags), answering_within(deadline - time.monotonic()):
                return work(view, served)

        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, contextvars.copy_context().run, task)

        def done(_: asyncio.Future[T]) -> None:
            slots.release()
            served.give_back()

        future.add_done_callback(done)
        return future

    async def ask(self, question: Question) -> Answer:
        """Answer as a whole.

        Raises:
            Problem: See `run`.
            PresetsError: The engine cannot answer.
        """

        def work(view: PresetEngine, served: Served) -> Answer:
            view = narrowed(view, question.filters)
            try:
                response: Any = (
                    view.as_chat_engine(history=list(question.history)).chat(question.text)
                    if question.history
                    else view.query(question.text)
                )
            except BaseException:
                self.metrics.answered(served.name, "failed")
                raise
            answer = _answer(served.name, str(response), response)
            self.metrics.answered(served.name, "known" if answer.metadata.get("known") else "abstained")
            return answer

        return await self.run(question.caller, question.engine, work)

    async def stream(self, question: Question) -> AnswerStream:
        """Answer as events.

        Raises:
            Problem: No such engine, or busy; what happens later is raised by the stream.
        """
        stream = AnswerStream(self.limits.answer_s)

        def work(view: PresetEngine, served: Served) -> None:
            outcome = "failed"
            try:
                outcome = _stream(narrowed(view, question.filters), served.name, question, stream)
            finally:
                self.metrics.answered(served.name, outcome)

        future = await self._start(question.caller, question.engine, work, paid=True)

        def ended(done: asyncio.Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None:
                stream.put(error)

        future.add_done_callback(ended)
        stream.ended = future
        return stream

    async def aclose(self) -> None:
        """Wait for the threads to end."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)


def _stream(view: PresetEngine, name: str, question: Question, stream: AnswerStream) -> str:
    """Read one stream to its end, or until nobody listens; returns the outcome."""
    if stream.is_closed():
        return "abandoned"
    response: Any = (
        view.as_chat_engine(history=list(question.history)).begin(question.text).stream()
        if question.history
        else view.stream(question.text)
    )
    sources = [source_dict(hit) for hit in response.source_nodes]
    pieces, text = response.response_gen, ""
    try:
        stream.put(Sources(sources))
        for piece in pieces:
            if stream.is_closed():
                return "abandoned"
            text += piece
            stream.put(piece)
    finally:
        pieces.close()  # bills a question that was given up
    answer = _answer(name, text, response)
    stream.put(Bill(answer))
    return "known" if answer.metadata.get("known") else "abstained"


def _answer(name: str, text: str, response: Any) -> Answer:
    return Answer(name, text, response.metadata or {}, response.to_dict())


def _too_long(limit_s: float) -> Problem:
    return Problem(504, f"The answer took longer than {limit_s:g} s and was given up.", code="timeout")


def narrowed(view: PresetEngine, filters: tuple[str, ...]) -> PresetEngine:
    """The engine behind more filters of the caller; those that hold already stay."""
    if not filters:
        return view
    from llama_index_presets.filters.text import parse_filters

    parsed = parse_filters(list(filters))
    return view if parsed is None else view.with_filters(parsed)
