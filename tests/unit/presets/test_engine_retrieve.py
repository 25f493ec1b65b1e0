"""A preset engine finds passages for whatever LlamaIndex's own query engines take."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.schema import QueryBundle, TextNode
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import AnswerError, SettingsError, WrongTypeError


def test_a_question_may_be_a_string(tmp_path: Path) -> None:
    """As for `RetrieverQueryEngine`, whose retriever makes a bundle of it."""
    settings = {"store": "duckdb", "answer_floor": -1.0}
    with build(
        "knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding(), settings=settings
    ) as engine:
        engine.ingest([Document(text="Parcels are returned within 30 days.", doc_id="returns")])
        found = [
            engine.retrieve("When are parcels returned?"),
            engine.retrieve(QueryBundle("When are parcels returned?")),
            asyncio.run(engine.aretrieve("When are parcels returned?")),
        ]
    assert [[hit.node.ref_doc_id for hit in hits] for hits in found] == [["returns"]] * 3


@pytest.mark.parametrize("settings", [{}, {"pattern": "hybrid"}, {"answer_cache": "on"}])
def test_what_a_bundle_has_embedded_is_searched(tmp_path: Path, settings: dict[str, Any]) -> None:
    """As for `RetrieverQueryEngine`: a transform such as HyDE puts another text, or a vector, beside the question."""
    bundles = [
        QueryBundle("When is that?", custom_embedding_strs=["Parcels are returned within 30 days."]),
        QueryBundle(
            "When is that?", embedding=WordEmbedding().get_text_embedding("Parcels are returned within 30 days.")
        ),
    ]  # fmt: skip
    with build(
        "knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding(),
        settings={"store": "duckdb", "answer_floor": -1.0, "top_k": 1, **settings},
    ) as engine:  # fmt: skip
        engine.ingest(
            [
                Document(text="Parcels are returned within 30 days.", doc_id="returns"),
                Document(text="That lamp is when green.", doc_id="lamp"),
            ]
        )
        assert [hit.node.ref_doc_id for hit in engine.query("When is that?").source_nodes] == ["lamp"]
        for bundle in bundles:
            asked = [
                engine.retrieve(bundle),
                engine.query(bundle).source_nodes,
                asyncio.run(engine.aquery(bundle)).source_nodes,
                engine.stream(bundle).source_nodes,
            ]
            assert [[hit.node.ref_doc_id for hit in hits] for hits in asked] == [["returns"]] * 4
        assert bundles[0].embedding is None


def test_what_is_no_question_and_no_filter_is_refused(tmp_path: Path) -> None:
    """With what to give instead."""
    settings = {"store": "duckdb", "answer_floor": -1.0}
    with build(
        "knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding(), settings=settings
    ) as engine:
        for ask in (engine.query, engine.retrieve, engine.stream):
            for question in (None, 5):
                with pytest.raises(AnswerError, match="give a text or a QueryBundle"):
                    ask(question)  # type: ignore[operator]
        with pytest.raises(SettingsError, match="of type dict; give MetadataFilters"):
            engine.with_filters({"department": "hr"})  # type: ignore[arg-type]


def test_an_answer_is_made_from_hits_that_the_caller_chose(tmp_path: Path) -> None:
    """As by `RetrieverQueryEngine.synthesize`; billed, and the cache neither asked nor filled."""
    settings = {"store": "duckdb", "answer_floor": -1.0, "top_k": 2, "answer_cache": "on"}
    with build(
        "knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding(), settings=settings
    ) as engine:
        engine.ingest([Document(text="Parcels are returned within 30 days.", doc_id="returns")])
        engine.ingest([Document(text="Parcels are sent on Mondays.", doc_id="sent")])
        question = "When are parcels returned?"
        sources = [hit.node.ref_doc_id for hit in engine.query(question).source_nodes]
        kept, dropped = engine.retrieve(question)
        for answer in (
            engine.synthesize(QueryBundle(question), [kept], additional_source_nodes=[dropped]),
            asyncio.run(engine.asynthesize(question, [kept], [dropped])),
        ):
            assert answer.source_nodes == [kept, dropped]
            assert [one["n"] for one in answer.metadata["citations"]] == [1]
            assert "cached" not in answer.metadata
            rows = engine.ledger.sql(
                "select kind from llm_calls where query_id = ?", [answer.metadata["query_id"]]
            ).fetchall()
            assert rows == [("llm",)]
        assert [hit.node.ref_doc_id for hit in engine.query(question).source_nodes] == sources


def test_hits_that_a_user_may_not_see_are_no_answer(tmp_path: Path) -> None:
    settings = {"store": "duckdb", "answer_floor": -1.0, "permissions": "on"}
    with build(
        "knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding(), settings=settings
    ) as engine:
        engine.ingest([Document(text="Wages rise in May.", doc_id="w", metadata={"allowed": ["hr"]})])
        hits = engine.as_user(groups=["hr"]).retrieve("When do wages rise?")
        assert hits
        answer = engine.as_user(groups=["sales"]).synthesize("When do wages rise?", hits, hits)
        assert (answer.source_nodes, answer.metadata["known"]) == ([], False)


def test_hits_of_another_tenant_are_no_answer(tmp_path: Path) -> None:
    """Whoever mixes up the hits of two customers shows none of one to the other."""
    settings = {"store": "duckdb", "answer_floor": -1.0}
    with build(
        "knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding(), settings=settings
    ) as engine:
        one, other = engine.for_tenant("one"), engine.for_tenant("other")
        one.ingest([Document(text="Wages of one rise in May.", doc_id="a")])
        other.ingest([Document(text="Wages of the other rise in June.", doc_id="b")])
        question = "When do wages rise?"
        own, foreign = one.retrieve(question), other.retrieve(question)
        answer = one.synthesize(question, [*foreign, *own], foreign)
        assert answer.source_nodes == own
        answer = asyncio.run(one.asynthesize(question, foreign))
        assert (answer.source_nodes, answer.metadata["known"]) == ([], False)
        assert len(engine.synthesize(question, [*foreign, *own]).source_nodes) == 2


def test_what_is_no_hit_is_named(tmp_path: Path) -> None:
    """Nodes without their score, a text, and nothing at all."""
    settings = {"store": "duckdb"}
    with build(
        "knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding(), settings=settings
    ) as engine:
        for nodes in (None, "Wages rise.", [TextNode(text="Wages rise.")]):
            with pytest.raises(WrongTypeError, match=r"^nodes .*\. Give hits, as engine\.retrieve"):
                engine.synthesize("When do wages rise?", nodes)  # type: ignore[arg-type]
        with pytest.raises(WrongTypeError, match="^additional_source_nodes holds a TextNode"):
            engine.synthesize("When do wages rise?", [], [TextNode(text="Wages rise.")])  # type: ignore[list-item]
