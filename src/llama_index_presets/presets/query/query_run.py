"""Query run: one question from start to answer or error, billed and audited once.

Each step is written once, as a core that runs synchronously or asynchronously; see `concurrency.sync_async`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.query import QueryEndEvent, QueryStartEvent
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType

from llama_index_presets._options import expect_each
from llama_index_presets.answer.cited_answer import CitedAnswer
from llama_index_presets.answer.response import AsyncCitedStream, CitedResponse, CitedStream
from llama_index_presets.concurrency.closing import close_behind
from llama_index_presets.concurrency.sync_async import Core, Step, StreamCore, aiterate, arun, iterate, run
from llama_index_presets.counting import counted
from llama_index_presets.errors import AnswerError, MonitorError
from llama_index_presets.events import RunEndEvent, RunStartEvent
from llama_index_presets.monitor.quality import keep_outcome
from llama_index_presets.monitor.traces.tracing import exclusive_tracing
from llama_index_presets.presets.citations.store import keep_citations
from llama_index_presets.presets.engine_parts import EngineParts, cost_of
from llama_index_presets.presets.models import reads_images
from llama_index_presets.presets.query.answer_reuse import CachedAnswer, Lookup
from llama_index_presets.presets.query.fallback import end_broken_answer, fallback_answer
from llama_index_presets.retrieve.legs import copied_query

__all__ = ["QueryRun", "search"]

dispatcher = get_dispatcher(__name__)
_Stream = TypeVar("_Stream", CitedStream, AsyncCitedStream)


def search(parts: EngineParts, question: QueryType) -> Core[list[NodeWithScore]]:
    """Find the passages for an answer, best first."""
    query = _bundle(question)
    asked = copied_query(query)  # since retrievers write the embedding into the object that they are passed
    parts.check_user()
    retriever, by_words = parts.retriever, parts.language_fallback
    if by_words is not None and by_words.covers(query.query_str):
        words = functools.partial(by_words.retrieve, asked, parts.settings.top_k, parts.filters)
        found: list[NodeWithScore] = yield Step(words, lambda: asyncio.to_thread(words))
        found = parts.visible_hits(found)
        if found:  # a re-ranker of English would put them in any order
            return found
    hits: list[NodeWithScore] = yield Step(
        lambda: retriever.retrieve(asked), lambda: retriever.aretrieve(asked)
    )
    hits = parts.visible_hits(hits)
    for postprocessor in parts.retrieval.postprocessors:
        hits = yield Step(
            functools.partial(postprocessor.postprocess_nodes, hits, query_bundle=query),
            functools.partial(postprocessor.apostprocess_nodes, hits, query_bundle=query),
        )
    return parts.visible_hits(hits)[: parts.settings.top_k]


def _bundle(question: QueryType) -> QueryBundle:
    """A question as LlamaIndex's bundle.

    Raises:
        AnswerError: It is something else.
    """
    if isinstance(question, str):
        return QueryBundle(question)
    if not isinstance(question, QueryBundle):
        raise AnswerError(f"The question is of type {type(question).__name__}; give a text or a QueryBundle.")
    return question


@dataclass(slots=True)
class QueryRun:
    """A question under way.

    Attributes:
        parts: The engine's parts.
        asked: What the user asked.
        question: What is searched and answered: the same, or what a conversation made of it.
        image_path: An image that is asked about, or None.
        searched: Bundle that was given, which may say what is embedded in place of the question.
        callback_manager: LlamaIndex's callbacks around the question; None takes those of the parts.
        query_id: Joins response, ledger and audit log.
        hits: What to answer from, best first, where the caller has searched; None searches.
        more_sources: Added to the ``source_nodes`` of the answer; the model is not shown them.
        started: When it began, on the performance counter.
        lookup: The question and the answer cache, once it was looked up.
    """

    parts: EngineParts
    asked: str
    question: str
    image_path: str | None = None
    searched: QueryBundle | None = None
    callback_manager: CallbackManager | None = None
    hits: Sequence[NodeWithScore] | None = None
    more_sources: Sequence[NodeWithScore] = ()
    query_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.perf_counter)
    lookup: Lookup | None = None
    begun: bool = False
    ended: bool = False

    @classmethod
    def of(
        cls, parts: EngineParts, question: QueryType, callback_manager: CallbackManager | None = None
    ) -> QueryRun:
        """Check a question, give it an id, start its clock.

        Raises:
            AnswerError: The engine is closed, or the question is empty or too long.
            PermissionsError: The storage has permissions, and the engine no user.
        """
        parts.check_open(AnswerError, "ask")
        parts.check_user()
        bundle = _bundle(question)
        asked, image = bundle.query_str, bundle.image_path
        if image and not reads_images(parts.embed_model):
            raise AnswerError(
                "The embedding model of this engine reads text only. Use the preset multi-modal, with CLIP's weights."
            )
        text, longest = asked.strip(), parts.settings.max_question_chars
        if not text and not image:
            raise AnswerError("The question is empty. Ask something.")
        if len(text) > longest:
            raise AnswerError(
                f"The question has {counted(len(text), 'character')}; at most {longest:,} are taken. Shorten it, or "
                "ingest the long text as a document and ask about it."
            )
        return cls(
            parts, asked=asked, question=asked, image_path=image, searched=bundle, callback_manager=callback_manager
        )  # fmt: skip

    def over(self, hits: Sequence[NodeWithScore], more_sources: Sequence[NodeWithScore] | None) -> QueryRun:
        """The same question, to be answered from hits that the caller chose; see `PresetEngine.synthesize`.

        Raises:
            WrongTypeError: These are no hits.
        """
        wanted = "hits, as engine.retrieve() gives them"
        more = expect_each("additional_source_nodes", more_sources or (), NodeWithScore, wanted)
        self.hits = self.parts.own_hits(expect_each("nodes", hits, NodeWithScore, wanted))
        self.more_sources = self.parts.own_hits(more)
        return self

    # -- ways to be answered ---------------------------------------------------------------------------------------

    def respond(self) -> Core[CitedResponse]:
        """Answer at once; see `PresetEngine.query`."""
        with self.failing(), self.billed(), self._callbacks.as_trace("query"):
            dispatcher.event(QueryStartEvent(query=self._query))
            answer = yield from self._answer()
            sources = [*answer.source_nodes, *self.more_sources]
            response = CitedResponse(answer.text, sources, answer.metadata())
            yield from self._keep(answer, response.metadata or {})
            dispatcher.event(QueryEndEvent(query=self._query, response=response))
        outcome = response.metadata, str(response), answer.source_nodes, _status(answer)
        yield Step(lambda: self.end(*outcome), lambda: self._aend(*outcome))
        return response

    def stream(self) -> CitedStream:
        """Answer piece by piece; see `PresetEngine.stream`."""
        answering = run(self._begin_stream())
        return self._streamed(CitedStream, answering, iterate(self._pieces(answering)))

    async def astream(self) -> AsyncCitedStream:
        """`stream`, without blocking the event loop."""
        answering = await arun(self._begin_stream())
        return self._streamed(AsyncCitedStream, answering, aiterate(self._pieces(answering)))

    def _streamed(self, kind: type[_Stream], answering: _Streaming, pieces: Any) -> _Stream:
        # The question ends when its stream is dropped before the first piece was read.
        weakref.finalize(pieces, self._abandon).atexit = False
        response = kind(pieces, answering.answer.source_nodes, answering.metadata)
        response.written = lambda: answering.answer.text
        return response

    # -- the way of a question -------------------------------------------------------------------------------------

    def _answer(self) -> Core[CitedAnswer | CachedAnswer]:
        """Search and answer; an outage is an apology, where the settings want one."""
        found = yield from self._find()
        if not isinstance(found, list):
            return found
        try:
            return (yield from self.parts.synthesizer.respond(self.question, found))
        except Exception as error:
            return fallback_answer(self.question, found, error, self.parts)

    def _find(self) -> Core[list[NodeWithScore] | CitedAnswer | CachedAnswer]:
        """Hits to answer from; or the answer itself, from the cache or as an apology for a search that is down."""
        if self.hits is not None:  # the answer cache keeps what the engine found itself
            return list(self.hits)
        begin = functools.partial(Lookup.of, self.parts, self.question, self.query_id, self.image_path)
        # What was found for another text answers that text.
        own_words = self._query.embedding is None and not self._query.custom_embedding_strs
        lookup: Lookup | None = (yield _step(begin)) if self.parts.answers is not None and own_words else None
        self.lookup = lookup
        cached: CachedAnswer | None = (yield _step(lookup.unchanged)) if lookup is not None else None
        if cached is not None:
            return cached
        try:
            hits = yield from search(self.parts, self._query)
        except Exception as error:
            return fallback_answer(self.question, None, error, self.parts)
        if lookup is not None:
            cached = yield _step(functools.partial(lookup.same_passages, hits))
        return hits if cached is None else cached

    def _keep(self, answer: CitedAnswer | CachedAnswer, metadata: dict[str, Any]) -> Core[None]:
        """Keep a new answer in the answer cache."""
        lookup = self.lookup
        if lookup is not None and isinstance(answer, CitedAnswer):
            yield _step(lambda: lookup.keep(answer, metadata))

    def _begin_stream(self) -> Core[_Streaming]:
        """Search; what writes the answer is asked with the first piece that is read."""
        synthesizer = self.parts.synthesizer
        with self.failing(), self.billed():
            found = yield from self._find()
            if not isinstance(found, list):
                return _Streaming(found, [], None, {"query_id": self.query_id})
            answer, pieces = yield Step(
                lambda: synthesizer.stream(self.question, found),
                lambda: synthesizer.astream(self.question, found),
            )
            return _Streaming(answer, found, pieces, {"query_id": self.query_id})

    def _pieces(self, streaming: _Streaming) -> StreamCore[str]:
        """The pieces of an answer; billed and recorded when they are used up, abandoned or broken off."""
        answer, metadata = streaming.answer, streaming.metadata
        status, failure = "abandoned", None
        try:
            if streaming.pieces is None:
                yield answer.text
            while (piece := (yield from self._next(streaming))) is not None:
                yield piece
            metadata.update(answer.metadata())
            yield from self._keep(answer, metadata)
            status = _status(answer)
        except Exception as error:
            status, failure = f"failed: {type(error).__name__}", error
            raise
        finally:
            yield Step(lambda: _close(streaming.pieces), lambda: _aclose(streaming.pieces))
            outcome = metadata, answer.text, answer.source_nodes, status, failure
            yield Step(lambda: self.end(*outcome), lambda: self._aend(*outcome))

    def _next(self, streaming: _Streaming) -> Core[str | None]:
        """One piece, None after the last; charged here, since the caller works between pieces."""
        pieces = streaming.pieces
        if pieces is None:
            return None
        try:
            with self.billed(), exclusive_tracing():
                piece: str | None = yield Step(lambda: next(pieces, None), lambda: anext(pieces, None))
                return piece
        except Exception as error:
            apology = fallback_answer(self.question, streaming.hits, error, self.parts)
            streaming.pieces = None
            return end_broken_answer(streaming.answer, apology)  # type: ignore[arg-type]

    @property
    def _query(self) -> QueryBundle:
        if self.searched is None or self.searched.query_str != self.question:  # condensed by a conversation
            return QueryBundle(self.question, image_path=self.image_path)
        return copied_query(self.searched)

    @property
    def _callbacks(self) -> CallbackManager:
        return self.callback_manager or self.parts.callback_manager

    # -- billing and record ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def billed(self) -> Iterator[None]:
        """Charge the calls made inside to this question; the first time, it begins."""
        with self.parts.billed(self.query_id):
            if not self.begun:
                self.begun = True
                dispatcher.event(RunStartEvent(run_id=self.query_id, kind="query"))
            yield

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Record that there is no answer, when the block fails."""
        try:
            yield
        except BaseException as error:
            self.end(None, "", [], f"failed: {type(error).__name__}", error)
            raise

    def _abandon(self) -> None:
        if not self.ended:
            self.ended = True
            self._emit_end(None, None, "abandoned")

    def end(
        self,
        metadata: dict[str, Any] | None,
        text: str,
        shown: Sequence[NodeWithScore],
        status: str = "answered",
        failure: BaseException | None = None,
    ) -> None:
        """Bill and record the question.

        Without an audit log, a ledger that cannot be written does not cost the answer: ``cost_usd`` is None, and the
        log says why. With one, an answer that is not on record whole is none.

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
        record = functools.partial(self._record, metadata, text, shown, status)
        close_behind(record, failure, f"the record of query {self.query_id}")

    async def _aend(self, *outcome: Any) -> None:
        """`end`, without waiting for the disk on the event loop."""
        await asyncio.to_thread(self.end, *outcome)

    def _record(
        self, metadata: dict[str, Any] | None, text: str, shown: Sequence[NodeWithScore], status: str
    ) -> None:
        cost, unbilled = self._cost()
        if unbilled is not None and not status.startswith("failed"):
            status = f"failed: {type(unbilled).__name__}"
        if metadata is not None:
            loading_ms = self.parts.ledger.query_loading_ms(self.query_id)  # models that load at first use
            metadata["query_id"] = self.query_id
            metadata["cost_usd"] = None if cost is None else float(cost)
            if cost is None and (unpriced := self.parts.ledger.unpriced_models_of(self.query_id)):
                metadata["unpriced_models"] = unpriced
            metadata["latency_ms"] = round((time.perf_counter() - self.started) * 1000 - loading_ms, 1)
            keep_citations(self.parts.storage.folder, self.query_id, metadata.get("citations", ()))
        self._keep_outcome(metadata, status)
        self._emit_end(metadata, cost, status)
        if self.parts.audit is not None:
            self.parts.audit.record(
                user=self.parts.user,
                query_id=self.query_id,
                question=self.asked,
                shown=shown,
                closest=(metadata or {}).get("closest") or (),
                answer=text,
                cost_usd=cost,
                status=status,
            )
        if unbilled is not None:
            raise unbilled

    def _keep_outcome(self, metadata: dict[str, Any] | None, status: str) -> None:
        parts, outcome = self.parts, status.partition(":")[0]
        if outcome == "answered":
            outcome = "known" if (metadata or {}).get("known") else "abstained"
        keep_outcome(
            parts.storage.folder,
            self.query_id,
            owner=parts.owner(),
            tenant=parts.tenant,
            outcome="failed" if outcome == "degraded" else outcome,
            metadata=metadata or {},
        )

    def _cost(self) -> tuple[Decimal | None, MonitorError | None]:
        """The cost, and what kept the ledger from saying it where that must fail the question."""
        if self.parts.audit is None:
            return cost_of(self.parts.ledger, self.query_id), None
        try:
            return self.parts.ledger.query_cost(self.query_id), None
        except MonitorError as error:
            return None, error

    def _emit_end(self, metadata: dict[str, Any] | None, cost_usd: Decimal | None, status: str) -> None:
        """Tell listeners how the question ended; the class of an error, never its message."""
        outcome = metadata or {}
        dispatcher.event(
            RunEndEvent(
                run_id=self.query_id,
                known=outcome.get("known"),
                citations=len(outcome.get("citations", ())),
                cost_usd=cost_usd,
                error=status.split(" ")[-1] if status.startswith(("failed: ", "degraded: ")) else None,
                abandoned=status == "abandoned",
                cached="cached" in outcome,
            )
        )


@dataclass(slots=True)
class _Streaming:
    """An answer that is being read: what was found, and what gives the pieces; None for an apology."""

    answer: CitedAnswer | CachedAnswer
    hits: Sequence[NodeWithScore]
    pieces: Any
    metadata: dict[str, Any]


def _step(call: Callable[[], Any]) -> Step:
    """A step that waits for the disk."""
    return Step(call, lambda: asyncio.to_thread(call))


def _status(answer: CitedAnswer | CachedAnswer) -> str:
    """How a question ended, for the audit log."""
    degraded = answer.degraded
    return f"degraded: {degraded['stage']} {degraded['error']}" if degraded else "answered"


def _close(pieces: Any) -> None:
    if pieces is not None:
        pieces.close()


async def _aclose(pieces: Any) -> None:
    if pieces is not None:
        await pieces.aclose()
