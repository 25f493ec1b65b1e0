"""The parts without a model: probabilities, blending, batches, windows, the cache."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets.errors import RerankError
from llama_index_presets.rerank.scoring import (
    ScoreCache,
    blended,
    cut_windows,
    length_sorted_batches,
    next_batch_size,
    normalized,
    probability,
    window_spans,
)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=20))
def test_probability_keeps_the_order_of_logits(logits: list[float]) -> None:
    """A larger logit never gets a smaller probability, and all are in [0, 1]."""
    found = [probability(logit) for logit in sorted(logits)]
    assert found == sorted(found)
    assert all(0 <= p <= 1 for p in found)


def test_probability_tells_confident_logits_apart() -> None:
    """Double precision keeps logits of 20 and 20.001 apart, where float32 says 1.0 for both."""
    assert probability(20.0) < probability(20.001) < 1.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_normalized_scores_span_the_unit_interval(scores: list[float]) -> None:
    """The best candidate gets 1, and the worst 0 unless all are equal."""
    found = normalized(scores)
    assert max(found) == 1.0
    assert min(found) == (0.0 if len(set(scores)) > 1 else 1.0)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_blending_refuses_a_score_that_is_no_number(bad: float | None) -> None:
    """The message names the place, so the hit can be found."""
    with pytest.raises(RerankError, match=r"Candidate 2 has the retrieval score .*needs a finite number"):
        normalized([0.5, bad])


def test_blend_is_a_weighted_mean() -> None:
    """0.75 * 0.2 + 0.25 * 0.8."""
    assert blended(0.2, 0.8, 0.25) == pytest.approx(0.75 * 0.2 + 0.25 * 0.8)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 512), max_size=60), st.integers(1, 16), st.integers(1, 4096))
def test_every_pair_is_in_exactly_one_batch(lengths: list[int], size: int, tokens: int) -> None:
    """Batches partition the pairs, keep both limits, and go from long to short."""
    batches = length_sorted_batches(lengths, size, tokens)
    flat = [place for batch in batches for place in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[place] for place in flat] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) <= size
        assert len(batch) == 1 or len(batch) * lengths[batch[0]] <= tokens


def test_a_batch_near_the_deadline_takes_half_of_what_fits() -> None:
    """100 ms left at 10 ms a pair is 5 pairs; nothing fits into 10 ms."""
    assert next_batch_size(0.1, 0.01, 32) == 5
    assert next_batch_size(0.01, 0.01, 32) == 0
    assert next_batch_size(-1.0, None, 32) == 0
    assert next_batch_size(10.0, 0.01, 32) == 32


@settings(max_examples=60)
@given(st.integers(0, 500), st.integers(2, 60), st.data())
def test_windows_cover_a_text(tokens: int, room: int, data: st.DataObject) -> None:
    """Every token is in a window, and no window is longer than the room."""
    spans = window_spans(tokens, room, data.draw(st.integers(0, room - 1)))
    assert set(range(tokens)) == {token for start, stop in spans for token in range(start, stop)}
    assert all(stop - start <= room for start, stop in spans)


def test_a_short_text_is_its_own_window() -> None:
    """Leading and trailing space survives when nothing is cut."""
    assert cut_windows("  ab cd ", [(2, 4), (5, 7)], room=2, overlap=0) == ["  ab cd "]


def test_the_cache_drops_what_was_used_least_recently() -> None:
    """Reading an entry keeps it alive."""
    cache = ScoreCache(2)
    cache.put("m", "q", "a", 1.0)
    cache.put("m", "q", "b", 2.0)
    assert cache.get("m", "q", "a") == 1.0
    cache.put("m", "q", "c", 3.0)
    assert cache.get("m", "q", "b") is None
    assert (cache.get("m", "q", "a"), cache.get("m", "q", "c")) == (1.0, 3.0)


def test_cache_keys_do_not_run_together() -> None:
    """("ab", "c") and ("a", "bc") are different pairs."""
    cache = ScoreCache(2)
    cache.put("m", "ab", "c", 1.0)
    assert cache.get("m", "a", "bc") is None


def test_the_cache_stays_bounded_under_threads() -> None:
    """Four writers leave no more than the size."""
    cache = ScoreCache(10)
    writers = [
        threading.Thread(target=lambda name=name: [cache.put("m", name, str(n), n) for n in range(200)])
        for name in "abcd"
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(cache) == 10
