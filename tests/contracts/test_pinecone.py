"""PineconeVectorStore keeps what a managed service can keep: the real SDK against a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contracts.managed import ManagedContract
from tests.contracts.store import DIM, Open
from tests.servers.pinecone import PineconeServer, pinecone_server

from llama_index_presets.store.pinecone.store import MODES, PineconeVectorStore


class TestPineconeVectorStore(ManagedContract):
    service = "Pinecone"
    modes = MODES
    reopens = False

    @pytest.fixture
    def server(self) -> Iterator[PineconeServer]:
        with pinecone_server(DIM) as server:
            yield server

    @pytest.fixture
    def open_store(self, server: PineconeServer) -> Open:
        return lambda **options: PineconeVectorStore(
            host=server.url, api_key="k", namespace="tenant", **options
        )
