"""Multi-modal retrieval from one index: a leg each for text and images, since their scores cannot be compared.

In a space that CLIP makes, two texts are closer to each other than any text is to any image (the "modality gap": Liang
et al., NeurIPS 2022, arXiv:2203.02053). One search over both would answer a text with texts alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.embeddings.multi_modal_base import MultiModalEmbedding
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from llama_index_presets._options import strict
from llama_index_presets.errors import RetrievalError
from llama_index_presets.provenance import CROSS_MODAL, VECTOR, RankedNode, StageRank

__all__ = ["MultiModalRetriever"]

_MODALITY = "modality"
"""Metadata key that says ``"image"`` of an image; every other node is a text."""

"""Stage of a hit of the other kind than the question: its cosine has another meaning than between two texts."""

_KINDS = (("image", FilterOperator.EQ), ("text", FilterOperator.NE))


@strict()
class MultiModalRetriever(BaseRetriever):
    """Retriever of images and texts for a text, an image, or both.

    Each kind is searched for by itself, and the two rankings are merged in turns, the best image first. Scores are
    cosines, and can be compared within a kind only. A question of an image and a text is the mean of their vectors.

    Args:
        vector_store: Holds both; images carry ``modality = "image"`` in their metadata.
        embed_model: Puts both into one space.
        top_k: Hits in all.
        filters: What every hit must satisfy.

    Raises:
        RetrievalError: When asked: the question has neither text, image nor embedding, or an image that the model
            cannot read.
    """

    def __init__(
        self,
        vector_store: BasePydanticVectorStore,
        embed_model: BaseEmbedding,
        *,
        top_k: int = 5,
        filters: MetadataFilters | None = None,
    ) -> None:
        super().__init__(callback_manager=embed_model.callback_manager)
        self._vector_store = vector_store
        self._embed_model = embed_model
        self._top_k = top_k
        self._filters = filters

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        texts, images = _asked(query_bundle)
        vector = query_bundle.embedding
        if vector is None:
            vectors = [self._embed_model.get_agg_embedding_from_queries(texts)] if texts else []
            vectors += [self._images().get_image_embedding(image) for image in images]
            vector = _mean(vectors)
        found = [self._vector_store.query(query) for query in self._legs(query_bundle, vector)]
        return self._merged(found, query_bundle)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        texts, images = _asked(query_bundle)
        vector = query_bundle.embedding
        if vector is None:
            vectors = [await self._embed_model.aget_agg_embedding_from_queries(texts)] if texts else []
            vectors += [await self._images().aget_image_embedding(image) for image in images]
            vector = _mean(vectors)
        queries = self._legs(query_bundle, vector)
        found = await asyncio.gather(*(self._vector_store.aquery(query) for query in queries))
        return self._merged(found, query_bundle)

    def _images(self) -> MultiModalEmbedding:
        if not hasattr(self._embed_model, "get_image_embedding"):
            raise RetrievalError(
                f"{type(self._embed_model).__name__} reads text only. Ask with an image in the preset multi-modal."
            )
        return self._embed_model  # type: ignore[return-value]

    def _legs(self, query: QueryBundle, vector: list[float]) -> list[VectorStoreQuery]:
        return [
            VectorStoreQuery(
                query_embedding=vector,
                similarity_top_k=self._top_k,
                query_str=query.query_str,
                filters=self._of_kind(operator),
            )
            for _, operator in _KINDS
        ]

    def _of_kind(self, operator: FilterOperator) -> MetadataFilters:
        of_kind = MetadataFilter(key=_MODALITY, value="image", operator=operator)
        given = [self._filters] if self._filters else []
        return MetadataFilters(filters=[of_kind, *given], condition=FilterCondition.AND)

    def _merged(self, found: Sequence[VectorStoreQueryResult], query: QueryBundle) -> list[NodeWithScore]:
        asked = {"text"} if query.query_str or not query.image_path else set()
        asked |= {"image"} if query.image_path else set()
        legs = [
            _hits(result, VECTOR if kind in asked else CROSS_MODAL)
            for (kind, _), result in zip(_KINDS, found, strict=True)
        ]
        merged = [hit for turn in zip_longest(*legs) for hit in turn if hit is not None]
        return list(merged[: self._top_k])


def _asked(query: QueryBundle) -> tuple[list[str], list[str]]:
    texts, images = query.embedding_strs, [query.image_path] if query.image_path else []
    if not texts and not images and query.embedding is None:
        raise RetrievalError("The question has no text and no image. Give query_str, image_path or both.")
    return texts, images


def _mean(vectors: Sequence[list[float]]) -> list[float]:
    mean = np.mean(np.array(vectors, dtype=np.float64), axis=0)
    return [float(value) for value in mean / np.linalg.norm(mean)]


def _hits(result: VectorStoreQueryResult, stage: str) -> list[RankedNode]:
    scores = result.similarities or []
    return [
        RankedNode(node=node, score=score, stages={stage: StageRank(rank, score)})
        for rank, (node, score) in enumerate(zip(result.nodes or [], scores, strict=True), start=1)
    ]
