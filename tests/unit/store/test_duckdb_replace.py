"""Re-ingesting a document swaps its nodes in one transaction."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery

from llama_index_presets.errors import NodeRejectedError
from llama_index_presets.store.duckdb.store import DuckDBVectorStore


def node(name: str, document: str, embedding: list[float] | None) -> TextNode:
    made = TextNode(id_=name, text=name, embedding=embedding)
    made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return made


def ids(store: DuckDBVectorStore) -> list[str]:
    return sorted(store.query(VectorStoreQuery(query_embedding=[1.0, 1.0], similarity_top_k=99)).ids or [])


@pytest.fixture
def store(tmp_path: Path) -> DuckDBVectorStore:
    made = DuckDBVectorStore(tmp_path / "v.duckdb")
    made.add([node("a1", "a", [1, 0]), node("a2", "a", [0, 1]), node("b1", "b", [1, 1])])
    return made


def test_old_nodes_go_and_new_ones_come(store: DuckDBVectorStore) -> None:
    """Also where an id stays, and the search sees it at once."""
    assert ids(store) == ["a1", "a2", "b1"]
    assert store.replace_documents(["a", "unknown"], [node("a2", "a", [2, 1]), node("a3", "a", [1, 3])]) == [
        "a2",
        "a3",
    ]
    assert ids(store) == ["a2", "a3", "b1"]
    assert asyncio.run(store.areplace_documents(["b"], [])) == []
    assert ids(store) == ["a2", "a3"]


def test_a_refused_node_leaves_the_old_document(store: DuckDBVectorStore) -> None:
    """All or nothing."""
    with pytest.raises(NodeRejectedError, match="bad"):
        store.replace_documents(["a"], [node("ok", "a", [1, 0]), node("bad", "a", None)])
    assert ids(store) == ["a1", "a2", "b1"]


def test_it_makes_the_table_when_there_is_none(tmp_path: Path) -> None:
    """The first ingest uses it too."""
    with DuckDBVectorStore(tmp_path / "new.duckdb") as store:
        assert store.replace_documents(["d"], []) == []
        store.replace_documents(["d"], [node("d1", "d", [1, 0])])
        assert ids(store) == ["d1"]
