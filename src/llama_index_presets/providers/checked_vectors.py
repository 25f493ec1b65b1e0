"""Replies of hosted embedding models that say success and have no vectors: an error that is tried again.

The classes of LlamaIndex take the vectors of a reply unseen: a gateway's page ends in an AttributeError, and a reply
without vectors is an empty list, so that the texts of an ingest have none. OpenAI's class is `embed.openai`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

from llama_index_presets.embed.vectors import missing_vectors
from llama_index_presets.monitor.retry import status_of

__all__ = ["AwaitsBatches", "ChecksVectors"]

_UNREADABLE: Final = frozenset(
    {
        # what the SDKs raise for a body that they cannot read
        "JSONDecodeError", "ValidationError", "ResponseValidationError", "SDKError", "ApiError", "ParsingError",
        "UnknownApiResponseError", "ResponseParserError", "ResponseError", "APIError",
        # what they and the classes of LlamaIndex run into
        "AttributeError", "IndexError", "KeyError", "TypeError", "ValueError",
    }
)  # fmt: skip
_ADDRESSES: Final = ("azure_endpoint", "api_base", "base_url")


class ChecksVectors:
    """Mix-in before a hosted embedding model of LlamaIndex: its replies have a vector for each text, or raise."""

    def _get_query_embedding(self, query: str) -> list[float]:
        with self._replies(1):
            vector = super()._get_query_embedding(query)  # type: ignore[misc]
        return self._complete([vector], 1)[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        with self._replies(1):
            vector = super()._get_text_embedding(text)  # type: ignore[misc]
        return self._complete([vector], 1)[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        with self._replies(len(texts)):
            vectors = super()._get_text_embeddings(texts)  # type: ignore[misc]
        return self._complete(vectors, len(texts))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        with self._replies(1):
            vector = await super()._aget_query_embedding(query)  # type: ignore[misc]
        return self._complete([vector], 1)[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        with self._replies(1):
            vector = await super()._aget_text_embedding(text)  # type: ignore[misc]
        return self._complete([vector], 1)[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        with self._replies(len(texts)):
            vectors = await super()._aget_text_embeddings(texts)  # type: ignore[misc]
        return self._complete(vectors, len(texts))

    @contextmanager
    def _replies(self, count: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            unread = status_of(error) in (None, -1, 200) and type(error).__name__ in _UNREADABLE
            if not unread:
                raise
            raise self._missing((), count) from error

    def _complete(self, vectors: list[list[float]], count: int) -> list[list[float]]:
        whole = [vector for vector in vectors or () if vector is not None and len(vector)]
        if len(whole) != count or len(vectors) != count:
            raise self._missing(whole, count)
        return vectors

    def _missing(self, whole: Sequence[Any], count: int) -> Exception:
        model: Any = self
        address = next((found for name in _ADDRESSES if (found := getattr(model, name, None))), "")
        return missing_vectors(
            SimpleNamespace(data=whole), count=count, model=model.model_name, url=str(address), clean=str
        )


class AwaitsBatches:
    """Mix-in before `MistralAIEmbedding`, which awaits a call that is not async where it embeds a single text."""

    async def _aget_text_embedding(self, text: str) -> list[float]:
        vectors: list[list[float]] = await self._aget_text_embeddings([text])  # type: ignore[attr-defined]
        return vectors[0]
