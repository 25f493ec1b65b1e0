"""Preset engine: a LlamaIndex query engine that also ingests, explains itself and reports its cost."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from types import TracebackType
from typing import Any, Literal

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilter, MetadataFilters

from llama_index_presets._options import strict
from llama_index_presets.answer.synthesize import CitedAnswer, CitedSynthesizer
from llama_index_presets.closing import close_behind
from llama_index_presets.errors import AnswerError, IngestError, SettingsError
from llama_index_presets.forks import ADVICE
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.pipeline import IngestReport
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.presets.chat import PresetChatEngine
from llama_index_presets.presets.compaction import CompactReport
from llama_index_presets.presets.engine_parts import EngineParts, cost_of
from llama_index_presets.presets.fallback import aanswer_or_fallback, answer_or_fallback
from llama_index_presets.presets.ingest_estimate import Estimate
from llama_index_presets.presets.ingestion import IngestOptions, compact_assembly, estimate, ingest
from llama_index_presets.presets.models import reads_images
from llama_index_presets.presets.query_run import (
    QueryRun,
    aanswer,
    answer,
    answer_metadata,
    astream,
    emit_ingest_end,
    emit_run_failure,
    emit_run_start,
    stream,
)
from llama_index_presets.presets.settings import Settings

__all__ = ["PresetEngine"]


@strict()
class PresetEngine(BaseQueryEngine):
    """Query engine of a preset.

    Made by `build`. Every part of it is reachable and a plain LlamaIndex object. Safe for threads and asyncio; close
    it, or use it as a context manager, so that the ledger is written out.

    Args:
        assembly: The parts.

    Example:
        >>> import tempfile
        >>> from llama_index.core import Document
        >>> from llama_index_presets import build
        >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
        ...     report = engine.ingest([Document(text="Botulism is treated with an antitoxin.")])
        ...     answer = engine.query("How is botulism treated?")
        >>> print(report.chunks, answer)
        1 Botulism is treated with an antitoxin. [1]
    """

    def __init__(self, assembly: EngineParts) -> None:
        super().__init__(callback_manager=assembly.embed_model.callback_manager)
        self._assembly = assembly
        self._process = os.getpid()

    # -- the parts ------------------------------------------------------------------------------------------------

    @property
    def index(self) -> VectorStoreIndex:
        """The index over the vector store, for any LlamaIndex code that wants one."""
        return self._assembly.index

    @property
    def retriever(self) -> BaseRetriever:
        """Retriever of the passages."""
        return self._assembly.retriever

    @property
    def vector_store(self) -> BasePydanticVectorStore:
        """Vector store of the index."""
        return self._assembly.vector_store

    @property
    def postprocessors(self) -> Sequence[BaseNodePostprocessor]:
        """Node postprocessors: reorder or drop passages before the answer."""
        return self._assembly.retrieval.postprocessors

    @property
    def llm(self) -> LLM:
        """Language model of the answers."""
        return self._assembly.synthesizer.llm

    @property
    def synthesizer(self) -> CitedSynthesizer:
        """Response synthesizer: passages to a cited answer."""
        return self._assembly.synthesizer

    @property
    def settings(self) -> Settings:
        """Effective settings."""
        return self._assembly.settings

    @property
    def ledger(self) -> Ledger:
        """Ledger of model calls and their cost."""
        return self._assembly.ledger

    @property
    def filters(self) -> MetadataFilters | None:
        """Metadata filters that every hit satisfies."""
        return self._assembly.filters

    def explain(self) -> dict[str, Any]:
        """Composition of this engine: preset, cells, what `offline` swapped, effective settings and their origins.

        Of a closed engine, too; ``documents`` and ``chunks`` are those at its end.
        """
        return self._assembly.explain()

    def filtered(self, filters: MetadataFilters) -> PresetEngine:
        """This engine with further filters; those it has still hold.

        The new engine shares all parts with this one; closing either closes both.
        """
        return PresetEngine(self._assembly.restricted(filters))

    def asked_by(self, who: str) -> PresetEngine:
        """This engine for a user of the application, who is named in the audit log of a preset that has one.

        The new engine shares all parts with this one; closing either closes both.
        """
        return PresetEngine(replace(self._assembly, who=who))

    def for_tenant(self, tenant: str, *, key: str = "tenant") -> PresetEngine:
        """This engine for one of several customers who share the index.

        Every hit has this tenant in its metadata, whatever is asked; what is ingested here is given it; the calls are
        charged to it in the ledger (``engine.ledger.costs(by="tenant")``). It shares all parts with this engine;
        closing either closes both. Ids of documents are the index's: one document, or file, belongs to one tenant, and
        ingesting under an id that belongs to another, or to nobody, is refused and reported as failed.

        Args:
            tenant: Whose engine.
            key: Metadata key that holds the tenant.

        Raises:
            SettingsError: The tenant is empty.
        """
        if not tenant:
            raise SettingsError("The tenant is empty; an engine without one is the shared engine itself.")
        only = MetadataFilters(filters=[MetadataFilter(key=key, value=tenant)])
        restricted = self._assembly.restricted(only)
        return PresetEngine(replace(restricted, tenant=tenant, stamp={**restricted.stamp, key: tenant}))

    def as_chat_engine(self, **options: Any) -> PresetChatEngine:
        """A conversation with memory over this engine; options as of `PresetChatEngine`."""
        return PresetChatEngine(self, **options)

    # -- ingest ---------------------------------------------------------------------------------------------------

    def ingest(
        self,
        data: Any,
        *,
        text_column: str | None = None,
        id_column: str | None = None,
        sync: bool = False,
        show_progress: bool | None = None,
        max_cost_usd: float | Decimal | None = None,
        wait: bool = True,
        metadata: Mapping[str, Any] | None = None,
        folder_key: str | None = None,
        workers: Literal["ray"] | None = None,
        ray_address: str | None = None,
        compact: bool = False,
    ) -> IngestReport:
        """Synchronise the index with documents; unchanged ones cost nothing.

        A document replaces the one of its id. Documents of one id that differ, and an id that belongs to another
        tenant, are refused and reported as failed.

        Args:
            data: A path or several, `Document`s, nodes, or a Polars or pandas frame.
            text_column: Column of a frame with the text.
            id_column: Column of a frame with a unique id.
            sync: Whether documents that vanished from the given folders are removed; never those of another tenant.
            show_progress: Whether to draw a bar; None draws one where standard error is a terminal.
            max_cost_usd: Count first, and refuse to begin when embedding would cost more than this, in US dollars.
            wait: Whether to wait when another process ingests into the same storage.
            metadata: Put on every document, to filter on; it wins over what a document says of itself. It is part of
                what makes a document unchanged: give the same each time.
            folder_key: Metadata key that takes the name of the folder that a file lies in: the one directly below the
                folder given.
            workers: ``"ray"`` reads, cuts, embeds and stores on a Ray cluster; None does it here.
            ray_address: The cluster's address; None starts Ray on this machine, unless the process is connected.
            compact: Whether to take removed and replaced text off the disk in the end; see `compact`.

        Raises:
            IngestError: Nothing to ingest, an unknown column, an unknown kind of data, or a closed engine.
            BudgetExceededError: It would cost more than `max_cost_usd`; nothing was sent.
            StoreLockedError: Another process ingests, and `wait` is False.
            SettingsError: What is given cannot be ingested with Ray.
        """
        self._must_take_documents()
        options = IngestOptions(
            text_column=text_column,
            id_column=id_column,
            sync=sync,
            show_progress=show_progress,
            max_cost_usd=max_cost_usd,
            wait=wait,
            metadata=metadata or {},
            folder_key=folder_key,
            workers=workers,
            ray_address=ray_address,
            compact=compact,
        )
        run_id = uuid.uuid4().hex
        with self._assembly.billed(run_id):
            emit_run_start(run_id, "ingest")
            try:
                report = ingest(self._assembly, data, options)
            except BaseException as error:
                emit_run_failure(run_id, error)
                raise
            cost = cost_of(self.ledger, run_id)
            emit_ingest_end(run_id, report, cost)
        report.cost_usd = None if cost is None else float(cost)
        return report

    def estimate(
        self,
        data: Any,
        *,
        text_column: str | None = None,
        id_column: str | None = None,
        sample: int | None = None,
        show_progress: bool | None = None,
    ) -> Estimate:
        """Estimate an `ingest`: documents, chunks, tokens, dollars, minutes, disk. Nothing is sent or stored.

        Args:
            data: As for `ingest`.
            text_column: As for `ingest`.
            id_column: As for `ingest`.
            sample: Read only so many documents, and extrapolate; None reads all and counts exactly.
            show_progress: As for `ingest`.

        Example:
            >>> import tempfile
            >>> from llama_index.core import Document
            >>> from llama_index_presets import build
            >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
            ...     estimate = engine.estimate([Document(text="Botulism is treated with an antitoxin.")])
            >>> estimate.documents, estimate.chunks, estimate.tokens, estimate.cost_usd
            (1, 1, 13, Decimal('0E-12'))
        """
        self._must_take_documents()
        options = IngestOptions(text_column=text_column, id_column=id_column, show_progress=show_progress)
        return estimate(self._assembly, data, options, sample=sample)

    def compact(self) -> CompactReport:
        """Remove deleted documents from the disk: rewrite every file of the storage without their text.

        Waits for an ingest to end; questions of this and other processes go on, or wait a moment. Needs room for a
        second copy of the largest file. The embedding cache of the storage is emptied.

        Raises:
            StoreError: A part cannot be compacted now; what was done before it stays done, so call again.

        Example:
            >>> import tempfile
            >>> from llama_index.core import Document
            >>> from llama_index_presets import build
            >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
            ...     report = engine.ingest([Document(text="Botulism is treated with an antitoxin.")])
            ...     engine.compact().parts
            ('vectors', 'documents', 'embeddings')
        """
        self._check_process()
        with ingest_lock(self._assembly.storage.lock):
            self._must_take_documents()
        return compact_assembly(self._assembly)

    # -- query ----------------------------------------------------------------------------------------------------

    def query(self, str_or_query_bundle: QueryType) -> RESPONSE_TYPE:
        """Answer a question from the index.

        Args:
            str_or_query_bundle: The question; in an index of text and images, also a ``QueryBundle`` with an
                ``image_path``, with or without a text.

        Returns:
            A `Response`: the text, ``source_nodes``, and ``metadata`` with ``citations``, ``known``, ``query_id``,
            ``cost_usd`` (None when a price is unknown or the ledger cannot be written), ``latency_ms`` and
            ``finish_reason`` (``"length"`` when the model's output limit cut the answer off, ``"content_filter"`` when
            it was held back, None when the model does not say); with ``numbers`` where figures are verified, and
            ``degraded`` where a service was down and the settings say ``on_outage="answer"``.

        Raises:
            AnswerError: The question is empty or too long.
        """
        return answer(self, self.turn(str_or_query_bundle))

    async def aquery(self, str_or_query_bundle: QueryType) -> RESPONSE_TYPE:
        """`query`, without blocking the event loop."""
        return await aanswer(self, self.turn(str_or_query_bundle))

    def stream(self, str_or_query_bundle: QueryType) -> StreamingResponse:
        """Answer piece by piece; ``metadata`` is complete when the pieces are used up."""
        return stream(self, self.turn(str_or_query_bundle))

    async def astream(self, str_or_query_bundle: QueryType) -> AsyncStreamingResponse:
        """`stream`, without blocking the event loop."""
        return await astream(self, self.turn(str_or_query_bundle))

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Find the passages for an answer, best first.

        Raises:
            AnswerError: The engine is closed.
        """
        self._must_be_open()
        hits = self.retriever.retrieve(_fresh(query_bundle))
        for postprocessor in self.postprocessors:
            hits = postprocessor.postprocess_nodes(hits, query_bundle=query_bundle)
        return hits[: self._assembly.settings.top_k]

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """`retrieve`, without blocking the event loop."""
        self._must_be_open()
        hits = await self.retriever.aretrieve(_fresh(query_bundle))
        for postprocessor in self.postprocessors:
            hits = await postprocessor.apostprocess_nodes(hits, query_bundle=query_bundle)
        return hits[: self._assembly.settings.top_k]

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return _response(answer_or_fallback(self, query_bundle))

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return _response(await aanswer_or_fallback(self, query_bundle))

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def turn(self, question: QueryType) -> QueryRun:
        """Begin a question: check it, give it an id, start its clock.

        Raises:
            AnswerError: The engine is closed, or the question is empty or too long.
        """
        self._must_be_open()
        asked = question if isinstance(question, str) else question.query_str
        image = None if isinstance(question, str) else question.image_path
        if image and not reads_images(self._assembly.embed_model):
            raise AnswerError(
                "The embedding model of this engine reads text only. Use the preset multi-modal, with CLIP's weights."
            )
        text, longest = asked.strip(), self._assembly.settings.max_question_chars
        if not text and not image:
            raise AnswerError("The question is empty. Ask something.")
        if len(text) > longest:
            raise AnswerError(
                f"The question has {len(text):,} characters; at most {longest:,} are taken. Shorten it, or ingest the "
                "long text as a document and ask about it."
            )
        return QueryRun(self._assembly, asked=asked, question=asked, image_path=image)

    def _must_be_open(self) -> None:
        self._check_process()
        if self._assembly.closed:
            raise AnswerError("The engine is closed. Build it again to ask more.")

    def _must_take_documents(self) -> None:
        self._check_process()
        if self._assembly.closed:
            raise IngestError("The engine is closed. Build it again to ingest more.")

    # -- life --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write the ledger out and close the files; calling it twice is fine.

        In a fork of the process that built it, it lets go of nothing: files, servers and threads are the parent's.
        """
        if self._process == os.getpid():
            self._assembly.close()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise AnswerError(
                f"The engine was built in process {self._process} and is used in its fork {os.getpid()}, where its "
                f"threads are missing and its files and connections are shared. {ADVICE}"
            )

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> PresetEngine:
        """Use the engine as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what goes wrong there never replaces the block's own error."""
        close_behind(self.close, error, "closing the engine")

    def __repr__(self) -> str:
        """Name and storage; nothing secret."""
        return (
            f"PresetEngine(preset='{self._assembly.preset.name}', storage='{self._assembly.storage.shown}')"
        )


def _fresh(query: QueryBundle) -> QueryBundle:
    """The same question; retrievers write the embedding into the object that they are given."""
    return QueryBundle(query.query_str, image_path=query.image_path)


def _response(answer: CitedAnswer) -> Response:
    return Response(answer.text, answer.source_nodes, answer_metadata(answer))
