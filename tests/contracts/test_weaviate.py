"""WeaviateVectorStore keeps what a managed service can keep: the real client against a server on loopback."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from tests.contracts.managed import ManagedContract
from tests.contracts.store import Open
from tests.servers.weaviate import WeaviateServer, weaviate_server

from llama_index_presets.store.weaviate.store import MODES, WeaviateVectorStore

numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[WeaviateServer]:
    with weaviate_server() as server:
        yield server


class TestWeaviateVectorStore(ManagedContract):
    service = "Weaviate"
    modes = MODES
    reopens = False

    @pytest.fixture
    def open_store(self, server: WeaviateServer) -> Open:
        url = server.url(f"Chunks{next(numbers)}")
        return lambda **options: WeaviateVectorStore.from_url(url, **options)
