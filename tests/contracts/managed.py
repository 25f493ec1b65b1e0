"""The contract of a managed service: as `StoreContract`, but for the filters that such a service cannot say."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.vector_stores import MetadataFilters
from tests.contracts.store import FILTERS, StoreContract, ask, vector

from llama_index_presets.errors import FilterError
from llama_index_presets.filters import filterable_metadata, predicate


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


class ManagedContract(StoreContract):
    """`StoreContract` for a store whose filters are labels and numbers."""

    service: str
    """What its refusals call it."""

    @pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: str(FILTERS.index(filters)))
    def test_filters_mean_the_same_everywhere(self, zoo: Any, filters: MetadataFilters) -> None:
        """As everywhere, but for what the service cannot say (refused) and substrings in `contains`."""
        if cannot_be_said(filters):
            with pytest.raises(FilterError, match=f"{self.service} cannot filter by"):
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
