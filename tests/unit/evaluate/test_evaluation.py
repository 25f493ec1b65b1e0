"""An evaluation measures the engine itself, keeps what it has, and leaks nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.llms.openai import OpenAI
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.servers.openai import OpenAIServer

from llama_index_presets import build
from llama_index_presets.errors import SettingsError, StoreWriteError
from llama_index_presets.evaluate.outcomes import Checkpoint, Outcome
from llama_index_presets.evaluate.questions import JudgedQuestion
from llama_index_presets.experiments.evaluation import Evaluation, Variant, parse_settings
from llama_index_presets.presets.engine import PresetEngine

TEXTS = {
    "pump.md": "The valve of the pump leaks.",
    "lift.md": "The rope of the lift is worn.",
    "lamp.md": "Lamps are changed yearly.",
}
ASKED = [
    JudgedQuestion("Which valve of the pump leaks?", {"pump.md": 1.0}, "pump", "the valve of the pump"),
    JudgedQuestion("Which rope of the lift is worn?", {"lift.md": 1.0}, "lift"),
    JudgedQuestion("Who won the cup?", {}, "cup", answerable=False),
]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PresetEngine]:
    embedding = WordEmbedding(model_name="words")
    with build("healthcare", storage=tmp_path / "s", embed_model=embedding, settings={"pii": "off"}) as made:
        made.ingest([Document(text=text, doc_id=f"/docs/{name}") for name, text in TEXTS.items()])
        yield made


def evaluate(engine: PresetEngine, folder: Path, **options: Any) -> Any:
    return Evaluation(engine=engine, questions=ASKED, **options).run("x", folder, show_progress=False)


def test_an_engine_is_measured_as_it_answers(engine: PresetEngine, tmp_path: Path) -> None:
    """Ranking, citations, honesty, latency, cost; no text is kept."""
    result = evaluate(engine, tmp_path / "out")
    found = result.summary()
    assert found["ndcg_at_10"] == found["citation_precision"] == found["citation_recall"] == 1.0
    assert (found["answer_recall"], found["dont_know_right"], found["dont_know_wrong"]) == (1.0, 1.0, 0.0)
    assert found["cost_usd"] is None and found["latency_p50_ms"] > 0  # the model of this test has no price
    assert [len(one.ranking) for one in result.outcomes] == [3, 3, 3]  # further than the answer reads
    assert list((tmp_path / "out").glob("unfinished*")) == []
    text = json.dumps(result.to_dict())
    assert "leaks" not in text and "valve" not in text
    kept = evaluate(engine, tmp_path / "out", keep_answers=True).to_dict()["outcomes"][0]["answer"]
    assert kept.startswith("The valve of the pump leaks.")


def test_retrieval_alone_asks_no_model(engine: PresetEngine, tmp_path: Path) -> None:
    """No answers, so nothing is said of them."""
    before = engine.ledger.get_usage_stats(days=1).total_calls
    found = evaluate(engine, tmp_path, retrieval_only=True).summary()
    assert set(found) == {"ndcg_at_10", "recall_at_10", "mrr_at_10", "latency_p50_ms", "latency_p95_ms"}
    kinds = engine.ledger.sql("select distinct kind from llm_calls").fetchall()
    assert engine.ledger.get_usage_stats(days=1).total_calls > before and ("llm",) not in kinds


class Stopping(ScriptedLLM):
    """Answers so many questions, then somebody presses Ctrl-C, or the service fails."""

    answers: int = 1
    error: Any = KeyboardInterrupt

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        if len(self.prompts) >= self.answers:
            raise self.error("stopped")
        return super().complete(prompt, formatted, **kwargs)


def build_with(llm: Any, storage: Path) -> PresetEngine:
    embedding = WordEmbedding(model_name="words")
    return build(
        "healthcare", storage=storage, embed_model=embedding, llm=llm, settings={"answer_floor": -1.0}
    )


def test_a_stopped_run_goes_on_where_it_was(engine: PresetEngine, tmp_path: Path) -> None:
    """What was answered before Ctrl-C is not asked again; --fresh asks everything."""
    engine.close()
    stopping = Stopping(says="It is so [1].", answers=2)
    with build_with(stopping, tmp_path / "s") as first, pytest.raises(KeyboardInterrupt):
        evaluate(first, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("unfinished-*.jsonl"))) == 1
    going_on = Stopping(says="It is so [1].", answers=99)
    with build_with(going_on, tmp_path / "s") as second:
        result = evaluate(second, tmp_path / "out")
        assert (len(going_on.prompts), len(result.outcomes), result.failed) == (1, 3, {})
        Evaluation(engine=second, questions=ASKED).run("x", tmp_path / "out", fresh=True, show_progress=False)
    assert len(going_on.prompts) == 1 + 3


def test_a_question_that_fails_costs_no_other(engine: PresetEngine, tmp_path: Path) -> None:
    """It is named, the others are measured, and the next run asks it again."""
    engine.close()
    failing = Stopping(says="It is so [1].", answers=1, error=ConnectionError)
    with build_with(failing, tmp_path / "s") as made:
        result = evaluate(made, tmp_path / "out")
    assert set(result.failed) == {"lift", "cup"} and "ConnectionError: stopped" in result.failed["lift"]
    assert [one.question for one in result.outcomes] == ["pump"]
    with build_with(Stopping(says="No.", answers=0, error=ConnectionError), tmp_path / "s2") as empty:
        empty.ingest([Document(text="The valve of the pump leaks.")])
        with pytest.raises(SettingsError, match="Every question failed; the first with ConnectionError"):
            evaluate(empty, tmp_path / "out2")


def test_a_full_disk_ends_the_run_before_another_answer_is_paid(
    engine: PresetEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept is kept, and the next run goes on behind it."""
    add, asked = Checkpoint.add, []

    def full(self: Checkpoint, outcome: Outcome) -> None:
        asked.append(outcome.question)
        if len(asked) == 2:
            raise StoreWriteError("No space left on device")
        add(self, outcome)

    monkeypatch.setattr(Checkpoint, "add", full)
    with pytest.raises(StoreWriteError, match="No space left"):
        evaluate(engine, tmp_path / "out")
    result = evaluate(engine, tmp_path / "out")
    assert asked == ["pump", "lift", "lift", "cup"] and result.failed == {}


def test_a_first_question_that_fails_costs_no_other(
    engine: PresetEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is also asked once unmeasured, so that the models are loaded."""
    whole = Evaluation._rank

    def rank(self: Evaluation, one: JudgedQuestion) -> tuple[str, ...]:
        if one.id == "pump":
            raise ConnectionError("stopped")
        return whole(self, one)

    monkeypatch.setattr(Evaluation, "_rank", rank)
    result = evaluate(engine, tmp_path / "out", retrieval_only=True)
    assert set(result.failed) == {"pump"} and [one.question for one in result.outcomes] == ["lift", "cup"]


def test_a_judge_says_yes_or_no_and_is_billed_apart(engine: PresetEngine, tmp_path: Path) -> None:
    """Through LlamaIndex's evaluators, on answers alone; the answer's own cost stays the answer's."""
    with OpenAIServer(prompt=100, completion=1) as server:
        llm = OpenAI(model="gpt-4o-mini", api_key="sk-test", api_base=server.url, max_retries=0)
        yes = ScriptedLLM(says="YES")
        result = evaluate(engine, tmp_path / "out", judge=yes)
        assert result.summary()["faithfulness"] == result.summary()["relevancy"] == 1.0
        # The unanswered question is not judged; one of the others has an expected answer.
        assert len(yes.prompts) == 2 * 2 + 1
        found = evaluate(engine, tmp_path / "out2", judge=llm)
        judged = [one for one in found.outcomes if one.faithfulness is not None]
        assert len(judged) == 2 and len(server.served) == 5, found.failed
        expected = 2 * (100 * 0.15 + 1 * 0.60) / 1e6
        assert [one.judge_usd for one in judged] == [pytest.approx(1.5 * expected), pytest.approx(expected)]
        assert all(one.cost_usd is None for one in judged)  # that of the embedding, not the judge's


def test_a_local_preset_refuses_a_judge_elsewhere(engine: PresetEngine, tmp_path: Path) -> None:
    """It would be sent questions, passages and answers."""
    judge = OpenAI(model="gpt-4o-mini", api_key="sk-test")
    with pytest.raises(SettingsError, match="keeps everything on this machine; the judge gpt-4o-mini"):
        evaluate(engine, tmp_path, judge=judge)


def test_a_variant_shares_the_index_unless_it_is_made_otherwise(tmp_path: Path) -> None:
    """top_k is a dial of the query; chunking, embedding and another preset need an index of their own."""
    base = Variant(preset="healthcare", storage=str(tmp_path))
    assert base.other(None, {"top_k": 1}, None).storage == str(tmp_path)
    semantic = base.other(None, {"chunking": "semantic", "top_k": 1}, None)
    assert semantic.storage == str(tmp_path / "variants" / "healthcare-chunking-semantic")
    assert semantic.label == "healthcare chunking=semantic top_k=1"
    assert base.other("research-papers", {}, None).storage == str(tmp_path / "variants" / "research-papers")
    assert base.other("research-papers", {}, "elsewhere").storage == "elsewhere"
    with pytest.raises(SettingsError, match="expected KEY=VALUE"):
        parse_settings(["top_k"])


def test_a_variants_settings_go_before_the_file(tmp_path: Path) -> None:
    """The file holds for both; what is compared stands on top."""
    (tmp_path / "s.toml").write_text("top_k = 3\n[healthcare]\nblend = 0.5\n[research-papers]\nblend = 1.0\n")
    base = Variant(preset="healthcare", storage="s", settings=tmp_path / "s.toml")
    assert base.given() == tmp_path / "s.toml"
    assert base.other(None, {"top_k": 8}, None).given() == {"top_k": 8, "blend": 0.5}


def test_the_command_compares_two_chunkings_on_files(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """One command: ingest twice, ask twice, keep both, test the difference, draw the plot."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for name, text in TEXTS.items():
        (docs / name).write_text(text)
    rows = [{"question": one.text, "sources": list(one.relevance), "id": one.id} for one in ASKED]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["evaluate", "healthcare", "--questions", tmp_path / "q.jsonl", "--storage", tmp_path / "s"]
    code, out, err = run(*command)
    assert (code, out) == (2, "") and "There is no index for 'healthcare'" in err
    code, out, err = run(
        *command,
        "--documents",
        docs,
        "--with",
        "chunking=sentence-window",
        "--plot",
        tmp_path / "p.html",
        "--json",
    )
    found = json.loads(out)
    assert code == 0 and err.count("Kept: ") == 2
    assert [one["label"] for one in found["results"]] == ["healthcare", "healthcare chunking=sentence-window"]
    assert {one["measure"] for one in found["comparison"]} >= {"ndcg_at_10", "latency_ms", "dont_know_right"}
    assert (tmp_path / "p.html").read_text().count("<title>healthcare") == 4
    assert len(list((tmp_path / "s" / "evaluations").glob("*.json"))) == 2
    code, out, _ = run(*command, "--limit", 1)
    assert code == 0 and "1 of 1 question, healthcare." in out and "ndcg_at_10" in out
    code, _, err = run(*command, "--judge", "gpt-4o-mini", "--offline")
    assert code == 2 and "--offline allows none" in err


def test_answers_of_the_cache_are_not_measured(engine: PresetEngine, tmp_path: Path) -> None:
    """With the answer cache on, each run asks the model: its latency and cost are what is measured."""
    engine.close()
    llm = ScriptedLLM()
    values = {"answer_floor": -1.0, "answer_cache": "on"}
    words = WordEmbedding(model_name="words")
    with build("healthcare", storage=tmp_path / "s", embed_model=words, llm=llm, settings=values) as made:
        made.query(ASKED[0].text)
        for _ in range(2):
            evaluate(made, tmp_path / "out")
    assert len(llm.prompts) == 1 + 2 * len(ASKED)
