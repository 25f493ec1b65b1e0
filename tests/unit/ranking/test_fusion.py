"""Laws of fusion."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.fusion import (
    FUSIONS,
    confidence,
    convex_combination,
    fuse,
    reciprocal_rank_fusion,
)

scores = st.integers(0, 1000).map(lambda n: n / 8)


@st.composite
def rankings(draw: st.DrawFn, legs: int = 3) -> list[list[tuple[str, float]]]:
    """Some rankings of some of the same documents, best first."""
    made = []
    for _ in range(draw(st.integers(1, legs))):
        found = draw(st.dictionaries(st.sampled_from("abcdefghij"), scores, max_size=8))
        made.append(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))
    return made


methods = pytest.mark.parametrize("method", sorted(FUSIONS))
score_methods = pytest.mark.parametrize("method", sorted(set(FUSIONS) - {"rrf"}))


@methods
@settings(max_examples=40, deadline=None)
@given(legs=rankings(), data=st.data())
def test_the_order_of_the_rankings_does_not_matter(method: str, legs: list, data: st.DataObject) -> None:
    """Permuting rankings and weights together changes nothing, to the last bit."""
    weights = data.draw(
        st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.0]), min_size=len(legs), max_size=len(legs))
    )
    assume(any(weights))
    order = data.draw(st.permutations(range(len(legs))))
    swapped = fuse(method, [legs[i] for i in order], weights=[weights[i] for i in order])
    assert swapped == fuse(method, legs, weights=weights)


@methods
@settings(max_examples=40, deadline=None)
@given(legs=rankings(), extra=rankings(legs=1))
def test_a_weight_of_zero_removes_a_ranking(method: str, legs: list, extra: list) -> None:
    """Its documents are gone, too."""
    assert fuse(method, [*legs, extra[0]], weights=[1.0] * len(legs) + [0.0]) == fuse(method, legs)


@methods
@settings(max_examples=40, deadline=None)
@given(legs=rankings())
def test_scores_stay_in_the_stated_range_best_first(method: str, legs: list) -> None:
    """[0, 1], but for rrf (0, legs / 61]; every document once; ties by id."""
    fused = fuse(method, legs)
    top = len(legs) / 61 if method == "rrf" else 1.0
    assert all(0 <= score <= top + 1e-12 for _, score in fused)
    assert fused == sorted(fused, key=lambda pair: (-pair[1], pair[0]))
    assert {name for name, _ in fused} == {name for leg in legs for name, _ in leg}
    assert len({name for name, _ in fused}) == len(fused)


@methods
@settings(max_examples=40, deadline=None)
@given(legs=rankings(), factor=st.sampled_from([0.25, 2.0, 64.0]))
def test_multiplying_a_ranking_changes_nothing(method: str, legs: list, factor: float) -> None:
    """No method cares in which unit a ranking measures (factors are powers of two, so that floats are exact)."""
    larger = [[(name, score * factor) for name, score in legs[0]], *legs[1:]]
    expected = dict(fuse(method, legs))
    assert dict(fuse(method, larger)) == pytest.approx(expected, abs=1e-9)


@score_methods
@settings(max_examples=40, deadline=None)
@given(legs=rankings())
def test_shifting_a_ranking_without_a_floor_changes_nothing(method: str, legs: list) -> None:
    """Only differences count where no floor is given."""
    higher = [[(name, score + 16.0) for name, score in legs[0]], *legs[1:]]
    assert dict(fuse(method, higher)) == pytest.approx(dict(fuse(method, legs)), abs=1e-9)


def test_rrf_is_arithmetic() -> None:
    """Ranks start at 1, and weights count."""
    fused = dict(reciprocal_rank_fusion([[("a", 9.0), ("b", 1.0)], [("b", 0.2)]], weights=[2, 1]))
    assert fused == {"a": 2 / 61, "b": 2 / 62 + 1 / 61}


def test_weights_change_the_winner() -> None:
    """QueryFusionRetriever gives the same answer for [1, 0] and [0, 1]."""
    legs = [[("a", 2.0), ("b", 1.0)], [("b", 2.0), ("a", 1.0)]]
    for method in FUSIONS:
        assert fuse(method, legs, weights=[3, 1])[0][0] == "a"
        assert fuse(method, legs, weights=[1, 3])[0][0] == "b"


def test_a_document_that_comes_twice_counts_once() -> None:
    """The better place is kept."""
    for method in FUSIONS:
        twice = [("a", 3.0), ("b", 2.0), ("a", 1.0)]
        once = [("a", 3.0), ("b", 2.0)]
        assert fuse(method, [twice]) == fuse(method, [once])


def test_convex_stretches_from_the_floor() -> None:
    """TM2C2 by hand: cosine from -1, BM25 from 0."""
    fused = dict(convex_combination([[("a", 0.5), ("b", 0.0)], [("b", 8.0), ("a", 4.0)]], floors=[-1, 0]))
    assert fused == {"b": (1 / 1.5 + 1) / 2, "a": (1 + 4 / 8) / 2}


@score_methods
@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_is_refused(method: str, bad: float | None) -> None:
    """The error names the document and a method that does not need scores."""
    with pytest.raises(RankingError, match=r"score of 'a' is .*rrf"):
        fuse(method, [[("a", bad), ("b", 1.0)]])


@methods
@pytest.mark.parametrize(
    ("weights", "message"),
    [([1], "2 rankings came with 1 weights"), ([0, 0], "above 0"), ([1, -1], "0 or more")],
)
def test_weights_that_do_not_fit_are_refused(method: str, weights: list[float], message: str) -> None:
    """Instead of an IndexError or a division by zero."""
    with pytest.raises(RankingError, match=message):
        fuse(method, [[("a", 1.0)], [("b", 1.0)]], weights=weights)


def test_other_parameters_that_do_not_fit_are_refused() -> None:
    """Unknown method, k below 0, a score below its floor, floors of another number."""
    legs = [[("a", 1.0)]]
    with pytest.raises(RankingError, match=r"no fusion 'magic'.*rrf"):
        fuse("magic", legs)
    with pytest.raises(RankingError, match="k is -1"):
        fuse("rrf", legs, k=-1)
    with pytest.raises(RankingError, match="below its ranking's floor of 2"):
        fuse("convex", legs, floors=[2])
    for method in ("convex", "confidence", "auto"):
        with pytest.raises(RankingError, match="1 rankings came with 2 floors"):
            fuse(method, legs, floors=[0, 0])


def test_auto_asks_how_far_a_perfect_match_is() -> None:
    """(score - least) / (ceiling - least) for cosines, score / ceiling for words, weighted 1 : 2."""
    cosines, words = [("a", 0.7), ("b", 0.4), ("c", 0.2)], [("b", 6.0), ("a", 3.0), ("c", 0.0)]
    fused = dict(fuse("auto", [cosines, words], weights=[1, 2], floors=[None, 0.0], ceilings=[1.0, 12.0]))
    expected = {
        "a": (1 * 0.5 / 0.8 + 2 * 3 / 12) / 3,
        "b": (1 * 0.2 / 0.8 + 2 * 6 / 12) / 3,
        "c": 0.0,
    }
    assert fused == pytest.approx(expected)


def test_auto_does_not_mind_how_narrow_the_cosines_of_a_model_are() -> None:
    """Some models give 0.7 to everything: moved towards 1, the cosines fuse alike."""
    words = [("b", 6.0), ("a", 3.0)]
    wide = [("a", 0.7), ("b", 0.4), ("c", 0.2)]
    narrow = [(name, 0.75 + 0.25 * score) for name, score in wide]
    limits = {"floors": [None, 0.0], "ceilings": [1.0, 12.0]}
    assert dict(fuse("auto", [narrow, words], **limits)) == pytest.approx(
        dict(fuse("auto", [wide, words], **limits))
    )


def test_auto_takes_the_highest_score_for_perfect_where_nothing_is_known() -> None:
    """As min-max does; a score above its ceiling counts as perfect, too."""
    assert dict(fuse("auto", [[("a", 9.0), ("b", 1.0), ("c", 5.0)]])) == {"a": 1.0, "c": 0.5, "b": 0.0}
    assert dict(fuse("auto", [[("a", 2.0), ("b", 1.0)]], floors=[0.0], ceilings=[1.0])) == {
        "a": 1.0,
        "b": 0.5,
    }


def test_confidence_trusts_the_ranking_that_stands_out() -> None:
    """A flat ranking hardly moves one with a clear winner."""
    clear = [("a", 0.9), *[(f"x{i}", 0.2 - i / 1000) for i in range(20)]]
    flat = [("b", 5.0), *[(f"y{i}", 4.9 - i / 10) for i in range(20)]]
    assert fuse("confidence", [clear, flat])[0][0] == "a"
    assert fuse("confidence", [flat, clear])[0][0] == "a"


def test_confidence_knows_an_exhausted_ranking() -> None:
    """A part number that only one document holds beats a lukewarm vector ranking."""
    vector = [(f"x{i:02d}", 0.40 - i / 500) for i in range(50)]
    fused = fuse("confidence", [vector, [("part", 7.0)]], floors=[None, 0.0], ceilings=[1.0, None], depth=50)
    assert fused[0][0] == "part"


def test_confidence_has_its_range() -> None:
    """0 for a flat ranking, at most 10, 1 for a lone hit without a floor."""
    assert confidence([1.0, 1.0, 1.0]) == 0
    assert confidence([9.0, 0.0, 0.0], floor=0.0) == pytest.approx(10)
    assert confidence([0.7]) == 1
    assert confidence([0.9, 0.5], ceiling=1.0) == pytest.approx(10 * math.sqrt(0.8))


def test_confidence_keeps_documents_of_a_ranking_that_says_nothing() -> None:
    """All-equal scores have no say in the order, but their documents are still found."""
    fused = fuse("confidence", [[("a", 1.0), ("b", 1.0), ("c", 1.0)], [("b", 2.0), ("d", 0.5)]])
    assert [name for name, _ in fused] == ["b", "a", "c", "d"]
