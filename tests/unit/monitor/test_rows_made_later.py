"""Rows that the writing thread makes: same as if made at once, and no prompt stays behind."""

from __future__ import annotations

import gc
import logging
import weakref
from pathlib import Path

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage, MockLLM

from llama_index_presets import CostTrackingHandler, Ledger


def hashes(ledger: Ledger) -> list[str]:
    return [row[0] for row in ledger.sql("SELECT prompt_sha256 FROM llm_calls ORDER BY call_id").fetchall()]


def test_a_list_that_grows_after_the_call_keeps_its_hash(tmp_path: Path) -> None:
    """An agent appends the answer to the messages it sent; the row is of what was sent."""
    with Ledger(tmp_path / "calls.duckdb", flush_interval_s=60) as ledger:
        llm = MockLLM(callback_manager=CallbackManager([CostTrackingHandler(ledger)]))
        messages = [ChatMessage(role="user", content="How much?")]
        llm.chat(messages)
        messages.append(ChatMessage(role="assistant", content="Ten."))
        llm.chat(messages[:1])
        first, second = hashes(ledger)
    assert first == second != ""


def test_a_flush_lets_go_of_prompts(tmp_path: Path) -> None:
    """Nothing of a call stays in memory once its row is written."""
    with Ledger(tmp_path / "calls.duckdb", flush_interval_s=60) as ledger:
        handler = CostTrackingHandler(ledger)
        message = ChatMessage(role="user", content="A secret of some length")
        watched = weakref.ref(message)
        MockLLM(callback_manager=CallbackManager([handler])).chat([message])
        ledger.flush()
        del message
        gc.collect()
        assert watched() is None
        assert handler.observer.tracker.open_calls == 0


def test_a_row_that_cannot_be_made_is_logged_and_the_others_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in making one row costs that row, not the batch."""
    with Ledger(tmp_path / "calls.duckdb", flush_interval_s=60) as ledger:
        ledger.record(kind="llm", provider="local", model="m", prompt_tokens=1)
        ledger.add_later(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        ledger.record(kind="llm", provider="local", model="m", prompt_tokens=2)
        with caplog.at_level(logging.ERROR):
            assert ledger.get_usage_stats().total_calls == 2
    assert "cannot be made" in caplog.text
