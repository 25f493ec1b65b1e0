"""PostgresVectorStore keeps the promises of every store, on a real Postgres with pgvector."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator

import pytest
from tests.contracts.store import DIM, Open, StoreContract

from llama_index_presets.store.postgres.embedded import embedded_postgres
from llama_index_presets.store.postgres.search import MODES
from llama_index_presets.store.postgres.store import PostgresVectorStore

numbers = itertools.count()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # Not in pytest's folder: that is closed to the user that Postgres runs as under root.
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(folder) as address:
        yield address


class TestPostgresVectorStore(StoreContract):
    modes = MODES

    @pytest.fixture
    def open_store(self, url: str) -> Open:
        name = f"t{next(numbers)}"
        return lambda **options: PostgresVectorStore.from_url(url, embed_dim=DIM, table_name=name, **options)
