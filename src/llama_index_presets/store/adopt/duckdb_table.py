"""Table of the official DuckDB adapter (llama-index-vector-stores-duckdb)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb
from llama_index.core.schema import BaseNode

from llama_index_presets.errors import StoreError
from llama_index_presets.store.adopt.reader import StockReader, node_of_row, without_copies
from llama_index_presets.store.duckdb.connect import quote

__all__ = ["StockDuckDB"]

_COLUMNS: Final = {"node_id", "text", "embedding", "metadata_"}


class StockDuckDB(StockReader):
    """Nodes of a table that the official DuckDB adapter wrote.

    The file is opened read-only, by a newer DuckDB than the one that the adapter pins; it is not changed.

    Args:
        path: The database file.
        table: Its table; by default the only one that has the adapter's columns.

    Raises:
        StoreError: The file cannot be opened, or has no such table.
    """

    def __init__(self, path: str | Path, table: str | None = None) -> None:
        try:
            self._connection = duckdb.connect(str(path), read_only=True)
        except duckdb.Error as error:
            raise StoreError(f"'{path}' cannot be opened ({str(error)[:200]}).") from error
        tables = stock_tables(self._connection)
        if table is None and len(tables) != 1:
            self.close()
            raise StoreError(
                f"'{path}' has {_listed(tables)} of the official adapter. Name the one to read: duckdb:{path}#TABLE."
            )
        self._table = table or tables[0]
        if self._table not in tables:
            self.close()
            raise StoreError(
                f"'{path}' has no table '{table}' of the official adapter; it has {_listed(tables)}."
            )
        self.place = f"table '{self._table}' of '{path}'"

    @staticmethod
    def holds(path: str | Path, table: str | None = None) -> bool:
        """Whether a file has a table of the official adapter (of that name)."""
        try:
            with duckdb.connect(str(path), read_only=True) as connection:
                tables = stock_tables(connection)
        except duckdb.Error:
            return False  # what opens the file next says why
        return table in tables if table else bool(tables)

    def ids_as_stored(self) -> list[str]:
        """Ids in the order of the rows."""
        rows = self._connection.execute(f"SELECT node_id FROM {quote(self._table)} ORDER BY rowid").fetchall()  # noqa: S608
        return list(dict.fromkeys(node_id for (node_id,) in rows))

    def get_nodes(self, node_ids: list[str]) -> list[BaseNode]:
        """Nodes with their embeddings."""
        rows = self._connection.execute(
            f"SELECT node_id, text, metadata_, embedding FROM {quote(self._table)} "  # noqa: S608
            "WHERE node_id IN (SELECT unnest(?::VARCHAR[]))",
            [node_ids],
        ).fetchall()
        return without_copies([node_of_row(*row, place=self.place) for row in rows], place=self.place)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def stock_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Tables that have the columns of the official adapter, and no other."""
    rows = connection.execute(
        "SELECT table_name, list(column_name) FROM information_schema.columns "
        "WHERE table_schema = 'main' GROUP BY table_name ORDER BY table_name"
    ).fetchall()
    return [name for name, columns in rows if set(columns) == _COLUMNS]


def _listed(tables: list[str]) -> str:
    return f"the tables {', '.join(map(repr, tables))}" if tables else "no table"
