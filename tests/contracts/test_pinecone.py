"""PineconeVectorStore keeps what a managed service can keep: the real SDK against a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.vector_stores import MetadataFilters
from tests.contracts.store import DIM, FILTERS, Open, StoreContract, ask, vector
from tests.servers.pinecone import PineconeServer, pinecone_server

from llama_index_presets.errors import FilterError
from llama_index_presets.filters import filterable_metadata, predicate
from llama_index_presets.store.pinecone import MODES, PineconeVectorStore


def cannot_be_said(filters: MetadataFilters) -> bool:
    """Substrings and the order of strings: documented refusals."""
    return any(
        cannot_be_said(part)
        if isinstance(part, MetadataFilters)
        else part.operator.value.startswith("text_match")
        or (part.operator.value in (">", ">=", "<", "<=") and isinstance(part.value, str))
        for part in filters.filters
    )


def looks_inside_strings(filters: MetadataFilters) -> bool:
    """`contains`, `any`, `all` with strings: documented to see elements and whole strings only."""
    return any(
        looks_inside_strings(part)
        if isinstance(part, MetadataFilters)
        else part.operator.value in ("contains", "any", "all") and isinstance(part.value, (str, list))
        for part in filters.filters
    )


class TestPineconeVectorStore(StoreContract):
    modes = MODES

    @pytest.fixture
    def server(self) -> Iterator[PineconeServer]:
        with pinecone_server(DIM) as server:
            yield server

    @pytest.fixture
    def open_store(self, server: PineconeServer) -> Open:
        return lambda **options: PineconeVectorStore(
            host=server.url, api_key="k", namespace="tenant", **options
        )

    @pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: str(FILTERS.index(filters)))
    def test_filters_mean_the_same_everywhere(self, zoo: Any, filters: MetadataFilters) -> None:
        """As everywhere, but for what the service cannot say (refused) and substrings in `contains`."""
        if cannot_be_said(filters):
            with pytest.raises(FilterError, match="Pinecone cannot filter by"):
                zoo.query(ask(vector(1, 1), 100, filters=filters))
            return
        accepts = predicate(filters)
        nodes = zoo.get_nodes()
        if looks_inside_strings(filters):
            nodes = [node for node in nodes if not isinstance(node.metadata.get("tags"), str)]
            nodes = [
                node
                for node in nodes
                if not isinstance(node.metadata.get("s"), str) or "s" not in str(filters)
            ]
        expected = {node.node_id for node in nodes if accepts(filterable_metadata(node))}
        asked = {node.node_id for node in nodes}
        assert set(zoo.query(ask(vector(1, 1), 100, filters=filters)).ids) & asked == expected
        assert {node.node_id for node in zoo.get_nodes(filters=filters)} & asked == expected
