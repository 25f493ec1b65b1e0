"""`HybridFusionRetriever` called as `QueryFusionRetriever` is: the same names, the same numbers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core import Document, PromptTemplate, VectorStoreIndex
from llama_index.core.llms import CompletionResponse, MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import NodeWithScore
from tests.fakes import WordEmbedding

from llama_index_presets import BM25Index, HybridFusionRetriever
from llama_index_presets.errors import SettingsError
from llama_index_presets.ranking.query_fusion import MODES

TEXTS = [
    "Valve AB-17 of the pump leaks.",
    "The rope of the lift is worn.",
    "Lamps are changed yearly.",
    "The pump of the lift hums.",
]


class TwoQueries(MockLLM):
    """A model that writes two queries into a code fence, as real ones do."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text="```\nworn rope\nyearly lamps\nhumming lift\n```")

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self.complete(prompt)


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    documents = [Document(text=text, doc_id=str(place)) for place, text in enumerate(TEXTS)]
    return VectorStoreIndex.from_documents(documents, embed_model=WordEmbedding(model_name="words"))


def scores(hits: list[NodeWithScore]) -> list[tuple[str, float]]:
    return [(str(hit.node.ref_doc_id), pytest.approx(hit.score)) for hit in hits]


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("mode", list(FUSION_MODES))
def test_a_mode_gives_the_official_scores(mode: FUSION_MODES, queries: int, index: VectorStoreIndex) -> None:
    """Positional list, similarity_top_k, num_queries and llm, with the numbers of the official class."""
    legs = [index.as_retriever(similarity_top_k=3), index.as_retriever(similarity_top_k=2)]
    options = {"similarity_top_k": 3, "num_queries": queries, "mode": mode, "llm": TwoQueries()}
    weights = None if mode is FUSION_MODES.RECIPROCAL_RANK else [0.75, 0.25]
    options |= {"retriever_weights": weights, "use_async": False}
    stock = QueryFusionRetriever(legs, **options).retrieve("pump valve")  # type: ignore[arg-type]
    ours = HybridFusionRetriever(legs, **options)  # type: ignore[arg-type]
    assert scores(ours.retrieve("pump valve")) == scores(stock)
    assert scores(asyncio.run(ours.aretrieve("pump valve"))) == scores(stock)


def test_every_official_mode_is_known() -> None:
    """A mode that a later release adds fails here, not at a user's."""
    assert set(MODES) == {mode.value for mode in FUSION_MODES}


def test_weights_count_in_reciprocal_rank_fusion(index: VectorStoreIndex) -> None:
    """The official class ignores them: weights 3 and 1 of places 1 and 1 give (3 + 1) / 60."""
    legs = [index.as_retriever(similarity_top_k=1)] * 2
    hybrid = HybridFusionRetriever(retrievers=legs, retriever_weights=[3, 1], mode="reciprocal_rerank")
    assert scores(hybrid.retrieve("pump valve"))[0][1] == 4 / 60


def test_a_list_names_its_legs_by_kind_and_keeps_their_top_k(index: VectorStoreIndex) -> None:
    """Each retriever gives as many hits as it is made for, unless candidates says otherwise."""
    words = BM25Index.from_source(index)
    legs = [index.as_retriever(similarity_top_k=3), words.as_retriever(2), index.as_retriever()]
    hybrid = HybridFusionRetriever(legs)
    assert [(leg.name, leg.candidates) for leg in hybrid.legs] == [
        ("vector", 3),
        ("bm25", 2),
        ("vector 2", 2),
    ]
    assert {leg.candidates for leg in HybridFusionRetriever(legs, candidates=50).legs} == {50}
    assert hybrid.keyword_index is words


def test_official_attributes_and_prompts_are_there(index: VectorStoreIndex) -> None:
    """They are read, set and replaced as on the official class."""
    hybrid = HybridFusionRetriever(
        [index.as_retriever()], similarity_top_k=4, num_queries=2, llm=TwoQueries()
    )
    assert (hybrid.similarity_top_k, hybrid.num_queries, hybrid.mode) == (4, 2, "auto")
    hybrid.similarity_top_k = 1
    assert len(hybrid.retrieve("pump")) == 1
    hybrid.update_prompts({"query_gen_prompt": PromptTemplate("{num_queries} of {query}")})
    assert hybrid.query_gen_prompt == "{num_queries} of {query}"


def test_no_model_is_asked_unless_num_queries_says_so(index: VectorStoreIndex) -> None:
    """The official class asks one by default; here a query leaves the machine only when it is told to."""
    hybrid = HybridFusionRetriever([index.as_retriever()])
    assert hybrid.num_queries == 1 and hybrid.get_prompts() == {}
    assert hybrid.retrieve("pump")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retrievers": []}, "retrievers is empty"),
        ({"retrievers": ["words"]}, "is a str"),
        ({}, "or a list of retrievers alone"),
        ({"retrievers": None, "num_queries": 0}, "num_queries is 0"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    """Before anything is asked."""
    with pytest.raises(SettingsError, match=message):
        HybridFusionRetriever(**options)


def test_two_values_of_one_thing_are_refused(index: VectorStoreIndex) -> None:
    """top_k and similarity_top_k, fusion and mode."""
    legs = [index.as_retriever()]
    with pytest.raises(SettingsError, match="top_k is 3 and similarity_top_k is 4"):
        HybridFusionRetriever(legs, top_k=3, similarity_top_k=4)
    with pytest.raises(SettingsError, match="fusion is 'rrf' and mode is 'simple'"):
        HybridFusionRetriever(legs, fusion="rrf", mode=FUSION_MODES.SIMPLE)
