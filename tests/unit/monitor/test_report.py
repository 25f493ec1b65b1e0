"""The cost report: its JSON shape, its tables, and its page in a real browser."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from tests.fixtures.browser import BROWSER, NO_BROWSER

from llama_index_presets.errors import MissingExtraError, MonitorError, SettingsError
from llama_index_presets.monitor.alerts import AlertMonitor
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.report import (
    cost_page,
    cost_report,
    costs_json,
    report_tables,
    watch,
    write_cost_page,
)
from llama_index_presets.report.charts import Chart, bars, lines

HOSTILE = "<script>alert(1)</script>[bold]"


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        for day in range(5):
            at = int((time.time() - day * 86_400) * 1e6)
            for model in ("gpt-4o", "gpt-4o-mini"):
                ledger.record(
                    kind="llm",
                    provider="openai",
                    model=model,
                    prompt_tokens=1_000_000,
                    latency_ms=100 + day,
                    query_id=f"q{day}",
                    preset="knowledge-base",
                    tenant="acme",
                    timestamp_us=at,
                )
            ledger.record(
                kind="embedding", provider="local", model="mini", cache_hit=day % 2 == 0, timestamp_us=at
            )
        ledger.record(kind="llm", provider="acme", model=HOSTILE, prompt_tokens=5, status="success")
        ledger.record(
            kind="llm", provider="openai", model="gpt-4o", status="error", error_type="RateLimitError"
        )
        yield ledger


def test_the_json_has_the_documented_shape_and_numbers(ledger):
    """`costs --json` prints one object of plain numbers that add up."""
    shown = json.loads(json.dumps(costs_json(ledger, days=7, by="model")))
    assert list(shown) == [
        "total_calls",
        "total_tokens",
        "total_cost_usd",
        "avg_latency_ms",
        "unpriced_calls",
        "by",
        "unpriced_models",
    ]
    assert shown["unpriced_models"] == [f"acme/{HOSTILE}"]
    assert (shown["total_calls"], shown["unpriced_calls"]) == (17, 1)
    assert shown["total_cost_usd"] == pytest.approx(5 * (2.50 + 0.15))
    assert sum(line["cost_usd"] for line in shown["by"]) == pytest.approx(shown["total_cost_usd"])


def test_the_tables_show_totals_groups_dearest_queries_and_unpriced_models(ledger):
    """Everything a terminal shows is there, and no name is read as markup."""
    screen = Console(file=io.StringIO(), width=140)
    report = cost_report(ledger)
    for table in report_tables(report):
        screen.print(table)
    text = screen.file.getvalue()
    for expected in (
        "7 days",
        "by model",
        "by preset",
        "by tenant",
        "most expensive",
        "unpriced",
        HOSTILE,
        "acme",
    ):
        assert expected in text
    assert report.dearest[0].cost_usd == Decimal("2.65")


def test_watching_gives_the_report_and_new_alerts(ledger):
    """`costs --watch` loops over fresh reports; rows that arrive meanwhile show."""
    looks = watch(ledger, AlertMonitor(ledger, [lambda alert: None]), every_s=0.01, times=2)
    before = next(looks)[0].week.total_calls
    ledger.record(kind="llm", provider="local", model="m")
    assert next(looks)[0].week.total_calls == before + 1


def test_the_page_needs_nothing_else_and_escapes_names(ledger):
    """No script, no link, no font from elsewhere; a hostile model name is text."""
    page = cost_page(ledger)
    assert not re.search(r"<script|https?://|src=|@import|url\(", page.replace("&lt;script", ""))
    assert "&lt;script&gt;alert(1)" in page and page.count("<figure>") == 6  # by preset and tenant, too


def test_an_empty_ledger_makes_a_page(tmp_path):
    """Nothing recorded is no error."""
    assert cost_page(Ledger(tmp_path / "none.duckdb"), days=1).count("<figure>") == 4


def test_days_and_paths_are_checked(ledger, tmp_path):
    """Zero days and unwritable paths are refused."""
    with pytest.raises(SettingsError, match="days is 0"):
        cost_page(ledger, days=0)
    with pytest.raises(MonitorError, match="cannot be written"):
        write_cost_page(ledger, tmp_path)


def drawn(chart: Chart) -> list[list[float]]:
    """The y coordinates of each mark with a tooltip; downwards, as in SVG."""
    paths = re.findall(r'</title>\s*<path d="([^"]+)"', chart.svg)
    return [[float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path)] for path in paths]


def test_a_chart_is_plain_svg_with_an_alternative_text():
    """No namespace, no fixed size, no id that two charts could share; names are text."""
    chart = bars(f"Cost {HOSTILE}", ["Mon"], {HOSTILE: [2.0]}, "USD")
    root = ElementTree.fromstring(chart.svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", f"Cost {HOSTILE}")
    assert root.find(".//title").text == f"Mon {HOSTILE}: 2 USD"
    assert not re.search(r"xmlns|width=|http|<script| id=", chart.svg)


def test_the_page_says_what_to_install(ledger, monkeypatch):
    """Without the extra `report` the numbers are still there; the page names the install line."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert costs_json(ledger)["total_calls"] == 17
    with pytest.raises(MissingExtraError, match=r'pip install "llama-index-presets\[report\]"'):
        cost_page(ledger)


def test_bars_stack_to_their_sum():
    """Two values of one day are drawn above each other, in proportion to the axis."""
    (low, middle), (also_middle, high) = (
        (max(ys), min(ys)) for ys in drawn(bars("t", ["d"], {"a": [1], "b": [3]}, "u"))
    )
    assert also_middle == middle
    assert middle - high == pytest.approx(3 * (low - middle), abs=0.01)


def test_a_day_of_zero_is_not_a_day_without_data():
    """Nothing recorded is shaded and said; zero is drawn at zero; a line does not pass through what is not known."""
    days = ["Mon", "Tue", "Wed"]
    chart = bars("Cost", days, {"m": [2.0, 0.0, 0.0]}, "USD", empty=[2])
    hints = re.findall(r"<title>([^<]+)</title>", chart.svg)
    assert sorted(hints) == ["Mon m: 2 USD", "Tue: 0 USD", "Wed: nothing recorded"]
    assert [name for _, name in chart.legend] == ["m", "nothing recorded"]
    assert [name for _, name in bars("Cost", days, {"m": [2.0, 0.0, 0.0]}, "USD").legend] == ["m"]
    line = lines("Latency", days, {"p50": [1.0, 0.0, 3.0]}, "ms", empty=[1])
    assert sorted(re.findall(r"<title>([^<]+)</title>", line.svg)) == [
        "Mon p50: 1 ms",
        "Tue: nothing recorded",
        "Wed p50: 3 ms",
    ]


def test_loading_of_models_has_a_picture_of_its_own(ledger):
    """Seconds of loading are in no latency, and shown apart."""
    before = cost_page(ledger)
    ledger.record(kind="load", provider="local", model="slow-to-load", latency_ms=52_000)
    after = cost_page(ledger)
    assert (
        "slow-to-load: 52 s" in after and "Loading of models" in after and "Loading of models" not in before
    )
    assert ledger.get_usage_stats().p99_latency_ms < 1_000


def test_a_line_has_a_point_for_each_day():
    """As many points as days, the larger value higher up."""
    svg = lines("t", ["a", "b"], {"x": [1, 2]}, "u").svg
    points = re.findall(r'<title>[ab] x: [12] u</title>.*?<use [^>]*y="([\d.]+)"', svg, re.DOTALL)
    assert len(points) == 2 and float(points[1]) < float(points[0])


@pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
def test_a_real_browser_draws_the_page(ledger, tmp_path):
    """Headless Chromium renders the report: bars in their colours, text in place, on a page of full height."""
    image = pytest.importorskip("PIL.Image", reason="Pillow reads the screenshot")
    page, shot = write_cost_page(ledger, tmp_path / "report.html"), tmp_path / "report.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1600"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [
        BROWSER,
        *flags,
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={shot}",
        page.as_uri(),
    ]
    subprocess.run(command, check=True, timeout=120, capture_output=True, env=environment)
    picture = image.open(shot).convert("RGB")
    colours = dict((colour, count) for count, colour in picture.getcolors(maxcolors=1_000_000))
    assert picture.size == (1400, 1600)
    assert colours[(0x3B, 0x6F, 0xB6)] > 500, "the dearest model's bars are drawn"
    assert colours[(0xD9, 0x80, 0x32)] > 20, "the second model's bars and the warning's edge are drawn"
    assert len(colours) > 50, "text is drawn"
