"""BM25 scores, as if the index were built afresh after every change."""

from __future__ import annotations

import threading

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.bm25 import Postings

words = st.lists(st.sampled_from("abcdefgh"), max_size=12)
corpora = st.lists(words, min_size=1, max_size=25)


def reference(corpus: dict[str, list[str]], query: list[str], k1: float, b: float) -> dict[str, float]:
    """Scores by bm25s, of an index built in one go."""
    known = {token for tokens in corpus.values() for token in tokens}
    query = [token for token in query if token in known]
    if not query:
        return {}
    index = bm25s.BM25(k1=k1, b=b, method="lucene")
    index.index(list(corpus.values()), show_progress=False)
    scores = index.get_scores(query)
    return {name: float(score) for name, score in zip(corpus, scores, strict=True) if score > 0}


@settings(max_examples=60, deadline=None)
@given(corpora, words, st.sampled_from([0.0, 0.9, 1.2, 1.5]), st.sampled_from([0.0, 0.75, 1.0]))
def test_scores_equal_bm25s(corpus: list[list[str]], query: list[str], k1: float, b: float) -> None:
    """Lucene's variant, to 1e-6."""
    named = {f"d{i:02d}": tokens for i, tokens in enumerate(corpus)}
    postings = Postings(k1=k1, b=b)
    postings.add(list(named), list(named.values()))
    assert dict(postings.search(query, k=100)) == pytest.approx(reference(named, query, k1, b), abs=1e-6)


changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.dictionaries(st.sampled_from("uvwxyz"), words, min_size=1, max_size=4)),
        st.tuples(st.just("remove"), st.lists(st.sampled_from("uvwxyz"), max_size=3)),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("restore"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(changes, words)
def test_any_history_scores_like_an_index_built_afresh(history: list, query: list[str]) -> None:
    """Adding, replacing, removing, compacting and reading back leave no trace in the scores."""
    postings, model = Postings(), {}
    for kind, argument in history:
        if kind == "add":
            postings.add(list(argument), list(argument.values()))
            model.update(argument)
        elif kind == "remove":
            removed = {name for name in argument if name in model}
            assert postings.remove(argument) == len(removed)
            model = {name: tokens for name, tokens in model.items() if name not in removed}
        elif kind == "compact":
            postings.compact()
        else:
            postings = Postings.restore(postings.export())
    fresh = Postings()
    fresh.add(list(model), list(model.values()))
    assert set(postings) == set(model)
    assert postings.search(query, k=50) == fresh.search(query, k=50)


def test_ties_are_broken_by_id() -> None:
    """Equal documents come in the order of their ids, also at the cut."""
    postings = Postings()
    postings.add(list("dbca"), [["x"]] * 4)
    assert [name for name, _ in postings.search(["x"], k=3)] == ["a", "b", "c"]


def test_the_best_are_found_among_thousands() -> None:
    """The shortcut over blocks of scores loses nothing."""
    rng = np.random.default_rng(7)
    postings = Postings()
    postings.add(
        [f"d{i:05d}" for i in range(9000)], [list(rng.choice(list("abcde"), 6)) for _ in range(9000)]
    )
    everything = postings.search(["a", "b"], k=9000)
    assert postings.search(["a", "b"], k=20) == everything[:20]
    assert everything == sorted(everything, key=lambda pair: (-pair[1], pair[0]))


def test_a_mask_selects_without_changing_scores() -> None:
    """Only allowed documents come back, with the scores they had."""
    postings = Postings()
    postings.add(["x", "y", "z"], [["fish"], ["fish", "red"], ["fish"]])
    everything = dict(postings.search(["fish"], k=9))
    assert dict(postings.search(["fish"], 9, postings.mask(["z", "nobody"]))) == {"z": everything["z"]}
    assert postings.search(["fish"], 9, postings.mask([])) == []


def test_no_match_gives_nothing() -> None:
    """Unknown words, no words and an empty index find nothing, rather than anything."""
    postings = Postings()
    assert postings.search(["fish"], k=3) == []
    postings.add(["x"], [["fish"]])
    assert postings.search(["bird"], k=3) == postings.search([], k=3) == postings.search(["fish"], k=0) == []


def test_what_does_not_fit_is_refused() -> None:
    """Each refusal names the numbers."""
    postings = Postings()
    with pytest.raises(RankingError, match="2 ids came with 1 token list;"):
        postings.add(["a", "b"], [["x"]])
    with pytest.raises(RankingError, match="k is -1"):
        postings.search(["x"], -1)
    with pytest.raises(RankingError, match="k1=-1"):
        Postings(k1=-1)
    postings.add(["a"], [["x"]])
    with pytest.raises(RankingError, match=r"shape \(3,\), the index 1 row"):
        postings.search(["x"], 1, np.ones(3, np.bool_))


def test_a_search_under_way_sees_a_replaced_document_whole() -> None:
    """Readers never miss a document that is only being replaced."""
    postings = Postings()
    postings.add([f"d{i}" for i in range(50)], [["x", str(i)] for i in range(50)])
    stop, counts = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            counts.add(len(postings.search(["x"], k=100)))

    thread = threading.Thread(target=read)
    thread.start()
    for round_ in range(60):
        postings.add(["d7", "d8"], [["x", f"n{round_}"], ["x"]])
    stop.set()
    thread.join()
    assert counts == {50}
