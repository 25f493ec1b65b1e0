"""What `llama-presets costs` shows: as numbers, as tables for a terminal, and again every few seconds.

Needs no LlamaIndex.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llama_index_presets.monitor.alerts import Alert, AlertMonitor
from llama_index_presets.monitor.ledger import Ledger
from llama_index_presets.monitor.stats import BILLABLE, CostRow, UsageStats

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["CostReport", "QueryCost", "cost_report", "costs_json", "report_tables", "watch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCost:
    """What one query cost.

    Attributes:
        query_id: The query.
        preset: Who answered it.
        cost_usd: Sum of its known costs.
        calls: Calls of models that it made.
        latency_ms: Time of the whole query, in milliseconds; the sum of its calls where that is not known.
    """

    query_id: str
    preset: str
    cost_usd: Decimal
    calls: int
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """Everything the report shows.

    Attributes:
        today: Since midnight, UTC.
        week: The last 7 days.
        by: Lines by group (``"model"``, ``"preset"``, ``"tenant"``) of the last 7 days.
        dearest: The most expensive queries of the last 7 days.
        unpriced: Models without a known price in the last 7 days.
    """

    today: UsageStats
    week: UsageStats
    by: dict[str, list[CostRow]]
    dearest: list[QueryCost]
    unpriced: list[CostRow]


_DEAREST = f"""
    SELECT query_id, max(preset), coalesce(sum(cost_usd), 0)::DECIMAL(38,12), count(*) FILTER ({BILLABLE}),
        coalesce(max(latency_ms) FILTER (kind = 'query'), sum(latency_ms))
    FROM llm_calls WHERE query_id <> '' AND timestamp >= make_timestamp(?)
    GROUP BY query_id ORDER BY 3 DESC, query_id LIMIT ?"""  # noqa: S608 (constants)


def cost_report(ledger: Ledger, *, dearest: int = 10) -> CostReport:
    """Read what `llama-presets costs` shows.

    Args:
        ledger: What is read.
        dearest: How many of the most expensive queries to list.
    """
    now = time.time()
    week_ago = int((now - 7 * 86_400) * 1e6)
    rows = ledger.sql(_DEAREST, [week_ago, dearest]).fetchall()
    by = {group: ledger.costs(group, days=7) for group in ("model", "preset", "tenant")}
    return CostReport(
        today=ledger.get_usage_stats(days=(now % 86_400) / 86_400),
        week=ledger.get_usage_stats(days=7),
        by=by,
        dearest=[
            QueryCost(query_id=query, preset=preset or "", cost_usd=cost, calls=calls, latency_ms=latency)
            for query, preset, cost, calls, latency in rows
        ],
        unpriced=[row for row in by["model"] if row.unpriced_calls],
    )


def costs_json(ledger: Ledger, *, days: float = 7, by: str = "model") -> dict[str, Any]:
    """Give the object that ``costs --json`` prints; dollars are numbers in it.

    Example:
        >>> import tempfile
        >>> costs_json(Ledger(tempfile.mkdtemp() + "/calls.duckdb"))["total_calls"]
        0
    """
    stats = asdict(ledger.get_usage_stats(days=days))
    names = ("total_calls", "total_tokens", "total_cost_usd", "avg_latency_ms", "unpriced_calls")
    lines = [asdict(row) for row in ledger.costs(by, days=days)]
    found: dict[str, Any] = _plain({**{name: stats[name] for name in names}, "by": lines})
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def report_tables(report: CostReport) -> list[Table]:
    """Make the tables that ``costs`` prints on a terminal."""
    tables = [_totals({"today": report.today, "7 days": report.week})]
    tables += [_lines(group, rows) for group, rows in report.by.items() if any(row.key for row in rows)]
    if report.dearest:
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
        tables.append(_table("most expensive queries", ("query", "preset", "USD", "calls", "ms"), cells))
    if report.unpriced:
        models = [(row.key, f"{row.unpriced_calls:,}", f"{row.tokens:,}") for row in report.unpriced]
        tables.append(_table("unpriced: add them to a price book", ("model", "calls", "tokens"), models))
    return tables


def dollars(amount: Decimal) -> str:
    """Write dollars with as many digits as they need: cents above a dollar, millionths below."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.6f}"


def priced(row: CostRow) -> str:
    """Write what a line cost, and how many of its calls no price is known for."""
    return dollars(row.cost_usd) + (f" + {row.unpriced_calls:,} unpriced" if row.unpriced_calls else "")


def _totals(periods: dict[str, UsageStats]) -> Table:
    columns = ("", "USD", "calls", "tokens", "p50 ms", "p95 ms", "p99 ms", "errors", "cache hits", "unpriced")
    cells = [
        (
            name,
            dollars(stats.total_cost_usd),
            f"{stats.total_calls:,}",
            f"{stats.total_tokens:,}",
            f"{stats.p50_latency_ms:,.0f}",
            f"{stats.p95_latency_ms:,.0f}",
            f"{stats.p99_latency_ms:,.0f}",
            f"{stats.error_rate:.1%}",
            f"{stats.cache_hit_rate:.1%}",
            f"{stats.unpriced_calls:,}",
        )
        for name, stats in periods.items()
    ]
    return _table("totals", columns, cells)


def _lines(group: str, rows: Sequence[CostRow]) -> Table:
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
    return _table(f"by {group}, 7 days", (group, "USD", "calls", "tokens", "mean ms"), cells)


def _table(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # as Text, so that a name is never read as markup
    return table


def watch(
    ledger: Ledger, monitor: AlertMonitor, *, every_s: float = 2.0, times: int | None = None
) -> Iterator[tuple[CostReport, list[Alert]]]:
    """Give the report and the new alerts again and again; what ``costs --watch`` loops over.

    Args:
        ledger: What is read.
        monitor: What judges it.
        every_s: Pause between two looks, in seconds.
        times: How many looks; None means for ever.
    """
    looks = 0
    while times is None or looks < times:
        if looks:
            time.sleep(every_s)
        looks += 1
        yield cost_report(ledger), monitor.check()


def today() -> str:
    """Give the date, UTC, as reports write it."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
