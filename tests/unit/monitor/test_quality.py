"""Quality of answers: counted per question without a word of it, rated by who asked, summed up in a digest."""

from __future__ import annotations

import stat
import time
from decimal import Decimal
from pathlib import Path

import pytest
from llama_index.core import Document
from tests.fakes import ScriptedLLM, WordEmbedding
from typer.testing import CliRunner

from llama_index_presets import Ledger, build
from llama_index_presets.cli import app
from llama_index_presets.errors import AnswerError, SettingsError
from llama_index_presets.monitor.ledger.digest import digest, read_period
from llama_index_presets.monitor.ledger.report import cost_page
from llama_index_presets.monitor.quality import keep_outcome, quality, rate

SUPPORTED = [{"supported": True}, {"supported": False}, {"supported": None}]


def test_questions_are_summed_up_by_how_they_ended(tmp_path: Path) -> None:
    """Shares of abstentions and failures, unsupported sentences (lead-ins are none), missing legs, cached answers."""
    asked = {"owner": "o", "tenant": "acme"}
    keep_outcome(
        tmp_path, "a", outcome="known", metadata={"sentences": SUPPORTED, "failed_legs": ["bm25"]}, **asked
    )
    keep_outcome(tmp_path, "b", outcome="abstained", metadata={"cached": {}}, **asked)
    keep_outcome(tmp_path, "c", outcome="failed", metadata={}, owner="o", tenant="globex")
    found = quality(tmp_path, since=0).to_dict()
    assert found == {
        "questions": 3, "abstained": 1, "failed": 1, "sentences": 2, "unsupported": 1, "failed_legs": 1, "cached": 1,
        "up": 0, "down": 0,
    }  # fmt: skip
    assert quality(tmp_path, since=0, tenant="globex").questions == 1
    assert quality(tmp_path, since=time.time() + 60, until=time.time() + 90).questions == 0
    assert stat.S_IMODE((tmp_path / "quality.sqlite").stat().st_mode) == 0o600


def test_only_who_asked_may_say_what_an_answer_was_worth(tmp_path: Path) -> None:
    """By tenant and user; the last word counts, and an answer of others is as unknown as none."""
    settings = {"store": "duckdb", "answer_floor": -1.0, "monitoring": "basic"}
    with build(
        "knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding(), settings=settings
    ) as engine:
        engine.ingest([Document(text="Parcels are returned within 30 days.", metadata={"tenant": "acme"})])
        acme = engine.for_tenant("acme").for_user("ada")
        query_id = (acme.query("When are parcels returned?").metadata or {})["query_id"]
        for other in (engine, engine.for_tenant("globex"), acme.for_user("bob")):
            with pytest.raises(AnswerError, match=f"No query '{query_id}' of yours is kept"):
                other.feedback(query_id, up=True)
        acme.feedback(query_id, up=True)
        engine.for_tenant("acme").for_user("ada").feedback(query_id, up=False)
        found = quality(tmp_path, since=0)
    assert (found.questions, found.up, found.down) == (1, 0, 1)
    assert b"parcels" not in (tmp_path / "quality.sqlite").read_bytes().lower()


def test_the_digest_says_what_was_spent_saved_and_answered(tmp_path: Path) -> None:
    """Totals beside the time before, tables by model and tenant, and names that make no markup of their own."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        call = {"kind": "llm", "provider": "openai", "model": "m|x", "tenant": "<b>acme</b>"}
        week_ago = int((time.time() - 8 * 86_400) * 1e6)
        ledger.record(**call, cost_usd=Decimal(2), timestamp_us=week_ago)
        ledger.record(**call, cost_usd=Decimal(3), completion_tokens=10)
        ledger.record(**call, cache_hit=True, saved_usd=Decimal("0.5"))
        keep_outcome(tmp_path, "a", owner="", tenant="", outcome="abstained", metadata={})
        text = digest(ledger, days=7)
    assert "**$3.00** (+50 % against the same time before) for 2 calls." in text
    assert "| saved by the answer cache, USD | 0.500000 | 0.000000 |" in text
    assert "| m\\|x | 3.00 | 2 | 10 |" in text and "\\<b\\>acme\\</b\\>" in text
    assert "| answered with I don't know | 1 (100.0%) | 0 |" in text


def test_the_command_prints_the_digest_of_a_period(tmp_path: Path) -> None:
    """`costs --since 24h --markdown`, for a scheduler."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        ledger.record(kind="llm", provider="openai", model="m", cost_usd=Decimal(3))
    shown = CliRunner().invoke(app, ["costs", "--storage", str(tmp_path), "--since", "24h", "--markdown"])
    assert (
        shown.exit_code == 0
        and shown.output.startswith("# Model costs, ")
        and "| m | 3.00 | 1 | 0 |" in shown.output
    )


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "0h", "7 days", "1e9d"])
def test_what_is_no_period_is_refused(text: str) -> None:
    """The message shows the form."""
    with pytest.raises(SettingsError, match="is no period. Expected a number with h, d or w"):
        read_period(text)


def test_a_damaged_file_of_quality_costs_neither_answer_nor_bill(tmp_path: Path) -> None:
    """Questions are answered, and the costs are told with what is wrong in place of the quality."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        ledger.record(kind="llm", cost_usd=Decimal("0.25"))
        (tmp_path / "quality.sqlite").write_bytes(b"no database" * 100)
        keep_outcome(tmp_path, "1", owner="", tenant="", outcome="known", metadata={})
        for told in (digest(ledger), cost_page(ledger)):
            assert "0.25" in told and "cannot be read" in told and "Remove it" in told


def test_half_a_character_is_no_id_and_no_fault(tmp_path: Path) -> None:
    """JSON can hold it, UTF-8 cannot: a question of nobody, as any other unknown id."""
    keep_outcome(tmp_path, "1", owner="me", tenant="\udce9", outcome="known", metadata={})
    with pytest.raises(AnswerError, match="of yours is kept"):
        rate(tmp_path, "\ud800", owner="me", up=True)
