"""Common base of the vector stores: reading and deleting nodes by id, by document and by filter."""

from __future__ import annotations

import asyncio
import warnings
from abc import abstractmethod
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery, VectorStoreQueryResult

from llama_index_presets._options import refuse_unknown
from llama_index_presets._utf8 import check_ids
from llama_index_presets.closing import close_behind
from llama_index_presets.errors import FingerprintError
from llama_index_presets.store.query_options import SELECTING

__all__ = ["Done", "NodeQuery", "NodeSelectionMixin", "ThreadedAsync", "agreed_fingerprint"]

# Async twins of a store whose client only blocks: each runs the sync method in a worker thread.


class Done(Coroutine[Any, Any, None]):
    """Finished coroutine: it may be awaited, run, made a task, gathered, or dropped without a warning.

    For a sync method in the place of an official ``async`` one.

    Example:
        >>> asyncio.run(Done())
    """

    def __await__(self) -> Iterator[Any]:  # type: ignore[override]  # typeshed wants a generator
        return iter(())

    def send(self, value: Any) -> Any:
        """End, with None."""
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        """Raise the exception: there is no frame left to catch it."""
        return super().throw(*error)

    def close(self) -> None:
        """Do nothing: it has ended."""


class ThreadedAsync:
    """Mix-in before a vector store class. No event loop is blocked, and none is remembered."""

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """See `add`."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)  # type: ignore[attr-defined]

    async def areplace_documents(self, ref_doc_ids: Sequence[str], nodes: Sequence[BaseNode]) -> list[str]:
        """See `replace_documents`."""
        return await asyncio.to_thread(self.replace_documents, ref_doc_ids, nodes)  # type: ignore[attr-defined]

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """See `delete`."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)  # type: ignore[attr-defined]

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """See `delete_nodes`."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)  # type: ignore[attr-defined]

    async def aclear(self) -> None:
        """See `clear`."""
        await asyncio.to_thread(self.clear)  # type: ignore[attr-defined]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **kwargs: Any
    ) -> list[BaseNode]:
        """See `get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters, **kwargs)  # type: ignore[attr-defined]

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """See `query`."""
        return await asyncio.to_thread(self.query, query, **kwargs)  # type: ignore[attr-defined]

    async def aclose(self) -> None:
        """See `close`."""
        await asyncio.to_thread(self.close)  # type: ignore[attr-defined]

    async def __aenter__(self) -> Self:
        """Give the store itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what goes wrong there never replaces the block's own error."""
        what = f"closing the {type(self).__name__}"
        await asyncio.to_thread(close_behind, self.close, error, what)  # type: ignore[attr-defined]


# One model per index: what a store says when the vectors of two would meet.


def agreed_fingerprint(stored: str | None, given: str | None, *, place: str, kind: str) -> str | None:
    """Agree on the fingerprint of an index: the first caller who knows it sets it.

    Args:
        stored: What the index remembers; None where nobody said.
        given: What the caller says; None where he does not know.
        place: The index, such as ``"Table 'chunks'"``.
        kind: What to take another one of, such as ``"table"``.

    Raises:
        FingerprintError: Both know, and differ.

    Example:
        >>> agreed_fingerprint(None, "model=a", place="Table 'chunks'", kind="table")
        'model=a'
    """
    if stored and given and stored != given:
        raise FingerprintError(
            f"{place} holds vectors of '{stored}', not of '{given}'. Use the model that made it, or another {kind}.",
            stored=stored,
            given=given,
        )
    return stored or given


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuery:
    """Selection of nodes: those that satisfy every restriction.

    Attributes:
        node_ids: Nodes with one of these ids; None for any.
        doc_ids: Nodes of one of these documents; None for any.
        filters: Nodes whose metadata these select; None, or a group without filters, for any.

    Raises:
        NodeRejectedError: An id has no UTF-8 form.
    """

    node_ids: Sequence[str] | None = None
    doc_ids: Sequence[str] | None = None
    filters: MetadataFilters | None = None

    def __post_init__(self) -> None:
        check_ids(self.node_ids, "node")
        check_ids(self.doc_ids, "document")

    @property
    def filtered(self) -> bool:
        """Whether the selection depends on metadata."""
        return self.filters is not None and bool(self.filters.filters)


class NodeSelectionMixin(ThreadedAsync):
    """Mix-in before an official vector store: say how to delete and read a `NodeQuery`, get every method.

    It also makes the store a context manager, and gives each blocking method an async twin.
    """

    @abstractmethod
    def _delete_selected(self, selection: NodeQuery) -> None:
        """Delete the nodes of a selection; an unknown id is no error."""

    @abstractmethod
    def _read_selected(self, selection: NodeQuery) -> list[BaseNode]:
        """Give the nodes of a selection with their embeddings, in any order."""

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of one document; an unknown id is no error."""
        refuse_unknown(f"{type(self).__name__}.delete", delete_kwargs, ["ref_doc_id"])
        self._delete_selected(NodeQuery(doc_ids=[ref_doc_id]))

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete the nodes that have one of the ids and match the filters.

        Called with neither, it deletes nothing and warns.
        """
        refuse_unknown(f"{type(self).__name__}.delete_nodes", delete_kwargs, SELECTING)
        selection = NodeQuery(node_ids=node_ids, filters=filters)
        if node_ids is None and not selection.filtered:
            warnings.warn(
                "delete_nodes() got neither node_ids nor filters and deleted nothing. "
                "Give it one of them, or call clear() to delete everything.",
                stacklevel=2,
            )
            return
        self._delete_selected(selection)

    def get_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> list[BaseNode]:
        """Nodes, with their embeddings, that have one of the ids and match the filters.

        Args:
            node_ids: None for any id.
            filters: None for any metadata.

        Returns:
            In the order of `node_ids` where they are given, else by id.
        """
        refuse_unknown(f"{type(self).__name__}.get_nodes", kwargs, SELECTING)
        found = {
            node.node_id: node for node in self._read_selected(NodeQuery(node_ids=node_ids, filters=filters))
        }
        wanted = sorted(found) if node_ids is None else dict.fromkeys(node_ids)
        return [found[node_id] for node_id in wanted if node_id in found]

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return cls.__name__

    def persist(self, persist_path: str = "", fs: Any = None) -> None:
        """Do nothing: what `add` wrote is kept when it returns."""

    def __enter__(self) -> Self:
        """Give the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what goes wrong there never replaces the block's own error."""
        close_behind(self.close, error, f"closing the {type(self).__name__}")  # type: ignore[attr-defined]
