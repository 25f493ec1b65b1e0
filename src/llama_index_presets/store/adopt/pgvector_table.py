"""Table of the official PostgreSQL adapter (llama-index-vector-stores-postgres)."""

from __future__ import annotations

import json
from typing import Any, Final

from llama_index.core.schema import BaseNode

from llama_index_presets.errors import StoreError
from llama_index_presets.packages.extras import require
from llama_index_presets.store.adopt.reader import StockReader, node_of_row, without_copies
from llama_index_presets.store.postgres.connection import quoted

__all__ = ["StockPostgres"]

_COLUMNS: Final = {"id", "node_id", "text", "metadata_", "embedding"}
_PREFIX: Final = "data_"  # the adapter writes table_name="chunks" to "data_chunks"


class StockPostgres(StockReader):
    """Nodes of a table that the official PostgreSQL adapter wrote; the transactions are read-only.

    Args:
        url: ``postgresql://user@host/database``.
        table: The adapter's ``table_name``.
        schema: The adapter's ``schema_name``.

    Raises:
        MissingExtraError: The extra ``postgres`` is not installed.
        StoreError: The server cannot be reached, or has no such table.
    """

    def __init__(self, url: str, table: str, schema: str = "public") -> None:
        sqlalchemy: Any = require("sqlalchemy", extra="postgres")
        self._text = sqlalchemy.text
        address = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg2")
        self._engine = sqlalchemy.create_engine(address, execution_options={"postgresql_readonly": True})
        self.place = f"table '{schema}.{_PREFIX}{table}' of '{address.render_as_string(hide_password=True)}'"
        self._table = f"{quoted(schema)}.{quoted(_PREFIX + table)}"
        columns = {name for (name,) in self._rows(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = :schema AND table_name = :name",
            schema=schema, name=_PREFIX + table,
        )}  # fmt: skip
        if not columns >= _COLUMNS:
            self.close()
            raise StoreError(f"There is no {self.place} that the official adapter wrote.")

    def ids_as_stored(self) -> list[str]:
        """Ids in the order of the rows."""
        rows = self._rows(f"SELECT node_id FROM {self._table} ORDER BY id")  # noqa: S608
        return list(dict.fromkeys(node_id for (node_id,) in rows))

    def get_nodes(self, node_ids: list[str]) -> list[BaseNode]:
        """Nodes with their embeddings; those of a half-precision column are its numbers."""
        rows = self._rows(
            f"SELECT node_id, text, metadata_, embedding::text FROM {self._table} "  # noqa: S608
            "WHERE node_id = ANY(:ids) ORDER BY id",
            ids=node_ids,
        )
        nodes = [
            node_of_row(node_id, text, metadata, vector and json.loads(vector), place=self.place)
            for node_id, text, metadata, vector in rows
        ]
        return without_copies(nodes, place=self.place)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        try:
            with self._engine.connect() as connection:
                return [tuple(row) for row in connection.execute(self._text(statement), values)]
        except Exception as error:  # the driver's errors carry the statement
            reason = str(getattr(error, "orig", error)).strip().splitlines()
            raise StoreError(f"{self.place} cannot be read ({(reason or [''])[0][:200]}).") from error
