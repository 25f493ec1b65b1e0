"""Table of the official LanceDB adapter (llama-index-vector-stores-lancedb)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from llama_index.core.schema import BaseNode

from llama_index_presets.errors import StoreError
from llama_index_presets.packages.extras import require
from llama_index_presets.store.adopt.reader import StockReader, node_of_row, without_copies

__all__ = ["StockLanceDB"]

_COLUMNS: Final = {"id", "text", "metadata"}
_OWN: Final = {"kind", "node"}  # columns that only tables of this package have


class StockLanceDB(StockReader):
    """Nodes of a table that the official LanceDB adapter wrote.

    Args:
        uri: Folder or URL of the database.
        table: Its table; the official adapter names it ``"vectors"`` by default.

    Raises:
        MissingExtraError: LanceDB is not installed.
        StoreError: The database cannot be opened, has no such table, or one that the adapter did not write.
    """

    def __init__(self, uri: str | Path, table: str | None = None) -> None:
        lancedb: Any = require("lancedb", extra="lancedb")
        name = table or "vectors"
        try:
            self._table = lancedb.connect(str(uri)).open_table(name)
        except Exception as error:  # LanceDB raises errors of many modules
            raise StoreError(f"Table '{name}' of '{uri}' cannot be opened ({str(error)[:200]}).") from error
        self.place = f"table '{name}' of '{uri}'"
        self._vector = _vector_column(self._table.schema)
        if not is_stock(self._table.schema) or self._vector is None:
            raise StoreError(
                f"{self.place} was not written by the official adapter: its columns are "
                f"{', '.join(self._table.schema.names)}."
            )

    @staticmethod
    def holds(uri: str | Path, table: str | None = None) -> bool:
        """Whether a database has a table of the official adapter of that name."""
        lancedb: Any = require("lancedb", extra="lancedb")
        try:
            return is_stock(lancedb.connect(str(uri)).open_table(table or "vectors").schema)
        except Exception:  # what opens the database next says why
            return False

    def ids_as_stored(self) -> list[str]:
        """Ids in the order of the rows."""
        rows = self._table.search().select(["id"]).limit(self._table.count_rows() or 1).to_arrow()
        return list(dict.fromkeys(rows.column("id").to_pylist()))

    def get_nodes(self, node_ids: list[str]) -> list[BaseNode]:
        """Nodes with their embeddings."""
        quoted = ", ".join("'" + node_id.replace("'", "''") + "'" for node_id in node_ids)
        columns = ["id", "text", "metadata", str(self._vector)]
        rows = (
            self._table.search()
            .where(f"id IN ({quoted})")
            .select(columns)
            .limit(self._table.count_rows() or 1)
            .to_arrow()
            .to_pylist()
        )
        nodes = [node_of_row(*(row[name] for name in columns), place=self.place) for row in rows]
        return without_copies(nodes, place=self.place)


def is_stock(schema: Any) -> bool:
    """Whether a table has the columns of the official adapter, and none of ours."""
    names = set(schema.names)
    return names >= _COLUMNS and not names & _OWN


def _vector_column(schema: Any) -> str | None:
    import pyarrow

    return next((field.name for field in schema if pyarrow.types.is_fixed_size_list(field.type)), None)
