"""Contents of an index: its documents as a caller sees them, their removal, and a description for agents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import MetadataFilters

from llama_index_presets.counting import counted
from llama_index_presets.errors import StoreError, StoreLockedError, StoreWriteError
from llama_index_presets.filters import filterable_metadata, predicate
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.stored_nodes import nodes_of_documents
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.ingestion.run import remove
from llama_index_presets.provenance import document_id

__all__ = [
    "DocumentInfo",
    "delete",
    "describe",
    "document_nodes",
    "document_text",
    "documents",
    "unfinished_documents",
]

_NAMED = 8  # documents in a description


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentInfo:
    """One document of an index.

    Attributes:
        id: Its id: the path of a file, or what its `Document` was given.
        chunks: How many chunks it has.
        tokens: Of all chunks, as the embedding model counts them.
        ingested_at: When it was ingested, ISO 8601, UTC.
    """

    id: str
    chunks: int
    tokens: int
    ingested_at: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def documents(parts: EngineParts) -> list[DocumentInfo]:
    """See `PresetEngine.documents`."""
    parts.check_user()
    found = [
        DocumentInfo(id=doc_id, chunks=chunks, tokens=tokens, ingested_at=at.replace(" ", "T") + "Z")
        for doc_id, chunks, tokens, at in parts.manifest.entries()
    ]
    if parts.filters is None:
        return found
    visible = _visible(parts)
    return [document for document in found if document.id in visible]


def unfinished_documents(parts: EngineParts) -> list[str]:
    """See `PresetEngine.unfinished_documents`."""
    parts.check_user()
    if parts.filters is not None:
        return []
    found = parts.manifest.unfinished()
    try:
        if found:
            with ingest_lock(parts.storage.lock, wait=False):
                found = parts.manifest.unfinished()  # an ingest may just have come to its end
    except StoreLockedError:  # it is under way
        return []
    except StoreWriteError:  # a storage that is only read
        pass
    return found


def _visible(parts: EngineParts) -> set[str]:
    """Ids of documents with a node that satisfies the engine's filters: asked of the store, which decides alike for
    every question."""
    return {document_id(node) for node in _nodes(parts, parts.filters)}


def _nodes(parts: EngineParts, filters: MetadataFilters | None) -> list[BaseNode]:
    with _listing(parts):
        return parts.visible(parts.vector_store.get_nodes(filters=filters))


@contextmanager
def _listing(parts: EngineParts) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        raise StoreError(
            f"{type(parts.vector_store).__name__} cannot list its nodes, so what this engine's filters let through is "
            "not known. Use one of this package's stores."
        ) from error


def document_text(parts: EngineParts, doc_id: str) -> str:
    """See `PresetEngine.document_text`."""
    return "\n\n".join(node.get_content(MetadataMode.NONE) for node in document_nodes(parts, doc_id))


def document_nodes(parts: EngineParts, doc_id: str) -> list[BaseNode]:
    """See `PresetEngine.document_nodes`."""
    own = parts.filters
    with _listing(parts):
        nodes = parts.visible(nodes_of_documents(parts.vector_store, [doc_id]))
    if own is not None:
        test = predicate(own)
        nodes = [node for node in nodes if test(filterable_metadata(node))]
    return sorted(nodes, key=lambda node: (_number(node, "page"), _number(node, "char_start")))


def _number(node: BaseNode, key: str) -> float:
    value = node.metadata.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def delete(parts: EngineParts, doc_ids: Sequence[str], *, wait: bool = True) -> int:
    """See `PresetEngine.delete`; what the engine does not see, it does not delete."""
    parts.check_user()
    wanted = [doc_ids] if isinstance(doc_ids, str) else list(doc_ids)
    if parts.filters is not None:
        visible = _visible(parts)
        wanted = [doc_id for doc_id in wanted if doc_id in visible]
    return remove(parts, wanted, wait=wait)


def describe(parts: EngineParts) -> str:
    """Description of an index for an agent that chooses among tools."""
    found = documents(parts)
    names = list(dict.fromkeys(PurePath(document.id).name or document.id for document in found))
    shown = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    holds = counted(len(found), "document") + (f" ({shown})" if names else "")
    return (
        f"Answers questions from {holds}: {parts.preset.use_case}. Takes one complete question; gives "
        "an answer whose numbers in brackets cite the passages, or says that it does not know."
    )
