"""Rows in memory that a filter selects: each distinct value of a metadata key is asked once."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilter, MetadataFilters
from numpy.typing import NDArray

from llama_index_presets.filters import REFERENCE_KEYS, leaf_test
from llama_index_presets.store.duckdb.database import Database
from llama_index_presets.store.duckdb.table import as_numpy, numbers, strings
from llama_index_presets.store.duckdb.vector_matrix import Positions

__all__ = ["FilterMasks", "positions_in"]

# ruff: noqa: S608 -- identifiers are quoted, values are bound, and nothing else is put into the SQL.

Mask = NDArray[np.bool_]
_KEPT_KEYS = 32


class FilterMasks:
    """Row masks of filters in memory, by the predicate itself rather than by SQL.

    The first filter on a metadata key takes the key's values out of all rows; from then on a filter on it
    costs one test for each distinct value.

    Args:
        rows: With the columns ``metadata`` and ``ref_doc_id``.
    """

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[NDArray[np.int32], list[Any]]] = {}

    def of_filters(self, database: Database, filters: MetadataFilters | None) -> Mask:
        """True where a row is selected, shape (n,); the caller may write into it.

        Raises:
            FilterError: A filter's value does not fit its operator.
        """
        if filters is None or not filters.filters:
            return np.ones(len(self._rows), np.bool_)
        parts = [
            self.of_filters(database, part)
            if isinstance(part, MetadataFilters)
            else self._leaf(database, part)
            for part in filters.filters
        ]
        if filters.condition in (FilterCondition.OR, FilterCondition.NOT):
            mask: Mask = np.logical_or.reduce(parts)
            return ~mask if filters.condition is FilterCondition.NOT else mask
        mask = np.logical_and.reduce(parts)
        return mask

    def of_documents(self, doc_ids: Sequence[str]) -> Mask:
        """True where a row's source document is one of these."""
        mask = np.zeros(len(self._rows), np.bool_)
        mask[positions_in(self._rows["ref_doc_id"], doc_ids)] = True
        return mask

    def _leaf(self, database: Database, leaf: MetadataFilter) -> Mask:
        test = leaf_test(leaf)
        codes, values = self._values(database, leaf.key)
        return np.fromiter(map(test, values), np.bool_, len(values))[codes]

    def _values(self, database: Database, key: str) -> tuple[NDArray[np.int32], list[Any]]:
        """Code of each row, and the value that each code stands for; None for a missing key."""
        with self._lock:
            if key not in self._keys:
                if len(self._keys) >= _KEPT_KEYS:
                    del self._keys[next(iter(self._keys))]
                self._keys[key] = self._extracted(database, key)
            return self._keys[key]

    def _extracted(self, database: Database, key: str) -> tuple[NDArray[np.int32], list[Any]]:
        numbered = self._rows.select(["metadata", "ref_doc_id"]).append_column(
            "n", numbers(np.arange(len(self._rows)))
        )
        found = "CAST(json_extract(metadata, $pointer) AS VARCHAR)"
        if key in REFERENCE_KEYS:
            found = f"coalesce({found}, CAST(to_json(ref_doc_id) AS VARCHAR))"
        pointer = "/" + key.replace("~", "~0").replace("/", "~1")
        with database.cursor() as cursor:
            cursor.register("numbered_rows", numbered)
            relation = cursor.sql(
                f"SELECT n, {found} AS value FROM numbered_rows ORDER BY n", params={"pointer": pointer}
            )
            texts = pa.RecordBatchReader.from_stream(relation).read_all()["value"]
            cursor.unregister("numbered_rows")
        encoded = texts.cast(pa.large_string()).combine_chunks().dictionary_encode("encode")
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        values = [None if text is None else json.loads(text) for text in encoded.dictionary.to_pylist()]
        return as_numpy(encoded.indices), values


def positions_in(column: pa.ChunkedArray, wanted: Sequence[str]) -> Positions:
    """Where a column holds one of these, ascending."""
    import pyarrow.compute as pc  # 30 ms that a first question without ids need not pay

    return as_numpy(pc.indices_nonzero(pc.is_in(column, value_set=strings(list(wanted))))).astype(np.intp)
