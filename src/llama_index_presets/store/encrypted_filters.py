"""Filters over a store that is encrypted: on metadata that stays in clear, and on the source document by equality."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from llama_index_presets.errors import FilterError
from llama_index_presets.filters import REFERENCE_KEYS
from llama_index_presets.filters.values import check
from llama_index_presets.sealing import Sealer

__all__ = ["sealed_filters"]

_EQUALITY = (
    FilterOperator.EQ,
    FilterOperator.NE,
    FilterOperator.IN,
    FilterOperator.NIN,
    FilterOperator.IS_EMPTY,
)


def sealed_filters(filters: MetadataFilters, searchable: Collection[str], sealer: Sealer) -> MetadataFilters:
    """The same restriction, as the store below can check it.

    Raises:
        FilterError: A filter is on a key that is encrypted, or compares source documents by more than equality.
    """
    parts = [
        sealed_filters(part, searchable, sealer)
        if isinstance(part, MetadataFilters)
        else _sealed(part, searchable, sealer)
        for part in filters.filters
    ]
    return MetadataFilters(filters=parts, condition=filters.condition)


def _sealed(part: MetadataFilter, searchable: Collection[str], sealer: Sealer) -> MetadataFilter:
    check(part)
    if part.key in searchable:
        return part
    if part.key not in REFERENCE_KEYS:
        allowed = ", ".join([*searchable, *REFERENCE_KEYS])
        raise FilterError(
            f"Metadata '{part.key}' is encrypted and cannot be filtered on. Searchable here: {allowed}. Name the key "
            "in searchable_metadata when a new index is made; its values then lie on disk in clear."
        )
    if part.operator not in _EQUALITY:
        raise FilterError(
            f"'{part.operator.value}' on '{part.key}' reads ids of documents, which are encrypted. Use ==, !=, in or "
            "nin."
        )
    return MetadataFilter(key=part.key, operator=part.operator, value=_sealed_value(part.value, sealer))


def _sealed_value(value: Any, sealer: Sealer) -> Any:
    if isinstance(value, list):
        return [_sealed_value(item, sealer) for item in value]
    return sealer.seal_id(value) if isinstance(value, str) else value
