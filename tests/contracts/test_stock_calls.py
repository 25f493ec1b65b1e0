"""Each keyword, attribute and method of a stock class is taken by ours, or refused with the reason."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import TokenCountingHandler
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.vector_stores.lancedb import LanceDBVectorStore
from llama_index.vector_stores.pinecone import PineconeVectorStore
from llama_index.vector_stores.postgres import PGVectorStore
from llama_index.vector_stores.weaviate import WeaviateVectorStore

import llama_index_presets as presets
from llama_index_presets._options import option_names
from llama_index_presets.errors import SettingsError
from llama_index_presets.packages.extras import installed

PAIRS: list[tuple[type, Any]] = [
    (QueryFusionRetriever, presets.HybridFusionRetriever),
    (SentenceTransformerRerank, presets.CrossEncoderRerank),
    (TokenCountingHandler, presets.CostTrackingHandler),
    (OpenAIEmbedding, presets.BatchedOpenAIEmbedding),
    (LanceDBVectorStore, presets.LanceDBVectorStore),
    (PGVectorStore, presets.PostgresVectorStore),
    (PineconeVectorStore, presets.PineconeVectorStore),
    (WeaviateVectorStore, presets.WeaviateVectorStore),
]
if installed("llama_index.embeddings.huggingface"):  # of the extra local-torch
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    PAIRS.append((HuggingFaceEmbedding, presets.LocalEmbedding))

# Of packages that cannot be installed beside ours: llama-index-vector-stores-duckdb 0.7.0 pins duckdb < 1.4, and
# llama-index-retrievers-bm25 0.8.0 brings bm25s, which nothing here uses.
DUCKDB = {
    "__init__": "database_name table_name embed_dim text_search_config persist_dir client",
    "from_local": "database_path table_name embed_dim text_search_config",
    "from_params": "database_name table_name embed_dim text_search_config persist_dir",
    "get_nodes": "node_ids filters",
    "delete_nodes": "node_ids filters",
    "delete": "ref_doc_id",
    "add": "nodes",
    "async_add": "nodes",
    "query": "query",
    "clear": "",
    "aclear": "",
    "class_name": "",
}
DUCKDB_ATTRIBUTES = (
    "stores_text flat_metadata database_name table_name embed_dim text_search_config persist_dir client table"
)
BM25 = {
    "from_defaults": "index nodes docstore stemmer language similarity_top_k verbose skip_stemming token_pattern "
    "filters tokenizer",
    "from_persist_dir": "path",
}


def keywords(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = inspect.signature(function).parameters.values()
    return [one.name for one in found if one.kind not in kinds and one.name not in ("self", "cls")]


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} | set(getattr(kind, "model_fields", {}))


def takes(function: Callable[..., Any], names: list[str]) -> list[str]:
    """Names that a function does not take."""
    parameters = inspect.signature(function).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return []
    return [name for name in names if name not in parameters]


@pytest.mark.parametrize(("stock", "ours"), PAIRS)
def test_every_stock_keyword_is_known(stock: type, ours: Any) -> None:
    """What is known is honoured, or refused by value with the reason."""
    assert [name for name in keywords(stock.__init__) if name not in option_names(ours)] == []  # type: ignore[misc]


@pytest.mark.parametrize(("stock", "ours"), PAIRS)
def test_every_stock_attribute_and_method_is_there(stock: type, ours: Any) -> None:
    """With its keywords."""
    assert sorted(public(stock) - public(ours)) == []
    for name in public(stock):
        method, own = getattr(stock, name, None), getattr(ours, name, None)
        if inspect.isroutine(method) and inspect.isroutine(own):
            assert (name, takes(own, keywords(method))) == (name, [])


def test_attributes_that_a_stock_constructor_sets_are_there() -> None:
    """Which no class shows."""
    words = presets.BM25Index.from_defaults(nodes=[TextNode(text="red fish")])
    stock, ours = (
        QueryFusionRetriever([words], num_queries=1, llm=presets.ExtractiveLLM()),
        (presets.HybridFusionRetriever([words], num_queries=1)),
    )
    assert [name for name in vars(stock) if not name.startswith("_") and not hasattr(ours, name)] == []
    counter, handler = TokenCountingHandler(), presets.CostTrackingHandler()
    missing = [name for name in vars(counter) if not name.startswith("_") and not hasattr(handler, name)]
    assert missing == ["token_budget", "logger"]  # refused at the constructor; where verbose lines go


@pytest.mark.parametrize("name", DUCKDB)
def test_every_official_duckdb_keyword_is_known(name: str) -> None:
    """Of the constructor, of its two siblings and of each method."""
    ours, wanted = presets.DuckDBVectorStore, DUCKDB[name].split()
    known = option_names(ours) if name == "__init__" else option_names(getattr(ours, name))
    assert takes(getattr(ours, name), [one for one in wanted if one not in known]) == []


def test_every_official_duckdb_attribute_is_there(tmp_path: Path) -> None:
    """With the value that was given; `table` is the name here, and a relation there."""
    options = {"database_name": "a.duckdb", "persist_dir": str(tmp_path), "table_name": "t", "embed_dim": 2}
    with presets.DuckDBVectorStore.from_params(**options) as store:
        assert [name for name in DUCKDB_ATTRIBUTES.split() if not hasattr(store, name)] == []
        assert {name: getattr(store, name) for name in options} == options
        assert (
            presets.DuckDBVectorStore(text_search_config=store.text_search_config).text_language == "english"
        )


@pytest.mark.parametrize("name", BM25)
def test_every_official_bm25_keyword_is_known(name: str) -> None:
    """Of the two ways to make one."""
    assert takes(inspect.unwrap(getattr(presets.BM25Index, name)), BM25[name].split()) == []


def test_images_are_refused_by_a_text_model() -> None:
    """The official class takes them where its model does; the message says what to use."""
    with pytest.raises(SettingsError, match="Use ClipEmbedding"):
        presets.LocalEmbedding().get_image_embedding("a.png")
