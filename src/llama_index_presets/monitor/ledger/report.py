"""Cost report of `llama-presets costs`: numbers, terminal tables, and a live view.

Needs no LlamaIndex.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_presets.errors import AnswerError, MonitorError, SettingsError
from llama_index_presets.monitor.alerts import Alert, AlertMonitor
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.queries import BILLABLE, GROUPS, CostRow, UsageStats
from llama_index_presets.monitor.ledger.row import LOAD_KIND
from llama_index_presets.monitor.quality import quality
from llama_index_presets.report.charts import Chart, bars, lines, render
from llama_index_presets.values import map_leaves

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "CostReport",
    "QueryCost",
    "cost_page",
    "cost_report",
    "costs_json",
    "report_tables",
    "watch",
    "write_cost_page",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCost:
    """Cost of one query.

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
    """Data of the cost report.

    Attributes:
        today: Since midnight, UTC.
        week: The last 7 days.
        by: Lines by group (``"model"``, ``"preset"``, ``"tenant"``) of the last 7 days.
        dearest: The ten most expensive queries of the last 7 days.
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
    GROUP BY query_id ORDER BY 3 DESC, query_id LIMIT 10"""  # noqa: S608 (constants)


def cost_report(ledger: Ledger) -> CostReport:
    """Data of `llama-presets costs`."""
    now = time.time()
    week_ago = int((now - 7 * 86_400) * 1e6)
    rows = ledger.sql(_DEAREST, [week_ago]).fetchall()
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


def costs_json(
    ledger: Ledger, *, days: float = 7, by: str = "model", tenant: str | None = None, tag: str | None = None
) -> dict[str, Any]:
    """Give the object that ``costs --json`` prints; dollars are numbers in it. Of one tenant or tag where named.

    ``unpriced_models`` names the models without a known price, where there are any.

    Example:
        >>> import tempfile
        >>> costs_json(Ledger(tempfile.mkdtemp() + "/calls.duckdb"))["total_calls"]
        0
    """
    stats = asdict(ledger.get_usage_stats(days=days, tenant=tenant, tag=tag))
    names = ("total_calls", "total_tokens", "total_cost_usd", "avg_latency_ms", "unpriced_calls")
    lines = [asdict(row) for row in ledger.costs(by, days=days, tenant=tenant, tag=tag)]
    found: dict[str, Any] = map_leaves(
        {**{name: stats[name] for name in names}, "by": lines},
        lambda leaf: float(leaf) if isinstance(leaf, Decimal) else leaf,
    )
    if stats["unpriced_calls"]:
        found["unpriced_models"] = ledger.unpriced_models(days=days, tenant=tenant, tag=tag)
    return found


def report_tables(report: CostReport) -> list[Table]:
    """Make the tables that ``costs`` prints on a terminal."""
    tables = [_totals({"today": report.today, "7 days": report.week})]
    tables += [
        _table(*_group_table(group, rows))
        for group, rows in report.by.items()
        if any(row.key for row in rows)
    ]
    if report.dearest:
        tables.append(_table(*_dearest_table(report.dearest)))
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
    """A line a measure, so that no figure is cut on a narrow screen."""
    measures = {
        "USD": lambda stats: dollars(stats.total_cost_usd),
        "calls": lambda stats: f"{stats.total_calls:,}",
        "tokens": lambda stats: f"{stats.total_tokens:,}",
        "p50 ms": lambda stats: f"{stats.p50_latency_ms:,.0f}",
        "p95 ms": lambda stats: f"{stats.p95_latency_ms:,.0f}",
        "p99 ms": lambda stats: f"{stats.p99_latency_ms:,.0f}",
        "errors": lambda stats: f"{stats.error_rate:.1%}",
        "cache hits": lambda stats: f"{stats.cache_hit_rate:.1%}",
        "unpriced": lambda stats: f"{stats.unpriced_calls:,}",
    }
    cells = [(name, *map(measure, periods.values())) for name, measure in measures.items()]
    return _table("totals", ("", *periods), cells)


def _group_table(group: str, rows: Sequence[CostRow]) -> tuple[str, Sequence[str], list[Sequence[str]]]:
    """Title, columns and cells of a group, for terminal and page."""
    cells: list[Sequence[str]] = [
        (
            row.key or "(none)",
            priced(row),
            f"{row.calls:,}",
            f"{row.tokens:,}",
            f"{row.avg_latency_ms:,.0f}",
        )
        for row in rows
    ]
    return f"by {group}, 7 days", (group, "USD", "calls", "tokens", "mean ms"), cells


def _dearest_table(queries: Sequence[QueryCost]) -> tuple[str, Sequence[str], list[Sequence[str]]]:
    cells: list[Sequence[str]] = [
        (
            query.query_id,
            query.preset,
            dollars(query.cost_usd),
            f"{query.calls:,}",
            f"{query.latency_ms:,.0f}",
        )
        for query in queries
    ]
    return "most expensive queries, 7 days", ("query", "preset", "USD", "calls", "ms"), cells


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


# -- HTML page ------------------------------------------------------------------------------------------------

_MOST_MODELS: Final = 7
_SUMS = """
    SELECT strftime(timestamp, '%Y-%m-%d'), {key}, coalesce(sum({value}), 0)::DOUBLE
    FROM llm_calls WHERE {rows} AND timestamp >= make_timestamp(?) GROUP BY ALL"""
_BY_DAY = f"""
    SELECT strftime(timestamp, '%Y-%m-%d'),
        coalesce(quantile_cont(latency_ms, [0.5, 0.95, 0.99]) FILTER (NOT cache_hit), [0, 0, 0]),
        coalesce(avg(cache_hit::INT) FILTER (kind = 'embedding'), 0) * 100,
        count(*) FILTER (status = 'error'), count(*) FILTER (status = 'refused'),
        count(*) FILTER (status = 'abandoned'), count(*) FILTER (NOT cache_hit), count(*) FILTER (kind = 'embedding')
    FROM llm_calls WHERE {BILLABLE} AND timestamp >= make_timestamp(?) GROUP BY 1"""  # noqa: S608 (constants)


def write_cost_page(ledger: Ledger, path: str | Path, *, days: int = 30) -> Path:
    """Write the report to a file; what ``costs --html`` does.

    Args:
        ledger: What is shown.
        path: The file; replaced when it is there.
        days: How many days the charts show, >= 1.

    Raises:
        SettingsError: days is below 1.
        MissingExtraError: The extra ``report`` is not installed.
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
    return render(
        "costs.html",
        title="Model costs",
        ledger=ledger.path.name,
        made=today(),
        unpriced=report.unpriced,
        periods={
            "Last 7 days": _cards(report.week),
            "Today": _cards(report.today),
            **_answers(ledger),
        },
        days=days,
        charts=_charts(ledger, days),
        tables=[(f"{title[0].upper()}{title[1:]}", *rest) for title, *rest in _page_tables(report)],
    )


def _page_tables(report: CostReport) -> Iterator[tuple[str, Sequence[str], list[Sequence[str]]]]:
    for group, rows in report.by.items():
        if any(row.key for row in rows):
            yield _group_table(group, rows)
    yield _dearest_table(report.dearest)


def _charts(ledger: Ledger, days: int) -> list[Chart]:
    first = datetime.fromtimestamp(time.time(), UTC).date() - timedelta(days=days - 1)
    keys = [(first + timedelta(days=day)).isoformat() for day in range(days)]
    since = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp() * 1e6)
    by_day = {row[0]: row[1:] for row in ledger.sql(_BY_DAY, [since]).fetchall()}
    nothing = ([0.0, 0.0, 0.0], 0.0, 0, 0, 0, 0, 0)
    found = [by_day.get(key, nothing) for key in keys]
    labels = [key[5:] for key in keys]
    # A day without a call is no day of 0: nobody knows how fast, or how often from the cache, it would have been.
    empty = [place for place, key in enumerate(keys) if key not in by_day]
    no_calls, no_embeddings = ([day for day, row in enumerate(found) if not row[place]] for place in (5, 6))
    latency = {f"p{share}": [row[0][place] for row in found] for place, share in enumerate((50, 95, 99))}
    hits = {"hit rate": [row[1] for row in found]}
    faults = {
        name: [float(row[place]) for row in found]
        for place, name in ((2, "error"), (3, "refused"), (4, "abandoned"))
    }
    costs = [
        bars(f"Cost per day by {group}", labels, series, "USD", empty=empty)
        for group in ("model", "preset", "tenant")
        if (series := _per_day(ledger, keys, since, key=group)).keys() - {"(none)"} or group == "model"
    ]
    loads = _per_day(ledger, keys, since, value="latency_ms / 1000", rows=f"kind = '{LOAD_KIND}'")
    loading = (
        [bars("Loading of models, in no latency above", labels, loads, "s", empty=empty)] if loads else []
    )
    return [
        *costs,
        lines("Latency percentiles", labels, latency, "ms", empty=no_calls),
        lines("Embedding cache hit rate", labels, hits, "%", empty=no_embeddings),
        bars("Calls that did not succeed", labels, faults, "calls", empty=empty),
        *loading,
    ]


def _per_day(
    ledger: Ledger,
    keys: Sequence[str],
    since: int,
    *,
    key: str = "model",
    value: str = "cost_usd",
    rows: str = BILLABLE,
) -> dict[str, list[float]]:
    """Sums of each day for the largest of a group, and of the rest together."""
    found = ledger.sql(_SUMS.format(key=GROUPS[key], value=value, rows=rows), [since]).fetchall()
    totals: dict[str, float] = {}
    for _, name, amount in found:
        totals[name or "(none)"] = totals.get(name or "(none)", 0.0) + amount
    largest = sorted(totals, key=lambda name: -totals[name])[:_MOST_MODELS]
    names = [*largest, *(["other"] if len(totals) > len(largest) else [])]
    series = {name: [0.0] * len(keys) for name in names}
    places = {day: place for place, day in enumerate(keys)}
    for day, name, amount in found:
        if day in places:
            series[(name or "(none)") if (name or "(none)") in largest else "other"][places[day]] += amount
    return series


def _answers(ledger: Ledger) -> dict[str, dict[str, str]]:
    """Cards of the quality of the last 7 days' answers; none where no question was asked."""
    title = "Answers, last 7 days"
    if ledger.in_memory:
        return {}
    try:
        asked = quality(ledger.path.parent, since=time.time() - 7 * 86_400)
    except AnswerError as error:  # the costs are there all the same
        return {title: {"unknown": str(error)}}
    if not asked.questions:
        return {}
    cards = {
        "questions": f"{asked.questions:,}",
        "I don't know": f"{asked.abstained / asked.questions:.1%}",
        "unsupported sentences": f"{asked.unsupported / asked.sentences:.1%}"
        if asked.sentences
        else "none checked",
        "searches that lost a leg": f"{asked.failed_legs:,}",
        "from the answer cache": f"{asked.cached / asked.questions:.1%}",
        "thumbs up, down": f"{asked.up:,}, {asked.down:,}",
    }
    return {title: cards}


def _cards(stats: UsageStats) -> dict[str, str]:
    return {
        "USD": dollars(stats.total_cost_usd),
        "calls": f"{stats.total_calls:,}",
        "tokens": f"{stats.total_tokens:,}",
        "p95 latency, ms": f"{stats.p95_latency_ms:,.0f}",
        "errors": f"{stats.error_rate:.1%}",
        "cache hits": f"{stats.cache_hit_rate:.1%}",
        "unpriced calls": f"{stats.unpriced_calls:,}",
        "saved by the answer cache, USD": dollars(stats.saved_usd),
    }
