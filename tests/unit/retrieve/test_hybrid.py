"""Hybrid search: what goes in is left alone, what comes out has a history, and one leg may fail."""

from __future__ import annotations

import asyncio
import copy
import json
import time

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index_presets import DuckDBVectorStore
from llama_index_presets.errors import RankingError, RetrievalError, SettingsError
from llama_index_presets.events import FusionEvent, LegEndEvent
from llama_index_presets.provenance import RankedNode
from llama_index_presets.ranking.fusion import FUSIONS
from llama_index_presets.retrieve import BM25Index, FilteredQuery, HybridFusionRetriever
from llama_index_presets.retrieve.hybrid import tune

WORDS = ["pump", "valve", "motor", "seal", "pipe"]


class CountWords(BaseEmbedding):
    """A deterministic embedding: how often each of a few words occurs. `size` tells models apart."""

    size: int = 5

    def _vector(self, text: str) -> list[float]:
        return [float(text.lower().count(word)) + 0.01 for word in WORDS][: self.size]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)


class Fixed(BaseRetriever):
    """A leg that always gives the same hits, after a while, or fails."""

    def __init__(self, hits: list[NodeWithScore], wait_s: float = 0, error: Exception | None = None) -> None:
        super().__init__()
        self.hits, self.wait_s, self.error = hits, wait_s, error

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query_bundle.embedding = [9.0]
        time.sleep(self.wait_s)
        if self.error is not None:
            raise self.error
        return self.hits


def node(name: str, text: str, **metadata: object) -> TextNode:
    return TextNode(id_=name, text=text, metadata=metadata)


NODES = [
    node("a", "pump pump manual", tenant="x"),
    node("b", "valve AB-17", tenant="y"),
    node("c", "motor and pump", tenant="y"),
    node("d", "seal", tenant="x"),
    node("e", "pipe fitting", tenant="y"),
]


def hits(*pairs: tuple[str, float | None]) -> list[NodeWithScore]:
    known = {n.node_id: n for n in NODES}
    return [NodeWithScore(node=known[name], score=score) for name, score in pairs]


def words() -> BM25Index:
    return BM25Index.from_nodes(NODES, text="none")


@pytest.fixture
def index() -> VectorStoreIndex:
    return VectorStoreIndex(nodes=copy.deepcopy(NODES), embed_model=CountWords())


def ids(found: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in found]


# -- what it gives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_every_fusion_works_from_an_index(index: VectorStoreIndex, fusion: str) -> None:
    """No LLM, no key; unique ids; best first."""
    found = HybridFusionRetriever.from_index(index, fusion=fusion, top_k=3).retrieve("pump manual")
    assert ids(found)[0] == "a"
    assert len(set(ids(found))) == len(found) == 3
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)


def test_each_hit_knows_what_every_stage_said() -> None:
    """Beside the node: neither prompt, nor hash, nor embedded text changes."""
    before = {n.node_id: (n.hash, n.get_content(MetadataMode.LLM)) for n in NODES}
    hybrid = HybridFusionRetriever(Fixed(hits(("c", 0.9), ("b", 0.5))), words())
    found = {hit.node.node_id: hit for hit in hybrid.retrieve("valve")}
    assert isinstance(found["b"], RankedNode)
    assert {name: stage.rank for name, stage in found["b"].stages.items()}.keys() == {
        "vector",
        "bm25",
        "fusion",
    }
    assert found["b"].stages["vector"].rank == 2
    assert found["b"].stages["vector"].score == 0.5
    assert set(found["c"].stages) == {"vector", "fusion"}
    for name, hit in found.items():
        assert (hit.node.hash, hit.node.get_content(MetadataMode.LLM)) == before[name]
        assert json.loads(hit.model_dump_json())["stages"]["fusion"]["rank"] >= 1


def test_nothing_given_is_changed() -> None:
    """Hits, nodes, retrievers and the query are as before: QueryFusionRetriever overwrites scores."""
    given = hits(("a", 0.9), ("c", 0.4))
    leg, query = Fixed(given), QueryBundle("pump")
    for fusion in FUSIONS:
        HybridFusionRetriever(leg, words(), fusion=fusion).retrieve(query)
    assert [hit.score for hit in given] == [0.9, 0.4]
    assert query.embedding is None
    assert leg.hits is given


def test_nodes_are_the_same_when_their_ids_are() -> None:
    """Same text under two ids stays two; one id with other metadata stays one."""
    twin = node("a2", "pump pump manual", tenant="x")
    other = node("a", "pump pump manual", tenant="x", seen_by="keyword")
    left = [NodeWithScore(node=NODES[0], score=0.9), NodeWithScore(node=twin, score=0.8)]
    found = HybridFusionRetriever(Fixed(left), Fixed([NodeWithScore(node=other, score=3.0)])).retrieve("x")
    assert ids(found) == ["a", "a2"]
    assert set(found[0].stages) == {"vector", "keyword", "fusion"}


def test_legs_with_different_models_keep_their_own_embeddings() -> None:
    """QueryFusionRetriever hands the first leg's embedding to the second."""
    three, five = (
        VectorStoreIndex(nodes=copy.deepcopy(NODES), embed_model=CountWords(size=size)).as_retriever()
        for size in (3, 5)
    )
    hybrid = HybridFusionRetriever(three, five, more={"again": three})
    assert ids(hybrid.retrieve("pump"))[0] == ids(asyncio.run(hybrid.aretrieve("pump")))[0] == "a"


def test_weights_and_more_legs() -> None:
    """Weights go by leg; a weight of 0 removes one."""
    legs = [Fixed(hits(("a", 0.9), ("b", 0.1))), Fixed(hits(("b", 5.0), ("c", 1.0)))]
    more = {"third": Fixed(hits(("d", 1.0), ("e", 0.5)))}
    assert ids(HybridFusionRetriever(*legs, fusion="rrf", weights=[1, 9]).retrieve("x"))[0] == "b"
    assert ids(HybridFusionRetriever(*legs, more=more, weights=[0, 0, 1]).retrieve("x")) == ["d", "e"]


def test_top_k_and_candidates() -> None:
    """Legs are asked for candidates, the caller gets top_k."""
    many = [NodeWithScore(node=node(f"n{i}", "x"), score=1 - i / 100) for i in range(50)]
    hybrid = HybridFusionRetriever(Fixed(many), Fixed([]), candidates=20, top_k=7)
    assert len(hybrid.retrieve("x")) == 7
    assert len(hybrid.tuned_to("rrf").ask_legs(QueryBundle("x"))[0].found.pairs) == 20


def test_from_index_asks_legs_for_candidates(index: VectorStoreIndex) -> None:
    """Not for LlamaIndex's default of two."""
    hybrid = HybridFusionRetriever.from_index(index, top_k=2, candidates=4)
    assert [len(o.found.pairs) for o in hybrid.ask_legs(QueryBundle("pump"))] == [4, 2]


def test_an_empty_keyword_index_is_its_keyword_index() -> None:
    """Nodes may come after the retriever was made, as in a new engine."""
    empty = BM25Index()
    assert HybridFusionRetriever(Fixed([]), empty).keyword_index is empty


def test_a_query_engine_uses_it(index: VectorStoreIndex) -> None:
    """It is a plain LlamaIndex retriever."""
    from llama_index.core.llms import MockLLM

    engine = RetrieverQueryEngine.from_args(HybridFusionRetriever.from_index(index), llm=MockLLM())
    assert engine.query("pump manual").source_nodes[0].node.node_id == "a"


# -- filters ----------------------------------------------------------------------------------------------

MINE = MetadataFilters(filters=[MetadataFilter(key="tenant", value="y")])


@pytest.mark.parametrize("way", ["constructor", "copy", "query"])
async def test_filters_reach_every_leg(index: VectorStoreIndex, way: str) -> None:
    """Three ways to give them, sync and async; other tenants never come back."""
    filters = MINE if way == "constructor" else None
    hybrid = HybridFusionRetriever.from_index(index, filters=filters)
    asked = hybrid.with_filters(MINE) if way == "copy" else hybrid
    query = FilteredQuery("pump manual", filters=MINE) if way == "query" else QueryBundle("pump manual")
    assert sorted(ids(asked.retrieve(query))) == sorted(ids(await asked.aretrieve(query))) == ["b", "c", "e"]
    assert len(hybrid.retrieve("pump manual")) == (3 if way == "constructor" else 5)


def test_a_leg_that_takes_no_filters_is_refused() -> None:
    """Better no answer than another tenant's."""
    with pytest.raises(SettingsError, match="'vector' is a Fixed, which takes no metadata filters"):
        HybridFusionRetriever(Fixed([]), words(), filters=MINE)
    with pytest.raises(SettingsError, match="takes no metadata filters"):
        HybridFusionRetriever(Fixed([]), words()).retrieve(FilteredQuery("x", filters=MINE))


def test_a_leg_that_ignores_its_filters_leaks_nothing() -> None:
    """What a leg lets pass is checked again."""
    leaky = Fixed(hits(("a", 0.9), ("b", 0.8), ("d", 0.7)))
    leaky.filters = None
    assert ids(HybridFusionRetriever(leaky, words(), filters=MINE, top_k=2).retrieve("valve")) == ["b"]


# -- failing and waiting ----------------------------------------------------------------------------------


async def test_a_failing_leg_fails_the_search_by_default() -> None:
    """The error names the leg, the cause and the way out."""
    hybrid = HybridFusionRetriever(Fixed([], error=OSError("no route")), words())
    with pytest.raises(RetrievalError, match=r"Leg 'vector' \(Fixed\) failed: OSError: no route.*degrade"):
        hybrid.retrieve("pump")
    with pytest.raises(RetrievalError, match="Leg 'vector'") as caught:
        await hybrid.aretrieve("pump")
    assert isinstance(caught.value.__cause__, OSError)


async def test_degrading_says_so() -> None:
    """In every hit, and in the events."""
    hybrid = HybridFusionRetriever(Fixed([], error=OSError("no route")), words(), on_leg_error="degrade")
    for found in (hybrid.retrieve("valve"), await hybrid.aretrieve("valve")):
        assert [(hit.node.node_id, hit.degraded) for hit in found] == [("b", ("vector",))]
    whole = HybridFusionRetriever(Fixed(hits(("a", 0.9))), words(), on_leg_error="degrade").retrieve("valve")
    assert all(hit.degraded == () for hit in whole)


def test_when_all_legs_fail_there_is_no_answer() -> None:
    """Degrading to nothing is a failure."""
    broken = Fixed([], error=OSError("down"))
    with pytest.raises(RetrievalError, match="All legs failed"):
        HybridFusionRetriever(broken, broken, on_leg_error="degrade").retrieve("x")


async def test_a_late_leg_is_left_behind() -> None:
    """Per leg; the others' answer is given."""
    slow = Fixed(hits(("a", 0.9)), wait_s=1.0)
    hybrid = HybridFusionRetriever(slow, words(), timeout_s=0.1, on_leg_error="degrade")
    for found in (hybrid.retrieve("valve"), await hybrid.aretrieve("valve")):
        assert ids(found) == ["b"]
        assert found[0].degraded == ("vector",)
    with pytest.raises(RetrievalError, match=r"'vector' did not answer within 0.1 s"):
        HybridFusionRetriever(slow, words(), timeout_s=0.1).retrieve("valve")


async def test_slow_legs_wait_together() -> None:
    """A barrier that only two legs at once can pass."""
    import threading

    barrier = threading.Barrier(2, timeout=5)

    class Meeting(Fixed):
        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            barrier.wait()
            return self.hits

    hybrid = HybridFusionRetriever(Meeting(hits(("a", 0.9))), Meeting(hits(("b", 0.9))))
    assert set(ids(hybrid.retrieve("x"))) == set(ids(await hybrid.aretrieve("x"))) == {"a", "b"}


async def test_sync_search_works_inside_a_running_loop(index: VectorStoreIndex) -> None:
    """As in a notebook; and async many at once."""
    hybrid = HybridFusionRetriever.from_index(index)
    expected = ids(hybrid.retrieve("pump"))
    answers = await asyncio.gather(*(hybrid.aretrieve("pump") for _ in range(10)))
    assert all(ids(answer) == expected for answer in answers)


# -- events and spans -------------------------------------------------------------------------------------


def test_legs_and_fusion_are_seen_by_monitors() -> None:
    """One event a leg and one for the fusion, in spans of one trace; never the query."""
    seen: list = []

    class Listener(BaseEventHandler):
        def handle(self, event: object, **_: object) -> None:
            seen.append(event)

    root, spans = get_dispatcher(), SimpleSpanHandler()
    root.add_event_handler(Listener())
    root.add_span_handler(spans)
    try:
        broken = Fixed([], error=OSError("secret valve"))
        HybridFusionRetriever(broken, words(), on_leg_error="degrade").retrieve("valve")
    finally:
        root.event_handlers.pop()
        root.span_handlers.pop()
    legs = {event.leg: event for event in seen if isinstance(event, LegEndEvent)}
    assert (legs["vector"].error, legs["vector"].hits) == ("OSError", 0)
    assert (legs["bm25"].error, legs["bm25"].hits) == (None, 1)
    assert all(event.latency_ms >= 0 for event in legs.values())
    fusion = next(event for event in seen if isinstance(event, FusionEvent))
    assert (fusion.fusion, fusion.legs, fusion.degraded, fusion.hits) == ("auto", ["bm25"], ["vector"], 1)
    assert "valve" not in "".join(e.model_dump_json() for e in (*legs.values(), fusion))
    names = [span.id_.split("-")[0] for span in [*spans.completed_spans, *spans.dropped_spans]]
    for name in (
        "HybridFusionRetriever.retrieve",
        "Fixed.retrieve",
        "KeywordRetriever.find",
        "HybridFusionRetriever.rank",
    ):
        assert name in names
    top = next(s for s in spans.completed_spans if s.id_.startswith("HybridFusionRetriever._retrieve"))
    children = {
        s.id_.split("-")[0] for s in [*spans.completed_spans, *spans.dropped_spans] if s.parent_id == top.id_
    }
    assert {"Fixed.retrieve", "KeywordRetriever.find", "HybridFusionRetriever.rank"} <= children


# -- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fusion": "magic"}, "no fusion 'magic'.*auto"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": "5"}, "top_k is a str. Give a whole number"),
        ({"candidates": 2.5}, "candidates is a float. Give a whole number"),
        ({"candidates": 0}, "candidates is 0"),
        ({"weights": [1]}, "1 weights were given for the legs vector, bm25"),
        ({"weights": [0, 0]}, "not all 0"),
        ({"on_leg_error": "ignore"}, "choose 'raise' or 'degrade'"),
        ({"timeout_s": 0}, "timeout_s is 0"),
    ],
)
def test_wrong_settings_fail_at_once(settings: dict, message: str) -> None:
    """At construction, not at the first query."""
    with pytest.raises(SettingsError, match=message):
        HybridFusionRetriever(Fixed([]), words(), **settings)


def test_another_keyword_is_refused(index: VectorStoreIndex) -> None:
    """The message has the choices."""
    with pytest.raises(SettingsError, match="keyword is 'tfidf'; choose 'bm25' or 'store'"):
        HybridFusionRetriever.from_index(index, keyword="tfidf")


def test_a_leg_without_scores_needs_rrf() -> None:
    """Scores are not made up."""
    legs = Fixed(hits(("a", None), ("b", None))), words()
    with pytest.raises(RankingError, match="Use fusion 'rrf'"):
        HybridFusionRetriever(*legs).retrieve("valve")
    assert ids(HybridFusionRetriever(*legs, fusion="rrf").retrieve("valve")) == ["b", "a"]


def test_tuning_finds_the_leg_that_knows() -> None:
    """Where only the keyword leg is right, its weight wins; the retriever stays as it was."""
    hybrid = HybridFusionRetriever(Fixed(hits(("d", 0.9), ("a", 0.2), ("b", 0.1), ("c", 0.0))), words())
    queries = {
        f"q{i}": word for i, word in enumerate(["pump", "valve", "motor", "pipe", "fitting", "manual"])
    }
    qrels = {f"q{i}": {name: 1} for i, name in enumerate(["a", "b", "c", "e", "e", "a"])}
    tuning = tune(hybrid, queries, qrels, folds=3)
    assert tuning.cross_validated >= tuning.default_mean
    better = hybrid.tuned_to(tuning.best.fusion, tuning.best.weights)
    assert ids(better.retrieve("valve"))[0] == "b"
    assert hybrid.fusion == "auto"
    assert len(tuning.trials) >= 25


# -- scores that a leg did not give -------------------------------------------------------------------------


def test_auto_fuses_with_every_leg_s_score_of_every_candidate(
    index: VectorStoreIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one candidate a leg, the store is asked once more, for the ids that only the keyword leg found."""
    asked: list[list[str] | None] = []
    store = index.vector_store
    query_store = type(store).query

    def counted(self: object, query: object, **options: object) -> object:
        asked.append(query.node_ids)
        return query_store(self, query, **options)

    monkeypatch.setattr(type(store), "query", counted)
    hybrid = HybridFusionRetriever(index.as_retriever(), words(), candidates=1, top_k=1)
    narrow = dict(hybrid.rank(hybrid.ask_legs(QueryBundle("pump AB-17"))))
    (found,) = set(narrow) - {"b"}
    assert asked[1:] == [["b"]]
    wide = HybridFusionRetriever(index.as_retriever(), words(), candidates=5, top_k=5)
    outcomes = wide.ask_legs(QueryBundle("pump AB-17"))
    cosines, scores = (dict(outcome.scores) for outcome in outcomes)
    ceiling = outcomes[1].ceiling
    least = min(cosines[found], cosines["b"])
    expected = {
        name: ((cosines[name] - least) / (1 - least) + 2 * scores.get(name, 0.0) / ceiling) / 3
        for name in (found, "b")
    }
    assert narrow == pytest.approx(expected)


def test_missing_scores_are_the_same_without_blocking(index: VectorStoreIndex) -> None:
    """Asynchronous and synchronous searches know the same scores."""
    hybrid = HybridFusionRetriever(index.as_retriever(), words(), candidates=1, top_k=2)
    waited = asyncio.run(hybrid.aretrieve("pump AB-17"))
    assert [(hit.node.node_id, hit.score) for hit in waited] == [
        (hit.node.node_id, hit.score) for hit in hybrid.retrieve("pump AB-17")
    ]


def test_a_store_that_refuses_ids_counts_as_not_found(
    index: VectorStoreIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The search goes on with what the legs gave, and the log says so."""
    query_store = type(index.vector_store).query

    def refusing(self: object, query: object, **options: object) -> object:
        if query.node_ids == ["b"]:
            raise NotImplementedError("no ids")
        return query_store(self, query, **options)

    monkeypatch.setattr(type(index.vector_store), "query", refusing)
    hybrid = HybridFusionRetriever(index.as_retriever(), words(), candidates=1, top_k=1)
    assert len(hybrid.rank(hybrid.ask_legs(QueryBundle("pump AB-17")))) == 2
    assert "could not score 1 node of other legs (NotImplementedError: no ids)" in caplog.text


def test_a_retriever_of_one_s_own_can_score_nodes() -> None:
    """One with `score_ids` is asked for nodes that only the keyword leg found."""

    class Scoring(Fixed):
        def score_ids(self, query_bundle: QueryBundle, ids: list[str]) -> dict[str, float]:
            return dict.fromkeys(ids, 0.5)

    leg = Scoring(hits(("a", 0.9)))
    found = HybridFusionRetriever(leg, words()).ask_legs(QueryBundle("AB-17"))
    assert dict(found[0].scores) == {"a": 0.9, "b": 0.5}


def test_the_fusion_is_explained() -> None:
    """Method, function, and the share of each leg; weights are factors."""
    hybrid = HybridFusionRetriever(Fixed(hits(("a", 0.9))), words())
    explained = hybrid.explain()
    assert (explained["method"], explained["function"]) == ("auto", "perfect_match_fusion")
    assert explained["shares"] == {"vector": 0.3333, "bm25": 0.6667}
    weighted = HybridFusionRetriever(Fixed(hits(("a", 0.9))), words(), weights=[2, 1])
    assert weighted.explain()["shares"] == {"vector": 0.5, "bm25": 0.5}
    assert hybrid.tuned_to("rrf").explain()["shares"] == {"vector": 0.5, "bm25": 0.5}


def test_from_index_says_what_it_takes() -> None:
    """A store and an engine are no index; the message says how to make one."""
    with pytest.raises(SettingsError, match=r"an index, not a DuckDBVectorStore.*from_vector_store\(store\)"):
        HybridFusionRetriever.from_index(DuckDBVectorStore())  # type: ignore[arg-type]
