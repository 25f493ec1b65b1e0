"""Measures are arithmetic, and a difference is called one only when chance does not explain it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.fixtures.browser import BROWSER, NO_BROWSER

from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.compare import compare
from llama_index_presets.evaluate.measures import MEASURES, Scores, measure
from llama_index_presets.evaluate.outcomes import Checkpoint, Outcome
from llama_index_presets.evaluate.plot import quality_page
from llama_index_presets.evaluate.questions import JudgedQuestion
from llama_index_presets.evaluate.results import make_result, read_results, save_result

ASKED = [
    JudgedQuestion("A?", {"a": 1.0, "b": 1.0}, "1"),
    JudgedQuestion("B?", {"c": 1.0}, "2"),
    JudgedQuestion("C?", {}, "3", answerable=False),
]
OUTCOMES = {
    "1": Outcome(
        question="1", ranking=("x", "a"), cited=("a", "x"), known=True, latency_ms=10, cost_usd=0.25
    ),
    "2": Outcome(question="2", ranking=("c",), known=False, latency_ms=30, cost_usd=0.75),
    "3": Outcome(question="3", ranking=("x",), known=False, latency_ms=20, cost_usd=0.5),
}


def test_every_measure_is_its_arithmetic() -> None:
    """Two answerable questions, one unanswerable."""
    found = measure(ASKED, OUTCOMES).means()
    gain = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert found["ndcg_at_10"] == pytest.approx((gain + 1) / 2)
    assert found["recall_at_10"] == (1 / 2 + 1) / 2
    assert found["mrr_at_10"] == (1 / 2 + 1) / 2
    assert found["citation_precision"] == 1 / 2  # the second cites nothing, and says so
    assert found["citation_recall"] == (1 / 2 + 0) / 2
    assert (found["dont_know_right"], found["dont_know_wrong"]) == (1.0, 1 / 2)
    assert found["cost_usd"] == 0.5 and found["latency_ms"] == 20
    assert measure(ASKED, OUTCOMES).latency(50) == 20
    assert set(found) <= set(MEASURES)


def test_grades_between_whole_numbers_count() -> None:
    """A source of half the worth in the first place is worth less than the full one."""
    asked = [JudgedQuestion("A?", {"a": 1.0, "b": 0.5}, "1")]
    right = measure(asked, {"1": Outcome(question="1", ranking=("a", "b"))}).means()["ndcg_at_10"]
    wrong = measure(asked, {"1": Outcome(question="1", ranking=("b", "a"))}).means()["ndcg_at_10"]
    assert wrong < right == 1.0


def test_a_question_that_found_nothing_counts_as_zero() -> None:
    """It is not left out of the mean."""
    asked = [JudgedQuestion("A?", {"a": 1.0}, "1"), JudgedQuestion("B?", {"b": 1.0}, "2")]
    found = measure(asked, {"1": Outcome(question="1", ranking=("a",)), "2": Outcome(question="2")})
    assert found.means()["ndcg_at_10"] == 0.5


def test_without_outcomes_there_is_nothing_to_measure() -> None:
    """Not a table of zeros."""
    with pytest.raises(SettingsError, match="No question has an outcome"):
        measure(ASKED, {})


def test_the_p_value_is_that_of_every_sign() -> None:
    """Five questions, all better by the same: of 32 signs two are as extreme."""
    first = Scores({"ndcg_at_10": {str(n): 0.25 for n in range(5)}})
    second = Scores({"ndcg_at_10": {str(n): 0.75 for n in range(5)}})
    (found,) = compare(first, second)
    assert found.p_value == pytest.approx(2 / 2**5)
    assert (found.first, found.second, found.questions, found.verdict()) == (
        0.25,
        0.75,
        5,
        "no difference shown",
    )


def test_enough_questions_show_a_difference_and_its_direction() -> None:
    """Higher quality is better; higher latency is worse."""
    keys = [str(n) for n in range(12)]
    first = Scores({"mrr_at_10": dict.fromkeys(keys, 0.1), "latency_ms": dict.fromkeys(keys, 5.0)})
    second = Scores({"mrr_at_10": dict.fromkeys(keys, 0.9), "latency_ms": dict.fromkeys(keys, 9.0)})
    verdicts = {one.measure: one.verdict() for one in compare(first, second)}
    assert verdicts == {"mrr_at_10": "better", "latency_ms": "worse"}
    same = compare(first, first)
    assert {(one.p_value, one.verdict()) for one in same} == {(None, "no difference shown")}


def test_only_questions_that_both_have_are_compared() -> None:
    """Pairs, not means of different questions."""
    first = Scores({"mrr_at_10": {"1": 1.0, "2": 0.0}})
    second = Scores({"mrr_at_10": {"2": 0.5, "3": 1.0}})
    (found,) = compare(first, second)
    assert (found.questions, found.first, found.second) == (1, 0.0, 0.5)


def test_a_result_survives_the_disk(tmp_path: Path) -> None:
    """Two of the same second get names of their own; other questions are told apart."""
    result = make_result("healthcare top_k=1", {"preset": "healthcare"}, ASKED, OUTCOMES, {})
    paths = {save_result(result, tmp_path), save_result(result, tmp_path)}
    assert len(paths) == 2
    again = read_results(tmp_path, questions=result.questions)
    assert [one.to_dict() for one in again] == [result.to_dict()] * 2
    assert read_results(tmp_path, questions="others") == []
    (tmp_path / "notes.json").write_text("[]")
    with pytest.raises(SettingsError, match=r"notes.json' is no result"):
        read_results(tmp_path)


def test_an_unknown_price_has_no_mean(tmp_path: Path) -> None:
    """A mean of the calls with a price would be too low."""
    outcomes = {**OUTCOMES, "2": Outcome(question="2", known=True, cost_usd=None)}
    assert make_result("x", {}, ASKED, outcomes, {}).summary()["cost_usd"] is None


def test_a_line_that_was_cut_short_is_asked_again(tmp_path: Path) -> None:
    """A power cut costs one question."""
    with Checkpoint(tmp_path / "run.jsonl") as kept:
        kept.add(OUTCOMES["1"])
        kept.add(OUTCOMES["2"])
    text = (tmp_path / "run.jsonl").read_text()
    (tmp_path / "run.jsonl").write_text(text[:-9])
    with Checkpoint(tmp_path / "run.jsonl") as kept:
        assert kept.outcomes == {"1": OUTCOMES["1"]}
        kept.add(OUTCOMES["2"])
    assert [json.loads(line)["question"] for line in (tmp_path / "run.jsonl").read_text().splitlines()] == [
        "1",
        "2",
    ]


@pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
def test_the_name_of_a_run_is_not_one_letter_a_line(tmp_path: Path) -> None:
    """Beside eleven measures its column keeps room for words, in a window and on a telephone."""
    measure = "<script>document.title = 'width ' + document.querySelector('td').offsetWidth</script>"
    page = quality_page([make_result("healthcare chunking=sentence-window", {}, ASKED, OUTCOMES, {})])
    file = tmp_path / "page.html"
    file.write_text(page + measure, encoding="utf-8")
    for width in (1400, 390):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
        command = [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()]
        environment = {**os.environ, "HOME": str(tmp_path)}
        done = subprocess.run(
            command, check=True, timeout=120, capture_output=True, text=True, env=environment
        )
        assert int(re.search(r"<title>width (\d+)", done.stdout)[1]) >= 150  # type: ignore[index]


def test_the_page_plots_every_run_and_fetches_nothing() -> None:
    """One dot a run in each of the two plots, up and left is better, names escaped."""
    results = [
        make_result(label, {}, ASKED, OUTCOMES, {}) for label in ("healthcare", "healthcare <b>top_k=1</b>")
    ]
    page = quality_page(results)
    assert page.count("<title>healthcare") == 4 and "ndcg_at_10 against median latency" in page
    assert "http" not in page and "<script" not in page and "<b>top_k" not in page
    figures = page[page.index('<div class="charts">') : page.index("<h2>Runs")]
    ElementTree.fromstring(figures)
