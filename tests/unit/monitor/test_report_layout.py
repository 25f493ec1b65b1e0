"""The cost page in a real browser, wide and narrow, light and dark: no text is clipped, none overlaps another."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.report import write_cost_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow("a browser: ten seconds"),
    pytest.mark.skipif(BROWSER is None, reason="no browser on this machine (apt-get install chromium)"),
]
LONG = "openai/gpt-5-mini-2025-08-07-with-a-rather-long-name-of-a-deployment"
FAULTS = """() => [...document.querySelectorAll("figure")].flatMap((figure) => {
  const frame = figure.querySelector("svg").getBoundingClientRect();
  const boxes = [...figure.querySelectorAll("svg text")].filter((one) => one.textContent.trim())
    .map((one) => [one.textContent, one.getBoundingClientRect()]);
  const outside = ([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const found = boxes.filter(outside).map(([text]) => `clipped: ${text}`);
  boxes.forEach(([text, box], place) => boxes.slice(place + 1)
    .forEach(([other, its]) => meet(box, its) && found.push(`overlap: ${text} / ${other}`)));
  return found;
})"""


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
    with playwright.sync_playwright() as driver:
        browser: Any = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.goto(page_file.as_uri())
        faults = page.evaluate(FAULTS)
        scrolls = page.evaluate(
            "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        alt = "() => [...document.querySelectorAll('.drawing > svg')].every((one) => one.getAttribute('aria-label'))"
        named = page.evaluate(alt)
        colours = page.evaluate(
            "() => [getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('svg text')).fill]"
        )
        browser.close()
    assert faults == []
    assert scrolls <= 0 and named
    assert colours[0] != colours[1]
