"""Hybrid search wires itself to an index on any store, with our keyword index or with the store's own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets import (
    BM25Index,
    DuckDBVectorStore,
    HybridFusionRetriever,
    LanceDBVectorStore,
    PostgresVectorStore,
    embedded_postgres,
)
from llama_index_presets.retrieve import check_consistency

STORES: dict[str, Callable[[Path], BasePydanticVectorStore]] = {
    "duckdb": lambda folder: DuckDBVectorStore(str(folder / "v.duckdb"), dim=4),
    "lancedb": lambda folder: LanceDBVectorStore(str(folder / "lance")),
    "simple": lambda folder: SimpleVectorStore(),
}
SOUTH = MetadataFilters(filters=[MetadataFilter(key="tenant", value="south")])


def node(name: str, text: str, tenant: str) -> TextNode:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{name}")}
    return TextNode(id_=name, text=text, metadata={"tenant": tenant}, relationships=source)


NODES = [
    node("valve", "Valve AB-17 leaks.", "north"),
    node("pump", "Pump.", "south"),
    node("seal", "Worn seal.", "south"),
]


def index_on(store: str, folder: Path) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=STORES[store](folder))
    return VectorStoreIndex(nodes=NODES, storage_context=context, embed_model=MockEmbedding(embed_dim=4))


@pytest.mark.parametrize(
    ("store", "keyword"),
    [("duckdb", "bm25"), ("duckdb", "store"), ("lancedb", "bm25"), ("lancedb", "store"), ("simple", "bm25")],
)
async def test_hybrid_search_finds_words_and_keeps_filters(store: str, keyword: str, tmp_path: Path) -> None:
    """The exact word wins; the other tenant's nodes never come."""
    hybrid = HybridFusionRetriever.from_index(index_on(store, tmp_path), keyword=keyword)
    for found in (hybrid.retrieve("worn seal"), await hybrid.aretrieve("worn seal")):
        assert found[0].node.node_id == "seal"
        assert {"vector", "fusion"} < set(found[0].stages)
    narrowed = hybrid.with_filters(SOUTH)
    for found in (narrowed.retrieve("AB-17 valve"), await narrowed.aretrieve("AB-17 valve")):
        assert {hit.node.node_id for hit in found} == {"pump", "seal"}


async def test_hybrid_search_by_words_of_postgres() -> None:
    """The tsvector leg of the store fuses with its vectors as any other leg does, filters on both."""
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(folder) as url:
        store = PostgresVectorStore.from_url(url, embed_dim=4)
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex(NODES, storage_context=context, embed_model=MockEmbedding(embed_dim=4))
        hybrid = HybridFusionRetriever.from_index(index, keyword="store")
        for found in (hybrid.retrieve("worn seals"), await hybrid.aretrieve("worn seals")):
            assert found[0].node.node_id == "seal"
            assert {"vector", "fusion"} < set(found[0].stages)
        narrowed = hybrid.with_filters(SOUTH)
        for found in (narrowed.retrieve("valves"), await narrowed.aretrieve("valves")):
            assert {hit.node.node_id for hit in found} == {"pump", "seal"}
        store.close()


@pytest.mark.parametrize("store", sorted(STORES))
def test_a_keyword_index_beside_a_store_is_checked_and_repaired(store: str, tmp_path: Path) -> None:
    """The digests of nodes that were read back from the store are those of the nodes that went in."""
    index = index_on(store, tmp_path)
    words = BM25Index(tmp_path / "words", nodes=index)
    words.add(NODES[:2])
    assert check_consistency(index, words, repair=True).missing == ("seal",)
    assert check_consistency(index, words).consistent
