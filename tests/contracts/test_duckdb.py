"""DuckDBVectorStore keeps what every store promises: in memory, on disk, and scanned by DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from llama_index.core.vector_stores.types import VectorStoreQueryMode as Mode
from tests.contracts.store import Open, StoreContract

from llama_index_presets.store.duckdb.store import DuckDBVectorStore

EVERY_MODE = frozenset({Mode.DEFAULT, Mode.TEXT_SEARCH, Mode.SPARSE, Mode.HYBRID, Mode.MMR})


class TestOnDisk(StoreContract):
    modes = EVERY_MODE
    reopens = False
    pickles = True

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda **options: DuckDBVectorStore(tmp_path / "chunks.duckdb", **options)


class TestScannedByDuckDB(StoreContract):
    """A table that is too large for the memory given: text search is refused, the rest is the same."""

    modes = frozenset({Mode.DEFAULT, Mode.MMR})
    reopens = False
    pickles = True

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda **options: DuckDBVectorStore(tmp_path / "chunks.duckdb", cache_mb=0, **options)


class TestOnAGivenConnection(StoreContract):
    modes = EVERY_MODE
    reopens = False

    @pytest.fixture
    def open_store(self) -> Iterator[Any]:
        with duckdb.connect() as connection:
            yield lambda **options: DuckDBVectorStore(table='it\'s "mine"', connection=connection, **options)
