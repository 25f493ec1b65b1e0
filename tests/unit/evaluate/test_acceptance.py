"""Acceptance passes noise, stops losses, and says what was looked at."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from llama_index.core import Document
from tests.fakes import WordEmbedding
from typer.testing import CliRunner

from llama_index_presets import build, cli
from llama_index_presets.errors import SettingsError, StoreWriteError
from llama_index_presets.evaluate.acceptance import Bound, check_bounds, compare_with, parse_bounds
from llama_index_presets.evaluate.agreement import answer_f1, exact_match
from llama_index_presets.evaluate.compare import family_p_values
from llama_index_presets.evaluate.measures import Scores, measure
from llama_index_presets.evaluate.outcomes import Outcome
from llama_index_presets.evaluate.questions import JudgedQuestion, digest
from llama_index_presets.evaluate.reports import junit_xml, markdown
from llama_index_presets.evaluate.results import Result, make_result, read_result, write_result, write_whole
from llama_index_presets.experiments.evaluation import Evaluation

ENGINE = {"preset": "healthcare", "settings": {"top_k": 5}, "documents": 2, "chunks": 2, "corpus": "c0"}
PLACES = 12


def run_at(places: list[int], *, seconds: float = 0.01, **engine: Any) -> Result:
    """Result of a run that found question i's source at place `places[i]`, 1-based."""
    asked = [
        JudgedQuestion(f"Question {number}?", {"right": 1.0}, str(number)) for number in range(len(places))
    ]
    outcomes = {
        one.id: Outcome(
            question=one.id,
            ranking=tuple("right" if at == place else f"wrong{at}" for at in range(1, PLACES + 1)),
            latency_ms=seconds * 1000,
        )
        for one, place in zip(asked, places, strict=True)
    }
    return make_result("healthcare", {**ENGINE, **engine}, asked, outcomes, {})


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_a_mean_below_its_bound_fails() -> None:
    """Equal passes; so does less of what should be little."""
    bounds = parse_bounds(
        ["ndcg_at_10=0.70", "mrr_at_10 = 0.5"], ["latency_p95_ms=800", "dont_know_wrong=0.1"]
    )
    found = {"ndcg_at_10": 0.69, "mrr_at_10": 0.5, "latency_p95_ms": 801.0, "dont_know_wrong": 0.05}
    checks = check_bounds(bounds, found)
    assert [check.passed for check in checks] == [False, True, False, True]
    assert checks[0].message == "ndcg_at_10 is 0.69, below 0.7."
    assert checks[2].message == "latency_p95_ms is 801, above 800."


@pytest.mark.parametrize(
    ("under", "over", "message"),
    [
        (["ndcg_at_1=0.7"], [], "no measure. Did you mean 'ndcg_at_10'"),
        (["zzz=0.7"], [], "Choose one of: ndcg_at_10"),
        (["ndcg_at_10"], [], "expected MEASURE=VALUE"),
        (["ndcg_at_10=high"], [], "expected a number"),
        (["ndcg_at_10=nan"], [], "expected a number"),
        (["ndcg_at_10=70"], [], "of a share at most 1"),
        (["latency_p95_ms=3"], [], "Use --fail-over latency_p95_ms=3"),
        ([], ["ndcg_at_10=0.7"], "Use --fail-under ndcg_at_10=0.7"),
    ],
)
def test_a_bound_that_means_nothing_is_refused(under: list[str], over: list[str], message: str) -> None:
    """With the nearest measure, or the other option."""
    with pytest.raises(SettingsError, match=message):
        parse_bounds(under, over)


def test_what_was_not_measured_does_not_pass() -> None:
    """Nor does a price that is not known."""
    checks = check_bounds([Bound("faithfulness", 0.9), Bound("cost_usd", 0.1)], {"cost_usd": None})
    assert [check.passed for check in checks] == [False, False]
    assert checks[0].message == "faithfulness was not measured; it needs a judge, --judge."


# -- baseline ---------------------------------------------------------------------------------------------------------


def real_runs(tmp_path: Path) -> tuple[Scores, Scores]:
    """Scores of vector search and of hybrid search by question: the recipes' sentences, asked for by a few words."""
    sentences = [
        line
        for file in sorted((Path(__file__).parents[3] / "recipes").glob("*/documents/*.md"))
        for line in " ".join(file.read_text(encoding="utf-8").split()).split(". ")
        if 30 < len(line) < 300
    ][:120]
    documents = [Document(text=text, doc_id=f"{number}.md") for number, text in enumerate(sentences)]
    asked = [
        JudgedQuestion(" ".join(text.split()[start::7]), {f"{number}.md": 1.0}, f"{number}-{start}")
        for number, text in enumerate(sentences)
        for start in range(3)
    ]
    found = []
    for pattern in ("simple", "hybrid"):
        embedding = WordEmbedding(model_name="words")
        settings = {"pattern": pattern, "pii": "off"}
        with build(
            "healthcare", storage=tmp_path / pattern, embed_model=embedding, settings=settings
        ) as engine:
            engine.ingest(documents, show_progress=False)
            run = Evaluation(engine=engine, questions=asked, retrieval_only=True)
            found.append(run.run(pattern, tmp_path / "out", show_progress=False).scores)
    return found[0], found[1]


def test_noise_raises_at_most_five_alarms_in_a_hundred(tmp_path: Path) -> None:
    """Two hundred resamplings of two real runs, whose outcomes are exchanged by chance: no run is the better one."""
    first, second = real_runs(tmp_path)
    random = np.random.default_rng(7)
    questions = sorted(first.by_question["ndcg_at_10"])
    differing = sum(
        first.by_question["mrr_at_10"][one] != second.by_question["mrr_at_10"][one] for one in questions
    )
    assert differing >= 20  # else there is no noise to be deceived by
    names = ("ndcg_at_10", "recall_at_10", "mrr_at_10")
    alarms = 0
    for _ in range(200):
        drawn = random.choice(questions, len(questions))
        swapped = random.random(len(questions)) < 0.5
        pair = [
            Scores({
                name: {
                    str(place): (second if swap is into else first).by_question[name][one]
                    for place, (one, swap) in enumerate(zip(drawn, map(bool, swapped), strict=True))
                }
                for name in names
            })
            for into in (True, False)
        ]  # fmt: skip
        alarms += min(family_p_values(*pair).values()) < 0.025
    assert alarms <= 10  # 5 % of 200


def test_a_loss_on_many_questions_fails_and_a_gain_passes() -> None:
    """The test is one of losses: what got better is no alarm."""
    before = run_at([1] * 30)
    after = run_at([1] * 20 + [3] * 10)
    lost = compare_with(before, after)
    assert {check.name.split()[0]: check.passed for check in lost.checks} == {
        "ndcg_at_10": False, "mrr_at_10": False, "recall_at_10": True
    }  # fmt: skip
    assert all(check.passed for check in compare_with(after, before).checks)
    assert all(check.passed for check in compare_with(before, before).checks)


def test_slower_is_shown_and_no_alarm() -> None:
    """A build server's clock says nothing about the engine."""
    found = compare_with(run_at([1] * 30), run_at([1] * 30, seconds=9.0))
    assert [one.verdict() for one in found.differences if one.measure == "latency_ms"] == ["worse"]
    assert all(check.passed for check in found.checks)


def test_family_p_values_do_not_grow_with_measures_that_say_the_same() -> None:
    """Six questions that all lose: chance gives that once in 2^6, also when three measures say it."""
    one = {str(number): 1.0 for number in range(6)}
    none = dict.fromkeys(one, 0.0)
    alike = ("ndcg_at_10", "recall_at_10", "mrr_at_10")
    chances = family_p_values(Scores(dict.fromkeys(alike, one)), Scores(dict.fromkeys(alike, none)))
    assert chances == {name: pytest.approx(1 / 64, abs=0.005) for name in alike}


def test_other_documents_are_refused_or_accepted_by_name() -> None:
    """A corpus is known by its contents; one of an earlier release by its size."""
    before, after = run_at([1] * 8), run_at([1] * 8, corpus="c1", documents=3)
    with pytest.raises(
        SettingsError, match="searched other documents: 2 of them .* now 3 .*--accept-other-corpus"
    ):
        compare_with(before, after)
    assert "other documents" in compare_with(before, after, other_corpus=True).warnings[0]
    old = replace(before, engine={"preset": "healthcare", "documents": 2})
    assert "does not say which documents" in compare_with(old, run_at([1] * 8)).warnings[0]
    with pytest.raises(SettingsError, match="no fingerprint"):
        compare_with(replace(old, engine={"documents": 7}), run_at([1] * 8))


@pytest.mark.parametrize(("questions", "told"), [(5, True), (6, False)])
def test_a_baseline_of_a_few_questions_says_that_it_cannot_fail(questions: int, told: bool) -> None:
    """Five losses of five come about by chance once in 32 times, more often than an alarm may."""
    found = compare_with(run_at([1] * questions), run_at([11] * questions))
    assert any("no loss can be told from chance" in warning for warning in found.warnings) is told
    assert {check.passed for check in found.checks} == {told}


def test_changed_settings_are_told() -> None:
    """They are what a pull request is about."""
    found = compare_with(run_at([1] * 8), run_at([1] * 8, settings={"top_k": 9}))
    assert found.warnings == ["Changed since the baseline: top_k: 5 -> 9."]


def test_new_questions_are_left_out_of_the_comparison() -> None:
    """Those that both have, unchanged, are compared; with none there is nothing to compare."""
    before, after = run_at([1] * 10), run_at([1] * 12)
    found = compare_with(before, after)
    assert found.questions == 10 and "2 are new or changed" in found.warnings[0]
    other = make_result(
        "x", ENGINE, [JudgedQuestion("Other?", {"right": 1.0}, "z")], {"z": Outcome(question="z")}, {}
    )
    with pytest.raises(SettingsError, match="no question in common"):
        compare_with(before, other)


def test_a_saved_run_is_read_as_it_was(tmp_path: Path) -> None:
    """A file that is none is refused, and says what to do."""
    result = run_at([1, 2, 3])
    assert read_result(write_result(result, tmp_path / "new" / "b.json")) == result
    with pytest.raises(SettingsError, match="evaluate --save"):
        read_result(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SettingsError, match="is no result of an evaluation"):
        read_result(tmp_path / "bad.json")
    with pytest.raises(StoreWriteError, match="cannot be written"):
        write_result(result, tmp_path / "bad.json" / "x.json")


@pytest.mark.parametrize(
    "scores", [{"ndcg_at_10": {"0": value}} for value in (float("nan"), "high", None)] + [[], {"x": []}]
)
def test_scores_that_are_no_numbers_are_no_baseline(tmp_path: Path, scores: Any) -> None:
    """Not a number is less than nothing: as a baseline it would let everything pass."""
    file = write_result(run_at([1, 2, 3]), tmp_path / "b.json")
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(values | {"by_question": scores}), encoding="utf-8")
    with pytest.raises(SettingsError, match="is no result of an evaluation"):
        read_result(file)


# -- reports ----------------------------------------------------------------------------------------------------------


def test_junit_counts_checks_and_questions() -> None:
    """Failures are of checks, errors are questions that failed; characters that XML has not are replaced."""
    result = replace(run_at([1, 2]), failed={"q\x00": "TimeoutError: <slow> & more"})
    checks = check_bounds(parse_bounds(["ndcg_at_10=1", "mrr_at_10=0.1"]), result.summary())
    suite = ElementTree.fromstring(junit_xml(result, checks).encode()).find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["5", "1", "1"]
    assert [case.get("name") for case in suite if len(case)] == [
        "ndcg_at_10 >= 1",
        "q\N{REPLACEMENT CHARACTER}",
    ]


def test_markdown_is_a_table_that_no_text_breaks() -> None:
    """Values of the run stay in their cell."""
    result = replace(run_at([1] * 8), label="a|b <img> @team")
    text = markdown(result, check_bounds(parse_bounds(["ndcg_at_10=0.5"]), result.summary()))
    assert (
        text.startswith("### Retrieval quality: passed\n")
        and r"a\|b \<img\> @" in text
        and "@team" not in text
    )
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {4}
    compared = markdown(result, [], compare_with(run_at([2] * 8), run_at([1] * 8)))
    assert "| measure | baseline | now | change | p |" in compared


# -- correctness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "answer", "exact", "f1"),
    [
        ("28 days", "The 28 days. [1]", 1.0, 1.0),
        ("with an antitoxin", "Antitoxin", 0.0, 2 * 1 / (2 + 1)),
        ("28 days", "I don't know.", 0.0, 0.0),
        ("Straße", "STRASSE", 1.0, 1.0),
        ("!", "?", 1.0, 1.0),
    ],
)
def test_agreement_counts_words(expected: str, answer: str, exact: float, f1: float) -> None:
    """Case, articles, punctuation and markers are no words."""
    assert (exact_match(expected, answer), answer_f1(expected, answer)) == (exact, pytest.approx(f1))


def test_measures_of_answers_are_means_over_questions_with_an_answer() -> None:
    """A question without an expected answer is left out."""
    asked = [JudgedQuestion("a?", {}, "a", "x"), JudgedQuestion("b?", {}, "b")]
    got = {
        "a": Outcome(question="a", exact_match=0.0, answer_f1=0.5, correctness=0.75),
        "b": Outcome(question="b"),
    }
    means = measure(asked, got).means()
    assert (means["exact_match"], means["answer_f1"], means["correctness"]) == (0.0, 0.5, 0.75)


# -- command ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with questions, documents, and an index by MiniLM."""
    folder = tmp_path_factory.mktemp("clinic")
    documents = folder / "documents"
    documents.mkdir()
    (documents / "pump.md").write_text(
        "The valve of the pump leaks and is changed by the technician.", encoding="utf-8"
    )
    (documents / "lift.md").write_text(
        "The rope of the lift is worn and is inspected yearly.", encoding="utf-8"
    )
    rows = [
        {
            "id": "pump",
            "question": "Who changes the valve of the pump?",
            "sources": ["pump.md"],
            "answer": "technician",
        },
        {"id": "lift", "question": "When is the rope inspected?", "sources": ["lift.md"], "answer": "yearly"},
    ]
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def call(folder: Path, *options: str) -> Any:
    command = [
        "evaluate",
        "healthcare",
        "--questions",
        "q.jsonl",
        "--storage",
        "s",
        "--documents",
        "documents",
    ]
    before = Path.cwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(cli.app, [*command, *options])
    finally:
        os.chdir(before)


def test_the_command_saves_a_baseline_and_gates_the_next_run(clinic: Path) -> None:
    """Exit 0 with reports; exit 1 below a bound; exit 2 over other documents, before a question is asked."""
    first = call(clinic, "--save", "base.json", "--fail-under", "ndcg_at_10=0.9")
    assert first.exit_code == 0, first.output
    assert read_result(clinic / "base.json").corpus
    reports = ("--baseline", "base.json", "--junit", "out/j.xml", "--markdown", "out/m.md", "--json")
    second = call(clinic, *reports)
    assert second.exit_code == 0, second.output
    acceptance = json.loads(second.stdout)["acceptance"]
    assert (
        acceptance["passed"]
        and acceptance["baseline"]["questions"] == 2
        and [warning[:14] for warning in acceptance["baseline"]["warnings"]] == ["Of 2 questions"]
    )
    assert "passed" in (clinic / "out/m.md").read_text(encoding="utf-8")
    assert ElementTree.parse(clinic / "out/j.xml").getroot().get("failures") == "0"
    failed = call(
        clinic, "--fail-over", "dont_know_wrong=0", "--fail-under", "exact_match=1", "--junit", "out/j.xml"
    )
    assert failed.exit_code == 1 and "exact_match is" in failed.output
    assert int(ElementTree.parse(clinic / "out/j.xml").getroot().get("failures", "")) >= 1
    (clinic / "documents" / "new.md").write_text("Lamps are changed monthly.", encoding="utf-8")
    other = call(clinic, "--baseline", "base.json", "--retrieval-only")
    assert other.exit_code == 2 and "searched other documents: 2 of them" in str(other.output)
    accepted = call(clinic, "--baseline", "base.json", "--retrieval-only", "--accept-other-corpus")
    assert accepted.exit_code == 0, accepted.output


def test_a_gate_judges_one_engine(clinic: Path) -> None:
    """Two engines, and a misspelt measure, are refused before anything is opened."""
    two = call(clinic, "--fail-under", "ndcg_at_10=0.5", "--with", "top_k=8")
    assert two.exit_code == 2 and "judge one engine" in two.output
    wrong = call(clinic, "--fail-under", "ndgc_at_10=0.5")
    assert wrong.exit_code == 2 and "Did you mean 'ndcg_at_10'" in wrong.output


@pytest.mark.parametrize(
    "options", [("--baseline", "a.json", "--save", "./a.json"), ("--junit", "a.xml", "--markdown", "a.xml")]
)
def test_two_options_name_two_files(clinic: Path, options: tuple[str, ...]) -> None:
    """A run that failed would replace what it is held to, and one report the other."""
    if options[0] == "--baseline":
        assert call(clinic, "--save", "a.json", "--retrieval-only").exit_code == 0
    found = call(clinic, *options)
    assert found.exit_code == 2 and f"{options[0]} and {options[2]} both name" in found.output


@pytest.mark.parametrize(
    ("change", "message"),
    [("top_k=0", "top_k is 0"), ("chunk_tokens=64", "no index for 'healthcare chunk_tokens=64'")],
)
def test_the_second_engine_is_checked_before_the_first_is_asked(
    clinic: Path, tmp_path: Path, change: str, message: str
) -> None:
    """A wrong setting, or an index that nobody made, was told after all questions of the first were paid."""
    with build("healthcare", storage=tmp_path / "s", settings={"pii": "off"}) as engine:
        engine.ingest([str(clinic / "documents")], show_progress=False)
    options = [
        "evaluate",
        "healthcare",
        "--questions",
        str(clinic / "q.jsonl"),
        "--storage",
        str(tmp_path / "s"),
    ]
    found = CliRunner().invoke(cli.app, [*options, "--retrieval-only", "--with", change])
    assert found.exit_code == 2 and message in found.output
    assert not (tmp_path / "s" / "evaluations").exists()


def test_a_source_without_a_document_is_told(clinic: Path, tmp_path: Path) -> None:
    """Deleted or misspelt: the question is held against nothing, and the mean falls for no fault of the engine."""
    rows = [*(clinic / "q.jsonl").read_text(encoding="utf-8").splitlines()]
    rows.append('{"question": "Old?", "sources": ["gone.md"]}')
    (tmp_path / "q.jsonl").write_text("\n".join(rows), encoding="utf-8")
    found = call(clinic, "--retrieval-only", "--questions", str(tmp_path / "q.jsonl"))
    assert found.exit_code == 0, found.output
    assert found.output.count("No document has this name") == 1
    assert "Warning: gone.md: No document" in found.output


def test_a_damaged_result_is_told_before_the_questions_are_asked(clinic: Path, tmp_path: Path) -> None:
    """The page of all runs reads it, and would fail after everything was paid."""
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    found = call(clinic, "--out", str(tmp_path), "--plot", str(tmp_path / "p.html"), "--retrieval-only")
    assert found.exit_code == 2 and "no result of an evaluation" in found.output
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_the_hash_of_questions_is_as_it_was() -> None:
    """Results of earlier releases stay comparable."""
    assert digest([JudgedQuestion("a?", {"x": 1.0}, "1")]) == digest([JudgedQuestion("a?", {"x": 1.0}, "1")])


def test_reports_go_through_links_and_into_devices(tmp_path: Path) -> None:
    """A link stays a link, /dev/null stays a device, and half a character of a file's name is written as its escape."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link.xml").symlink_to(tmp_path / "there" / "real.xml")
    write_whole(tmp_path / "link.xml", "x\udce9")
    assert (tmp_path / "link.xml").is_symlink()
    assert (tmp_path / "there" / "real.xml").read_text(encoding="utf-8") == "x\\udce9"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    write_whole(pipe, "whole")
    reader.join(30)
    assert read == ["whole"] and pipe.is_fifo()


def test_two_writers_leave_a_whole_file(tmp_path: Path) -> None:
    """Two builds of one branch save their results at once."""
    texts = [letter * 200_000 for letter in "ab"]
    file = tmp_path / "r.json"

    def write(text: str) -> None:
        for _ in range(20):
            write_whole(file, text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not file.exists() or file.read_text(encoding="utf-8") in texts
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
