"""Filters as Pinecone's filter objects. Pinecone has no NOT, so it is pushed down to the leaves."""

from __future__ import annotations

from typing import Any

from llama_index_presets.store.index_terms import LabelDialect

__all__ = ["NUMBER", "ONE_OF_AT_MOST", "PineconeDialect"]

NUMBER = "n:"
"""What the names of number fields begin with."""

ONE_OF_AT_MOST = 10_000
"""Values that ``$in`` takes."""

Filter = dict[str, Any]

_EVERY: Filter = {"labels": {"$exists": True}}
_NONE: Filter = {"labels": {"$exists": False}}

_OPPOSITE = {"$gt": "$lte", "$lte": "$gt", "$lt": "$gte", "$gte": "$lt", "$in": "$nin", "$nin": "$in"}
_OPERATORS = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}


class PineconeDialect(LabelDialect):
    """Conditions as nested dictionaries.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> from llama_index_presets.filters import render
        >>> recent = MetadataFilters(filters=[MetadataFilter(key="year", operator=">", value=2023)])
        >>> render(recent, PineconeDialect()).sql
        {'$and': [{'n:year': {'$gt': 2023.0}}]}
    """

    service = "Pinecone"
    true: Any = _EVERY
    false: Any = _NONE

    def labelled(self, *labels: str) -> Any:
        """See `LabelDialect.labelled`."""
        return {"labels": {"$in": list(labels)}}

    def numbered(self, key: str, operator: str, number: float) -> Any:
        """See `LabelDialect.numbered`."""
        return {NUMBER + key: {_OPERATORS[operator]: number}}

    def any_of(self, parts: list[Any]) -> Any:
        """See `Dialect.any_of`."""
        return {"$or": parts} if parts else self.false

    def all_of(self, parts: list[Any]) -> Any:
        """See `Dialect.all_of`."""
        return {"$and": parts} if parts else self.true

    def none_of(self, parts: list[Any]) -> Any:
        """See `Dialect.none_of`."""
        return _not(self.any_of(parts))


def _not(condition: Filter) -> Filter:
    ((name, inner),) = condition.items()
    if name in ("$and", "$or"):
        return {"$or" if name == "$and" else "$and": [_not(part) for part in inner]}
    ((operator, value),) = inner.items()
    if operator == "$exists":
        return {name: {"$exists": not value}}
    opposite = {name: {_OPPOSITE[operator]: value}}
    return opposite if name == "labels" else {"$or": [opposite, {name: {"$exists": False}}]}
