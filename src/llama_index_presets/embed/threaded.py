"""Async methods of embeddings that compute: each runs the sync one in a thread, off the event loop."""

from __future__ import annotations

import asyncio

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding

__all__ = ["ThreadedEmbedding"]


class ThreadedEmbedding(BaseEmbedding):
    """Base of embeddings without an async client. LlamaIndex's own base would compute passages on the event loop."""

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
