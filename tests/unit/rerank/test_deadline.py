"""A deadline bounds the scoring, and what it left out is visible."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import NodeWithScore

from llama_index_presets import CrossEncoderRerank
from llama_index_presets.rerank.scoring import score_texts

QUERY = "How is botulism treated?"


class SlowModel:
    """Scores by length, 10 ms a pair; texts hold one token for each character."""

    max_tokens = 8
    batch_tokens = 64

    def __init__(self) -> None:
        self.seen: list[str] = []

    def room(self, query: str) -> int:
        return 6

    def pair_tokens(self, query: str, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [(place, place + 1) for place in range(len(text))]

    def logits(self, query: str, texts: Sequence[str]) -> list[float]:
        time.sleep(0.01 * len(texts))
        self.seen += texts
        return [float(len(text)) for text in texts]


def test_a_deadline_scores_a_prefix_in_retrieval_order() -> None:
    """40 texts at 10 ms do not fit into 100 ms: the likeliest are scored and the rest is left."""
    texts = [f"{place:03}" for place in range(40)]
    outcome = score_texts(SlowModel(), QUERY, texts, deadline_s=0.1)
    assert outcome.cut
    assert 0 < len(outcome.logits) < 40
    assert list(outcome.logits) == texts[: len(outcome.logits)]


def test_without_pressure_everything_is_scored() -> None:
    """A generous deadline changes nothing but the order of the work."""
    texts = [f"{place:03}" for place in range(5)]
    outcome = score_texts(SlowModel(), QUERY, texts, deadline_s=60)
    assert not outcome.cut
    assert set(outcome.logits) == set(texts)


def test_a_long_text_counts_only_when_all_its_windows_were_scored() -> None:
    """The best of some windows is not the best of all, so a half-read text has no score."""
    texts = ["ab", "x" * 200]
    outcome = score_texts(SlowModel(), QUERY, texts, deadline_s=0.1, long_text="best_window")
    assert outcome.cut
    assert list(outcome.logits) == ["ab"]


@settings(max_examples=40)
@given(st.lists(st.text("ab", min_size=1, max_size=40), unique=True, max_size=4))
def test_windows_never_score_below_any_of_their_parts(texts: list[str]) -> None:
    """The score of a text is the maximum over its windows."""
    outcome = score_texts(SlowModel(), QUERY, texts, long_text="best_window")
    for text in texts:
        whole = len(text) <= SlowModel.max_tokens
        assert outcome.logits[text] == (len(text) if whole else max(1, 6 - 4))


def test_unscored_hits_follow_in_retrieval_order_without_a_score(
    model: str, hits: list[NodeWithScore]
) -> None:
    """A deadline that is over at once leaves the retrieval order, and says so."""
    rerank = CrossEncoderRerank(model, top_n=10, deadline_ms=1e-6)
    found = rerank.postprocess_nodes(hits, query_str=QUERY)
    assert found.report.cut
    assert found.report.unscored == 10
    assert [hit.node_id for hit in found] == [hit.node_id for hit in hits]
    assert all(hit.score is None and "rerank" not in hit.stages for hit in found)


def test_min_score_drops_what_was_not_scored(model: str, hits: list[NodeWithScore]) -> None:
    """Nothing is known of an unscored hit, so it does not pass a threshold."""
    rerank = CrossEncoderRerank(model, min_score=0.0, deadline_ms=1e-6)
    found = rerank.postprocess_nodes(hits, query_str=QUERY)
    assert list(found) == []
    assert found.report.unscored == 10


def test_a_deadline_that_is_not_reached_changes_no_score(model: str, hits: list[NodeWithScore]) -> None:
    """Other batches, the same answer."""
    plain = CrossEncoderRerank(model, top_n=10, precision="float32").postprocess_nodes(hits, query_str=QUERY)
    bounded = CrossEncoderRerank(model, top_n=10, precision="float32", deadline_ms=60_000).postprocess_nodes(
        hits, query_str=QUERY
    )
    assert not bounded.report.cut
    assert [hit.node_id for hit in bounded] == [hit.node_id for hit in plain]
