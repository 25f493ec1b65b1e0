"""Digest of a period in Markdown, for a scheduler to send to a mail, a chat or an issue."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from llama_index_presets.counting import counted
from llama_index_presets.errors import AnswerError, SettingsError
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.queries import UsageStats
from llama_index_presets.monitor.ledger.report import dollars, priced
from llama_index_presets.monitor.quality import Quality, quality

__all__ = ["digest", "read_period"]

_UNITS = {"h": 1 / 24, "d": 1.0, "w": 7.0}
_GROUPS = ("model", "tenant", "preset", "day")
_MOST_ROWS = 10


def read_period(text: str) -> float:
    """Days of a period such as ``7d``, ``24h`` or ``4w``.

    Raises:
        SettingsError: It is none.

    Example:
        >>> read_period("7d"), read_period("24h"), read_period("2w")
        (7.0, 1.0, 14.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    days = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < days <= 36_500:
        raise SettingsError(
            f"'{text}' is no period. Expected a number with h, d or w, such as 24h, 7d or 4w."
        )
    return days


def digest(ledger: Ledger, *, days: float = 7) -> str:
    """Costs and quality of the last days, beside the same time before, as Markdown.

    Args:
        ledger: What is summed up; the quality file beside it is, too.
        days: Length of the period, in days, > 0.

    Example:
        >>> import tempfile
        >>> print(digest(Ledger(tempfile.mkdtemp() + "/calls.duckdb")).splitlines()[2])
        No calls were recorded in the last 7 days.
    """
    now, stats = time.time(), ledger.get_usage_stats(days=days)
    both = ledger.get_usage_stats(days=2 * days)
    start = datetime.fromtimestamp(now - days * 86_400, UTC)
    head = [
        f"# Model costs, {start:%Y-%m-%d %H:%M} to {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC",
        "",
    ]
    answers = [] if ledger.in_memory else _answers(ledger.path.parent, now, days)
    if not stats.total_calls and not answers:
        return "\n".join([*head, f"No calls were recorded in the last {counted(days, 'day')}."]) + "\n"
    lines = [*head, *_totals(stats, both, days), *answers]
    for group in _GROUPS:
        rows = ledger.costs(group, days=days)
        if any(row.key for row in rows):
            shown = rows if group == "day" else rows[:_MOST_ROWS]
            cells = [(row.key or "(none)", priced(row), f"{row.calls:,}", f"{row.tokens:,}") for row in shown]
            lines += _table(f"By {group}", (group, "USD", "calls", "tokens"), cells)
            if len(rows) > len(shown):
                lines += [f"and {len(rows) - len(shown)} more.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _totals(stats: UsageStats, both: UsageStats, days: float) -> list[str]:
    before = both.total_cost_usd - stats.total_cost_usd
    cells = [
        ("cost, USD", dollars(stats.total_cost_usd), dollars(before)),
        (
            "saved by the answer cache, USD",
            dollars(stats.saved_usd),
            dollars(both.saved_usd - stats.saved_usd),
        ),
        ("calls", f"{stats.total_calls:,}", f"{both.total_calls - stats.total_calls:,}"),
        ("tokens", f"{stats.total_tokens:,}", f"{both.total_tokens - stats.total_tokens:,}"),
        (
            "calls without a price",
            f"{stats.unpriced_calls:,}",
            f"{both.unpriced_calls - stats.unpriced_calls:,}",
        ),
        ("failed calls", f"{stats.error_rate:.1%}", ""),
        ("95 % of calls within", f"{stats.p95_latency_ms:,.0f} ms", ""),
    ]
    change = f" ({_change(stats.total_cost_usd, before)})" if before > 0 else ""
    return [
        f"**${dollars(stats.total_cost_usd)}**{change} for {counted(stats.total_calls, 'call')}.",
        "",
        *_table("Totals", ("", f"{counted(days, 'day')}", "the same time before"), cells),
    ]


def _change(now: Decimal, before: Decimal) -> str:
    return f"{(now / before - 1) * 100:+.0f} % against the same time before"


def _answers(folder: Path, now: float, days: float) -> list[str]:
    """Quality of the answers; left out where its file cannot be read."""
    try:
        asked = quality(folder, since=now - days * 86_400)
        before = quality(folder, since=now - 2 * days * 86_400, until=now - days * 86_400)
    except AnswerError as error:
        return [f"The quality of the answers is not known: {error}", ""]
    return _quality(asked, before)


def _quality(now: Quality, before: Quality) -> list[str]:
    if not now.questions:
        return []
    rows = [
        ("questions", "questions", ""),
        ("answered with I don't know", "abstained", "questions"),
        ("ended by an error", "failed", "questions"),
        ("sentences that no passage supports", "unsupported", "sentences"),
        ("searched with a leg missing", "failed_legs", "questions"),
        ("answered from the cache", "cached", "questions"),
        ("found good by the reader", "up", ""),
        ("found bad by the reader", "down", ""),
    ]
    cells = [(text, _share(now, name, of), _share(before, name, of)) for text, name, of in rows]
    return _table("Answers", ("", "now", "before"), cells)


def _share(found: Quality, name: str, of: str) -> str:
    value: int = getattr(found, name)
    whole: int = getattr(found, of) if of else 0
    return f"{value:,} ({value / whole:.1%})" if whole else f"{value:,}"


def _table(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["--:"] * (len(columns) - 1)]
    rows = [columns, rule, *[[_cell(cell) for cell in row] for row in cells]]
    return [f"## {title}", "", *(f"| {' | '.join(row)} |" for row in rows), ""]


def _cell(text: str) -> str:
    """A name that users chose, so that it makes no cell, link or markup of its own."""
    return re.sub(r"([\\|`*_\[\]<>&])", r"\\\1", " ".join(text.split()))
