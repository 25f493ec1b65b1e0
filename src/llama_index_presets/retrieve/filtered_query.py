"""Filtered query: a query bundle that carries metadata filters through any engine to every leg."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index.core.schema import QueryBundle, QueryType
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilters

__all__ = ["FilteredQuery", "both_filters", "filters_of"]


@dataclass
class FilteredQuery(QueryBundle):
    """A `QueryBundle` with filters for this query only.

    It passes through query engines unchanged; retrievers of this package obey it, in addition to the filters
    that they were constructed with.

    Attributes:
        filters: What hits must satisfy; None leaves it to the retriever.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> mine = MetadataFilters(filters=[MetadataFilter(key="tenant", value="a")])
        >>> FilteredQuery("late fees", filters=mine).query_str
        'late fees'
    """

    filters: MetadataFilters | None = None


def filters_of(query: QueryType) -> MetadataFilters | None:
    """The filters that a query carries, or None."""
    return query.filters if isinstance(query, FilteredQuery) else None


def both_filters(one: MetadataFilters | None, other: MetadataFilters | None) -> MetadataFilters | None:
    """Filters that select what both select; None selects everything."""
    if one is None or other is None:
        return one or other
    return MetadataFilters(filters=[one, other], condition=FilterCondition.AND)
