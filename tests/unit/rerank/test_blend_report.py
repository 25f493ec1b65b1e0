"""Whether reranking pays, by blend."""

from __future__ import annotations

import math

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

from llama_index_presets import CrossEncoderRerank
from llama_index_presets.errors import RerankError, SettingsError
from llama_index_presets.ranking.ndcg import ndcg
from llama_index_presets.rerank import JudgedQuery, judge, ndcg_by_blend

QUERY = "How is botulism treated?"


@settings(max_examples=40, deadline=None)
@given(
    st.permutations([f"d{n}" for n in range(14)]),
    st.dictionaries(st.sampled_from([f"d{n}" for n in range(20)]), st.integers(0, 1), min_size=1),
)
def test_ndcg_agrees_with_ir_measures(ranking: list[str], grades: dict[str, int]) -> None:
    """Binary judgments, some of them of documents that were not retrieved."""
    run = {"q": {name: -float(place) for place, name in enumerate(ranking)}}
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], {"q": grades}, run)[ir_measures.nDCG @ 10]
    assert ndcg(ranking, grades, k=10) == pytest.approx(expected if any(grades.values()) else 0.0)


def test_a_blend_is_scored_by_where_the_relevant_hit_lands() -> None:
    """Second place is worth 1 / log2(3)."""
    query = JudgedQuery(relevance={"b": 1}, ids=("a", "b"), retrieval=(0.9, 0.8), probability=(0.2, 0.9))
    assert ndcg_by_blend([query], blends=(0.0, 0.25, 1.0)) == {0.0: 1.0, 0.25: 1.0, 1.0: 1 / math.log2(3)}


def test_two_chunks_of_a_document_count_once() -> None:
    """A document in first and second place gains no more than in first."""
    assert ndcg(["d", "d", "e"], {"d": 1, "e": 1}) == pytest.approx(1.0)


@pytest.mark.parametrize("blend", [0.0, 0.3, 0.7, 1.0])
def test_the_report_orders_as_the_reranker_does(model: str, hits: list[NodeWithScore], blend: float) -> None:
    """What is measured is what runs: the figure of the report is the figure of the real result."""
    relevance = {"n7": 1.0, "n2": 1.0}
    judged = judge(CrossEncoderRerank(model), QUERY, hits, relevance)
    found = CrossEncoderRerank(model, top_n=10, blend=blend).postprocess_nodes(hits, query_str=QUERY)
    assert ndcg_by_blend([judged], blends=[blend])[blend] == ndcg([hit.node_id for hit in found], relevance)


def test_judgments_may_name_documents(model: str) -> None:
    """A chunk counts for the document that it was cut from."""
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="paper")}
    hits = [NodeWithScore(node=TextNode(id_="chunk", text="toxin", relationships=source), score=0.5)]
    assert judge(CrossEncoderRerank(model), QUERY, hits, {"paper": 1}).ids == ("paper",)


def test_queries_without_relevant_ids_are_left_out() -> None:
    """They would pull every blend down alike; when none is left, that is an error."""
    empty = JudgedQuery(relevance={"x": 0}, ids=(), retrieval=(), probability=())
    good = JudgedQuery(relevance={"a": 1}, ids=("a",), retrieval=(1.0,), probability=(0.5,))
    assert ndcg_by_blend([empty, good], blends=[0.5]) == {0.5: 1.0}
    with pytest.raises(SettingsError, match="No query has a relevant id"):
        ndcg_by_blend([empty])


def test_a_judged_query_must_be_whole() -> None:
    """One score of each kind for every candidate, and finite ones where they are blended."""
    with pytest.raises(SettingsError, match="1 id, 0 retrieval scores and 1 probability;"):
        JudgedQuery(relevance={}, ids=("a",), retrieval=(), probability=(0.5,))
    unscored = JudgedQuery(relevance={"a": 1}, ids=("a",), retrieval=(math.nan,), probability=(0.5,))
    with pytest.raises(RerankError, match="retrieval score nan"):
        ndcg_by_blend([unscored])
    with pytest.raises(SettingsError, match="blend is 2; expected a number from 0 to 1"):
        ndcg_by_blend([unscored], blends=[2])
