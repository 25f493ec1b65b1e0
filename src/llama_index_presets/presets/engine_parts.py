"""Parts of one engine: opened together, closed together."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import BaseNode, NodeWithScore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, FilterCondition, MetadataFilters

from llama_index_presets.answer.cache.store import AnswerCache
from llama_index_presets.answer.synthesize import CitedSynthesizer
from llama_index_presets.concurrency.forks import ADVICE
from llama_index_presets.errors import (
    AnswerError,
    MonitorError,
    PermissionsError,
    PresetsError,
    StoreUnavailableError,
)
from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.monitor.handler import CostTrackingHandler
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.quality import owner_of
from llama_index_presets.presets.checks.parts import check_filters
from llama_index_presets.presets.components.monitoring import AuditTrail
from llama_index_presets.presets.components.retrieval import RetrievalPattern
from llama_index_presets.presets.index.access import Access, StoragePermissions
from llama_index_presets.presets.index.encryption import Encryption
from llama_index_presets.presets.index.storage import Storage
from llama_index_presets.presets.matrix import COLUMNS, Preset
from llama_index_presets.presets.models import explain_runtime
from llama_index_presets.presets.project.settings_sources import Origins
from llama_index_presets.presets.settings import Settings
from llama_index_presets.provenance import document_id
from llama_index_presets.values import Fingerprint

if TYPE_CHECKING:
    from llama_index_presets.retrieve.language_fallback import LanguageFallback

__all__ = ["EngineParts", "cost_of"]

_log = logging.getLogger(__name__)


def cost_of(ledger: Ledger, run_id: str) -> Decimal | None:
    """What a run has cost so far, in US dollars; None when a price is unknown, or when the ledger cannot be written.

    The latter is logged: an answer, or an index, is not lost over its bookkeeping.
    """
    try:
        return ledger.query_cost(run_id)
    except (MonitorError, OSError) as error:
        _log.error("What run %s cost is not known: %s", run_id, error)
        return None


@dataclass(slots=True)
class _Life:
    """Shared by all engines over the same parts: the process that opened them, the manifest that they opened, whether
    they are closed, and the totals of the index at that time."""

    manifest_inode: int | None
    process: int = field(default_factory=os.getpid)
    closed: bool = False
    totals: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """Parts of one engine.

    Attributes:
        preset: The row, with `offline` applied.
        storage: The folder.
        settings: Effective settings.
        origins: Where each came from.
        fingerprint: What makes the vectors.
        chunker: Cuts documents.
        embed_model: Embeds chunks and questions.
        vector_store: Holds them.
        index: The same as an index.
        retrieval: The pattern.
        retriever: The one for `filters`.
        synthesizer: Writes the answer.
        manifest: What is ingested.
        ledger: What was called.
        costs: Records the calls in the ledger, and holds them to budgets.
        filters: What every hit satisfies.
        encryption: How the storage is encrypted, or None for one in clear.
        overrides: Column -> class of the part that the caller brought along.
        closers: What to call at the end, last first.
        audit: What puts questions on record, or None.
        notices: What this engine cannot do here, and how to change that.
        user: User of the application who asks, for the audit log; empty means the name that the process runs under.
        tenant: Tenant that calls are charged to, or empty.
        ingest_metadata: Metadata that every document ingested here is given.
        language_fallback: Finds documents in languages that the embedding model does not know, or None.
        answers: The answer cache, or None.
        permissions: Whether the storage has permissions.
        access: What its user may see; None for an engine without a user.
        life: Whether the parts are closed; shared by all engines over them.
        rebuild: Builds them again, with other filters; None where no `build` made them.
    """

    preset: Preset
    storage: Storage
    settings: Settings
    origins: Origins
    fingerprint: Fingerprint
    chunker: SentenceChunker
    embed_model: BaseEmbedding
    vector_store: BasePydanticVectorStore
    index: VectorStoreIndex
    retrieval: RetrievalPattern
    retriever: BaseRetriever
    synthesizer: CitedSynthesizer
    manifest: Manifest
    ledger: Ledger
    costs: CostTrackingHandler
    filters: MetadataFilters | None
    encryption: Encryption | None
    overrides: dict[str, str]
    closers: Sequence[Callable[[], object]]
    audit: AuditTrail | None = None
    notices: tuple[str, ...] = ()
    user: str = ""
    tenant: str = ""
    ingest_metadata: Mapping[str, Any] = field(default_factory=dict)
    permissions: StoragePermissions
    access: Access | None = None
    language_fallback: LanguageFallback | None = None
    answers: AnswerCache | None = None
    life: _Life = field(default_factory=lambda: _Life(manifest_inode=None))
    rebuild: Callable[..., Any] | None = field(default=None, repr=False)  # its arguments may hold keys

    def __post_init__(self) -> None:
        if self.life.manifest_inode is None:
            self.life.manifest_inode = self.storage.manifest_inode()

    @property
    def callback_manager(self) -> CallbackManager:
        """LlamaIndex's callbacks around the calls of these parts."""
        return self.embed_model.callback_manager

    def derived(self, **changes: Any) -> EngineParts:
        """These parts for a derived engine: the prompts are as they are now, and later changes are its own."""
        return replace(self, synthesizer=copy.copy(self.synthesizer), **changes)

    def restricted(self, filters: MetadataFilters, **changes: Any) -> EngineParts:
        """The same parts behind more filters; those that hold already cannot be dropped.

        Raises:
            SettingsError: It is something else than `MetadataFilters`.
        """
        check_filters(filters)
        both = (
            filters
            if self.filters is None
            else MetadataFilters(filters=[self.filters, filters], condition=FilterCondition.AND)
        )
        return self.derived(filters=both, retriever=self.retrieval.make_retriever(both), **changes)

    def check_user(self) -> None:
        """Refuse to show anything of a storage with permissions without a user.

        Raises:
            PermissionsError: The engine has no user.
        """
        if self.access is None and self.permissions.on():
            raise PermissionsError(
                f"'{self.storage.shown}' has permissions, and this engine has no user: nothing of it is shown. Ask "
                "through engine.as_user(user=..., groups=...), or as_user(user=..., everything=True) to see everything."
            )

    def check_sees_all(self, part: str) -> None:
        """Refuse to hand out a part that keeps no permissions.

        Raises:
            PermissionsError: The storage has permissions, and the engine is not one that sees everything.
        """
        if self.permissions.on() and not (self.access is not None and self.access.everything):
            raise PermissionsError(
                f"engine.{part} keeps no permissions, and '{self.storage.shown}' has them. Ask through the engine of "
                "as_user(...), or take this part from as_user(user=..., everything=True)."
            )

    def visible(self, nodes: Sequence[BaseNode]) -> list[BaseNode]:
        """Those of these nodes that the user may see: the last word, whatever store or postprocessor gave them.

        Raises:
            PermissionsError: The engine has no user, and the storage has permissions.
        """
        self.check_user()
        if self.access is None or self.access.everything:
            return list(nodes)
        pending = self.manifest.pending_permissions()
        return [
            node for node in nodes if self.access.sees(node.metadata) and document_id(node) not in pending
        ]

    def visible_hits(self, hits: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        """Those of these hits that the user may see; see `visible`."""
        if self.access is None or self.access.everything:
            self.check_user()
            return list(hits)
        seen = {id(node) for node in self.visible([hit.node for hit in hits])}
        return [hit for hit in hits if id(hit.node) in seen]

    def own_hits(self, hits: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        """Those of hits from elsewhere that are of this engine's tenant, and that the user may see."""
        own = self.ingest_metadata.items()
        return self.visible_hits([hit for hit in hits if own <= hit.node.metadata.items()])

    def owner(self) -> str:
        """Whose questions are asked here: only they may say what an answer was worth."""
        return owner_of(self.tenant, self.user, None if self.access is None else list(self.access.names))

    def billed(self, query_id: str) -> AbstractContextManager[Any]:
        """Charge the calls made inside to this engine's ledger, preset and tenant."""
        return attributed(
            ledger=self.ledger, preset=self.preset.name, query_id=query_id, tenant=self.tenant or None
        )

    def explain(self) -> dict[str, Any]:
        """Cells, settings and where they came from, as JSON values."""
        swapped = dict(self.preset.swapped)
        documents, chunks = self._totals() if self.access is None or self.access.everything else (None, None)
        return {
            "preset": self.preset.name,
            "use_case": self.preset.use_case,
            "why": self.preset.why,
            "cells": {column: self.overrides.get(column, getattr(self.preset, column)) for column in COLUMNS},
            "swapped_for_offline": swapped,
            "notices": list(self.notices),
            "given_by_hand": dict(self.overrides),
            "storage": self.storage.shown,
            "state": str(self.storage.folder),
            "fingerprint": str(self.fingerprint),
            "documents": documents,
            "chunks": chunks,
            "settings": {
                name: {"value": value, "from": self.origins[name]}
                for name, value in self.settings.to_dict().items()
            },
            "effective": {
                "chunk_tokens": self.chunker.max_tokens,
                "answer_floor": self.synthesizer.floor,
                "cross_floor": self.synthesizer.cross_floor,
                "encryption": self._encryption(),
                "permissions": "on" if self.permissions.on() else "off",
                "embedding": explain_runtime(self.embed_model),
            },
            "fusion": fused() if (fused := getattr(self.retriever, "explain", None)) else None,
        }

    def _encryption(self) -> str:
        if self.encryption is None:
            return "off" if self.settings.encryption == "off" else "off: no key was found"
        return f"AES-256-GCM, key '{self.encryption.sealer.key_id}' from {self.encryption.source}"

    @property
    def closed(self) -> bool:
        """Whether `close` was called, by any of the engines that share the parts."""
        return self.life.closed

    def check_process(self) -> None:
        """Refuse to be used in a fork of the process that opened the parts.

        Raises:
            AnswerError: This is another process.
        """
        if self.life.process != os.getpid():
            raise AnswerError(
                f"The engine was built in process {self.life.process} and is used in its fork {os.getpid()}, where its "
                f"threads are missing and its files and connections are shared. {ADVICE}"
            )

    def check_open(self, error: type[PresetsError], purpose: str) -> None:
        """Refuse to be used in a fork, or when closed.

        Args:
            error: What is raised for closed parts.
            purpose: A verb, for the message.

        Raises:
            PresetsError: `error`, or an `AnswerError` in a fork.
            StoreError: The storage was deleted, moved or replaced under the engine.
        """
        self.check_process()
        if self.closed:
            raise error(f"The engine is closed. Build it again to {purpose} more.")
        self.check_storage()

    def check_storage(self) -> None:
        """Refuse to go on over a storage that is gone: open files would be read on, and written to, into nowhere.

        Raises:
            StoreError: It was deleted or moved, or another one is in its place.
        """
        now = self.storage.manifest_inode()
        if now == self.life.manifest_inode:
            return
        what = "was deleted or moved" if now is None else "was replaced by another one"
        raise StoreUnavailableError(
            f"The storage folder '{self.storage.folder}' {what} while this engine has it open; nothing is read from it "
            f"or written to it. {'Put it back, or build' if now is None else 'Build'} the engine again (a server: "
            "SIGHUP or a restart)."
        )

    def check_ready(self) -> None:
        """Refuse when the engine cannot find anything now; no model is asked.

        Raises:
            AnswerError: It is closed.
            StoreError: The storage is gone, or the database of the vectors cannot be reached.
        """
        self.check_open(AnswerError, "ask")
        check = getattr(self.vector_store, "check_ready", None)  # a store of the caller's may have none
        if check is not None:
            check()

    def _totals(self) -> tuple[int | None, int | None]:
        """Documents and chunks; of a closed engine, those at its end, or None where the manifest could not be read."""
        return self.life.totals if self.closed else self.manifest.totals()

    def close(self) -> None:
        """Close everything, last opened first; one failure does not keep the rest open.

        In a fork of the process that opened the parts, nothing: files, servers and threads are the parent's.
        """
        if self.closed or self.life.process != os.getpid():
            return
        with contextlib.suppress(PresetsError, sqlite3.Error):
            self.life.totals = self.manifest.totals()
        self.life.closed = True
        errors = []
        for closer in reversed(self.closers):
            try:
                closer()
            except Exception as error:  # each must get its turn; the first is raised below
                errors.append(error)
        if errors:
            raise errors[0]
