"""Filters that a question states."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from llama_index_presets import BM25Index, HybridFusionRetriever
from llama_index_presets.errors import SettingsError
from llama_index_presets.filters import predicate
from llama_index_presets.retrieve.question_filters import question_filters

PAPERS: list[dict[str, Any]] = [
    {"id": "a", "year": 2019, "authors": ["Jane Smith", "E. Artin"]},
    {"id": "b", "year": 2021, "authors": ["Noether, A."]},
    {"id": "c", "year": 2023, "authors": ["J. Smith"]},
    {"id": "d", "year": 2023, "authors": ["Ludwig van Beethoven"]},
    {"id": "e"},
]


def selected(question: str, papers: list[dict[str, Any]] = PAPERS) -> list[str]:
    """Ids of the papers that satisfy what a question states."""
    test = predicate(question_filters(question, papers))
    return [paper["id"] for paper in papers if test(paper)]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What was measured in 2023?", ["c", "d"]),
        ("What was measured since 2021?", ["b", "c", "d"]),
        ("What was measured after 2021?", ["c", "d"]),
        ("What was measured before 2021?", ["a"]),
        ("What was measured until 2021?", ["a", "b"]),
        ("What was measured between 2021 and 2019?", ["a", "b"]),
        ("Results of 2019-2021", ["a", "b"]),
        ("What was shown by Smith?", ["a", "c"]),
        ("What was shown by Dr. Smith in 2023?", ["c"]),
        ("papers written by Emmy Noether", ["b"]),
        ("sonatas by Ludwig van Beethoven", ["d"]),
        ("What was shown by Noether and Artin?", ["b"]),
    ],
)
def test_conditions_of_a_question_select_its_papers(question: str, expected: list[str]) -> None:
    """Years are compared, names are last names; of two names no node has both, so the first one holds."""
    assert selected(question) == expected


@pytest.mark.parametrize(
    "question",
    [
        "What grew between 2021 and growth?",
        "What is due by Monday?",
        "What is due in 2050?",
        "Was 2019 better than in 2021 and in 2023?",
        "Which of 2019 parts broke, sorted by size?",
        "How do I stand by you?",
        "",
    ],
)
def test_words_that_no_node_satisfies_are_no_filter(question: str) -> None:
    """ "Of 2019 parts" names a year that a paper has, so it stays the one mistake that rules cannot see."""
    expected = ["a"] if "of 2019" in question else [paper["id"] for paper in PAPERS]
    assert selected(question) == expected


def test_an_author_that_is_one_text_is_found_too() -> None:
    """Metadata may hold `author` as text, where `contains` would mean nothing."""
    papers = [{"id": "a", "author": "Jane Smith"}, {"id": "b", "author": "E. Artin"}]
    assert selected("a proof by Artin", papers) == ["b"]


def nodes() -> list[TextNode]:
    return [
        TextNode(id_="old", text="the pump leaks oil", metadata={"year": 2019}),
        TextNode(id_="new", text="the pump leaks water", metadata={"year": 2023}),
        TextNode(id_="other", text="a pump of another tenant", metadata={"year": 2021, "tenant": "b"}),
    ]


def test_a_hybrid_search_keeps_to_what_its_question_states() -> None:
    """Both legs are filtered, and without the option nothing is."""
    words = BM25Index.from_nodes(nodes())
    plain = HybridFusionRetriever(words.as_retriever(), words)
    reading = HybridFusionRetriever(words.as_retriever(), words, question_filters=True)
    question = "Which pump leaks in 2019?"
    assert {hit.node.node_id for hit in plain.retrieve(question)} == {"old", "new", "other"}
    assert [hit.node.node_id for hit in reading.retrieve(question)] == ["old"]


def test_nodes_that_the_caller_may_not_see_decide_nothing() -> None:
    """2021 is only a year of another tenant's node: for this caller the words state no filter."""
    words = BM25Index.from_nodes(nodes())
    mine = MetadataFilters(filters=[MetadataFilter(key="tenant", value="b", operator=FilterOperator.NE)])
    reading = HybridFusionRetriever(words.as_retriever(), words, question_filters=True, filters=mine)
    assert {hit.node.node_id for hit in reading.retrieve("Which pump leaks in 2021?")} == {"old", "new"}


async def test_asked_without_blocking_it_gives_the_same() -> None:
    """The async way reads the same filters."""
    words = BM25Index.from_nodes(nodes())
    reading = HybridFusionRetriever(words.as_retriever(), words, question_filters=True)
    assert [hit.node.node_id for hit in await reading.aretrieve(QueryBundle("pump in 2023"))] == ["new"]


class Other(BaseRetriever):
    """A retriever of a kind that has no keyword index behind it."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return []


def test_filters_of_questions_need_a_keyword_index() -> None:
    """Metadata is read from it."""
    with pytest.raises(SettingsError, match="reads the metadata of a BM25Index"):
        HybridFusionRetriever([Other()], question_filters=True)
