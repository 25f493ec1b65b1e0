"""Many threads at once: no table of open spans fails under them, and no budget is left unguarded."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import MockEmbedding

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.monitor import recorder
from llama_index_presets.monitor.calls import call_tree
from llama_index_presets.monitor.ledger.row import forget_oldest
from llama_index_presets.monitor.prices import Pricer

THREADS = 8


@pytest.fixture(autouse=True)
def _turns_are_short() -> Iterator[None]:
    """Threads take turns a thousand times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], Any]) -> None:
    """Run work in threads that begin at the same moment; what one raises is raised."""
    start = threading.Barrier(THREADS)

    def begin(number: int) -> None:
        start.wait()
        work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(begin, range(THREADS)))


def test_the_oldest_is_forgotten_while_others_change_the_table() -> None:
    """An iterator over it raised "dictionary changed size during iteration"."""
    table: dict[str, int] = {}

    def work(number: int) -> None:
        for step in range(20_000):
            if len(table) >= 8:
                forget_oldest(table)
            table[f"{number} {step}"] = step
            if step % 2:
                table.pop(f"{number} {step}", None)

    together(work)
    assert len(table) <= 8 + 2 * THREADS


def test_a_full_table_of_spans_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The fault in it was logged, and its call was neither counted nor held by a budget."""
    monkeypatch.setattr(recorder, "_MOST_WAITING", 2)
    monkeypatch.setattr(call_tree, "_MOST_SPANS", 2)
    model = MockEmbedding(embed_dim=2)
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger).instrument()
        together(lambda number: [model.get_text_embedding(f"{number} {one}") for one in range(60)])
        handler.close()
        assert ledger.sql("SELECT count(*) FROM llm_calls").fetchall() == [(60 * THREADS,)]
    assert caplog.records == []


def test_a_price_is_found_while_others_empty_the_table() -> None:
    """It was looked up, stored, and gone when it was read: a KeyError."""
    pricer = Pricer()

    def work(number: int) -> None:
        for hour in range(400):
            assert pricer.rates("openai", "gpt-4o-mini", 3600.0 * (hour * THREADS + number)) is not None
            pricer._found.clear()

    together(work)
