"""`BM25Index` called as `BM25Retriever` of llama-index-retrievers-bm25 is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import Stemmer
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import ExactMatchFilter, MetadataFilters
from tests.fakes import WordEmbedding

from llama_index_presets import BM25Index
from llama_index_presets.errors import SettingsError, UnknownOptionError

NODES = [
    TextNode(id_="a", text="The valve AB-17 leaks", metadata={"site": "north"}),
    TextNode(id_="b", text="Leaking pumps are replaced", metadata={"site": "south"}),
    TextNode(id_="c", text="Lamps are changed yearly", metadata={"site": "south"}),
]


def found(retriever: BaseRetriever, query: str) -> list[str]:
    return sorted(hit.node.node_id for hit in retriever.retrieve(query))


def test_from_defaults_gives_a_retriever_over_nodes() -> None:
    """With the number of hits under its official name, which can be set later."""
    retriever = BM25Index.from_defaults(
        nodes=NODES, similarity_top_k=1, stemmer=Stemmer.Stemmer("english"), language="english"
    )
    assert isinstance(retriever, BaseRetriever) and len(retriever.retrieve("leaks")) == 1
    retriever.similarity_top_k = 5
    assert found(retriever, "leaks") == ["a", "b"]
    assert found(retriever.as_retriever(1), "yearly") == ["c"] and isinstance(retriever.index, BM25Index)


def test_nodes_come_from_a_document_store_or_an_index() -> None:
    """One of the three."""
    store = SimpleDocumentStore()
    store.add_documents(NODES)
    index = VectorStoreIndex(NODES, embed_model=WordEmbedding(model_name="words"))
    for source in ({"docstore": store}, {"index": index}):
        assert found(BM25Index.from_defaults(**source, similarity_top_k=3), "lamp") == ["c"]  # type: ignore[arg-type]


def test_filters_hold_before_ranking() -> None:
    """As the official class has it since it takes them."""
    south = MetadataFilters(filters=[ExactMatchFilter(key="site", value="south")])
    assert found(BM25Index.from_defaults(nodes=NODES, filters=south), "leaks") == ["b"]


def test_a_persisted_retriever_is_opened_again(tmp_path: Path) -> None:
    """persist and from_persist_dir, with the number of hits."""
    BM25Index.from_defaults(nodes=NODES, similarity_top_k=7).persist(tmp_path / "words")
    again = BM25Index.from_persist_dir(tmp_path / "words")
    assert again.similarity_top_k == 7 and found(again, "leaks") == ["a", "b"]


def test_a_folder_of_the_official_class_is_refused(tmp_path: Path) -> None:
    """Its files do not say the language, and answers would differ in silence."""
    (tmp_path / "retriever.json").write_text('{"similarity_top_k": 2}')
    (tmp_path / "data.csc.index.npy").write_bytes(b"")
    with pytest.raises(SettingsError, match="written by BM25Retriever"):
        BM25Index.from_persist_dir(tmp_path)
    with pytest.raises(SettingsError, match="holds no retriever"):
        BM25Index.from_persist_dir(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "0 sources of nodes"),
        ({"nodes": NODES, "docstore": SimpleDocumentStore()}, "2 sources of nodes"),
        ({"nodes": NODES, "language": "elvish"}, "no language 'elvish'"),
        ({"nodes": NODES, "language": ["the", "a"]}, "list of stop words"),
        ({"nodes": NODES, "stemmer": Stemmer.Stemmer("german")}, "not that of 'english'"),
        ({"nodes": NODES, "skip_stemming": True}, "language='none'"),
        ({"nodes": NODES, "token_pattern": r"\w+"}, "fixed rules"),
        ({"nodes": NODES, "tokenizer": str.split}, "ignores it, too"),
    ],
)
def test_what_cannot_be_honoured_is_refused(options: dict[str, Any], message: str) -> None:
    """With the reason and the way to get it."""
    with pytest.raises(SettingsError, match=message):
        BM25Index.from_defaults(**options)


def test_a_misspelt_option_is_refused() -> None:
    """With the nearest name."""
    with pytest.raises(UnknownOptionError, match="did you mean 'stemmer'"):
        BM25Index.from_defaults(nodes=NODES, steemer=None)  # type: ignore[call-arg]


@pytest.mark.parametrize("language", ["english", "german", "french", "russian", "porter"])
def test_each_stemmer_is_told_from_english(language: str) -> None:
    """The words that tell them apart do so."""
    options = {"nodes": NODES, "stemmer": Stemmer.Stemmer(language)}
    if language == "english":
        BM25Index.from_defaults(**options)  # type: ignore[arg-type]
    else:
        with pytest.raises(SettingsError, match="stemmer"):
            BM25Index.from_defaults(**options)  # type: ignore[arg-type]
