"""The read side of a ledger: SQL over all rows of all processes, and the questions that are asked most."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_presets._extras import require
from llama_index_presets.monitor.stats import CostRow, UsageStats, costs_by, usage_stats

if TYPE_CHECKING:
    import duckdb

__all__ = ["LedgerReader"]


class LedgerReader:
    """What can be asked of a ledger.

    Attributes:
        path: The DuckDB file.
    """

    path: Path

    def _before_reading(self) -> None:
        """Make everything visible that this process has recorded."""
        raise NotImplementedError

    def sql(
        self, statement: str, parameters: Sequence[Any] | dict[str, Any] = ()
    ) -> duckdb.DuckDBPyConnection:
        """Run SQL over all rows of all processes; the table is `llm_calls`, its columns are those of `Call`.

        Returns:
            A finished DuckDB result: ``.fetchall()``, ``.df()``; for Polars see `to_polars`.

        Raises:
            MonitorError: The SQL is wrong or the ledger cannot be read.
        """
        from llama_index_presets.monitor.table import query

        self._before_reading()
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
        from llama_index_presets.monitor.table import copy_to

        self._before_reading()
        return copy_to(self.path, Path(path))

    def get_usage_stats(self, days: float = 7) -> UsageStats:
        """Sum up the last days: calls, tokens, dollars, latency, cache hits, errors."""
        return usage_stats(self._rows, _days_ago(days))

    def costs(self, by: str = "model", *, days: float | None = None) -> list[CostRow]:
        """Sum up by ``"model"``, ``"day"``, ``"preset"``, ``"tag"``, ``"tenant"`` and more, dearest first.

        Args:
            by: A key of `stats.GROUPS`.
            days: Only the last days; None means all.

        Raises:
            SettingsError: There is no such group.
        """
        return costs_by(self._rows, by, 0 if days is None else _days_ago(days))

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
    return int((time.time() - days * 86_400) * 1e6)
