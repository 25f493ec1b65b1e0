"""Preset engine: a LlamaIndex query engine that also ingests, explains itself and reports its cost."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.llms.llm import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType
from llama_index.core.tools import QueryEngineTool
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilter, MetadataFilters

from llama_index_presets._options import refuse_unknown, strict
from llama_index_presets.answer.response import AsyncCitedStream, CitedStream
from llama_index_presets.answer.synthesize import CitedSynthesizer
from llama_index_presets.concurrency.closing import close_behind
from llama_index_presets.concurrency.sync_async import arun, run
from llama_index_presets.errors import AnswerError, SettingsError, StoreError
from llama_index_presets.monitor.attribution import Attribution, attributed
from llama_index_presets.monitor.budgets import Budget
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.quality import rate
from llama_index_presets.presets.engine_documents import EngineDocuments
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.index.access import VisibleRetriever, narrowed_access
from llama_index_presets.presets.index.contents import describe
from llama_index_presets.presets.query.chat import PresetChatEngine
from llama_index_presets.presets.query.query_run import QueryRun, search
from llama_index_presets.presets.settings import Settings

__all__ = ["PresetEngine"]


@strict()
class PresetEngine(EngineDocuments, BaseQueryEngine):
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

    def for_user(self, user: str) -> PresetEngine:
        """This engine for a user of the application, who is named in the audit log of a preset that has one.

        The new engine shares all parts with this one, as that of `with_filters` does.
        """
        return PresetEngine(self._parts.derived(user=user))

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
        if not tenant or not isinstance(tenant, str) or not tenant.strip():
            raise SettingsError(
                f"The tenant is {'empty' if not tenant else repr(tenant)}; an engine without one is the shared engine "
                "itself. Give its name."
            )
        only = MetadataFilters(filters=[MetadataFilter(key=key, value=tenant)])
        metadata = {**self._parts.ingest_metadata, key: tenant}
        return PresetEngine(self._parts.restricted(only, tenant=tenant, ingest_metadata=metadata))

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

    def retrieve(self, query_bundle: QueryType) -> list[NodeWithScore]:
        """Find the passages for an answer, best first; a question may be a string, as for LlamaIndex's own engines.

        Raises:
            AnswerError: The engine is closed.
        """
        self._parts.check_open(AnswerError, "ask")
        return run(search(self._parts, query_bundle))

    async def aretrieve(self, query_bundle: QueryType) -> list[NodeWithScore]:
        """`retrieve`, without blocking the event loop."""
        self._parts.check_open(AnswerError, "ask")
        return await arun(search(self._parts, query_bundle))

    def synthesize(
        self,
        query_bundle: QueryType,
        nodes: Sequence[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Answer from hits of `retrieve` that the caller has chosen from; billed and recorded as a `query`.

        Args:
            query_bundle: The question.
            nodes: The hits, best first. Those of another tenant, and those that the engine's user may not see, are left
                out.
            additional_source_nodes: Added to the ``source_nodes`` of the response in the same way; the model is not
                shown them.

        Raises:
            AnswerError: The question is empty or too long, or the engine is closed.
            WrongTypeError: These are no hits.
        """
        return run(self._ask(query_bundle).over(nodes, additional_source_nodes).respond())

    async def asynthesize(
        self,
        query_bundle: QueryType,
        nodes: Sequence[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """`synthesize`, without blocking the event loop."""
        return await arun(self._ask(query_bundle).over(nodes, additional_source_nodes).respond())

    def check_ready(self) -> None:
        """Refuse when nothing can be found now, because the storage is gone or its database away; no model is asked.

        An embedded Postgres server that has died is started again. ``/readyz`` of a server asks this.

        Raises:
            AnswerError: The engine is closed.
            StoreError: Says what is the matter, and what to do.

        Example:
            >>> import tempfile
            >>> from llama_index_presets import build
            >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
            ...     engine.check_ready()
        """
        self._parts.check_ready()

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
