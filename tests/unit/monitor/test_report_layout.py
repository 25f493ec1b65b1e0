"""The cost page in a real browser, wide and narrow, light and dark: no text is clipped, none overlaps another."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.fixtures.browser import BROWSER, NO_BROWSER, layout_faults

from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.report import write_cost_page

pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

pytestmark = [
    pytest.mark.slow("a browser: ten seconds"),
    pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER),
]
LONG = "openai/gpt-5-mini-2025-08-07-with-a-rather-long-name-of-a-deployment"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with Ledger(folder / "calls.duckdb") as ledger:
        for day in (0, 1, 3, 20):
            at = int((time.time() - day * 86_400) * 1e6)
            for number in range(9):
                ledger.record(
                    kind="llm", provider="openai", model=f"{LONG}-{number}", prompt_tokens=10,
                    tenant=f"tenant-{number}", preset="financial-documents", latency_ms=123_456.0, timestamp_us=at,
                )  # fmt: skip
        ledger.record(kind="load", provider="local", model=LONG, latency_ms=52_000)
    return write_cost_page(ledger, folder / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_no_text_of_the_cost_page_is_clipped_or_overlaps(page_file: Path, scheme: str, width: int) -> None:
    """Every label stands inside its picture and beside the others; the page itself does not scroll sideways."""
    assert layout_faults(page_file, width=width, scheme=scheme) == []
