"""Preset engine: a LlamaIndex query engine that also ingests, explains itself and reports its cost."""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.llms.llm import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, QueryType
from llama_index.core.tools import QueryEngineTool
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilter, MetadataFilters

from llama_index_presets._options import refuse_unknown, strict
from llama_index_presets.answer.response import AsyncCitedStream, CitedStream
from llama_index_presets.answer.synthesize import CitedSynthesizer
from llama_index_presets.concurrency.closing import close_behind
from llama_index_presets.concurrency.sync_async import arun, run
from llama_index_presets.errors import AnswerError, IngestError, SettingsError, StoreError
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.pipeline import IngestReport
from llama_index_presets.ingest.sources.frames import FrameColumns
from llama_index_presets.monitor.attribution import Attribution, attributed
from llama_index_presets.monitor.budgets import Budget
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.quality import rate
from llama_index_presets.presets.access import VisibleRetriever, narrowed_access
from llama_index_presets.presets.chat import PresetChatEngine
from llama_index_presets.presets.citations.page import CitationPage, citation_page
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.estimates.ingestion import Estimate
from llama_index_presets.presets.index.compaction import CompactReport
from llama_index_presets.presets.index.contents import (
    DocumentInfo,
    delete,
    describe,
    document_nodes,
    document_text,
    documents,
)
from llama_index_presets.presets.ingestion import IngestOptions, compact, estimate, ingest
from llama_index_presets.presets.permissions import list_permissions, set_permissions
from llama_index_presets.presets.query_run import QueryRun, search
from llama_index_presets.presets.settings import Settings

__all__ = ["PresetEngine"]


@strict()
class PresetEngine(BaseQueryEngine):
    """Query engine of a preset.

    Made by `build`. Every part of it is reachable and a plain LlamaIndex object. Safe for threads and asyncio; close
    it, or use it as a context manager, so that the ledger is written out.

    Its prompts are those of LlamaIndex's own engines: ``get_prompts()`` and ``update_prompts()`` know
    ``"response_synthesizer:system_prompt"`` and ``"response_synthesizer:text_qa_template"``, see `CitedSynthesizer`.

    Args:
        parts: The parts.

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

    def __init__(self, parts: EngineParts) -> None:
        super().__init__(callback_manager=parts.callback_manager)
        self._parts = parts

    # -- a copy shares all parts; a pickle builds them again ------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> PresetEngine:
        return copy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        parts = self._parts
        if parts.encryption is not None or parts.storage.address or parts.rebuild is None:
            raise StoreError(
                "An engine over an encrypted storage or a server cannot be pickled: its key or password would be "
                "written in clear. Build one per process."
            )
        derived = {name: getattr(parts, name) for name in ("user", "tenant", "ingest_metadata", "access")}
        return _built_again, (parts.rebuild, parts.filters, derived, self.get_prompts())

    # -- the parts ------------------------------------------------------------------------------------------------

    @property
    def index(self) -> VectorStoreIndex:
        """The index over the vector store, for any LlamaIndex code that wants one.

        Raises:
            PermissionsError: The storage has permissions, which the index itself does not keep.
        """
        self._parts.check_sees_all("index")
        return self._parts.index

    @property
    def retriever(self) -> BaseRetriever:
        """Retriever of the passages; of an engine for a user, of those that they may see.

        Raises:
            PermissionsError: The storage has permissions, and the engine no user.
        """
        self._parts.check_user()
        if self._parts.access is None:
            return self._parts.retriever
        return VisibleRetriever(self._parts.retriever, self._parts.visible_hits)

    @property
    def vector_store(self) -> BasePydanticVectorStore:
        """Vector store of the index.

        Raises:
            PermissionsError: The storage has permissions, which the store itself does not keep.
        """
        self._parts.check_sees_all("vector_store")
        return self._parts.vector_store

    @property
    def postprocessors(self) -> Sequence[BaseNodePostprocessor]:
        """Node postprocessors: reorder or drop passages before the answer."""
        return self._parts.retrieval.postprocessors

    @property
    def embed_model(self) -> BaseEmbedding:
        """Embedding model of chunks and questions."""
        return self._parts.embed_model

    @property
    def llm(self) -> LLM:
        """Language model of the answers."""
        return self._parts.synthesizer.llm

    @property
    def synthesizer(self) -> CitedSynthesizer:
        """Response synthesizer: passages to a cited answer."""
        return self._parts.synthesizer

    @property
    def settings(self) -> Settings:
        """Effective settings."""
        return self._parts.settings

    @property
    def ledger(self) -> Ledger:
        """Ledger of model calls and their cost."""
        return self._parts.ledger

    @property
    def filters(self) -> MetadataFilters | None:
        """Metadata filters that every hit satisfies."""
        return self._parts.filters

    def explain(self) -> dict[str, Any]:
        """Composition of this engine: preset, cells, what `offline` swapped, effective settings and their origins.

        Of a closed engine, too; ``documents`` and ``chunks`` are those at its end.
        """
        return self._parts.explain()

    def with_filters(self, filters: MetadataFilters) -> PresetEngine:
        """This engine, restricted further: filters of this engine still hold, and those of the call do too.

        The new engine shares all parts with this one, and closing either closes both. It takes this engine's prompts
        along; a prompt that is replaced later is that engine's alone.
        """
        return PresetEngine(self._parts.restricted(filters))

    def filtered(self, filters: MetadataFilters) -> PresetEngine:
        """Old name of `with_filters`; it goes with the next release."""
        warnings.warn("PresetEngine.filtered is now called with_filters.", DeprecationWarning, stacklevel=2)
        return self.with_filters(filters)

    def for_user(self, user: str) -> PresetEngine:
        """This engine for a user of the application, who is named in the audit log of a preset that has one.

        The new engine shares all parts with this one, as that of `with_filters` does.
        """
        return PresetEngine(self._parts.derived(user=user))

    def asked_by(self, who: str) -> PresetEngine:
        """Old name of `for_user`; it goes with the next release."""
        warnings.warn("PresetEngine.asked_by is now called for_user.", DeprecationWarning, stacklevel=2)
        return self.for_user(who)

    def for_tenant(self, tenant: str, *, key: str = "tenant") -> PresetEngine:
        """This engine for one of several customers who share the index.

        Every hit has this tenant in its metadata, whatever is asked; what is ingested here is given it; the calls are
        charged to it in the ledger (``engine.ledger.costs(by="tenant")``). The new engine shares all parts with this
        one, as that of `with_filters` does. Ids of documents are the index's: one document, or file, belongs to one
        tenant, and ingesting under an id that belongs to another, or to none, is refused and reported as failed.

        Args:
            tenant: Whose engine.
            key: Metadata key that holds the tenant.

        Raises:
            SettingsError: The tenant is empty.
        """
        if not tenant:
            raise SettingsError("The tenant is empty; an engine without one is the shared engine itself.")
        only = MetadataFilters(filters=[MetadataFilter(key=key, value=tenant)])
        metadata = {**self._parts.ingest_metadata, key: tenant}
        return PresetEngine(self._parts.restricted(only, tenant=tenant, ingest_metadata=metadata))

    @property
    def has_permissions(self) -> bool:
        """Whether the storage has permissions; then nothing is shown without a user, see `as_user`."""
        return self._parts.permissions.on()

    def as_user(
        self, *, user: str = "", groups: Iterable[str] = (), everything: bool = False
    ) -> PresetEngine:
        """This engine for one user of a storage with permissions (the setting ``permissions = "on"``).

        It finds, answers from, cites, lists, replaces and removes only documents that allow the user or one of the
        groups, and knows no other. What it ingests is seen by the user alone, unless ``metadata={"allowed": …}`` shares
        it. A view of a view sees what both see. The new engine shares all parts with this one, as that of
        `with_filters` does; prompts and an embedding cache hold no document.

        Args:
            user: Name of the user, whom a document allows as ``user:NAME``, and who is named in the audit log.
            groups: The user's groups.
            everything: See every document, whatever it allows: for operators, under the name `user`, which the audit
                log then has as ``NAME (sees everything)``.

        Raises:
            AnswerError: The engine is closed.
            SettingsError: The storage has no permissions, or the names are missing or not usable.
            PermissionsError: A view that is held to a user is to see everything.

        Example:
            >>> import tempfile
            >>> from llama_index.core import Document
            >>> from llama_index_presets import build
            >>> secret = Document(text="Ada earns 7.", id_="pay.txt", metadata={"allowed": ["hr"]})
            >>> with build("healthcare", storage=tempfile.mkdtemp(), settings={"permissions": "on"}) as engine:
            ...     report = engine.ingest([secret])
            ...     [len(engine.as_user(groups=[group]).documents()) for group in ("hr", "sales")]
            [1, 0]
        """
        self._parts.check_open(AnswerError, "ask")
        if not self.has_permissions:
            raise SettingsError(
                f"'{self._parts.storage.shown}' has no permissions, so an engine cannot be held to a user. Build with "
                'settings={"permissions": "on"}; until a document allows somebody, nobody sees it then.'
            )
        access = narrowed_access(self._parts.access, user, groups, everything)
        who = f"{user} (sees everything)" if everything else user or self._parts.user
        parts = self._parts
        filters = None if access.everything else access.filters
        if filters is None:
            return PresetEngine(parts.derived(access=access, user=who))
        return PresetEngine(parts.restricted(filters, access=access, user=who))

    def permissions(self, doc_ids: Sequence[str] | None = None) -> dict[str, list[str]]:
        """Who may see documents, by document: groups, and ``user:NAME`` for users; an empty list for nobody.

        Args:
            doc_ids: Ids as `documents` gives them, unknown ones are left out; None for all.

        Raises:
            SettingsError: The storage has no permissions.
            PermissionsError: The engine is held to a user.
        """
        self._parts.check_open(IngestError, "read permissions")
        if not self.has_permissions:
            raise SettingsError(f"'{self._parts.storage.shown}' has no permissions.")
        return list_permissions(self._parts, doc_ids)

    def set_permissions(self, doc_ids: Sequence[str], allowed: Iterable[str], *, wait: bool = True) -> int:
        """Set who may see documents from now on, in place of what they say; nothing is embedded again.

        It holds until it is set again, or an ingest names ``metadata={"allowed": …}``. While it is being changed a
        document is seen by nobody, and stays so where the process dies, until this or an ingest is called again.

        Args:
            doc_ids: Ids as `documents` gives them; unknown ones are left alone.
            allowed: Groups, and ``user:NAME`` for users; empty for nobody.
            wait: Whether to wait while an ingest into the same storage runs.

        Returns:
            How many documents were changed.

        Raises:
            SettingsError: The storage has no permissions, or a name is not usable.
            PermissionsError: The engine is held to a user.
            StoreLockedError: An ingest runs, and `wait` is False.
        """
        self._parts.check_open(IngestError, "set permissions")
        if not self.has_permissions:
            raise SettingsError(
                f'\'{self._parts.storage.shown}\' has no permissions. Build with settings={{"permissions": "on"}}.'
            )
        return set_permissions(self._parts, doc_ids, allowed, wait=wait)

    def hold_to_budgets(
        self, budgets: Sequence[Budget], *, sums: str | Path | None = None, also: Sequence[PresetEngine] = ()
    ) -> None:
        """Hold the model calls of all engines over these parts to budgets, in place of those before.

        A call that could exceed one is refused before it is made. What was spent before counts.

        Args:
            budgets: The limits; none lifts them.
            sums: Folder of the sums, from the first call on; None keeps them in the storage. Engines that name the same
                folder share their limits.
            also: Those engines, whose earlier calls count when a period begins.

        Raises:
            AnswerError: The engine is closed.
        """
        self._parts.check_open(AnswerError, "ask")
        others = [engine.ledger for engine in also if engine.ledger is not self.ledger]
        self._parts.costs.hold_to(budgets, sums=None if sums is None else Path(sums), also=others)

    def billed(self, query_id: str | None = None) -> AbstractContextManager[Attribution]:
        """Charge the model calls made in a ``with`` block to this engine's ledger, preset and tenant.

        Questions and ingests do so themselves; this is for calls of its parts, such as ``engine.embed_model``.

        Args:
            query_id: Id that joins the rows; None makes one.
        """
        return self._parts.billed(query_id or uuid.uuid4().hex)

    @property
    def held_to_budgets(self) -> bool:
        """Whether `hold_to_budgets` holds the calls to any budget."""
        budgets = self._parts.costs.budgets
        return budgets is not None and bool(budgets.budgets)

    def refuse_spent_budgets(self, *, tags: Sequence[str] = ()) -> None:
        """Refuse, before anything is done for a question, where a budget that it falls under has nothing left.

        Args:
            tags: Tags of the question; see `attributed`.

        Raises:
            BudgetExceededError: Says which budget, and when it resets.
        """
        budgets = self._parts.costs.budgets
        if budgets is not None:
            with self._parts.billed(""), attributed(tags=tags) as who:
                budgets.refuse_spent(who)

    def as_tool(self, *, name: str | None = None, description: str | None = None) -> QueryEngineTool:
        """This engine as a tool of a LlamaIndex agent.

        Args:
            name: Name of the tool; None takes the preset's, with underscores.
            description: What an agent decides by; None describes the index: use case, size, sources.

        Raises:
            AnswerError: The engine is closed.

        Example:
            >>> import tempfile
            >>> from llama_index.core import Document
            >>> from llama_index_presets import build
            >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
            ...     _ = engine.ingest([Document(text="Cats purr.", id_="cats.txt")])
            ...     engine.as_tool().metadata.name
            'healthcare'
        """
        self._parts.check_open(AnswerError, "ask")
        own = name or self._parts.preset.name.replace("-", "_")
        return QueryEngineTool.from_defaults(self, name=own, description=description or describe(self._parts))

    def as_chat_engine(self, **options: Any) -> PresetChatEngine:
        """A conversation with memory over this engine; options as of `PresetChatEngine`."""
        return PresetChatEngine(self._parts, **options)

    # -- ingest ---------------------------------------------------------------------------------------------------

    def ingest(
        self,
        data: Any,
        *,
        text_column: str | Sequence[str] | None = None,
        id_column: str | None = None,
        template: str | None = None,
        metadata_columns: Sequence[str] | None = None,
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
            data: A path or several, URLs of files (``s3://…``), a `DocumentSource`, `Document`s, nodes, or a frame:
                Polars, pandas, an Arrow table or a DuckDB relation.
            text_column: Column of a frame with the text, or several, which are joined by line breaks.
            id_column: Column of a frame with a unique id; a row without one is left out, as are rows that share one and
                differ. None makes an id of a row's content.
            template: Text of a row of a frame, with its columns in braces: ``"{title}\\n{body}"``; in the place of
                `text_column`.
            metadata_columns: Columns of a frame that become metadata; None takes all others.
            sync: Whether documents that vanished from the given folders, URLs and sources are removed; never those of
                another tenant.
            show_progress: Whether to draw a bar; None draws one where standard error is a terminal.
            max_cost_usd: Count first, and refuse to begin when embedding would cost more than this, in US dollars.
            wait: Whether to wait when another process ingests into the same storage.
            metadata: Put on every document, to filter on; it wins over what a document says of itself. It is part of
                what makes a document unchanged: give the same each time.
            folder_key: Metadata key that takes the name of the folder that holds a file: the one directly below the
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
        self._parts.check_open(IngestError, "ingest")
        options = IngestOptions(
            columns=FrameColumns(
                text=text_column, template=template, id=id_column, metadata=metadata_columns
            ),
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
        return ingest(self._parts, data, options)

    def estimate(
        self,
        data: Any,
        *,
        text_column: str | Sequence[str] | None = None,
        id_column: str | None = None,
        template: str | None = None,
        metadata_columns: Sequence[str] | None = None,
        sample: int | None = None,
        show_progress: bool | None = None,
    ) -> Estimate:
        """Estimate an `ingest`: documents, chunks, tokens, dollars, minutes, disk. Nothing is sent or stored.

        Args:
            data: As for `ingest`.
            text_column: As for `ingest`.
            id_column: As for `ingest`.
            template: As for `ingest`.
            metadata_columns: As for `ingest`.
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
        self._parts.check_open(IngestError, "ingest")
        columns = FrameColumns(text=text_column, template=template, id=id_column, metadata=metadata_columns)
        options = IngestOptions(columns=columns, show_progress=show_progress)
        return estimate(self._parts, data, options, sample=sample)

    def documents(self) -> list[DocumentInfo]:
        """Documents of the index that this engine may see, in the order of their ids.

        An engine with filters, such as that of a tenant, lists those with a passage that satisfies them.

        Raises:
            IngestError: The engine is closed.
            StoreError: The engine has filters, and the store cannot list its nodes.
        """
        self._parts.check_open(IngestError, "list documents")
        return documents(self._parts)

    def document_text(self, doc_id: str) -> str:
        """Text of a document as the index holds it, passage by passage; empty where this engine sees none of it.

        Raises:
            IngestError: The engine is closed.
            StoreError: The store cannot list its nodes.
        """
        self._parts.check_open(IngestError, "read documents")
        return document_text(self._parts, doc_id)

    def document_nodes(self, doc_id: str) -> list[BaseNode]:
        """Nodes of a document that this engine sees, in reading order.

        Raises:
            IngestError: The engine is closed.
            StoreError: The store cannot list its nodes.
        """
        self._parts.check_open(IngestError, "read documents")
        return document_nodes(self._parts, doc_id)

    def citation_page(self, query_id: str, n: int) -> CitationPage:
        """The document that an answer cited, with the words marked, as one HTML file; also for past answers.

        Args:
            query_id: Of the answer (``metadata["query_id"]``), or its beginning.
            n: Number of the citation.

        Raises:
            AnswerError: The engine is closed, the citation is not kept, or its chunk is gone or not visible here.

        Example:
            >>> import tempfile
            >>> from llama_index.core import Document
            >>> from llama_index_presets import build
            >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
            ...     _ = engine.ingest([Document(text="Botulism is treated with an antitoxin. It is rare.")])
            ...     response = engine.query("How is botulism treated?")
            ...     engine.citation_page(response.metadata["query_id"], 1).quotes
            ('Botulism is treated with an antitoxin.',)
        """
        self._parts.check_open(AnswerError, "show citations")
        return citation_page(self._parts, query_id, n)

    def feedback(self, query_id: str, *, up: bool) -> None:
        """Keep what the reader of an answer found; the last word counts. `llama-presets costs --markdown` sums it up.

        Args:
            query_id: Of the answer (``metadata["query_id"]``), which this engine, or one of the same tenant and user,
                gave.
            up: Whether the answer was good.

        Raises:
            AnswerError: The engine is closed, or no such answer of this tenant and user is kept.
        """
        self._parts.check_open(AnswerError, "rate answers")
        rate(self._parts.storage.folder, query_id, owner=self._parts.owner(), up=up)

    def delete(self, doc_ids: Sequence[str], *, wait: bool = True) -> int:
        """Remove documents from the index; their text leaves the disk with `compact`.

        Args:
            doc_ids: Ids as `documents` gives them; unknown ones, and those of another tenant, are left alone.
            wait: Whether to wait while an ingest into the same storage runs.

        Returns:
            How many were removed.

        Raises:
            IngestError: The engine is closed.
            StoreLockedError: An ingest runs, and `wait` is False.
        """
        self._parts.check_open(IngestError, "delete")
        return delete(self._parts, doc_ids, wait=wait)

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
        self._parts.check_process()
        with ingest_lock(self._parts.storage.lock):
            self._parts.check_open(IngestError, "ingest")
        return compact(self._parts)

    # -- query ----------------------------------------------------------------------------------------------------

    def query(self, str_or_query_bundle: QueryType) -> RESPONSE_TYPE:
        """Answer a question from the index.

        Args:
            str_or_query_bundle: The question; in an index of text and images, also a ``QueryBundle`` with an
                ``image_path``, with or without a text.

        Returns:
            A `Response`: the text, ``source_nodes``, and ``metadata`` with ``citations``, ``known``, ``confidence``
            (probability that the passages hold the answer), ``query_id``,
            ``cost_usd`` (None when a price is unknown or the ledger cannot be written), ``latency_ms`` and
            ``finish_reason`` (``"length"`` when the model's output limit cut the answer off, ``"content_filter"`` when
            it was held back, None when the model does not say); with ``numbers`` where figures are verified, and
            ``degraded`` where a service was down and the settings say ``on_outage="answer"``.

        Raises:
            AnswerError: The question is empty or too long.
        """
        return run(self._ask(str_or_query_bundle).respond())

    async def aquery(self, str_or_query_bundle: QueryType) -> RESPONSE_TYPE:
        """`query`, without blocking the event loop."""
        return await arun(self._ask(str_or_query_bundle).respond())

    def stream(self, str_or_query_bundle: QueryType) -> CitedStream:
        """Answer piece by piece; ``metadata`` is complete when the pieces are used up."""
        return self._ask(str_or_query_bundle).stream()

    async def astream(self, str_or_query_bundle: QueryType) -> AsyncCitedStream:
        """`stream`, without blocking the event loop."""
        return await self._ask(str_or_query_bundle).astream()

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Find the passages for an answer, best first.

        Raises:
            AnswerError: The engine is closed.
        """
        self._parts.check_open(AnswerError, "ask")
        return run(search(self._parts, query_bundle))

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """`retrieve`, without blocking the event loop."""
        self._parts.check_open(AnswerError, "ask")
        return await arun(search(self._parts, query_bundle))

    def _ask(self, question: QueryType) -> QueryRun:
        return QueryRun.of(self._parts, question, self.callback_manager)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return self.query(query_bundle)

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return await self.aquery(query_bundle)

    # -- prompts --------------------------------------------------------------------------------------------------

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"response_synthesizer": self.synthesizer}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Refuse a key that no prompt has; the synthesizer takes the others."""
        refuse_unknown("PresetEngine.update_prompts", prompts, self.get_prompts())

    # -- life --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write the ledger out and close the files; calling it twice is fine.

        In a fork of the process that built it, it lets go of nothing: files, servers and threads are the parent's.
        """
        self._parts.close()

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
        return f"PresetEngine(preset='{self._parts.preset.name}', storage='{self._parts.storage.shown}')"


def _built_again(
    rebuild: Callable[..., PresetEngine],
    filters: MetadataFilters | None,
    derived: dict[str, Any],
    prompts: dict[str, Any],
) -> PresetEngine:
    """Build the engine of a pickle, with the restrictions and prompts that it had."""
    engine = PresetEngine(rebuild(filters=filters)._parts.derived(**derived))
    now = engine.get_prompts()
    engine.update_prompts(
        {
            name: prompt
            for name, prompt in prompts.items()
            if prompt.get_template() != now[name].get_template()
        }
    )
    return engine
