"""Queries as users type them: words, exact phrases, prefixes; and what they and word pairs score."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from llama_index_presets.ranking.bm25 import (
    FIELD_END,
    Analyzer,
    KeywordQuery,
    Postings,
    parse_query,
)
from llama_index_presets.ranking.bm25.analyzer import GAP

PAIR = (("late", "fee"),)
ANALYZER = Analyzer(identifiers=True, marks=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("late fees", KeywordQuery(("late", "fee"), pairs=PAIR)),
        ('"late fees"', KeywordQuery((), (("late", "fee"),))),
        ("“late fees”", KeywordQuery((), (("late", "fee"),))),
        ('"late" "the fees"', KeywordQuery(("late", "fee"))),
        ('who wrote "Late Fees"', KeywordQuery(("wrote", "late", "fee"), PAIR, pairs=PAIR)),
        ("code-12*", KeywordQuery((), (), ("code12",))),
        ("multi-thre*", KeywordQuery(("multi",), (), ("thre",))),
        ("pump cod*", KeywordQuery(("pump",), (), ("cod",))),
        ("**bold** text *", KeywordQuery(("bold", "text"), pairs=(("bold", "text"),))),
        ('an open " quote', KeywordQuery(("open", "quot"), pairs=(("open", "quot"),))),
        ("the B12 test", KeywordQuery(("b12", "b", "12", "test"), pairs=(("b12", "test"),))),
        ('"state of the art"', KeywordQuery((), (("state", "~", "~", "art"),))),
        ("", KeywordQuery()),
    ],
)
def test_a_query_is_read(text: str, expected: KeywordQuery) -> None:
    """Quotes make phrases, an asterisk at the end of a word a prefix; a lone quote or asterisk is nothing."""
    assert parse_query(text, ANALYZER) == expected


def postings(*texts: str) -> Postings:
    made = Postings(positions=True)
    made.add([f"d{i}" for i in range(len(texts))], [text.split() for text in texts])
    return made


def names(made: Postings, query: KeywordQuery, weight: float = 0.0) -> list[str]:
    view = made.view()
    return [view.ids[row] or "" for row, _ in view.scored(query, weight).best(10)]


def test_an_exact_phrase_is_only_found_where_its_words_follow_each_other() -> None:
    """Neither another order, nor a word between, nor the end of a field is the phrase."""
    made = postings("red fish", "fish red", "red big fish", f"red {FIELD_END} fish", "blue red fish")
    assert names(made, KeywordQuery((), (("red", "fish"),))) == ["d0", "d4"]
    assert names(made, KeywordQuery((), (("fish", "fish"),))) == []


def test_a_stop_word_between_two_words_is_part_of_the_phrase() -> None:
    """Any stop word does for another, none does not; lengths and word pairs pass over them."""
    made = Postings(positions=True)
    texts = ["the state of the art", "state art", "the state the the art", "state of art"]
    made.add([f"d{i}" for i in range(4)], [ANALYZER.tokens(text) for text in texts])
    assert sorted(names(made, parse_query('"state of the art"', ANALYZER))) == ["d0", "d2", "d3"]
    assert names(made, parse_query('"state art"', ANALYZER)) == ["d1"]
    plain, paired = (
        dict(made.view().scored(parse_query("state art", ANALYZER), weight).best(4)) for weight in (0, 0.3)
    )
    assert len({round(paired[row] - plain[row], 6) for row in range(4)}) == 1
    assert len(set(plain.values())) == 1


def test_the_whole_of_an_identifier_does_not_make_a_text_longer() -> None:
    """Its parts are words of the text; the whole is another form of them, found and counted for nothing else."""
    made = Postings(positions=True)
    texts = ["form B-12 red", "form B 12 red", "form c 7 red"]
    made.add(["whole", "parts", "other"], [ANALYZER.tokens(text) for text in texts])
    found = made.view().scored(KeywordQuery(("red",))).best(3)
    assert len({score for _, score in found}) == 1
    assert [name for name, _ in made.search(["b12"], 3)] == ["whole"]


def test_a_phrase_scores_as_one_rare_word() -> None:
    """Sum of the idf of its words times f / (f + damping)."""
    made = postings("red fish", "red", "fish", "blue")
    idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    damping = 1.2 * (0.25 + 0.75 * 2 / (5 / 4))
    (_, score), *_ = made.view().scored(KeywordQuery((), (("red", "fish"),))).best(1)
    assert score == pytest.approx(2 * idf / (1 + damping))


def test_a_prefix_counts_as_one_word() -> None:
    """Every token that begins so, together: the document frequency is that of all of them."""
    made = postings("code12 code123", "code12", "code3", "pump")
    found = made.view().scored(KeywordQuery(prefixes=("code12",))).best(10)
    idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    damping = [1.2 * (0.25 + 0.75 * length / (5 / 4)) for length in (2, 1)]
    expected = [idf * 2 / (2 + damping[0]), idf * 1 / (1 + damping[1])]
    assert sorted(score for _, score in found) == pytest.approx(sorted(expected))
    assert names(made, KeywordQuery(prefixes=("zebra",))) == []


def test_word_pairs_prefer_neighbours() -> None:
    """The weight times the mean idf times f / (f + damping), for words of equal counts and lengths."""
    made = postings("red fish big", "red big fish")
    query = KeywordQuery(("red", "fish"), pairs=(("red", "fish"),))
    plain, paired = (dict(made.view().scored(query, weight).best(2)) for weight in (0.0, 0.3))
    idf = math.log(1 + (2 - 2 + 0.5) / (2 + 0.5))
    assert paired[0] - plain[0] == pytest.approx(0.3 * idf / (1 + 1.2), abs=1e-6)
    assert paired[1] == plain[1]


def test_scores_of_ids_are_those_of_the_ranking() -> None:
    """Also for documents that the ranking did not give; unknown and removed ones are absent."""
    made = postings("red fish", "red", "blue")
    made.remove(["d1"])
    scores = made.view().scored(KeywordQuery(("red", "fish"), pairs=(("red", "fish"),)), 0.3)
    assert scores.of_ids(["d0", "d1", "d2", "x"]) == {"d0": scores.best(1)[0][1], "d2": 0.0}
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    unseen = math.log(1 + (2 + 0.5) / 0.5)
    view = made.view()
    assert view.scored(KeywordQuery(("red", "green"))).ceiling == pytest.approx(idf + unseen)


def test_pairs_are_found_where_they_stand() -> None:
    """In any block, over gaps, never across rows: the counts are those of a look at every row."""
    rng = np.random.default_rng(1)
    made = Postings(positions=True)
    texts = [rng.choice(["a", "b", "c", GAP], rng.integers(0, 9)).tolist() for _ in range(300)]
    for start, count in ((0, 250), (250, 40), (290, 10)):
        made.add([f"d{i}" for i in range(start, start + count)], texts[start : start + count])
    positions, impacts = made.view().positions, made.view().impacts
    assert positions is not None
    assert len(positions.blocks) == 3
    for pair in itertools.product("abc", repeat=2):
        words = [[token for token in text if token != GAP] for text in texts]
        expected = [sum(found == pair for found in itertools.pairwise(text)) for text in words]
        rows, counts = positions.pair_counts(*(impacts.number(token) or 0 for token in pair))
        assert {int(row): int(count) for row, count in zip(rows, counts, strict=True)} == {
            row: count for row, count in enumerate(expected) if count
        }


def test_an_export_without_pairs_is_read() -> None:
    """What was written before there was a table of pairs: it is made at the first search."""
    made = postings("red fish big", "red big fish")
    exported = made.export()
    restored = Postings.restore({k: v for k, v in exported.items() if k not in ("pairs", "buckets")})
    query = KeywordQuery(("red", "fish"), pairs=(("red", "fish"),))
    scores = [one.view().scored(query, 0.3).best(2) for one in (made, restored, Postings.restore(exported))]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0][0][0] == 0


def test_positions_survive_changes_compaction_and_export() -> None:
    """However an index came about, its scores are those of one built afresh."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["a", "b", "c", "d"], 6)) for _ in range(60)]
    changed = Postings(positions=True)
    for i, text in enumerate(texts):
        changed.add([f"d{i}"], [["x", *text.split()]])
        changed.add([f"d{i}"], [text.split()])
    query = KeywordQuery(("a", "b", "c"), (("c", "d"),), pairs=(("a", "b"), ("b", "c")))
    expected = postings(*texts).view().scored(query, 0.3)
    wanted = expected.of_ids([f"d{i}" for i in range(60)])
    restored = Postings.restore(changed.export())
    changed.compact()
    for made in (changed, restored):
        assert made.view().scored(query, 0.3).of_ids(wanted) == pytest.approx(wanted)
