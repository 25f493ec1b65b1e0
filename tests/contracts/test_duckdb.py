"""DuckDBVectorStore keeps what every store promises: in memory, on disk, and scanned by DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from llama_index.core.vector_stores.types import VectorStoreQueryMode as Mode
from tests.contracts.store import Open, StoreContract

from llama_index_presets.errors import StoreError
from llama_index_presets.store.duckdb.store import DuckDBVectorStore

EVERY_MODE = frozenset({Mode.DEFAULT, Mode.TEXT_SEARCH, Mode.SPARSE, Mode.HYBRID, Mode.MMR})


class TestOnDisk(StoreContract):
    modes = EVERY_MODE
    reopens = False
    pickles = True

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda **options: DuckDBVectorStore(tmp_path / "chunks.duckdb", **options)


class TestShared(StoreContract):
    """Other processes use the file, too: it is opened for each use, and every promise is the same."""

    modes = EVERY_MODE
    reopens = False
    pickles = True

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda **options: DuckDBVectorStore(tmp_path / "chunks.duckdb", shared=True, **options)

    def test_its_fields_are_json(self, store: Any) -> None:
        """`to_dict` names the class; there is no client, as no connection lasts."""
        assert json.loads(json.dumps(store.to_dict()))["shared"] is True
        with pytest.raises(StoreError, match="shared store keeps no connection"):
            _ = store.client


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
