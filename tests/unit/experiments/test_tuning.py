"""A tuner finds what is better, reports it without a winner's curse, and goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llama_index_presets import build, cli
from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.questions import read_questions
from llama_index_presets.experiments.evaluation import Variant
from llama_index_presets.experiments.tuning.plan import Plan, make_plan
from llama_index_presets.experiments.tuning.report import TuneReport
from llama_index_presets.experiments.tuning.runner import Runner, answer_rates, check_measure
from llama_index_presets.experiments.tuning.search import (
    Interval,
    Point,
    Tuned,
    asks,
    choose,
    front,
    halve,
    tune,
)
from llama_index_presets.experiments.tuning.space import configurations, index_of, parse_axes
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.monitor.prices import PriceBook, Pricer, Rates
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.settings import Settings
from llama_index_presets.report.charts import intervals, standalone

QUESTIONS = [f"q{number}" for number in range(60)]


class Table:
    """Qualities by configuration and question; counts what is asked."""

    def __init__(self, qualities: np.ndarray, usd: Sequence[float] = (), ms: Sequence[float] = ()) -> None:
        self.qualities, self.usd, self.ms = qualities, usd, ms
        self.asked: set[tuple[int, str]] = set()

    def __call__(self, number: int, questions: Sequence[str]) -> Mapping[str, Point]:
        self.asked |= {(number, one) for one in questions}
        usd = self.usd[number] if self.usd else 0.0
        ms = self.ms[number] if self.ms else 10.0
        return {one: Point(float(self.qualities[number][int(one[1:])]), ms, usd) for one in questions}


def tuned(table: Table, count: int = 60) -> Tuned:
    return tune(len(table.qualities), QUESTIONS[:count], table)


# -- search -----------------------------------------------------------------------------------------------------------


def test_the_reported_quality_is_that_of_questions_that_did_not_choose() -> None:
    """Forty configurations that differ by luck alone: the best mean is far above one half, the report is not."""
    random = np.random.default_rng(3)
    reported, naive, of_front = [], [], []
    for _ in range(10):
        table = Table((random.random((40, 60)) < 0.5).astype(float))
        found = tuned(table)
        reported.append(found.quality.mean)
        naive.append(table.qualities.mean(axis=1).max())
        of_front += [point.quality.mean for point in found.front]
    error = 0.5 / (60 * 10) ** 0.5
    assert np.mean(naive) > 0.5 + 5 * error  # the curse is there
    assert np.mean(reported) < 0.5 + 3 * error
    assert np.mean(of_front) < 0.5 + 5 * error


def test_the_winners_figure_is_its_held_out_score() -> None:
    """Each question is scored by the configuration that was chosen without the question's fold."""
    random = np.random.default_rng(5)
    table = Table(random.random((8, 60)))
    found = tuned(table)
    expected = [table.qualities[found.winners[number % 5]][number] for number in range(60)]
    assert found.quality.mean == pytest.approx(np.mean(expected))
    assert found.current.mean == pytest.approx(table.qualities[0].mean())
    assert found.change.mean == pytest.approx(np.mean(expected) - table.qualities[0].mean())


def test_a_configuration_that_is_better_wins_and_is_shown_to_be() -> None:
    """A real difference of 0.3 on 60 questions is no chance."""
    random = np.random.default_rng(1)
    qualities = random.random((12, 60)) * 0.5
    qualities[7] += 0.3
    found = tuned(Table(qualities))
    assert found.winner == 7 and found.winners == [7] * 5
    assert found.p_value is not None and found.p_value < 0.01 and found.change.low > 0


def test_settings_of_today_stay_where_nothing_is_better() -> None:
    """A change needs a reason: better, cheaper, or twice as fast."""
    qualities = np.full((4, 60), 0.5)
    assert tuned(Table(qualities)).winner == 0
    assert tuned(Table(qualities, ms=[10.0, 9.0, 9.0, 9.0])).winner == 0
    assert tuned(Table(qualities, ms=[10.0, 10.0, 3.0, 10.0])).winner == 2
    assert tuned(Table(qualities, usd=[0.02, 0.01, 0.03, 0.02])).winner == 1
    assert tuned(Table(qualities)).p_value is None


def test_halving_asks_less_than_everything_and_keeps_today() -> None:
    """Half stay after a third of the questions; the cheap one is not lost to the good ones."""
    qualities = np.linspace(0.1, 0.9, 40)[:, None].repeat(60, axis=1)
    usd = [0.01] * 39 + [0.02]
    usd[5] = 0.001
    table = Table(qualities, usd=usd)
    kept = halve(range(40), QUESTIONS, table)
    assert {0, 5, 39} <= set(kept) and len(kept) <= 12
    assert len(table.asked) < 0.65 * 40 * 60


@pytest.mark.parametrize("count", [2, 6, 8, 12, 24, 40])
def test_a_search_asks_no_more_than_its_estimate(count: int) -> None:
    """A search of six configurations asked 270 pairs, and the estimate of what it costs had 162."""
    random = np.random.default_rng(count)
    table = Table((random.random((count, 60)) < 0.5 + 0.3 * random.random((count, 1))).astype(float))
    tuned(table)
    assert len(table.asked) <= asks(count, 60) <= 1.3 * len(table.asked)


def test_the_front_is_what_nothing_beats() -> None:
    """Worse in one and equal in the others is beaten; of equals the first stays; latencies within a tenth are equal."""
    points = [Point(0.8, 10, 1), Point(0.8, 10.5, 1), Point(0.8, 10, 2), Point(0.9, 20, 1), Point(0.7, 5, 1)]
    found = {number: {"q": point} for number, point in enumerate(points)}
    assert front(list(found), found) == [0, 3, 4]
    assert choose([3], found) == 3


def test_fewer_than_thirty_questions_are_refused() -> None:
    """With the reason."""
    with pytest.raises(SettingsError, match=r"There are 29 questions .* needs 30.*luckiest"):
        tuned(Table(np.ones((2, 60))), 29)


# -- space ------------------------------------------------------------------------------------------------------------


def test_configurations_are_distinct_spread_over_indexes_and_begin_with_today() -> None:
    """No axis that a pattern does not read; the same ones in every run."""
    found = configurations(Settings(top_k=4), "hybrid", count=40)
    assert found == configurations(Settings(top_k=4), "hybrid", count=40)
    assert (found[0]["top_k"], found[0]["pattern"], found[0]["fusion"]) == (4, "hybrid", "auto")
    assert len({json.dumps(one, sort_keys=True) for one in found}) == len(found) == 40
    assert all("fusion" not in one for one in found if one["pattern"] == "simple")
    indexes = {json.dumps(index_of(one), sort_keys=True) for one in found}
    assert len(indexes) == 4 + 1  # four lengths; a chunk that is one sentence has the sentence's
    given = configurations(Settings(), "hybrid", given={"chunk_tokens": (32, 64)}, count=400)
    assert len({json.dumps(index_of(one), sort_keys=True) for one in given}) == 1 + 2 * 2  # as asked for
    some = configurations(Settings(), "hybrid", indexes=[index_of(found[0])], count=40)
    assert len(some) == 40 and all(index_of(one) == index_of(some[0]) for one in some)
    capped = configurations(Settings(), "simple", longest=128, count=400)
    assert {one["chunk_tokens"] for one in capped} == {None, 64}
    only = configurations(Settings(), "simple", images=True, count=400)
    assert {(one["pattern"], one["chunking"]) for one in only} == {("simple", "sentence")}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("topk=3", "Did you mean 'top_k'"),
        ("top_k", "expected AXIS=VALUE"),
        ("qqq=1", "Choose one of: embedding"),
    ],
)
def test_an_axis_that_is_none_is_refused(pair: str, message: str) -> None:
    """With the nearest one."""
    with pytest.raises(SettingsError, match=message):
        parse_axes([pair])


def test_only_quality_is_tuned_for() -> None:
    """Latency and dollars are the other axes of the front."""
    with pytest.raises(SettingsError, match="no measure of quality"):
        check_measure("latency_ms")


# -- command ----------------------------------------------------------------------------------------------------------

THINGS = ("valve", "rope", "lamp", "pump", "lift", "door", "wheel", "chain", "motor", "panel")
PLACES = ("hall", "yard", "roof")


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty documents, and a question about each."""
    folder = tmp_path_factory.mktemp("works")
    (folder / "documents").mkdir()
    rows = []
    for thing in THINGS:
        for place in PLACES:
            name = f"{thing}-{place}.md"
            text = (
                f"# Works\n\nThe {thing} of the {place} is inspected by a technician, who writes a report.\n"
            )
            (folder / "documents" / name).write_text(text, encoding="utf-8")
            rows.append({"question": f"Who inspects the {thing} in the {place}?", "sources": [name]})
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "few.jsonl").write_text("\n".join(map(json.dumps, rows[:29])), encoding="utf-8")
    return folder


def call(folder: Path, *options: str, questions: str = "q.jsonl") -> Any:
    base = ["tune", "healthcare", "--questions", str(folder / questions), "--storage", str(folder / "s")]
    small = [
        "--try",
        "chunking=sentence",
        "--try",
        "chunk_tokens=none",
        "--try",
        "top_k=1,3",
        "--try",
        "fusion=auto",
    ]
    small += [
        "--try",
        "vector_weight=none",
        "--configurations",
        "4",
        "--documents",
        str(folder / "documents"),
    ]
    return CliRunner().invoke(cli.app, [*base, *small, *options])


def test_the_command_refuses_and_plans_before_it_writes(works: Path) -> None:
    """Too few questions, an unknown axis, nothing to search: exit 2; --dry-run names what would be tried."""
    few = call(works, questions="few.jsonl")
    assert few.exit_code == 2 and "29 of 29 questions have sources; tuning needs 30" in few.output
    assert call(works, "--try", "topk=1").exit_code == 2
    plan = call(works, "--dry-run", "--json")
    assert plan.exit_code == 0, plan.output
    told = json.loads(plan.stdout)
    assert (told["cost_usd"], told["questions"], len(told["configurations"])) == (0.0, 30, 4)
    assert not (works / "s").exists()


def test_ways_of_cutting_are_left_out_for_want_of_time(works: Path) -> None:
    """--max-minutes keeps the first ones, today's always, and the plan names the others."""
    more = ("--try", "chunk_tokens=none,16,32", "--configurations", "12", "--dry-run", "--json")
    whole = json.loads(call(works, *more).stdout)
    assert len(whole["indexes"]) == 3 and whole["left_out"] == [] and whole["minutes"] > 0
    short = json.loads(call(works, *more, "--max-minutes", "0").stdout)
    assert short["indexes"] == whole["indexes"][:1] and short["left_out"] == whole["indexes"][1:]
    assert short["configurations"][0] == whole["configurations"][0]
    assert len(short["configurations"]) == 1 + 2 * 2  # today's, and two patterns with top_k 1 and 3
    assert all(one["chunk_tokens"] is None for one in short["configurations"])
    enough = json.loads(call(works, *more, "--max-minutes", "600").stdout)
    assert enough["indexes"] == whole["indexes"]


def test_dollars_are_agreed_to_before_anything_is_sent(works: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal and without --max-cost nothing is paid; nor above the limit."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    hosted = ["tune", "knowledge-base", "--questions", str(works / "q.jsonl"), "--storage", str(works / "k")]
    hosted += ["--documents", str(works / "documents"), "--configurations", "4"]
    unasked = CliRunner().invoke(cli.app, hosted)
    assert unasked.exit_code == 1 and "Agree with --max-cost" in unasked.output
    above = CliRunner().invoke(cli.app, [*hosted, "--max-cost", "0"])
    assert above.exit_code == 1 and "the limit is $0. Nothing was sent" in above.output
    assert not (works / "k" / "tune" / "indexes").exists()


def test_a_plan_counts_what_rerankers_bill_by_the_price_book(works: Path, tmp_path: Path) -> None:
    """Hosted re-ranking was paid for without being asked about."""
    (tmp_path / "prices.toml").write_text(
        '[models."cohere/rerank-v3.5"]\nsearches = 2\n[models."openai/gpt-4o-mini"]\ninput = 100\noutput = 100\n'
    )
    settings = {"prices": str(tmp_path / "prices.toml"), "reranker": "cohere/rerank-v3.5"}
    settings["llm"] = "openai/gpt-4o-mini"
    variant = Variant(preset="knowledge-base", storage=str(tmp_path / "s"), changes=settings)
    axes = ["chunking=sentence", "chunk_tokens=none", "top_k=5", "pattern=simple,advanced", "blend=0"]

    def planned(measure: str) -> Plan:
        questions = [replace(one, answer="a technician") for one in read_questions(works / "q.jsonl")]
        return make_plan(
            variant, questions, [str(works / "documents")], folder=tmp_path / "t", measure=measure, tried=axes, count=2
        )  # fmt: skip

    retrieval = planned("ndcg_at_10")
    assert [one["pattern"] for one in retrieval.options] == ["simple", "advanced"]
    # all 60 pairs are asked, half of them re-ranked: 50 passages of 20 + 512 tokens count twice, so one search
    assert retrieval.cost_usd == pytest.approx(30 * Decimal("0.002"), abs=Decimal("0.0001"))
    assert planned("answer_f1").cost_usd > 60 * Decimal("0.27")


def test_the_front_has_the_dollars_of_the_price_book(works: Path, tmp_path: Path) -> None:
    """The setting `prices` was read for the estimate and not for the front."""
    pricer = Pricer(PriceBook(rates={"openai/gpt-4o-mini": Rates(input=Decimal(100), version="ours")}))
    row = find_preset("knowledge-base").with_cells({"llm": "openai/gpt-4o-mini"})
    assert answer_rates(row, pricer).input == 100


def test_one_search_at_a_time_tunes_in_a_folder(works: Path, tmp_path: Path) -> None:
    """Of two the first that ends would remove the indexes of the other."""
    (tmp_path / "out").mkdir()
    with ingest_lock(tmp_path / "out" / "tune.lock"):
        found = call(works, "--out", str(tmp_path / "out"))
    assert found.exit_code == 1 and f"tunes in '{tmp_path / 'out'}' since" in found.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tune.lock"]
    (tmp_path / "file").touch()
    blocked = call(works, "--out", str(tmp_path / "file" / "out"))
    assert blocked.exit_code == 1 and "cannot be made (Not a directory)" in blocked.output


def test_a_stopped_search_goes_on_and_ends_with_settings_and_a_page(
    works: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C keeps each outcome; the second run asks the rest alone; its settings build an engine."""
    asked: list[str] = []
    outcome = Runner._outcome

    def counted(self: Runner, engine: Any, one: Any, reranking_usd: Any) -> Any:
        if len(asked) == 45:
            asked.append("stop")
            raise KeyboardInterrupt
        asked.append(one.id)
        return outcome(self, engine, one, reranking_usd)

    monkeypatch.setattr(Runner, "_outcome", counted)
    stopped = call(works)
    assert stopped.exit_code == 130 and "run the same command again to go on" in stopped.output
    indexes = works / "s" / "tune" / "indexes"
    assert len(list(indexes.iterdir())) == 1
    done = call(works, "--json")
    assert done.exit_code == 0, done.output
    assert len(asked) - 1 <= 4 * 30  # nothing twice
    report = json.loads(done.stdout)
    assert 0 <= report["quality"]["low"] <= report["quality"]["mean"] <= report["quality"]["high"] <= 1
    assert report["front"] and report["quality"]["questions"] == 30
    settings = works / "s" / "tune" / "settings.toml"
    assert tomllib.loads(settings.read_text(encoding="utf-8")) == report["settings"]
    with build("healthcare", storage=works / "new", settings=settings) as engine:
        assert engine.settings.top_k == report["settings"]["top_k"]
    page = (works / "s/tune/front.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in page and 'role="img"' in page and "<script" not in page
    assert not indexes.exists()  # embeddings and outcomes are what another run needs
    index, questions, rest, whole = report["parts"]
    assert index["detail"] == "30 chunks, 0 of them embedded in this run" and "120 outcomes" not in page
    assert questions["name"] == "questions" and questions["detail"].endswith("outcomes of 4 configurations")
    assert whole["seconds"] == pytest.approx(
        index["seconds"] + questions["seconds"] + rest["seconds"], abs=0.2
    )
    assert "How long it took" in page and index["name"] in page
    before = len(asked)
    assert call(works).exit_code == 0 and len(asked) == before  # all of it was kept


def test_a_figure_of_its_own_is_svg_with_a_title_for_dark_and_light() -> None:
    """A file that a page embeds with <img> follows the reader's colours."""
    from xml.etree import ElementTree

    text = standalone(intervals("Front <of> it", [("a", 20.0, 0.5, 0.4, 0.6)], x_unit="ms", y_unit="nDCG"))
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and root[0].text == "Front <of> it" == root.get("aria-label")
    assert "prefers-color-scheme:dark" in (root[1].text or "")


@pytest.mark.slow("three searches")
def test_another_run_searches_its_own_documents(works: Path, tmp_path: Path) -> None:
    """In one folder of results: documents that are gone, or are not named, are not found in an index of before."""
    some = tmp_path / "documents"
    shutil.copytree(works / "documents", some)
    means = []
    for gone in ("", "roof", "yard"):
        for path in some.glob(f"*-{gone}.md"):
            path.unlink()
        told = call(tmp_path, "--json", questions=str(works / "q.jsonl"))
        assert told.exit_code == 0, told.output
        means.append(json.loads(told.stdout)["current"]["mean"])
        assert told.stderr.count("No document has this name") == 10 * (len(means) - 1)
    assert means == pytest.approx([1.0, 2 / 3, 1 / 3], abs=0.01)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.5, 0.6]), st.floats(1, 20), st.sampled_from([0.0, 0.1])),
        min_size=1,
        max_size=8,
    )
)
@example([(0.5, 12.0, 0.0), (0.5, 11.0, 0.0), (0.5, 10.0, 0.0)])
def test_some_configuration_is_never_beaten(drawn: list[tuple[float, float, float]]) -> None:
    """Latencies alike two by two, and not in a row, beat each other in no circle: a search would not end."""
    points = {number: {"q": Point(*one)} for number, one in enumerate(drawn)}
    assert front(list(points), points)
    assert halve(list(points), ["q"] * 3, lambda number, _: points[number])


def report_of(
    *, winner: int, given: Mapping[str, Any], patterns: Sequence[str] = ("simple",) * 2, near: bool = True
) -> TuneReport:
    """A finished search over configurations of these patterns, whose quality is not shown to differ."""
    interval = Interval(0.5, 0.4, 0.6, 30)
    found = Tuned(
        winner=winner,
        quality=interval,
        current=interval,
        change=interval,
        p_value=None,
        front=[],
        today_is_near=near,
        winners=[winner],
    )
    options = [
        {**one, "pattern": pattern}
        for one, pattern in zip(configurations(Settings(), "simple", count=2), patterns, strict=True)
    ]
    options[1] |= {name: options[0][name] for name in ("embedding", "chunking", "chunk_tokens")}
    return TuneReport(
        preset="healthcare",
        given=given,
        measure="ndcg_at_10",
        options=options,
        tuned=found,
        priced=True,
        seconds=1.0,
    )


def test_a_winner_that_only_its_own_questions_show_is_not_called_cheaper() -> None:
    """It was called "cheaper or faster, or new", where it was neither."""
    cheaper, luckier = (report_of(winner=1, given={}, near=near).verdict for near in (True, False))
    assert cheaper.endswith("no difference shown. What is chosen is cheaper or faster.")
    assert "better only on the questions that chose it: the settings as they are can stay" in luckier


def test_a_winner_that_searches_words_too_says_that_the_index_lacks_them() -> None:
    """The command that was proposed ended with an error about a keyword index of 0 nodes."""
    hybrid = report_of(winner=1, given={}, patterns=("simple", "hybrid"))
    assert hybrid.to_dict()["needs_keyword_index"] and not hybrid.needs_ingest
    assert "'llama-presets doctor --repair' builds it" in hybrid.to_toml()
    kept = report_of(winner=1, given={}, patterns=("hybrid", "hybrid"))
    assert not kept.to_dict()["needs_keyword_index"] and "--repair" not in kept.to_toml()


def test_settings_to_take_are_toml_and_hold_no_secret() -> None:
    """What was given is copied as it is, inf too; the address of a webhook is named, and not told."""
    given = {
        "alert_webhook": "https://hooks.example/T0/secret",
        "answer_cache_hours": float("inf"),
        "top_k": 9,
    }
    given |= {"alert_by": ("tenant",), "llm_options": {"temperature": 0.5}, "trace_project": 'a "b" \x7f'}
    report = report_of(winner=0, given=given)
    text = report.to_toml()
    assert "secret and not copied" in text and "hooks.example" not in text + json.dumps(report.to_dict())
    taken = tomllib.loads(text)
    assert taken["answer_cache_hours"] == float("inf") and taken["alert_by"] == ["tenant"]
    assert taken["trace_project"] == 'a "b" \x7f' and taken["llm_options"] == {"temperature": 0.5}
