"""Provenance of any reranker's hits: the retrieval score stays beside the new one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from llama_index_presets._options import strict
from llama_index_presets.errors import RerankError
from llama_index_presets.rerank.cross_encoder import reranked_hit

__all__ = ["KeepsRetrievalScores"]


@strict()
class KeepsRetrievalScores(BaseNodePostprocessor):
    """Node postprocessor around another one, which gives hits with a new score and forgets the old one.

    Answers need the retrieval score: it says whether a passage is evidence at all. As after `CrossEncoderRerank`, hits
    are `RankedNode`s whose ``stages["retrieval"]`` and ``stages["rerank"]`` keep both.

    Args:
        inner: The reranker.
    """

    _inner: BaseNodePostprocessor = PrivateAttr()

    def __init__(self, inner: BaseNodePostprocessor) -> None:
        super().__init__()
        self._inner = inner

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
        with self._replies_understood():
            reranked = self._inner.postprocess_nodes(_copies(nodes), query_bundle=query_bundle)
        return _placed(nodes, reranked)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._replies_understood():
            reranked = await self._inner.apostprocess_nodes(_copies(nodes), query_bundle=query_bundle)
        return _placed(nodes, reranked)

    @contextmanager
    def _replies_understood(self) -> Iterator[None]:
        """Name the reranker where a reply lacks what its class takes unseen, such as ``results``.

        Raises:
            RerankError: The reply has no results, or results of other passages.
        """
        try:
            yield
        except (TypeError, IndexError, KeyError, AttributeError) as error:
            named = getattr(self._inner, "model", None) or type(self._inner).__name__
            raise RerankError(
                f"The reranker '{named}' gave a reply that {type(self._inner).__name__} cannot read "
                f"({type(error).__name__}: {error}). Ask again; if it stays so, look at the server, or name another "
                "reranker."
            ) from error


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
