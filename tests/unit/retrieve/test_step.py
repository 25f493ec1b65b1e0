"""Keyword index and store stay in step, or the difference is found and repaired."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.simple import SimpleVectorStore

from llama_index_presets.errors import RetrievalError
from llama_index_presets.retrieve import BM25Index, check_consistency


def node(name: str, text: str, document: str) -> TextNode:
    return TextNode(
        id_=name, text=text, relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    )


OLD = [node("a1", "red fish", "doc-a"), node("a2", "blue fish", "doc-a"), node("b1", "green fish", "doc-b")]
NEW = [node("a1", "red whale", "doc-a"), node("a3", "grey whale", "doc-a")]


@pytest.fixture
def store() -> SimpleDocumentStore:
    store = SimpleDocumentStore()
    store.add_documents(OLD)
    return store


def rewrite(store: SimpleDocumentStore) -> None:
    """What an ingest does to the store when doc-a changed."""
    store.delete_document("a2")
    store.add_documents(NEW)


def test_a_change_is_in_both(store: SimpleDocumentStore, tmp_path: Path) -> None:
    """Added, changed and deleted nodes, in one step each side."""
    words = BM25Index.from_source(store, tmp_path)
    with words.transaction("doc-a") as change:
        rewrite(store)
        change.delete(documents="doc-a")
        change.upsert(NEW)
    assert check_consistency(store, words).consistent
    assert [name for name, _ in words.search("whale")] == ["a1", "a3"]
    assert words.unfinished == frozenset()


@pytest.mark.parametrize("store_first", [True, False], ids=["after the store", "before the store"])
def test_a_crash_between_the_two_is_known_and_repaired(
    store: SimpleDocumentStore, tmp_path: Path, store_first: bool
) -> None:
    """The keyword index is as before; another process learns which document to look at."""
    words = BM25Index.from_source(store, tmp_path)
    with pytest.raises(KeyboardInterrupt), words.transaction(["doc-a"]) as change:
        change.delete(documents="doc-a")
        change.upsert(NEW)
        if store_first:
            rewrite(store)
        raise KeyboardInterrupt
    again = BM25Index(tmp_path, nodes=store)
    assert again.unfinished == {"doc-a"}
    report = check_consistency(store, again, documents=again.unfinished, repair=True)
    expected = (("a3",), ("a2",), ("a1",)) if store_first else ((), (), ())
    assert (report.missing, report.extra, report.changed) == expected
    assert (report.unfinished, report.repaired, report.consistent) == (("doc-a",), True, False)
    assert check_consistency(store, BM25Index(tmp_path, nodes=store)).consistent


def test_an_unfinished_change_survives_compaction(store: SimpleDocumentStore, tmp_path: Path) -> None:
    """The intent is not lost with the journal that held it."""
    words = BM25Index.from_source(store, tmp_path)
    with pytest.raises(RuntimeError, match="boom"), words.transaction("doc-a"):
        raise RuntimeError("boom")
    words.compact()
    assert BM25Index(tmp_path).unfinished == {"doc-a"}
    words.mark_finished("doc-a")
    assert BM25Index(tmp_path).unfinished == frozenset()


def test_drift_is_reported_and_repaired(store: SimpleDocumentStore) -> None:
    """Without repair nothing is touched."""
    words = BM25Index.from_source(store)
    words.add([node("ghost", "fish", "doc-x")])
    rewrite(store)
    for repair in (False, True):
        report = check_consistency(store, words, repair=repair)
        assert (report.missing, report.extra, report.changed) == (("a3",), ("a2", "ghost"), ("a1",))
        assert report.checked == 3
    assert check_consistency(store, words).consistent
    assert len(words) == 3


def test_an_index_is_compared_by_its_own_nodes() -> None:
    """A docstore may hold whole documents and other indexes' nodes beside."""
    index = VectorStoreIndex(nodes=OLD, embed_model=MockEmbedding(embed_dim=3))
    index.docstore.add_documents([TextNode(id_="of another index", text="x")])
    words = BM25Index.from_source(index)
    assert len(words) == 3
    index.insert_nodes(NEW[1:])
    assert check_consistency(index, words, repair=True).missing == ("a3",)
    assert words.search("whale")


def test_a_store_that_cannot_list_its_nodes_says_so() -> None:
    """Nothing is deleted because of it."""
    words = BM25Index.from_nodes(OLD)
    with pytest.raises(RetrievalError, match="SimpleVectorStore cannot list its nodes"):
        check_consistency(SimpleVectorStore(), words, repair=True)
    assert len(words) == 3


def test_changing_a_document_costs_no_rereading(store: SimpleDocumentStore, tmp_path: Path) -> None:
    """The same nodes again are not written again."""
    words = BM25Index.from_source(store, tmp_path)
    journal = next(tmp_path.glob("journal-*.log"))
    before = journal.stat().st_size
    words.upsert(OLD)
    assert journal.stat().st_size == before


def test_a_change_that_is_under_way_is_not_taken_for_a_crash(tmp_path: Path) -> None:
    """Another process that opens the index meanwhile leaves the intent alone."""
    words = BM25Index.from_nodes(OLD, tmp_path)
    with words.transaction("doc-a") as change:
        change.upsert(NEW)
        assert BM25Index(tmp_path).unfinished == frozenset()
    with pytest.raises(RuntimeError, match="boom"), words.transaction("doc-b"):
        raise RuntimeError("boom")
    assert BM25Index(tmp_path).unfinished == {"doc-b"}
