"""Async twins of a store whose client only blocks: each runs the sync method in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from llama_index_presets.closing import close_behind

__all__ = ["Done", "ThreadedAsync"]


class Done(Coroutine[Any, Any, None]):
    """A coroutine whose work is done: it may be awaited, run, made a task, gathered, or dropped without a warning.

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
        """Raise what is thrown: there is nothing left that could catch it."""
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
