"""Retrieval patterns: the retriever and the postprocessors of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilters

from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.checks.local_weights import find_reranker
from llama_index_presets.presets.index.keyword_index import KeywordOpening, open_keyword_index
from llama_index_presets.presets.index.storage import Storage
from llama_index_presets.presets.models import reads_images
from llama_index_presets.presets.settings import LEG_CANDIDATES, RERANK_CANDIDATES, Settings
from llama_index_presets.providers.rerankers import (
    CROSS_ENCODER,
    DEFAULT_RERANKER,
    make_reranker,
    read_reranker_name,
)

if TYPE_CHECKING:
    from llama_index.core.llms.llm import LLM

    from llama_index_presets.ingest.manifest import Manifest
    from llama_index_presets.retrieve.bm25.consistency import ConsistencyReport
    from llama_index_presets.retrieve.bm25.index import BM25Index
    from llama_index_presets.retrieve.hybrid import HybridFusionRetriever
    from llama_index_presets.retrieve.language_fallback import LanguageFallback
    from llama_index_presets.retrieve.second_embedding import NodeVectors

__all__ = ["MakeRetriever", "RetrievalPattern", "assemble_pattern", "check_pattern", "language_fallback"]

MakeRetriever = Callable[[MetadataFilters | None], BaseRetriever]

SECOND = "second"
"""Name of the leg of the second embedding model, in `RankedNode.stages` and events."""


@dataclass(frozen=True, slots=True)
class RetrievalPattern:
    """Retrieval pattern: retriever and postprocessors.

    Attributes:
        make_retriever: Filters -> retriever.
        postprocessors: What reorders its hits.
        keyword: The keyword index that ingest keeps in step with the vector store, or None.
        repaired: What was out of step, where `build` was asked to repair it.
        second: Vectors of a second embedding model, which ingest keeps in step, or None.
    """

    make_retriever: MakeRetriever
    postprocessors: Sequence[BaseNodePostprocessor] = ()
    keyword: BM25Index | None = None
    repaired: ConsistencyReport | None = None
    second: NodeVectors | None = None


def assemble_pattern(
    name: str,
    index: VectorStoreIndex,
    storage: Storage,
    settings: Settings,
    *,
    embed_model: BaseEmbedding,
    reranker: BaseNodePostprocessor | None,
    local: bool,
    keywords: KeywordOpening,
    llm: LLM,
    second_embedding: BaseEmbedding | None = None,
) -> RetrievalPattern:
    """Put a pattern together.

    Args:
        name: Key of `matrix.PATTERNS`.
        index: Over the vector store.
        storage: Where a keyword index lies.
        settings: How many hits, which fusion, which re-ranker.
        embed_model: Of the index.
        reranker: A re-ranker given by hand; any pattern takes one.
        local: Whether nothing may be downloaded.
        keywords: How a keyword index is opened.
        llm: Writes further queries and passages, where the settings ask for them.
        second_embedding: Of a further leg of a hybrid search.
    """
    if reads_images(embed_model):
        return _multi_modal(index, settings, embed_model)
    if name == "advanced" and reranker is None:
        reranker = _reranker(settings, local=local)
    widening = _widening(settings)
    wide = (settings.candidates or RERANK_CANDIDATES) if reranker else settings.top_k * (4 if widening else 1)
    postprocessors = [*widening, *([reranker] if reranker else [])]
    if name == "hybrid":
        keyword, repaired = open_keyword_index(storage, index.vector_store, keywords)
        second = _second(second_embedding, keyword, index.vector_store)
        hybrid = _hybrid(index, keyword, settings, wide, llm, second)
        return RetrievalPattern(
            lambda filters: hybrid.with_filters(filters) if filters else hybrid,
            postprocessors, keyword, repaired, second,
        )  # fmt: skip
    return RetrievalPattern(
        lambda filters: index.as_retriever(similarity_top_k=wide, filters=filters), postprocessors
    )


def check_pattern(
    name: str,
    settings: Settings,
    *,
    embed_model: BaseEmbedding,
    reranker: BaseNodePostprocessor | None,
    writes: bool,
) -> None:
    """Refuse a pattern that cannot work on what the embedding model reads, or without a language model that writes.

    Args:
        name: Key of `matrix.PATTERNS`.
        settings: What is asked for.
        embed_model: Of the index.
        reranker: A re-ranker given by hand.
        writes: Whether the language model writes texts of its own; `ExtractiveLLM` quotes.

    Raises:
        SettingsError: Keyword search, cross-encoders and merging read words, and an image has none; a setting of hybrid
            search is given to another pattern; no model is there that would write queries or passages.
    """
    given = [one for one in _OF_HYBRID if getattr(settings, one) != _DEFAULTS[one]]
    if given and name != "hybrid":
        raise SettingsError(
            f"{', '.join(given)} belong to a hybrid search, and the pattern is '{name}'. Set pattern = 'hybrid'."
        )
    if (settings.num_queries > 1 or settings.hyde) and not writes:
        raise SettingsError(
            "num_queries and hyde need a language model that writes, and this one quotes from passages. Name one, such "
            "as llm = 'ollama/llama3.2', or leave them out."
        )
    if not reads_images(embed_model):
        return
    if name != "simple" or reranker is not None or settings.chunking != "sentence":
        raise SettingsError(
            "An index of text and images takes the pattern 'simple' and the chunking 'sentence', without a re-ranker "
            f"(asked for: '{name}', '{settings.chunking}'{', a re-ranker' if reranker else ''}): the others read "
            "words, and an image has none. Leave them out, or use another preset."
        )


_OF_HYBRID = ("second_embedding", "num_queries", "hyde", "question_filters")
"""Settings that only a hybrid search takes."""

_DEFAULTS = {one.name: one.default for one in fields(Settings)}


def language_fallback(
    embed_model: BaseEmbedding,
    store: BasePydanticVectorStore,
    manifest: Manifest,
    keyword: BM25Index | None,
) -> LanguageFallback | None:
    """Keyword search for the languages that an embedding model of few languages does not know; None for others."""
    from llama_index_presets.embed.catalogue import catalogue

    model = catalogue().get(embed_model.model_name.rsplit("/", 1)[-1])
    if model is None or not model.languages or reads_images(embed_model):
        return None
    from llama_index_presets.retrieve.language_fallback import LanguageFallback

    return LanguageFallback(
        store,
        known=model.languages,
        others=manifest.other_languages,
        version=manifest.version,
        keyword=keyword,
    )


def _multi_modal(index: VectorStoreIndex, settings: Settings, embed_model: BaseEmbedding) -> RetrievalPattern:
    """A leg for texts and one for images."""
    from llama_index_presets.retrieve.multi_modal import MultiModalRetriever

    def make(filters: MetadataFilters | None) -> BaseRetriever:
        return MultiModalRetriever(index.vector_store, embed_model, top_k=settings.top_k, filters=filters)

    return RetrievalPattern(make)


def _widening(settings: Settings) -> list[BaseNodePostprocessor]:
    """Context-expansion postprocessor, where documents were cut so small that one is needed."""
    from llama_index_presets.retrieve.context_expansion import ParentMerge, SentenceWindow

    found: dict[str, BaseNodePostprocessor] = {
        "hierarchical": ParentMerge(),
        "sentence-window": SentenceWindow(),
    }
    return [found[settings.chunking]] if settings.chunking in found else []


def _hybrid(
    index: VectorStoreIndex,
    keyword: BM25Index,
    settings: Settings,
    top_k: int,
    llm: LLM,
    second: NodeVectors | None,
) -> HybridFusionRetriever:
    from llama_index_presets.retrieve.hybrid import HybridFusionRetriever
    from llama_index_presets.retrieve.second_embedding import SecondEmbeddingRetriever

    share = settings.vector_weight
    weights = (
        None if share is None else [share, 1 - share] if second is None else [share / 2, 1 - share, share / 2]
    )
    return HybridFusionRetriever(
        index.as_retriever(),
        keyword,
        more={SECOND: SecondEmbeddingRetriever(second)} if second else None,
        fusion=settings.fusion,
        weights=weights,
        on_leg_error=settings.on_leg_error,
        timeout_s=settings.leg_timeout_s,
        top_k=top_k,
        candidates=max(settings.candidates or LEG_CANDIDATES, top_k),
        hyde=settings.hyde,
        question_filters=settings.question_filters,
        num_queries=settings.num_queries,
        llm=llm if settings.num_queries > 1 or settings.hyde else None,
    )


def _second(
    embed_model: BaseEmbedding | None, keyword: BM25Index, store: BasePydanticVectorStore
) -> NodeVectors | None:
    from llama_index_presets.retrieve.second_embedding import NodeVectors

    return NodeVectors(embed_model, keyword, store) if embed_model is not None else None


def _reranker(settings: Settings, *, local: bool) -> BaseNodePostprocessor:
    """The re-ranker that the settings name, or the default one."""
    name = read_reranker_name(settings.reranker or DEFAULT_RERANKER)
    if name.provider == CROSS_ENCODER:
        return _cross_encoder(settings, local=local)
    if settings.blend:
        raise SettingsError(f"'{settings.reranker}' takes no blend; only a cross-encoder does. Leave it out.")
    return make_reranker(name, settings.reranker_options or {}, top_n=settings.top_k)


def _cross_encoder(settings: Settings, *, local: bool) -> BaseNodePostprocessor:
    from llama_index_presets.rerank.cross_encoder import CrossEncoderRerank

    model = settings.reranker or find_reranker(DEFAULT_RERANKER) or DEFAULT_RERANKER
    return CrossEncoderRerank(model, top_n=settings.top_k, blend=settings.blend, local_files_only=local)
