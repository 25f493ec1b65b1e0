"""LanceDBVectorStore keeps the promises of every store."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contracts.store import Open, StoreContract

from llama_index_presets.store.lancedb.search import MODES
from llama_index_presets.store.lancedb.store import LanceDBVectorStore


class TestLanceDBVectorStore(StoreContract):
    modes = MODES
    pickles = True

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda **options: LanceDBVectorStore(tmp_path / "lance", **options)
