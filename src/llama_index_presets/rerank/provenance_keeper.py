"""Provenance of any reranker's hits: the retrieval score stays beside the new one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from llama_index_presets._options import strict
from llama_index_presets.errors import RerankError
from llama_index_presets.rerank.cross_encoder import reranked_hit

__all__ = ["KeepsRetrievalScores"]

_PAUSE_S: Final = 0.5
_LONGEST: Final = 300
"""Characters of an error that are passed on."""


@strict()
class KeepsRetrievalScores(BaseNodePostprocessor):
    """Node postprocessor around another one, which gives hits with a new score and forgets the old one.

    Answers need the retrieval score: it says whether a passage is evidence at all. As after `CrossEncoderRerank`, hits
    are `RankedNode`s whose ``stages["retrieval"]`` and ``stages["rerank"]`` keep both.

    Args:
        inner: The reranker.
        attempts: How often it is asked where its replies cannot be read, >= 1; a hosted one may answer the next time.
    """

    _inner: BaseNodePostprocessor = PrivateAttr()
    _attempts: int = PrivateAttr()

    def __init__(self, inner: BaseNodePostprocessor, *, attempts: int = 1) -> None:
        super().__init__()
        self._inner = inner
        self._attempts = attempts

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "KeepsRetrievalScores"

    @property
    def inner(self) -> BaseNodePostprocessor:
        """The reranker."""
        return self._inner

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        attempt = 0
        while nodes:
            attempt += 1
            try:
                reranked = self._inner.postprocess_nodes(_copies(nodes), query_bundle=query_bundle)
                return self._placed(nodes, reranked)
            except Exception as error:
                self._judge(error, attempt)
            time.sleep(_PAUSE_S)
        return []

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        attempt = 0
        while nodes:
            attempt += 1
            try:
                reranked = await self._inner.apostprocess_nodes(_copies(nodes), query_bundle=query_bundle)
                return self._placed(nodes, reranked)
            except Exception as error:
                self._judge(error, attempt)
            await asyncio.sleep(_PAUSE_S)
        return []

    def _judge(self, error: Exception, attempt: int) -> None:
        """Let another attempt be made where a reply lacks what the reranker's class takes unseen, such as ``results``.

        Raises:
            RerankError: It was the last one; names the reranker.
        """
        unread = isinstance(error, (TypeError, IndexError, KeyError, AttributeError, _NoResults))
        if not unread and getattr(error, "status_code", None) != 200:  # a page of a gateway
            raise error
        if attempt < self._attempts:
            return
        named = getattr(self._inner, "model", None) or type(self._inner).__name__
        # Of a page that is no reply only the kind is told: it may repeat what was sent, the key with it.
        what = type(error).__name__
        if isinstance(error, _NoResults):
            what = "it has no results"
        elif unread:
            what = f"{what}: {error}"
        raise RerankError(
            f"The reranker '{named}' gave a reply that {type(self._inner).__name__} cannot read ({what[:_LONGEST]}). "
            "Ask again; if it stays so, look at the server, or name another reranker."
        ) from error

    def _placed(self, nodes: list[NodeWithScore], reranked: list[NodeWithScore]) -> list[NodeWithScore]:
        if nodes and not reranked and self._attempts > 1:
            raise _NoResults
        return _placed(nodes, reranked)


class _NoResults(Exception):
    """A hosted reranker gave none of the passages back."""


def _copies(nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
    """Hits of their own, since many rerankers write their score into those that they are given."""
    return [hit.model_copy() for hit in nodes]


def _placed(before: Sequence[NodeWithScore], after: Sequence[NodeWithScore]) -> list[NodeWithScore]:
    """Hits in their new order, each with its place in both."""
    places = {hit.node.node_id: (number, hit) for number, hit in enumerate(before, start=1)}
    found: list[NodeWithScore] = []
    for number, hit in enumerate(after, start=1):
        old, original = places.get(hit.node.node_id, (number, hit))
        found.append(reranked_hit(original, before=old, after=number, score=hit.score, p=hit.score))
    return found
