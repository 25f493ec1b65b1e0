"""Questions are drafted from documents, and labelled one by one; nothing that was decided is asked again."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import ScriptedLLM
from tests.servers.openai import OpenAIServer
from typer.testing import CliRunner

from llama_index_presets import cli
from llama_index_presets.cli.commands import questions as command
from llama_index_presets.errors import AnswerError, SettingsError, StoreWriteError
from llama_index_presets.evaluate.labels import Labels
from llama_index_presets.evaluate.questions import JudgedQuestion, read_questions
from llama_index_presets.experiments.question_drafts import (
    Passage,
    draft,
    estimate_drafts,
    model_draft,
    passage_id,
    passages,
    rule_drafts,
)
from llama_index_presets.ingest.previews.preview import preview
from llama_index_presets.monitor.ledger.ledger import Ledger


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        (
            "An opened pen may be kept cool for up to 28 days.",
            "How long may an opened pen be kept cool?",
            "for up to 28 days",
        ),
        (
            "Botulism is treated in hospital with an antitoxin.",
            "How is Botulism treated in hospital?",
            "with an antitoxin",
        ),
        (
            "The Acme company was founded by two brothers.",
            "By whom or what was the Acme company founded?",
            "by two brothers",
        ),
        (
            "The tower was opened to visitors in March 1931.",
            "When was the tower opened to visitors?",
            "in March 1931",
        ),
        (
            "The reports are due at noon on Friday.",
            "When are the reports due at noon?",
            "on Friday",
        ),
        (
            "Vaccines must be stored always between 2 and 8 °C.",
            "At which temperature must Vaccines be stored always?",
            "between 2 and 8 °C",
        ),
        (
            "A ledger is a table of every model call.",
            "What is a ledger?",
            "a table of every model call",
        ),
        (
            "The pump is stopped at night because its valve leaks.",
            "Why is the pump stopped at night?",
            "because its valve leaks",
        ),
    ],
)
def test_a_statement_is_turned_into_its_question(text: str, question: str, answer: str) -> None:
    """The end of the statement is the answer, and is not in the question."""
    assert list(rule_drafts(Passage("a.md", text))) == [(question, answer)]


@pytest.mark.parametrize(
    "text",
    [
        "It is treated in hospital with an antitoxin.",
        "Is it open?",
        "These are kept in Berlin for 28 days.",
        "",
    ],
)
def test_a_statement_that_names_nothing_gives_no_question(text: str) -> None:
    """A pronoun means nothing outside its passage."""
    assert list(rule_drafts(Passage("a.md", text))) == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1. Switch the fan off.\n2. Close the gas valve.", "1. Switch the fan off."),
        ("Dear Sir or Madam,\n\nFour bags came torn.", "Four bags came torn."),
        ("Welcome!\n\nYour buddy shows you round.", "Your buddy shows you round."),
        ("Leaving the building\n\nArm the alarm first.", "Arm the alarm first."),
        ("5.", ""),
    ],
)
def test_the_answer_below_a_heading_is_a_statement(text: str, answer: str) -> None:
    """No salutation, no number of an item, no word of welcome, and not the heading once more."""
    assert list(rule_drafts(Passage("a.md", text, "Leaving the building"))) == [
        ("Leaving the building", answer)
    ]


def test_other_languages_are_asked_by_their_headings() -> None:
    """The rules of English are not tried on German."""
    passage = Passage(
        "a.md", "Der Stift ist für 28 Tage haltbar.", "Handbuch > Lagerung offener Stifte", "de"
    )
    assert list(rule_drafts(passage)) == [("Lagerung offener Stifte", "Der Stift ist für 28 Tage haltbar.")]


def test_drafts_are_spread_over_documents_and_name_them_apart(tmp_path: Path) -> None:
    """Two files of one name are told apart by their folder; no question comes twice."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        text = (
            f"The pump of hall {folder} is changed by the technician. The lift is inspected by a foreman.\n"
        )
        (tmp_path / folder / "a.md").write_text(text, encoding="utf-8")
    found = list(draft(passages(preview([str(tmp_path)])), 10))
    assert {name for one in found for name in one.relevance} == {"one/a.md", "two/a.md"}
    assert len({one.text for one in found}) == len(found) == len({one.id for one in found}) == 3
    assert len(list(draft(passages(preview([str(tmp_path)])), 2))) == 2


def test_a_model_drafts_one_question_of_a_passage() -> None:
    """Also inside a fence; without a question the passage is named."""
    passage = Passage("a.md", "The valve leaks.")
    said = '```json\n{"question": "What leaks?", "answer": "the valve"}\n```'
    expected = JudgedQuestion("What leaks?", {"a.md": 1.0}, passage_id(passage), "the valve")
    assert model_draft(ScriptedLLM(says=said), passage) == expected
    for nothing in ("no", "[1]", '{"question": ""}'):
        with pytest.raises(AnswerError, match=r"question for 'a\.md'"):
            model_draft(ScriptedLLM(says=nothing), passage)


def test_drafts_of_a_model_reach_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passages are asked about; the file has the questions, and the storage what they cost."""
    for name in ("valve", "rope"):
        (tmp_path / f"{name}.md").write_text(f"The {name} is inspected in May. " * 10, encoding="utf-8")
    out, kept = tmp_path / "drafts.jsonl", tmp_path / "kept"
    said = '{"question": "When is it inspected?", "answer": "in May"}'
    with OpenAIServer(words=(said,)) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        command_line = [
            "questions",
            "draft",
            str(tmp_path),
            "--out",
            str(out),
            "--json",
            "--storage",
            str(kept),
        ]
        by_model = ["--llm", "openai/gpt-4o-mini", "--max-cost", "1"]
        result = CliRunner().invoke(cli.app, [*command_line, *by_model])
        assert result.exit_code == 0, result.output
        again = CliRunner().invoke(cli.app, [*command_line, *by_model])
    assert len(server.served) == 2
    # 1,000 tokens read and 100 written a call, at 0.15 and 0.60 dollars a million.
    assert json.loads(result.stdout)["drafted"] == 2
    assert json.loads(result.stdout)["cost_usd"] == pytest.approx(2 * 0.00021)
    assert (json.loads(again.stdout)["drafted"], json.loads(again.stdout)["cost_usd"]) == (0, 0)
    assert [one.text for one in read_questions(out)] == ["When is it inspected?"] * 2
    with Ledger(kept / "calls.duckdb") as ledger:
        rows = ledger.sql("SELECT kind, tags, cost_usd FROM llm_calls").fetchall()
    assert rows == [("llm", ["question-drafts"], Decimal("0.00021"))] * 2
    costs = CliRunner().invoke(cli.app, ["costs", "--storage", str(kept), "--json"])
    assert costs.exit_code == 0 and "0.00042" in costs.output


def test_drafts_are_priced_by_the_projects_price_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimate and ledger had the prices of the list alone, and a project's storage and sources were passed over."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "rope.md").write_text("The rope is inspected in May. " * 10, encoding="utf-8")
    (tmp_path / "prices.toml").write_text('[models."openai/of-next-year"]\ninput = 1\noutput = 10\n')
    (tmp_path / "llama-presets.toml").write_text(
        'preset = "knowledge-base"\nstorage = "kept"\nsources = ["documents"]\n[settings]\nprices = "prices.toml"\n'
    )
    monkeypatch.chdir(tmp_path)
    said = '{"question": "When is it inspected?", "answer": "in May"}'
    with OpenAIServer(words=(said,)) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        by_model = ("draft", "--json", "--llm", "openai/of-next-year", "--max-cost")
        refused, paid = run(*by_model, "0.0001"), run(*by_model, "1")
    assert "would cost at most about $0.0008, and the limit is $0.0001" in refused.output
    assert paid.exit_code == 0, paid.output
    assert json.loads(paid.stdout)["cost_usd"] == pytest.approx((1000 * 1 + 100 * 10) / 1e6)
    assert (tmp_path / "kept" / "calls.duckdb").exists() or list((tmp_path / "kept").iterdir())
    assert not (tmp_path / "llama-presets-storage").exists()


def test_a_models_drafts_are_estimated_rather_too_high() -> None:
    """Twice as many passages cost twice as much; a model without a price is unknown, never free."""
    one, two = (estimate_drafts("openai/gpt-4o-mini", [Passage("a", "x" * 900)] * n) for n in (1, 2))
    assert one is not None and two == 2 * one
    assert one > (300 * 0.15e-6).__float__()
    assert estimate_drafts("openai/gpt-none", [Passage("a", "x")]) is None


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["questions", *arguments])


def test_the_command_drafts_once_and_pays_only_what_was_agreed(tmp_path: Path) -> None:
    """A second run adds nothing; a paid model without a terminal wants --max-cost; a limit of nothing refuses."""
    (tmp_path / "a.md").write_text("The pump of the hall is changed by the technician.\n", encoding="utf-8")
    out = str(tmp_path / "d.jsonl")
    first, second = (run("draft", str(tmp_path / "a.md"), "--out", out, "--json") for _ in range(2))
    assert [json.loads(one.stdout)["drafted"] for one in (first, second)] == [1, 0]
    assert read_questions(out)[0].relevant == {"a.md"}
    paid = ("draft", str(tmp_path / "a.md"), "--out", out, "--llm", "openai/gpt-4o-mini")
    assert "Agree with --max-cost" in run(*paid).output and run(*paid).exit_code == 1
    assert "the limit is $0. Nothing was sent" in run(*paid, "--max-cost", "0").output


def test_labels_want_a_terminal(tmp_path: Path) -> None:
    """A pipe is refused, and told what to do."""
    (tmp_path / "d.jsonl").write_text('{"question": "Who?"}\n', encoding="utf-8")
    refused = run("label", str(tmp_path / "d.jsonl"))
    assert refused.exit_code == 2 and "standard input is not one" in refused.output


class Terminal(io.StringIO):
    """Standard input that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def labelled(drafts: Path, out: Path, answers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = iter(answers)

    def typed(prompt: str = "") -> str:
        answer = next(waiting)
        if isinstance(answer, type):
            raise answer
        return str(answer)

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", typed)
    command.label(drafts, out)


def test_labelling_goes_on_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decision is on disk at once; what was skipped comes again, what was decided does not."""
    drafts, out = tmp_path / "d.jsonl", tmp_path / "q.jsonl"
    rows = [
        {"id": str(n), "question": f"Question {n}?", "sources": ["a.md"], "answer": "x"} for n in range(5)
    ]
    drafts.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        labelled(drafts, out, ["a", "r", "what", "s", KeyboardInterrupt], monkeypatch)
    assert [one.id for one in read_questions(out)] == ["0"]
    labelled(drafts, out, ["e", "Better?", "b.md; c.md", "", "n", EOFError], monkeypatch)
    found = {one.id: one for one in read_questions(out)}
    assert set(found) == {"0", "2", "3"}
    assert found["2"] == JudgedQuestion("Better?", {"b.md": 1.0, "c.md": 1.0}, "2", "x")
    assert (found["3"].relevant, found["3"].answerable) == (frozenset(), False)
    assert [one.id for one in Labels(out).left(read_questions(drafts))] == ["4"]


def test_a_file_without_a_last_newline_is_added_to_on_a_new_line(tmp_path: Path) -> None:
    """As an editor leaves it; a place that is no file is named."""
    out = tmp_path / "q.jsonl"
    out.write_text('{"id": "1", "question": "One?"}', encoding="utf-8")
    Labels(out).accept(JudgedQuestion("Two?", {"a": 1.0}, "2"))
    assert [one.id for one in read_questions(out)] == ["1", "2"]
    with pytest.raises(StoreWriteError, match="cannot be written"):
        Labels(out / "x.jsonl").accept(JudgedQuestion("Two?", {}, "2"))


def test_a_label_keeps_what_the_file_said(tmp_path: Path) -> None:
    """Grades stay; a question without sources is not turned into one that no document answers."""
    drafts, out = tmp_path / "d.jsonl", tmp_path / "q.jsonl"
    rows = [
        {"id": "1", "question": "Graded?", "sources": {"a": 2.0, "b": 0.5}},
        {"id": "2", "question": "Unknown?"},
        {"id": "3", "question": "None?", "sources": []},
        {"id": "4", "question": "Half a \udce9 and \u2028?", "sources": ["a\udce9.md"], "answerable": None},
    ]
    drafts.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    labels = Labels(out)
    for one in read_questions(drafts):
        labels.accept(one)
    assert read_questions(out) == read_questions(drafts)


def test_questions_are_added_to_json_lines_alone(tmp_path: Path) -> None:
    """A table is refused before a document is read or a model paid, and stays as it was."""
    table, notes = tmp_path / "q.csv", tmp_path / "a.md"
    table.write_text("question,sources\nWho?,a.md\n", encoding="utf-8")
    notes.write_text("The pump of the hall is changed by the technician.\n", encoding="utf-8")
    refused = run("draft", str(notes), "--out", str(table))
    assert refused.exit_code == 2 and "no name of a JSON Lines file" in refused.output
    with pytest.raises(SettingsError, match="no name of a JSON Lines file"):
        Labels(table)
    assert table.read_text(encoding="utf-8") == "question,sources\nWho?,a.md\n"


def test_a_text_that_a_document_repeats_is_paid_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal passages of a document have one id, which a file may hold once."""
    text = "The pump of the hall is changed by the technician. " * 5
    same = [Passage("a.md", text), Passage("a.md", text), Passage("b.md", text)]
    monkeypatch.setattr("llama_index_presets.experiments.question_drafts.passages", lambda _: same)
    monkeypatch.setattr(
        "llama_index_presets.providers.language_models.make_language_model",
        lambda *_: ScriptedLLM(says='{"question": "Who changes it?", "answer": "the technician"}'),
    )
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    out = tmp_path / "d.jsonl"
    drafted = run(
        "draft",
        str(tmp_path / "a.md"),
        "--out",
        str(out),
        "--llm",
        "openai/gpt-4o-mini",
        "--max-cost",
        "1",
        "--storage",
        str(tmp_path / "kept"),
        "--json",
    )
    assert drafted.exit_code == 0, drafted.output
    assert json.loads(drafted.stdout)["drafted"] == 2
    assert [one.relevant for one in read_questions(out)] == [{"a.md"}, {"b.md"}]


def test_a_closed_standard_input_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a service: refused like a pipe. Ctrl-D in the middle of an edit ends, and keeps nothing half."""
    drafts, out = tmp_path / "d.jsonl", tmp_path / "q.jsonl"
    drafts.write_text('{"id": "1", "question": "Who?"}\n', encoding="utf-8")
    labelled(drafts, out, ["e", "Better?", EOFError], monkeypatch)
    assert not out.exists()
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SettingsError, match="standard input is not one"):
        command.label(drafts, out)


def test_what_a_draft_says_drives_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompts of an edit show control characters as a replacement character."""
    prompts: list[str] = []
    one = JudgedQuestion("Who?\x1b[2J", {"a\x1b.md": 1.0}, "1", "x\x1b")
    monkeypatch.setattr("builtins.input", lambda prompt: prompts.append(prompt) or "")
    assert command._edited(one) == one
    assert len(prompts) == 3 and not any("\x1b" in prompt for prompt in prompts)
