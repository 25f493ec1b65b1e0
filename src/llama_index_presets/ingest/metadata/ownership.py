"""Ownership of documents: which ones a run may replace or delete in an index shared by tenants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.metadata.overrides import MetadataOverrides
from llama_index_presets.ingest.pipeline import is_unchanged
from llama_index_presets.ingest.sources.source import Source
from llama_index_presets.ingest.stored_nodes import batches, nodes_of_documents, stored_nodes
from llama_index_presets.provenance import document_id

__all__ = ["TENANT_KEY", "Ownership"]

TENANT_KEY = "tenant"
"""Metadata key that names a tenant wherever it is put on a document; `for_tenant` can be given others."""

_TAKEN = (
    "The index holds a document of this id that is another tenant's, or the shared index's; it was kept. Give this one "
    "an id of its own, or ingest it through the engine that it belongs to."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Ownership rule: a run never replaces or removes what belongs to another tenant.

    A document belongs to the tenant that was put on it when it was ingested: by the engine (`for_tenant`), by
    ``metadata=`` or by ``folder_key=``, never by what it says of itself. Only a run that puts the same tenant on it may
    replace or remove it. A document without an owner may be changed by the shared engine, and by a tenant only
    where all of its stored nodes are that tenant's. Where the manifest cannot say whose a document is, since an earlier
    release wrote it or it was lost, the shared engine leaves alone what is stored under the key `TENANT_KEY` of another
    tenant than the document itself names.

    Attributes:
        owners: See `Manifest.owners`.
        store: Asked for documents without a recorded owner, and for ready nodes.
        overrides: What this run puts on documents.
        tenant: What the engine's tenant puts on them; empty for the shared engine.
        complete: Whether the manifest knows every node of the store; it does not after another machine wrote there, or
            when it was lost. New documents are then looked up in the store.
    """

    owners: Mapping[str, Mapping[str, Any]]
    store: BasePydanticVectorStore
    overrides: MetadataOverrides
    tenant: Mapping[str, Any]
    complete: bool = True

    def over(self, sources: Sequence[Source], known: Mapping[str, str]) -> list[Source]:
        """The same documents, with their owner; those that would overwrite another tenant's are refused.

        Args:
            sources: What is to be ingested.
            known: See `Manifest.hashes`.
        """
        changed = [source for source in sources if not is_unchanged(source, known) and not source.refusal]
        replaced = [source.doc_id for source in changed if source.doc_id in known]
        new = [] if self.complete else [source.doc_id for source in changed if source.doc_id not in known]
        others = {doc_id for doc_id, mine in self._views(new).items() if not mine}
        others |= set(replaced) - self.may_change(replaced)
        others -= self._own_words([source for source in changed if source.doc_id in others])
        refusals = dict.fromkeys(others, _TAKEN)
        refusals |= self._taken_nodes([source for source in changed if source.node_ids])
        return [
            source.refused(why) if (why := refusals.get(source.doc_id)) else self._owned(source)
            for source in sources
        ]

    def may_change(self, doc_ids: Iterable[str]) -> set[str]:
        """Those of these documents that the run may replace or remove."""
        same_owner = [
            doc_id
            for doc_id in doc_ids
            if self.owners.get(doc_id, {}).items() <= self.overrides.of(doc_id).items()
        ]
        recorded = {
            doc_id
            for doc_id in same_owner
            if doc_id in self.owners and self.tenant.items() <= self.owners[doc_id].items()
        }
        views = self._views([doc_id for doc_id in same_owner if doc_id not in recorded])
        return recorded | {doc_id for doc_id, mine in views.items() if mine}

    def within(self, vanished: Callable[[str], bool] | None) -> Callable[[str], bool] | None:
        """Vanished documents that the run may remove; None where it removes none."""
        if vanished is None:
            return None
        return lambda doc_id: vanished(doc_id) and bool(self.may_change([doc_id]))

    def _owned(self, source: Source) -> Source:
        put = self.overrides.of(source.doc_id)
        keys = {TENANT_KEY, *self.tenant, *self.owners.get(source.doc_id, ())}
        owner = {key: put[key] for key in sorted(keys) if put.get(key) is not None}
        return replace(source, owner=owner) if owner else source

    def _views(self, doc_ids: Sequence[str]) -> dict[str, bool]:
        """For stored documents, whether all their nodes are the run's; empty where the store cannot tell."""
        views: dict[str, bool] = {}
        for some in batches(doc_ids):
            for node in self._nodes_of(some):
                doc_id = document_id(node)
                views[doc_id] = views.get(doc_id, True) and self._is_mine(doc_id, node)
        return views

    def _is_mine(self, doc_id: str, node: BaseNode) -> bool:
        if self.tenant:
            return self.tenant.items() <= node.metadata.items()
        return node.metadata.get(TENANT_KEY) in (None, self.overrides.of(doc_id).get(TENANT_KEY))

    def _own_words(self, sources: Sequence[Source]) -> set[str]:
        """Of documents without a recorded owner, those that name the stored tenant themselves: the shared engine's."""
        unsure = [source for source in sources if not self.tenant and source.doc_id not in self.owners]
        stored: dict[str, set[Any]] = {}
        for some in batches(source.doc_id for source in unsure):
            for node in self._nodes_of(some):
                stored.setdefault(document_id(node), set()).add(node.metadata.get(TENANT_KEY))
        return {source.doc_id for source in unsure if stored.get(source.doc_id) == {_named_tenant(source)}}

    def _nodes_of(self, doc_ids: list[str]) -> list[BaseNode]:
        try:
            return nodes_of_documents(self.store, doc_ids)
        except NotImplementedError:
            return []  # see `stored_nodes`

    def _taken_nodes(self, sources: Sequence[Source]) -> dict[str, str]:
        """Documents whose ready nodes have the id of a node that is stored in another document, and why."""
        document = {node_id: source.doc_id for source in sources for node_id in source.node_ids}
        taken: dict[str, str] = {}
        for some in batches(document):
            for node in stored_nodes(self.store, some):
                if (doc_id := document.get(node.node_id)) not in (None, document_id(node)):
                    taken[doc_id] = (
                        f"The index holds its node '{node.node_id}' in another document, which would lose it. Give the "
                        "node an id of its own."
                    )
        return taken


def _named_tenant(source: Source) -> Any:
    """The tenant that a document names of itself; None where it names none or cannot be read."""
    try:
        content = source.read()
    except Exception:  # the ingest reads it again, and reports what is wrong
        return None
    return content.metadata.get(TENANT_KEY) if isinstance(content, SourceText) else None
