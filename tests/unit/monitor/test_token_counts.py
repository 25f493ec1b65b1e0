"""`CostTrackingHandler` used as `TokenCountingHandler` is, and a ledger in memory."""

from __future__ import annotations

import copy
import logging
import pickle
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from tests.fakes import WordEmbedding

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.errors import MonitorError, SettingsError
from llama_index_presets.monitor.budgets import Budget

TOTALS = (
    "total_llm_token_count",
    "prompt_llm_token_count",
    "completion_llm_token_count",
    "total_embedding_token_count",
)
NO_PAGE = "a text without a server that counts"


@pytest.fixture(autouse=True)
def settings_as_they_were() -> Iterator[None]:
    before = Settings._callback_manager
    yield
    Settings._callback_manager = before


def totals(handler: Any) -> list[int]:
    return [getattr(handler, name) for name in TOTALS]


def ask(handler: Any) -> None:
    manager = CallbackManager([handler])
    llm = MockLLM(max_tokens=8, callback_manager=manager)
    llm.complete(NO_PAGE)
    list(llm.stream_complete("one two three"))
    WordEmbedding(model_name="words", callback_manager=manager).get_text_embedding_batch(["red fish", "blue"])


def test_counts_of_the_ledger_are_taken_without_a_tokenizer() -> None:
    """No text is counted a second time; totals and ledger then say the same."""

    def refuses(text: str) -> list[str]:
        raise AssertionError(text)

    handler = CostTrackingHandler(tokenizer=refuses, recount=False)
    ask(handler)
    rows = handler.ledger.sql("SELECT kind, sum(total_tokens) FROM llm_calls GROUP BY kind").fetchall()
    assert dict(rows) == {
        "llm": handler.total_llm_token_count,
        "embedding": handler.total_embedding_token_count,
    }
    assert handler.total_llm_token_count > 0 and handler.total_embedding_token_count > 0


@pytest.mark.parametrize("tokenizer", [None, str.split])
def test_the_totals_are_the_official_ones(tokenizer: Any) -> None:
    """With LlamaIndex's tokenizer and with one of the caller's, without a ledger."""
    stock, ours = TokenCountingHandler(tokenizer), CostTrackingHandler(tokenizer=tokenizer)
    ask(stock)
    ask(ours)
    assert totals(ours) == totals(stock) and ours.total_embedding_token_count == 3
    assert [one.total_token_count for one in ours.llm_token_counts] == [
        one.total_token_count for one in stock.llm_token_counts
    ]
    ours.reset_counts()
    assert totals(ours) == [0, 0, 0, 0] and ours.ledger.get_usage_stats().total_calls == 3


def test_prompts_are_kept_only_when_asked() -> None:
    """A handler that lives long would fill the memory with what may be private."""
    forgetful, keeper = CostTrackingHandler(), CostTrackingHandler(keep_texts=True)
    ask(forgetful)
    ask(keeper)
    assert keeper.llm_token_counts[0].prompt == NO_PAGE and keeper.llm_token_counts[0].completion
    assert keeper.embedding_token_counts[0].prompt == "red fish\nblue"
    with pytest.raises(SettingsError, match="keep_texts=True"):
        _ = forgetful.llm_token_counts[0].prompt
    assert NO_PAGE not in repr(keeper.llm_token_counts)


def test_verbose_says_the_tokens_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """On the standard output, or to a logger."""
    ask(CostTrackingHandler(verbose=True, tokenizer=str.split))
    said = capsys.readouterr().out
    assert "LLM Prompt Token Usage: 7" in said and "Embedding Token Usage: 3" in said


def test_verbose_says_them_to_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    """At level DEBUG, as the official class does."""
    logger = logging.getLogger("tokens")
    with caplog.at_level(logging.DEBUG, logger="tokens"):
        ask(CostTrackingHandler(verbose=True, logger=logger, tokenizer=str.split))
    assert "LLM Prompt Token Usage: 7" in caplog.text


@pytest.mark.parametrize("option", ["event_starts_to_ignore", "event_ends_to_ignore"])
def test_events_to_ignore_leave_no_row(option: str) -> None:
    """Neither counted nor in the ledger."""
    handler = CostTrackingHandler(**{option: [CBEventType.EMBEDDING]})  # type: ignore[arg-type]
    ask(handler)
    assert handler.total_embedding_token_count == 0 and handler.total_llm_token_count > 0
    assert {row.key for row in handler.ledger.costs(by="kind")} == {"llm"}


def test_a_token_budget_and_a_tokenizer_in_the_ledgers_place_are_refused() -> None:
    """With the way to get them."""
    with pytest.raises(SettingsError, match=r"budgets=\[Budget"):
        CostTrackingHandler(token_budget=100)
    with pytest.raises(SettingsError, match="given as tokenizer="):
        CostTrackingHandler(str.split)  # type: ignore[arg-type]


def test_a_tokenizer_that_fails_costs_no_row(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the ledger has the call."""

    def broken(text: str) -> list[str]:
        raise ValueError("no such token")

    handler = CostTrackingHandler(tokenizer=broken)
    ask(handler)
    assert handler.ledger.get_usage_stats().total_calls == 3
    assert handler.total_llm_token_count == 0 and "could not be counted" in caplog.text


def test_a_path_is_a_ledger(tmp_path: Path) -> None:
    """As everywhere that a folder or a file is meant."""
    handler = CostTrackingHandler(tmp_path / "calls.duckdb")
    ask(handler)
    handler.ledger.close()
    assert Ledger(tmp_path / "calls.duckdb").get_usage_stats().total_calls == 3


# -- a ledger in memory ------------------------------------------------------------------------------------------------


def test_a_ledger_in_memory_answers_as_one_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQL, sums, exports, after closing as well; no file is made."""
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(":memory:")
    assert ledger.get_usage_stats().total_calls == 0
    ledger.record(kind="llm", provider="openai", model="gpt-4o-mini", prompt_tokens=1_000_000, tags=["é"])
    assert str(ledger.get_usage_stats().total_cost_usd) == "0.150000000000"
    assert ledger.hash_prompt("a") == ledger.hash_prompt("a") != ledger.hash_prompt("b")
    ledger.close()
    assert ledger.sql("SELECT tags FROM llm_calls").fetchall() == [(["é"],)]
    assert list(tmp_path.iterdir()) == []
    assert "gpt-4o-mini" in ledger.export(tmp_path / "calls.csv").read_text()


def test_old_rows_in_memory_are_dropped_where_days_are_kept() -> None:
    """At a fold, as on disk."""
    ledger = Ledger(":memory:", keep_days=1)
    two_days_ago = int((time.time() - 2 * 86_400) * 1e6)
    for moment in (two_days_ago, None):
        ledger.record(kind="query", timestamp_us=moment)
    ledger.flush()
    ledger.fold()
    assert ledger.sql("SELECT count(*) FROM llm_calls").fetchone() == (1,)


def test_budgets_and_pickles_need_a_path(tmp_path: Path) -> None:
    """What is in memory cannot hold across processes."""
    with pytest.raises(SettingsError, match="this ledger is in memory"):
        CostTrackingHandler(budgets=[Budget(limit_usd=Decimal(1))])
    CostTrackingHandler(Ledger(tmp_path / "calls.duckdb"), budgets=[Budget(limit_usd=Decimal(1))])
    with pytest.raises(MonitorError, match="rows would stay behind"):
        pickle.dumps(Ledger(":memory:"))


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_parts_with_our_handler_are_copied_as_without(duplicate: Any) -> None:
    """LLMs, embeddings and splitters under Settings.callback_manager; the copy tells the same handler, once."""
    handler = CostTrackingHandler()
    Settings.callback_manager = CallbackManager([handler])
    llm = duplicate(MockLLM(max_tokens=4, callback_manager=Settings.callback_manager))
    splitter = duplicate(SentenceSplitter(callback_manager=Settings.callback_manager))
    assert llm.callback_manager.handlers == splitter.callback_manager.handlers == [handler]
    llm.complete("hello")
    assert splitter.split_text("A text.") == ["A text."]
    assert handler.ledger.get_usage_stats().total_calls == 1


def test_a_handler_of_another_process_is_one_like_it(tmp_path: Path) -> None:
    """Over the same ledger, with the same options; here it is a handler that is gone."""
    handler = CostTrackingHandler(Ledger(tmp_path / "calls.duckdb", keep_days=3), scope="bound")
    pickled = pickle.dumps(handler)
    handler.close()
    from llama_index_presets.monitor import handler as module

    module._by_token.clear()
    again = pickle.loads(pickled)
    assert again is not handler and again is pickle.loads(pickled)
    assert (again.scope, again.ledger.path, again.ledger.keep_days) == ("bound", handler.ledger.path, 3)
