"""LlamaIndex query engines built from named presets: seven use cases, one `build` call.

The names below are loaded on first use, so that importing this package stays light; type checkers see them at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_index_presets.advise.recommend import recommend as recommend
    from llama_index_presets.answer.extractive import ExtractiveLLM as ExtractiveLLM
    from llama_index_presets.embed.cache import EmbeddingCache as EmbeddingCache
    from llama_index_presets.embed.cached import CachedEmbedding as CachedEmbedding
    from llama_index_presets.embed.clip.embedding import ClipEmbedding as ClipEmbedding
    from llama_index_presets.embed.dataframes import embed_dataframe as embed_dataframe
    from llama_index_presets.embed.local.embedding import LocalEmbedding as LocalEmbedding
    from llama_index_presets.embed.openai import BatchedOpenAIEmbedding as BatchedOpenAIEmbedding
    from llama_index_presets.monitor.handler import CostTrackingHandler as CostTrackingHandler
    from llama_index_presets.monitor.ledger.ledger import Ledger as Ledger
    from llama_index_presets.presets.build import build as build
    from llama_index_presets.presets.engine import PresetEngine as PresetEngine
    from llama_index_presets.presets.matrix import PRESETS as PRESETS
    from llama_index_presets.rerank.cross_encoder import CrossEncoderRerank as CrossEncoderRerank
    from llama_index_presets.retrieve.bm25.index import BM25Index as BM25Index
    from llama_index_presets.retrieve.hybrid import HybridFusionRetriever as HybridFusionRetriever
    from llama_index_presets.retrieve.multi_modal import MultiModalRetriever as MultiModalRetriever
    from llama_index_presets.store.duckdb.store import DuckDBVectorStore as DuckDBVectorStore
    from llama_index_presets.store.lancedb.store import LanceDBVectorStore as LanceDBVectorStore
    from llama_index_presets.store.pinecone.store import PineconeVectorStore as PineconeVectorStore
    from llama_index_presets.store.postgres.embedded import embedded_postgres as embedded_postgres
    from llama_index_presets.store.postgres.store import PostgresVectorStore as PostgresVectorStore
    from llama_index_presets.store.weaviate.store import WeaviateVectorStore as WeaviateVectorStore

__version__ = "0.1.0"

# name -> module, grouped in the order in which data flows.
_PUBLIC: dict[str, str] = {
    "build": "llama_index_presets.presets.build",
    "PresetEngine": "llama_index_presets.presets.engine",
    "recommend": "llama_index_presets.advise.recommend",
    "PRESETS": "llama_index_presets.presets.matrix",
    "LocalEmbedding": "llama_index_presets.embed.local.embedding",
    "ClipEmbedding": "llama_index_presets.embed.clip.embedding",
    "BatchedOpenAIEmbedding": "llama_index_presets.embed.openai",
    "CachedEmbedding": "llama_index_presets.embed.cached",
    "EmbeddingCache": "llama_index_presets.embed.cache",
    "embed_dataframe": "llama_index_presets.embed.dataframes",
    "ExtractiveLLM": "llama_index_presets.answer.extractive",
    "DuckDBVectorStore": "llama_index_presets.store.duckdb.store",
    "LanceDBVectorStore": "llama_index_presets.store.lancedb.store",
    "PostgresVectorStore": "llama_index_presets.store.postgres.store",
    "embedded_postgres": "llama_index_presets.store.postgres.embedded",
    "PineconeVectorStore": "llama_index_presets.store.pinecone.store",
    "WeaviateVectorStore": "llama_index_presets.store.weaviate.store",
    "BM25Index": "llama_index_presets.retrieve.bm25.index",
    "HybridFusionRetriever": "llama_index_presets.retrieve.hybrid",
    "MultiModalRetriever": "llama_index_presets.retrieve.multi_modal",
    "CrossEncoderRerank": "llama_index_presets.rerank.cross_encoder",
    "CostTrackingHandler": "llama_index_presets.monitor.handler",
    "Ledger": "llama_index_presets.monitor.ledger.ledger",
}

# Names that cannot be loaded without a package of an extra -> that package.
_NEEDS: dict[str, str] = {
    "BatchedOpenAIEmbedding": "llama_index.embeddings.openai",
    "LanceDBVectorStore": "lancedb",
    "PostgresVectorStore": "llama_index.vector_stores.postgres",
    "PineconeVectorStore": "llama_index.vector_stores.pinecone",
    "WeaviateVectorStore": "llama_index.vector_stores.weaviate",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use; ``__all__`` has those that can be loaded here."""
    if name == "__all__":  # asked by ``import *``, which must not end at an extra that is not installed
        return _loadable()
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{_nearest(name)}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def _nearest(name: str) -> str:
    if name.startswith("__"):  # asked by inspect, pickle and notebooks, which expect no help
        return ""
    import difflib

    known = {public.lower(): public for public in _PUBLIC}
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f". Did you mean {known[close[0]]!r}?" if close else ""


def __dir__() -> list[str]:
    """List the public names that can be loaded here, so that `help` and completion load no missing extra."""
    return sorted({*globals(), *_loadable()})


def _loadable() -> list[str]:
    """Public names without those whose extra is not installed; each of these names its extra when it is asked for."""
    from llama_index_presets.packages.extras import installed

    return [name for name in _PUBLIC if name not in _NEEDS or installed(_NEEDS[name])]
