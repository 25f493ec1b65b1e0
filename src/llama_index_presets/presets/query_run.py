"""Query run: one question from start to answer or error, billed and audited once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import RESPONSE_TYPE, AsyncStreamingResponse, StreamingResponse
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.schema import NodeWithScore, QueryBundle

from llama_index_presets.answer.synthesize import CitedAnswer
from llama_index_presets.closing import close_behind
from llama_index_presets.errors import MonitorError
from llama_index_presets.events import RunEndEvent, RunStartEvent
from llama_index_presets.ingest.pipeline import IngestReport
from llama_index_presets.monitor.traces.tracing import exclusive_tracing
from llama_index_presets.presets.engine_parts import EngineParts, cost_of
from llama_index_presets.presets.fallback import astream_or_fallback, stream_or_fallback
from llama_index_presets.provenance import RankedNode

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = [
    "QueryRun",
    "aanswer",
    "answer",
    "answer_metadata",
    "astream",
    "emit_ingest_end",
    "emit_query_end",
    "emit_run_failure",
    "emit_run_start",
    "stream",
]

# Saying when a run of an engine, a question or an ingest, begins and ends; traces listen.


dispatcher = get_dispatcher(__name__)


def emit_run_start(run_id: str, kind: Literal["query", "ingest"]) -> None:
    """Dispatch the start of a run; called where its calls are charged to it."""
    dispatcher.event(RunStartEvent(run_id=run_id, kind=kind))


def emit_query_end(
    run_id: str, metadata: dict[str, Any] | None, cost_usd: Decimal | None, status: str = "answered"
) -> None:
    """Dispatch the end of a question, answered or not.

    Args:
        run_id: Its query_id.
        metadata: Of the response.
        cost_usd: What it cost.
        status: See `AuditTrail.record`.
    """
    told = metadata or {}
    event = RunEndEvent(
        run_id=run_id,
        known=told.get("known"),
        citations=len(told.get("citations", ())),
        cost_usd=cost_usd,
        error=status.split(" ")[-1] if status.startswith(("failed: ", "degraded: ")) else None,
        abandoned=status == "abandoned",
    )
    dispatcher.event(event)


def emit_ingest_end(run_id: str, report: IngestReport, cost_usd: Decimal | None) -> None:
    """Dispatch the end of an ingest."""
    counts = {
        "documents": report.documents,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "failed": len(report.failed),
        "chunks": report.chunks,
        "tokens": report.tokens,
    }
    dispatcher.event(RunEndEvent(run_id=run_id, cost_usd=cost_usd, counts=counts))


def emit_run_failure(run_id: str, error: BaseException) -> None:
    """Dispatch the failure of a run: the exception's class, never its message."""
    dispatcher.event(RunEndEvent(run_id=run_id, error=type(error).__name__))


@dataclass(slots=True)
class QueryRun:
    """A question under way.

    Attributes:
        assembly: The engine's parts.
        asked: What the user asked.
        question: What the engine is asked: the same, or what a conversation made of it.
        image_path: An image that is asked about, or None.
        query_id: Joins response, ledger and audit log.
        started: When it began, on the performance counter.
    """

    assembly: EngineParts
    asked: str
    question: str
    image_path: str | None = None
    query_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.perf_counter)
    begun: bool = False
    ended: bool = False

    @property
    def query(self) -> QueryBundle:
        """The question, as LlamaIndex passes it on."""
        return QueryBundle(self.question, image_path=self.image_path)

    @contextlib.contextmanager
    def billed(self) -> Iterator[None]:
        """Charge the calls made inside to this question; the first time, it begins."""
        with self.assembly.billed(self.query_id):
            if not self.begun:
                self.begun = True
                emit_run_start(self.query_id, "query")
            yield

    @contextlib.contextmanager
    def stream_chunk(self) -> Iterator[None]:
        """`billed`, for one piece of a stream, whose request is made only now."""
        with self.billed(), exclusive_tracing():
            yield

    def abandon(self) -> None:
        """End a stream that nobody began to read."""
        if not self.ended:
            self.ended = True
            emit_query_end(self.query_id, None, None, "abandoned")

    def end(
        self,
        metadata: dict[str, Any] | None,
        text: str,
        shown: Sequence[NodeWithScore],
        status: str = "answered",
        failure: BaseException | None = None,
    ) -> None:
        """Bill the question and put it on record.

        Without an audit log, a ledger that cannot be written costs nobody the answer: ``cost_usd`` is None, and the log
        says why. With one, an answer that is not on record whole is none.

        Args:
            metadata: Of the response; takes ``query_id``, ``cost_usd`` and ``latency_ms``.
            text: The answer, as far as it got.
            shown: What the model was shown.
            status: See `AuditTrail.record`.
            failure: What ended the question, and is raised by the caller: nothing that goes wrong here replaces it.

        Raises:
            AuditError: The audit log cannot be written.
            MonitorError: There is an audit log, and the ledger cannot be written.
        """
        self.ended = True
        record = functools.partial(self._end, metadata, text, shown, status)
        close_behind(record, failure, f"the record of query {self.query_id}")

    def _end(
        self, metadata: dict[str, Any] | None, text: str, shown: Sequence[NodeWithScore], status: str
    ) -> None:
        cost, unbilled = self._cost()
        if unbilled is not None and not status.startswith("failed"):
            status = f"failed: {type(unbilled).__name__}"
        if metadata is not None:
            metadata["query_id"] = self.query_id
            metadata["cost_usd"] = _float(cost)
            waited_ms = self.assembly.ledger.query_loading_ms(
                self.query_id
            )  # for models that load at first use
            metadata["latency_ms"] = round((time.perf_counter() - self.started) * 1000 - waited_ms, 1)
        emit_query_end(self.query_id, metadata, cost, status)
        if self.assembly.audit is not None:
            self.assembly.audit.record(
                who=self.assembly.who,
                query_id=self.query_id,
                question=self.asked,
                shown=shown,
                answer=text,
                cost_usd=cost,
                status=status,
            )
        if unbilled is not None:
            raise unbilled

    def _cost(self) -> tuple[Decimal | None, MonitorError | None]:
        """The cost, and what kept the ledger from saying it where that must fail the question."""
        if self.assembly.audit is None:
            return cost_of(self.assembly.ledger, self.query_id), None
        try:
            return self.assembly.ledger.query_cost(self.query_id), None
        except MonitorError as error:
            return None, error

    def failed(self, error: BaseException) -> None:
        """Put on record that there is no answer."""
        self.end(None, "", [], f"failed: {type(error).__name__}", error)

    async def aend(self, *outcome: Any) -> None:
        """`end`, without waiting for the disk on the event loop."""
        await asyncio.to_thread(self.end, *outcome)


def answer(engine: PresetEngine, turn: QueryRun) -> RESPONSE_TYPE:
    """Answer at once; see `PresetEngine.query`."""
    try:
        with turn.billed():
            response = BaseQueryEngine.query(engine, turn.query)
    except BaseException as error:
        turn.failed(error)
        raise
    turn.end(response.metadata, str(response), response.source_nodes, _status(response.metadata))
    return response


async def aanswer(engine: PresetEngine, turn: QueryRun) -> RESPONSE_TYPE:
    """`answer`, without blocking the event loop."""
    try:
        with turn.billed():
            response = await BaseQueryEngine.aquery(engine, turn.query)
    except BaseException as error:
        turn.failed(error)
        raise
    await turn.aend(response.metadata, str(response), response.source_nodes, _status(response.metadata))
    return response


def stream(engine: PresetEngine, turn: QueryRun) -> StreamingResponse:
    """Answer piece by piece; see `PresetEngine.stream`."""
    try:
        with turn.billed():
            found, pieces = stream_or_fallback(engine, turn.query)
    except BaseException as error:
        turn.failed(error)
        raise
    metadata: dict[str, Any] = {"query_id": turn.query_id}

    def run() -> Iterator[str]:
        status, failure = "abandoned", None
        try:
            while (piece := _next(pieces, turn)) is not None:
                yield piece
            metadata.update(answer_metadata(found))
            status = _status(metadata)
        except Exception as error:
            status, failure = f"failed: {type(error).__name__}", error
            raise
        finally:
            _close(pieces)
            turn.end(metadata, found.text, found.source_nodes, status, failure)

    told = run()
    weakref.finalize(told, turn.abandon).atexit = False
    return StreamingResponse(told, found.source_nodes, metadata)  # type: ignore[arg-type]


async def astream(engine: PresetEngine, turn: QueryRun) -> AsyncStreamingResponse:
    """`stream`, without blocking the event loop."""
    try:
        with turn.billed():
            found, pieces = await astream_or_fallback(engine, turn.query)
    except BaseException as error:
        turn.failed(error)
        raise
    metadata: dict[str, Any] = {"query_id": turn.query_id}

    async def run() -> AsyncIterator[str]:
        status, failure = "abandoned", None
        try:
            while True:
                with turn.stream_chunk():
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                yield piece
            metadata.update(answer_metadata(found))
            status = _status(metadata)
        except Exception as error:
            status, failure = f"failed: {type(error).__name__}", error
            raise
        finally:
            await turn.aend(metadata, found.text, found.source_nodes, status, failure)

    told = run()
    weakref.finalize(told, turn.abandon).atexit = False
    return AsyncStreamingResponse(told, found.source_nodes, metadata)  # type: ignore[arg-type]


def answer_metadata(answer: CitedAnswer) -> dict[str, Any]:
    """Metadata of a response."""
    without = {leg for hit in answer.source_nodes if isinstance(hit, RankedNode) for leg in hit.degraded}
    numbers = {} if answer.numbers is None else {"numbers": answer.numbers.report()}
    degraded = {} if answer.degraded is None else {"degraded": answer.degraded}
    said = {"citations": answer.citations(), "known": answer.known, "finish_reason": answer.finish_reason}
    return {**said, "failed_legs": sorted(without), **numbers, **degraded}


def _status(metadata: dict[str, Any] | None) -> str:
    """Status of a question in the audit log."""
    degraded = (metadata or {}).get("degraded")
    return f"degraded: {degraded['stage']} {degraded['error']}" if degraded else "answered"


def _next(pieces: Iterator[str], turn: QueryRun) -> str | None:
    """One piece; charged here and not around the whole stream, since the caller works between pieces."""
    with turn.stream_chunk():
        return next(pieces, None)


def _close(pieces: Iterator[str]) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


def _float(cost: Decimal | None) -> float | None:
    return None if cost is None else float(cost)
