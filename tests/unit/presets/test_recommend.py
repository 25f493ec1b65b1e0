"""A recommendation quotes its rules, rules rows out for a reason, and shows its arithmetic."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets import PRESETS, recommend
from llama_index_presets.advise.cost_estimate import estimate_bill
from llama_index_presets.advise.recommend import rules
from llama_index_presets.advise.requirements import Requirements
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.estimates.answer import estimate_answer
from llama_index_presets.presets.settings import Settings

DOCS = Path(__file__).parents[3] / "docs" / "choosing.md"

CASES = st.fixed_dictionaries(
    {
        "documents": st.sampled_from([0, 10, 10_000, 5_000_000, 20_000_000, 10**9]),
        "queries_per_month": st.sampled_from([0, 100, 10**7]),
        "modalities": st.sampled_from([["text"], ["image"], ["text", "image"]]),
        "priority": st.sampled_from(["accuracy", "balanced", "cost"]),
        "budget_usd": st.sampled_from([None, 0, 3.5, 10**6]),
        **{field.name: st.booleans() for field in fields(Requirements) if field.type == "bool"},
    }
)


@pytest.mark.parametrize(
    ("case", "best"),
    [
        ({}, "knowledge-base"),
        ({"customers": True}, "customer-chatbot"),
        ({"private": True}, "healthcare"),
        ({"exact_words": True, "audited": True}, "financial-documents"),
        ({"near_duplicates": True}, "research-papers"),
        ({"documents": 20_000_000}, "high-volume"),
        ({"modalities": ["text", "image"]}, "multi-modal"),
    ],
)
def test_each_use_case_finds_its_row(case: dict[str, Any], best: str) -> None:
    """What the matrix says of a row, said the other way round."""
    assert recommend(case).best.preset == best


@settings(max_examples=60)
@given(case=CASES)
def test_every_row_is_ranked_or_ruled_out_for_a_reason(case: dict[str, Any]) -> None:
    """Nothing is dropped, whatever is asked; hard requirements hold for what is ranked."""
    found = recommend(case)
    named = [row.preset for row in found.ranked] + [row.preset for row in found.ruled_out]
    assert sorted(named) == sorted(PRESETS)
    assert all(row.reasons for row in found.ruled_out)
    scores = [row.score for row in found.ranked]
    assert scores == sorted(scores, reverse=True)
    for row in found.ranked:
        used = PRESETS[row.preset].offline() if row.offline else PRESETS[row.preset]
        if case["private"] or case["offline"]:
            assert all(part.local for part in used.parts().values())
        if case["budget_usd"] is not None:
            assert float(row.bill.total("month")) <= case["budget_usd"]
        assert ("image" in case["modalities"]) == (used.embedding == "clip-ViT-B-32")
        PRESETS[row.preset].with_cells(dict(row.settings))  # what it suggests exists


def test_the_page_shows_every_rule_word_for_word() -> None:
    """What is quoted can be looked up: one place holds the text, and the page keeps in step."""
    shown = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", DOCS.read_text(), re.MULTILINE))
    assert shown == {rule.id: rule.text for rule in rules()}


def test_every_rule_names_facts_and_cells_that_exist() -> None:
    """A typo in the table would silence a rule."""
    known = {field.name for field in fields(Requirements)} | {"images", "budgeted", "over_budget"}
    for rule in rules():
        assert {re.sub("_(above|below)$", "", name) for name in rule.when} <= known
        for column, choices in {**rule.cells, **rule.not_cells}.items():
            cells = [choices] if isinstance(choices, str) else choices
            if column != "reach":
                next(iter(PRESETS.values())).with_cells({column: cells[0]})
        assert (rule.verdict == "suggest") == bool(rule.suggest)


def test_the_bill_is_its_arithmetic() -> None:
    """1,000 documents of 500 tokens; 2,000 questions of 20 tokens, each answered from five passages."""
    needs = Requirements(documents=1_000, tokens_per_document=500, queries_per_month=2_000)
    bill = estimate_bill(PRESETS["knowledge-base"], needs)
    small, read, written = Decimal("0.02"), Decimal("0.10"), Decimal("0.50")
    million = Decimal(1_000_000)
    assert bill.total("once") == 1_000 * 500 * small / million
    answers = 2_000 * ((150 + 5 * 512) * read + 150 * written) / million
    assert bill.total("month") == 2_000 * 20 * small / million + answers
    assert "1,000 documents x 500 tokens x $0.02 per million" in bill.lines[0].arithmetic


def test_what_has_no_price_is_named_and_not_counted() -> None:
    """A managed store is billed by use; nothing is guessed."""
    bill = estimate_bill(PRESETS["high-volume"], Requirements())
    assert bill.unpriced == ("keeping the vectors in pinecone",)
    assert bill.to_dict()["lines"][-1]["usd"] is None


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"documnts": 1}, "Did you mean 'documents'"),
        ({"documents": -1}, "documents is -1; expected a whole number of 0 or more"),
        ({"documents": 1.5}, "expected a whole number"),
        ({"budget_usd": "ten"}, "budget_usd is 'ten'"),
        ({"private": "yes"}, "private is 'yes'; expected true or false"),
        ({"modalities": ["sound"]}, "expected 'text', 'image' or both"),
        ({"priority": "nice"}, "expected accuracy, balanced, cost"),
    ],
)
def test_wrong_requirements_are_named(case: dict[str, Any], message: str) -> None:
    """Before anything is ranked."""
    with pytest.raises(SettingsError, match=message):
        recommend(case)


def test_when_nothing_fits_the_error_names_the_rules() -> None:
    """Images, and money for nothing but a hosted row: no row is left when the priority is impossible."""
    found = recommend(modalities=["image"], budget_usd=0)
    assert found.best.preset == "multi-modal"
    empty = type(found)(requirements=found.requirements, ranked=(), ruled_out=found.ruled_out)
    with pytest.raises(SettingsError, match=r"No preset fits: the rules .*images-need-clip"):
        _ = empty.best


def test_the_command_takes_flags_and_quotes_rules(run) -> None:  # type: ignore[no-untyped-def]
    """For people: the ranking, the reasons, the bill, what was ruled out."""
    code, out, _ = run("recommend", "--documents", 500, "--private")
    quotes = {rule.id: rule.text for rule in rules()}
    assert code == 0 and out.splitlines()[1].startswith("healthcare")
    assert f"{quotes['nothing-leaves']} (nothing-leaves)" in out
    assert f"Ruled out: knowledge-base\n  {quotes['local-for-privacy']}" in out


def test_the_command_takes_a_file_and_flags_go_before_it(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """One JSON object comes out."""
    (tmp_path / "needs.json").write_text('{"documents": 30, "private": true}')
    code, out, err = run("recommend", "--requirements", tmp_path / "needs.json", "--no-private", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["requirements"]["documents"] == 30 and not found["requirements"]["private"]
    assert found["ranked"][0]["preset"] == "knowledge-base"
    assert set(found["ranked"][0]["bill"]) == {"once_usd", "month_usd", "unpriced", "lines"}


def test_the_command_says_when_it_knows_nothing(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """In a script without flags there is nobody to ask."""
    code, out, err = run("recommend")
    assert (code, out) == (2, "") and "Nothing is known of your case" in err


def test_an_answer_is_priced_by_the_length_of_one_prompt() -> None:
    """Not by that of all prompts together, which would be in a dearer tier; a local model costs nothing."""
    row, defaults = PRESETS["knowledge-base"], Settings()
    answer = estimate_answer(row, defaults)
    prompt = 150 + 5 * 512
    assert (answer.prompt_tokens, answer.answer_tokens) == (prompt, 150)
    assert answer.usd == (prompt * Decimal("0.10") + 150 * Decimal("0.50")) / 1_000_000
    assert estimate_answer(PRESETS["healthcare"], defaults).usd == 0
    unknown = row.with_cells({"llm": "openai/of-next-year"})
    assert estimate_answer(unknown, defaults).usd is None
    assert estimate_answer(row.with_cells({"llm": "ollama/llama3.2"}), defaults).usd == 0


@pytest.mark.parametrize(
    ("llm", "usd"),
    [
        ("openai/gpt-4o-mini", (150 + 5 * 512) * Decimal("0.15e-6") + 150 * Decimal("0.60e-6")),
        ("http://localhost:4000/v1#gpt-4o-mini", (150 + 5 * 512) * Decimal("0.15e-6") + 150 * Decimal("0.60e-6")),
        ("http://localhost:4000/v1#qwen3-of-ours", Decimal(0)),
        ("ollama/deepseek-chat", Decimal(0)),
    ],
)  # fmt: skip
def test_an_answer_by_a_gateway_of_this_machine_costs_what_the_ledger_will_say(
    llm: str, usd: Decimal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address says where a request goes first, not who sends the bill; what runs here is free by any name."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:4000/v1")
    row = PRESETS["knowledge-base"].with_cells({"llm": llm})
    assert estimate_answer(row, Settings()).usd == usd
