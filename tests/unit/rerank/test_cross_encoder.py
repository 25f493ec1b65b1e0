"""`CrossEncoderRerank` against the same weights run by sentence-transformers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from sentence_transformers import CrossEncoder

from llama_index_presets import CrossEncoderRerank
from llama_index_presets.errors import ModelError, RerankError, SettingsError
from llama_index_presets.provenance import RankedNode, StageRank
from llama_index_presets.rerank.scoring import cut_windows

QUERY = "How is botulism treated?"


def texts_of(hits: list[NodeWithScore]) -> list[str]:
    return [hit.node.get_content(metadata_mode=MetadataMode.EMBED) for hit in hits]


def test_float32_gives_the_order_and_scores_of_predict(model: str, hits: list[NodeWithScore]) -> None:
    """Same order as `CrossEncoder.predict`, whose default activation for one label is the sigmoid."""
    expected = CrossEncoder(model, device="cpu").predict([(QUERY, text) for text in texts_of(hits)])
    found = CrossEncoderRerank(model, top_n=10, precision="float32").postprocess_nodes(hits, query_str=QUERY)
    order = sorted(range(10), key=lambda place: -expected[place])
    assert [hit.node_id for hit in found] == [f"n{place}" for place in order]
    assert [hit.score for hit in found] == pytest.approx([float(expected[p]) for p in order], abs=1e-5)


def test_scores_are_plain_floats_that_json_takes(model: str, hits: list[NodeWithScore]) -> None:
    """No numpy type is left, so a response can be dumped."""
    found = CrossEncoderRerank(model).postprocess_nodes(hits, query_str=QUERY)
    assert all(type(hit.score) is float and 0 <= hit.score <= 1 for hit in found)
    assert json.loads(json.dumps([hit.score for hit in found])) == [hit.score for hit in found]
    assert all(json.loads(hit.model_dump_json())["score"] == hit.score for hit in found)


def test_inputs_are_left_as_they_were(model: str, hits: list[NodeWithScore]) -> None:
    """Neither the list, nor a score, nor a node's metadata or hash changes."""
    before = [(hit.node_id, hit.score, hit.node.hash, dict(hit.node.metadata)) for hit in hits]
    CrossEncoderRerank(model, blend=0.5).postprocess_nodes(hits, query_str=QUERY)
    assert before == [(hit.node_id, hit.score, hit.node.hash, dict(hit.node.metadata)) for hit in hits]


def test_both_ranks_and_scores_stay_beside_the_node(model: str, hits: list[NodeWithScore]) -> None:
    """The history tells retrieval from reranking, and the prompt sees none of it."""
    found = CrossEncoderRerank(model, top_n=10).postprocess_nodes(hits, query_str=QUERY)
    for after, hit in enumerate(found, start=1):
        assert isinstance(hit, RankedNode)
        origin = int(hit.node_id[1:])
        assert hit.stages["retrieval"] == StageRank(origin + 1, hits[origin].score)
        assert hit.stages["rerank"] == StageRank(after, hit.score)
        assert hit.node is hits[origin].node
        assert hit.get_content(MetadataMode.LLM) == hits[origin].get_content(MetadataMode.LLM)


def test_a_second_pass_keeps_the_first_retrieval_score(model: str, hits: list[NodeWithScore]) -> None:
    """Reranking what was reranked does not overwrite where a hit came from."""
    rerank = CrossEncoderRerank(model, top_n=10)
    twice = rerank.postprocess_nodes(rerank.postprocess_nodes(hits, query_str=QUERY), query_str="toxin")
    assert {hit.node_id: hit.stages["retrieval"].rank for hit in twice} == {f"n{p}": p + 1 for p in range(10)}


def test_a_hit_keeps_that_a_leg_failed(model: str) -> None:
    """What is known of a hit is copied on, not only its ranks: it was found without the leg that failed."""
    hit = RankedNode(node=TextNode(text="toxin"), score=0.5, degraded=("vector",))
    assert CrossEncoderRerank(model).postprocess_nodes([hit], query_str=QUERY)[0].degraded == ("vector",)


def test_equal_texts_tie_in_retrieval_order_and_are_scored_once(model: str) -> None:
    """Three hits, two texts: two pairs, and the tie keeps the retrieval order."""
    hits = [
        NodeWithScore(node=TextNode(id_=name, text=text), score=0.5)
        for name, text in (("late", "toxin"), ("a", "snow"), ("b", "snow"))
    ]
    found = CrossEncoderRerank(model).postprocess_nodes(hits, query_str=QUERY)
    names = [hit.node_id for hit in found]
    assert names.index("a") + 1 == names.index("b")
    assert (found.report.pairs, found.report.duplicates) == (2, 1)


def test_min_score_and_top_n_shorten_the_result(model: str, hits: list[NodeWithScore]) -> None:
    """`min_score` takes what reaches it, `top_n` the best of these."""
    every = CrossEncoderRerank(model, top_n=10).postprocess_nodes(hits, query_str=QUERY)
    floor = every[3].score
    kept = CrossEncoderRerank(model, top_n=10, min_score=floor).postprocess_nodes(hits, query_str=QUERY)
    assert [hit.node_id for hit in kept] == [hit.node_id for hit in every[:4]]
    assert (
        len(CrossEncoderRerank(model, top_n=2, min_score=floor).postprocess_nodes(hits, query_str=QUERY)) == 2
    )


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(blend=st.floats(0, 1))
def test_the_final_score_is_the_blend(model: str, hits: list[NodeWithScore], blend: float) -> None:
    """(1 - blend) * p + blend * (score - low) / (high - low), best first."""
    found = CrossEncoderRerank(model, top_n=10, blend=blend).postprocess_nodes(hits, query_str=QUERY)
    for hit in found:
        p, retrieval = hit.stages["rerank"].score, hit.stages["retrieval"].score
        assert hit.score == pytest.approx((1 - blend) * p + blend * (retrieval - 0.45) / 0.45)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


def test_blend_one_is_the_retrieval_order(model: str, hits: list[NodeWithScore]) -> None:
    """The reranker has no say then."""
    found = CrossEncoderRerank(model, top_n=10, blend=1.0).postprocess_nodes(hits, query_str=QUERY)
    assert [hit.node_id for hit in found] == [hit.node_id for hit in hits]


def test_hits_without_scores_rerank_but_do_not_blend(model: str, hits: list[NodeWithScore]) -> None:
    """Blending needs a number; reranking alone does not."""
    bare = [NodeWithScore(node=hit.node) for hit in hits]
    assert len(CrossEncoderRerank(model).postprocess_nodes(bare, query_str=QUERY)) == 5
    with pytest.raises(RerankError, match="Candidate 1 has the retrieval score None"):
        CrossEncoderRerank(model, blend=0.5).postprocess_nodes(bare, query_str=QUERY)


def test_bfloat16_stays_near_float32(model: str, hits: list[NodeWithScore]) -> None:
    """Half the bits, nearly the same probabilities."""
    precise = CrossEncoderRerank(model, precision="float32").probabilities(QUERY, hits)
    fast = CrossEncoderRerank(model, precision="bfloat16").probabilities(QUERY, hits)
    assert fast == pytest.approx(precise, abs=0.05)


def test_truncation_is_counted(model: str) -> None:
    """A text of 200 words does not fit into 64 tokens; one of 3 does."""
    hits = [NodeWithScore(node=TextNode(text=text)) for text in ("snow " * 200, "snow on mountains")]
    found = CrossEncoderRerank(model).postprocess_nodes(hits, query_str=QUERY)
    assert found.report.truncated == 1
    assert found.report.prompt_tokens == 64 + 7 + 3 + 3


def test_max_length_shortens_what_is_read(model: str) -> None:
    """With 16 tokens a text of 20 words is cut, which 64 would hold."""
    hits = [NodeWithScore(node=TextNode(text="snow " * 20))]
    assert CrossEncoderRerank(model).postprocess_nodes(hits, query_str=QUERY).report.truncated == 0
    short = CrossEncoderRerank(model, max_length=16).postprocess_nodes(hits, query_str=QUERY)
    assert (short.report.truncated, short.report.prompt_tokens) == (1, 16)


def test_best_window_reads_the_end_of_a_long_text(model: str) -> None:
    """Another ending changes the score of a long text, which truncation would not notice."""

    def score(ending: str, long_text: str) -> tuple[float, int, int]:
        hits = [NodeWithScore(node=TextNode(text="snow fell on the mountains. " * 30 + ending))]
        rerank = CrossEncoderRerank(model, precision="float32", long_text=long_text)
        (hit,) = found = rerank.postprocess_nodes(hits, query_str=QUERY)
        return hit.score, found.report.pairs, found.report.truncated

    endings = ("antitoxin treats botulism well " * 8, "whales migrate " * 16)
    assert score(endings[0], "truncate") == score(endings[1], "truncate")
    one, other = (score(ending, "best_window") for ending in endings)
    assert one[0] != other[0]
    assert one[1] > 1 and one[2] == 0


def test_best_window_is_the_best_of_the_windows_scores(model: str) -> None:
    """The same as scoring each window as a hit of its own and taking the maximum."""
    text = "snow fell on the mountains. " * 30 + "antitoxin treats botulism well."
    rerank = CrossEncoderRerank(model, precision="float32", long_text="best_window").warm_up()
    (found,) = rerank.probabilities(QUERY, [NodeWithScore(node=TextNode(text=text))])
    pair_model = rerank._loaded()
    room = pair_model.room(QUERY) - 4
    windows = cut_windows(text, pair_model.offsets(text), room, room // 4)
    each = rerank.probabilities(QUERY, [NodeWithScore(node=TextNode(text=window)) for window in windows])
    assert found == pytest.approx(max(each), abs=1e-5)


def test_the_cache_spares_the_model(model: str, hits: list[NodeWithScore]) -> None:
    """A second call with the same query scores nothing; another query scores all."""
    rerank = CrossEncoderRerank(model, cache_size=100)
    first = rerank.postprocess_nodes(hits, query_str=QUERY)
    second = rerank.postprocess_nodes(hits, query_str=QUERY)
    assert (first.report.pairs, first.report.cached) == (10, 0)
    assert (second.report.pairs, second.report.cached) == (0, 10)
    assert [(hit.node_id, hit.score) for hit in first] == [(hit.node_id, hit.score) for hit in second]
    assert rerank.postprocess_nodes(hits, query_str="snow").report.pairs == 10


def test_a_score_that_is_no_number_names_the_node(
    make_model: Callable[..., str], hits: list[NodeWithScore]
) -> None:
    """Only the poisoned word's node is at fault, and nothing is sorted first by accident."""
    rerank = CrossEncoderRerank(make_model(poison="whales"))
    with pytest.raises(RerankError, match="scored node 'n8' nan"):
        rerank.postprocess_nodes(hits, query_str=QUERY)


def test_a_model_with_many_labels_is_refused(
    make_model: Callable[..., str], hits: list[NodeWithScore]
) -> None:
    """Entailment models have three logits and none of them is a rank."""
    with pytest.raises(ModelError, match="scores 3 labels; a reranker needs one"):
        CrossEncoderRerank(make_model(labels=3)).postprocess_nodes(hits, query_str=QUERY)


def test_an_encoder_without_a_head_is_refused(make_model: Callable[..., str]) -> None:
    """sentence-transformers would load it with a random head and rank by dice."""
    with pytest.raises(ModelError, match="BertModel and has no scoring head"):
        CrossEncoderRerank(make_model(head=False)).warm_up()


def test_a_missing_folder_is_an_error_at_first_use() -> None:
    """The constructor does no I/O; the message says what to pass."""
    rerank = CrossEncoderRerank("./no/such/folder")
    with pytest.raises(ModelError, match=r"There is no folder '.*no/such/folder'"):
        rerank.warm_up()


def test_a_hub_name_that_is_not_cached_fails_offline() -> None:
    """The suite runs with the hub off: the error says how to get the model."""
    with pytest.raises(ModelError, match=r"could not be loaded: .*download the model once"):
        CrossEncoderRerank("cross-encoder/not-in-any-cache", local_files_only=True).warm_up()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"top_n": 0}, "top_n is 0; expected a whole number >= 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"blend": 1.5}, "blend is 1.5; expected a number from 0 to 1"),
        ({"blend": math.nan}, "blend is nan"),
        ({"min_score": -0.1}, "min_score is -0.1"),
        ({"deadline_ms": 0}, "deadline_ms is 0; expected None or a number > 0"),
        ({"max_length": 2}, "max_length is 2"),
        ({"cache_size": -1}, "cache_size is -1"),
        ({"backend": "tensorflow"}, "backend is 'tensorflow'; expected one of auto, onnx, torch, openvino"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"long_text": "skip"}, "long_text is 'skip'"),
        ({"backend": "onnx", "precision": "bfloat16"}, "precision='bfloat16' needs backend='torch'"),
    ],
)
def test_a_setting_out_of_range_is_refused_at_once(setting: dict[str, object], expected: str) -> None:
    """Before a model is loaded, with the value and what was expected."""
    with pytest.raises(SettingsError, match=expected):
        CrossEncoderRerank(**setting)


@pytest.mark.parametrize("bundle", [None, QueryBundle("  ")])
def test_a_query_without_text_is_refused(model: str, hits: list[NodeWithScore], bundle: QueryBundle) -> None:
    """A cross-encoder has nothing to compare with then."""
    with pytest.raises(RerankError, match="needs the text of the query"):
        CrossEncoderRerank(model).postprocess_nodes(hits, query_bundle=bundle)


def test_no_hits_give_no_hits_and_load_no_model() -> None:
    """An empty retrieval is not an error, and costs nothing."""
    assert CrossEncoderRerank("./no/such/folder").postprocess_nodes([], query_str=QUERY) == []


def test_many_threads_share_one_model(model: str, hits: list[NodeWithScore]) -> None:
    """A Rust tokenizer raises "Already borrowed" when threads use it unguarded."""
    rerank = CrossEncoderRerank(model, top_n=10)
    expected = [hit.node_id for hit in rerank.postprocess_nodes(hits, query_str=QUERY)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: rerank.postprocess_nodes(hits, query_str=QUERY), range(24)))
    assert all([hit.node_id for hit in result] == expected for result in found)


async def test_async_gives_the_same_and_leaves_the_loop_free(model: str, hits: list[NodeWithScore]) -> None:
    """Other work of the loop goes on while the model scores."""
    rerank = CrossEncoderRerank(model, top_n=10)
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    found = await rerank.apostprocess_nodes(hits, query_str=QUERY)
    ticking.cancel()
    assert turns > 10
    assert found == rerank.postprocess_nodes(hits, query_str=QUERY)


def test_a_setting_changed_later_is_followed(model: str, hits: list[NodeWithScore]) -> None:
    """Fields are public: shortening what is read after the first call has its effect."""
    rerank = CrossEncoderRerank(model)
    assert rerank.postprocess_nodes(hits, query_str=QUERY).report.truncated == 0
    rerank.max_length = 12
    assert rerank.postprocess_nodes(hits, query_str=QUERY).report.truncated > 0


def test_a_round_trip_through_a_dict_keeps_the_settings(model: str, hits: list[NodeWithScore]) -> None:
    """LlamaIndex serialises components; the stock reranker changes trust_remote_code on the way."""
    rerank = CrossEncoderRerank(model, top_n=3, blend=0.25, cache_size=5, long_text="best_window")
    again = CrossEncoderRerank.from_dict(rerank.to_dict())
    assert again.to_dict() == rerank.to_dict()
    assert again.trust_remote_code is False
    assert again.postprocess_nodes(hits, query_str=QUERY) == rerank.postprocess_nodes(hits, query_str=QUERY)
