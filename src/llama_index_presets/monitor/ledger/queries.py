"""Standard queries of the ledger, as SQL over `llm_calls`; needs no LlamaIndex."""

from __future__ import annotations

import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_presets._options import expect
from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.ledger.row import BILLABLE_KINDS
from llama_index_presets.monitor.prices import price_key
from llama_index_presets.packages.extras import require

if TYPE_CHECKING:
    import duckdb

__all__ = ["GROUPS", "CostRow", "LedgerReader", "Scope", "UsageStats"]

Rows = Callable[[str, list[Any]], list[tuple[Any, ...]]]
"""Runs SQL with bound values and gives the rows."""

BILLABLE: Final = "kind IN (" + ", ".join(f"'{kind}'" for kind in BILLABLE_KINDS) + ")"
"""SQL condition for calls of a model, without the rows of stages."""

GROUPS: Final = {
    "model": "model",
    "provider": "provider",
    "kind": "kind",
    "preset": "preset",
    "tenant": "tenant",
    "session": "session",
    "query": "query_id",
    "status": "status",
    "day": "strftime(timestamp, '%Y-%m-%d')",
    "tag": "unnest(if(len(tags) = 0, [''], tags))",
}
"""What `costs` can group by -> its SQL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageStats:
    """Usage of the calls of a period; also readable as ``stats["total_calls"]``.

    Attributes:
        total_calls: Calls of language, embedding and reranking models, failed ones included.
        total_tokens: Their input and output tokens.
        total_cost_usd: Sum of the known costs.
        avg_latency_ms: Mean time of a call, in milliseconds; 0 when there was none.
        p50_latency_ms: Half of the calls were at least this fast.
        p95_latency_ms: 95 % of the calls were at least this fast.
        p99_latency_ms: 99 % of the calls were at least this fast.
        unpriced_calls: Calls whose cost is unknown: the bill is at least `total_cost_usd`, plus these.
        cache_hit_rate: Share of embedding calls that our own cache answered, in [0, 1].
        error_rate: Share of calls that failed, in [0, 1]; refused and abandoned ones are not failures.
        repeated_prompts: Calls of language models whose prompt had been asked before in the period.
        cached_answers: Answers that the answer cache gave, each a call of a language model that was not made.
        saved_usd: What these calls had cost when they were made, as far as known.
    """

    total_calls: int
    total_tokens: int
    total_cost_usd: Decimal
    avg_latency_ms: float
    p50_latency_ms: float
    p95_latency_ms: float
    p99_latency_ms: float
    unpriced_calls: int
    cache_hit_rate: float
    error_rate: float
    repeated_prompts: int
    cached_answers: int = 0
    saved_usd: Decimal = Decimal(0)

    def __getitem__(self, name: str) -> Any:
        return asdict(self)[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One line of a cost table.

    Attributes:
        key: The model, day, preset ... that the line is about.
        calls: Calls of models.
        tokens: Input and output tokens.
        cost_usd: Sum of the known costs.
        avg_latency_ms: Mean time of a call, in milliseconds.
        unpriced_calls: Calls whose cost is unknown.
        saved_usd: What calls that the answer cache saved had cost.
    """

    key: str
    calls: int
    tokens: int
    cost_usd: Decimal
    avg_latency_ms: float
    unpriced_calls: int
    saved_usd: Decimal = Decimal(0)


_SINCE = "timestamp >= make_timestamp(?)"
_TOTALS = """
    count(*), coalesce(sum(total_tokens), 0)::BIGINT, coalesce(sum(cost_usd), 0)::DECIMAL(38,12),
    coalesce(avg(latency_ms) FILTER (NOT cache_hit), 0), count(*) FILTER (cost_usd IS NULL),
    coalesce(sum(saved_usd), 0)::DECIMAL(38,12)"""
_USAGE = f"""
    SELECT {_TOTALS},
        coalesce(quantile_cont(latency_ms, [0.5, 0.95, 0.99]) FILTER (NOT cache_hit), [0, 0, 0]),
        coalesce(avg(cache_hit::INT) FILTER (kind = 'embedding'), 0),
        coalesce(avg((status = 'error')::INT), 0),
        count(prompt_sha256) FILTER (kind = 'llm' AND prompt_sha256 <> '')
            - count(DISTINCT prompt_sha256) FILTER (kind = 'llm' AND prompt_sha256 <> ''),
        count(*) FILTER (kind = 'llm' AND cache_hit)
    FROM llm_calls WHERE {BILLABLE} AND {_SINCE}"""  # noqa: S608 (constants)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose calls a report counts.

    Attributes:
        tenant: Only those of this tenant; None means all.
        tag: Only those with this tag; None means all.
    """

    tenant: str | None = None
    tag: str | None = None

    @property
    def condition(self) -> str:
        """SQL condition with a place for each of `values`."""
        parts = ["tenant = ?"] if self.tenant is not None else []
        return " AND ".join([*parts, "list_contains(tags, ?)"] if self.tag is not None else parts) or "true"

    @property
    def values(self) -> list[Any]:
        """What is bound."""
        return [value for value in (self.tenant, self.tag) if value is not None]


EVERYBODY: Final = Scope()


def _usage_stats(rows: Rows, since_us: int, scope: Scope = EVERYBODY) -> UsageStats:
    """Sum up everything since a moment, in microseconds since 1970."""
    statement = f"{_USAGE} AND {scope.condition}"
    calls, tokens, cost, mean, unpriced, saved, quantiles, hits, errors, repeats, reused = rows(
        statement, [since_us, *scope.values]
    )[0]
    return UsageStats(
        total_calls=calls,
        total_tokens=tokens,
        total_cost_usd=cost,
        avg_latency_ms=float(mean),
        p50_latency_ms=float(quantiles[0]),
        p95_latency_ms=float(quantiles[1]),
        p99_latency_ms=float(quantiles[2]),
        unpriced_calls=unpriced,
        cache_hit_rate=float(hits),
        error_rate=float(errors),
        repeated_prompts=repeats,
        cached_answers=reused,
        saved_usd=saved,
    )


def _costs_by(rows: Rows, by: str, since_us: int, scope: Scope = EVERYBODY) -> list[CostRow]:
    """Sum up by a group, dearest first (days in order).

    Raises:
        SettingsError: There is no such group; the message lists them.
    """
    if by not in GROUPS:
        raise SettingsError(f"Costs cannot be grouped by '{by}'. Choose one of: {', '.join(GROUPS)}.")
    order = "1" if by == "day" else "4 DESC, 3 DESC, 1"
    statement = f"""
        WITH keyed AS (SELECT {GROUPS[by]} AS key, * FROM llm_calls
            WHERE {BILLABLE} AND {_SINCE} AND {scope.condition})
        SELECT key, {_TOTALS} FROM keyed GROUP BY key ORDER BY {order}"""  # noqa: S608 (constants)
    return [
        CostRow(
            key=key or "",
            calls=calls,
            tokens=tokens,
            cost_usd=cost,
            avg_latency_ms=mean,
            unpriced_calls=unpriced,
            saved_usd=saved,
        )
        for key, calls, tokens, cost, mean, unpriced, saved in rows(statement, [since_us, *scope.values])
    ]


class LedgerReader(ABC):
    """Queries of a ledger.

    Attributes:
        path: The DuckDB file; ``":memory:"`` of a ledger without one.
    """

    path: Path

    @abstractmethod
    def _before_reading(self) -> None:
        """Make everything visible that this process has recorded."""

    @abstractmethod
    def _rows_in_memory(self) -> list[bytes] | None:
        """The rows of a ledger without a file; None of one with a file."""

    def sql(
        self, statement: str, parameters: Sequence[Any] | dict[str, Any] = ()
    ) -> duckdb.DuckDBPyConnection:
        """Run SQL over all rows of all processes; the table is `llm_calls`, its columns are those of `Call`.

        Returns:
            A finished DuckDB result: ``.fetchall()``, ``.df()``; for Polars see `to_polars`.

        Raises:
            MonitorError: The SQL is wrong or the ledger cannot be read.
        """
        from llama_index_presets.monitor.ledger.storage import query, query_rows

        expect("statement", statement, str, "SQL as a text")
        self._before_reading()
        rows = self._rows_in_memory()
        if rows is not None:
            return query_rows(rows, statement, parameters)
        return query(self.path, statement, parameters)

    def to_polars(
        self, statement: str = "FROM llm_calls", parameters: Sequence[Any] | dict[str, Any] = ()
    ) -> Any:
        """Run SQL as `sql` does and give a `polars.DataFrame`; dollars stay Decimals.

        Raises:
            MissingExtraError: Polars is not installed.
        """
        polars = require("polars", extra="dev")
        result: Any = self.sql(statement, parameters)
        # DuckDB 2 renamed the method.
        fetch = getattr(result, "to_arrow_table", None) or result.fetch_arrow_table
        with warnings.catch_warnings():  # of the copy that it makes: the result must outlive the connection
            warnings.simplefilter("ignore", UserWarning)
            return polars.from_arrow(fetch())

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write all rows to a Parquet or CSV file, by its ending.

        Raises:
            SettingsError: The ending is neither ``.parquet`` nor ``.csv``.
            MonitorError: The file cannot be written.
        """
        from llama_index_presets.monitor.ledger.storage import copy_to

        expect("path", path, (str, os.PathLike), "the path of a .parquet or .csv file")
        return copy_to(Path(path), self.sql)

    def get_usage_stats(
        self, days: float = 7, *, tenant: str | None = None, tag: str | None = None
    ) -> UsageStats:
        """Sum up the last days: calls, tokens, dollars, latency, cache hits, errors; of one tenant or tag if named."""
        return _usage_stats(self._rows, _days_ago(days), Scope(tenant=tenant, tag=tag))

    def costs(
        self,
        by: str = "model",
        *,
        days: float | None = None,
        tenant: str | None = None,
        tag: str | None = None,
    ) -> list[CostRow]:
        """Sum up by ``"model"``, ``"day"``, ``"preset"``, ``"tag"``, ``"tenant"`` and more, dearest first.

        Args:
            by: A key of `stats.GROUPS`.
            days: Only the last days; None means all.
            tenant: Only the calls of this tenant.
            tag: Only the calls with this tag.

        Raises:
            SettingsError: There is no such group.
        """
        expect("by", by, str, 'the name of a group, such as "model"')
        since = 0 if days is None else _days_ago(days)
        return _costs_by(self._rows, by, since, Scope(tenant=tenant, tag=tag))

    def unpriced_models(
        self, *, days: float | None = None, tenant: str | None = None, tag: str | None = None
    ) -> list[str]:
        """Name the models whose calls have no known price, as a price book names them: ``provider/model``."""
        scope = Scope(tenant=tenant, tag=tag)
        statement = f"""
            SELECT DISTINCT provider, model FROM llm_calls
            WHERE {BILLABLE} AND cost_usd IS NULL AND {_SINCE} AND {scope.condition} ORDER BY ALL"""  # noqa: S608 (constants)
        since = 0 if days is None else _days_ago(days)
        return [price_key(*row) for row in self._rows(statement, [since, *scope.values])]

    def recorded_cost(self, query_id: str) -> Decimal | None:
        """Read what a query has cost, in USD; None when a call is unpriced, 0 without calls."""
        statement = (
            "SELECT coalesce(sum(cost_usd), 0), count(*) - count(cost_usd) FROM llm_calls WHERE query_id = ?"
        )
        cost, unpriced = self._rows(statement, [query_id])[0]
        return None if unpriced else Decimal(cost)

    def _rows(self, statement: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        return self.sql(statement, parameters).fetchall()


def _days_ago(days: float) -> int:
    expect("days", days, (Real, Decimal), "a number of days")
    return int((time.time() - float(days) * 86_400) * 1e6)
