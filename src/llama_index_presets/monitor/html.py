"""The cost report as one HTML page: self-contained, no script, nothing fetched. Needs no LlamaIndex."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.charts import bars, lines, page
from llama_index_presets.errors import MonitorError, SettingsError
from llama_index_presets.monitor.ledger import Ledger
from llama_index_presets.monitor.report import CostReport, cost_report, dollars, priced, today
from llama_index_presets.monitor.stats import BILLABLE, CostRow, UsageStats

__all__ = ["cost_page", "write_cost_page"]

_MOST_MODELS: Final = 7
_BY_MODEL = f"""
    SELECT strftime(timestamp, '%Y-%m-%d'), model, coalesce(sum(cost_usd), 0)::DOUBLE
    FROM llm_calls WHERE {BILLABLE} AND timestamp >= make_timestamp(?) GROUP BY ALL"""  # noqa: S608 (constants)
_BY_DAY = f"""
    SELECT strftime(timestamp, '%Y-%m-%d'),
        coalesce(quantile_cont(latency_ms, [0.5, 0.95, 0.99]) FILTER (NOT cache_hit), [0, 0, 0]),
        coalesce(avg(cache_hit::INT) FILTER (kind = 'embedding'), 0) * 100,
        count(*) FILTER (status = 'error'), count(*) FILTER (status = 'refused'), count(*) FILTER (status =
        'abandoned')
    FROM llm_calls WHERE {BILLABLE} AND timestamp >= make_timestamp(?) GROUP BY 1"""  # noqa: S608 (constants)


def write_cost_page(ledger: Ledger, path: str | Path, *, days: int = 30) -> Path:
    """Write the report to a file; what ``costs --html`` does.

    Args:
        ledger: What is shown.
        path: The file; replaced when it is there.
        days: How many days the charts show, >= 1.

    Raises:
        SettingsError: days is below 1.
        MonitorError: The file cannot be written.
    """
    target = Path(path)
    page = cost_page(ledger, days=days)
    try:
        target.write_text(page, "utf-8")
    except OSError as error:
        raise MonitorError(
            f"Report '{target}' cannot be written: {error}. Expected a writable folder."
        ) from error
    return target


def cost_page(ledger: Ledger, *, days: int = 30) -> str:
    """Give the report as HTML text; see `write_cost_page`.

    Example:
        >>> import tempfile
        >>> cost_page(Ledger(tempfile.mkdtemp() + "/calls.duckdb")).count("<figure>")
        4
    """
    if days < 1:
        raise SettingsError(f"days is {days}. Expected 1 or more.")
    report = cost_report(ledger)
    body = [
        f"<h1>What the models cost</h1><p>{escape(ledger.path.name)}, {today()}; days are UTC.</p>",
        _unpriced(report),
        "<h2>Last 7 days</h2>" + _cards(report.week),
        "<h2>Today</h2>" + _cards(report.today),
        f'<h2>Last {days} days</h2><div class="charts">{"".join(_charts(ledger, days))}</div>',
        *(_lines(group, rows) for group, rows in report.by.items() if any(row.key for row in rows)),
        _dearest(report),
    ]
    return page("Model costs", "".join(body))


def _charts(ledger: Ledger, days: int) -> list[str]:
    first = datetime.fromtimestamp(time.time(), UTC).date() - timedelta(days=days - 1)
    keys = [(first + timedelta(days=day)).isoformat() for day in range(days)]
    since = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp() * 1e6)
    by_day = {row[0]: row[1:] for row in ledger.sql(_BY_DAY, [since]).fetchall()}
    nothing = ([0.0, 0.0, 0.0], 0.0, 0, 0, 0)
    found = [by_day.get(key, nothing) for key in keys]
    labels = [key[5:] for key in keys]
    latency = {f"p{share}": [row[0][place] for row in found] for place, share in enumerate((50, 95, 99))}
    faults = {
        name: [float(row[place]) for row in found]
        for place, name in ((2, "error"), (3, "refused"), (4, "abandoned"))
    }
    return [
        bars("Cost per day by model", labels, _by_model(ledger, keys, since), "USD"),
        lines("Latency percentiles", labels, latency, "ms"),
        lines("Embedding cache hit rate", labels, {"hit rate": [row[1] for row in found]}, "%"),
        bars("Calls that did not succeed", labels, faults, "calls"),
    ]


def _by_model(ledger: Ledger, keys: Sequence[str], since: int) -> dict[str, list[float]]:
    """Give the cost of each day for the dearest models, and of the rest together."""
    rows = ledger.sql(_BY_MODEL, [since]).fetchall()
    totals: dict[str, float] = {}
    for _, model, cost in rows:
        totals[model] = totals.get(model, 0.0) + cost
    dearest = sorted(totals, key=lambda model: -totals[model])[:_MOST_MODELS]
    series = {
        model: [0.0] * len(keys) for model in [*dearest, *(["other"] if len(totals) > len(dearest) else [])]
    }
    places = {key: place for place, key in enumerate(keys)}
    for day, model, cost in rows:
        if day in places:
            series[model if model in dearest else "other"][places[day]] += cost
    return series


def _cards(stats: UsageStats) -> str:
    cards = {
        "USD": dollars(stats.total_cost_usd),
        "calls": f"{stats.total_calls:,}",
        "tokens": f"{stats.total_tokens:,}",
        "p95 latency, ms": f"{stats.p95_latency_ms:,.0f}",
        "errors": f"{stats.error_rate:.1%}",
        "cache hits": f"{stats.cache_hit_rate:.1%}",
        "unpriced calls": f"{stats.unpriced_calls:,}",
    }
    items = "".join(
        f"<div class=card><b>{value}</b><span>{name}</span></div>" for name, value in cards.items()
    )
    return f'<div class="cards">{items}</div>'


def _unpriced(report: CostReport) -> str:
    if not report.unpriced:
        return ""
    names = ", ".join(f"{escape(row.key)} ({row.unpriced_calls:,} calls)" for row in report.unpriced)
    return f'<p class="warn">The sums below leave out models without a known price: {names}.</p>'


def _lines(group: str, rows: Sequence[CostRow]) -> str:
    cells = [
        (
            row.key or "(none)",
            priced(row),
            f"{row.calls:,}",
            f"{row.tokens:,}",
            f"{row.avg_latency_ms:,.0f}",
        )
        for row in rows
    ]
    return f"<h2>By {group}, 7 days</h2>" + _table((group, "USD", "calls", "tokens", "mean ms"), cells)


def _dearest(report: CostReport) -> str:
    cells = [
        (
            query.query_id,
            query.preset,
            dollars(query.cost_usd),
            f"{query.calls:,}",
            f"{query.latency_ms:,.0f}",
        )
        for query in report.dearest
    ]
    return "<h2>Most expensive queries, 7 days</h2>" + _table(
        ("query", "preset", "USD", "calls", "ms"), cells
    )


def _table(columns: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in cells
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
