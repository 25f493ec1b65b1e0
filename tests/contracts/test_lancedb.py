"""LanceDBVectorStore keeps the promises of every store."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from tests.contracts.store import Open, StoreContract

from llama_index_presets.store.lancedb import LanceDBVectorStore


class TestLanceDBVectorStore(StoreContract):
    modes = frozenset(
        {
            VectorStoreQueryMode.DEFAULT,
            VectorStoreQueryMode.TEXT_SEARCH,
            VectorStoreQueryMode.SPARSE,
        }
    )

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda **options: LanceDBVectorStore(tmp_path / "lance", **options)
