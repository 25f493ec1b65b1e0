"""Async twins of a store whose client only blocks: each runs the sync method in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

__all__ = ["ThreadedAsync"]


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
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """See `get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)  # type: ignore[attr-defined]

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """See `query`."""
        return await asyncio.to_thread(self.query, query, **kwargs)  # type: ignore[attr-defined]
