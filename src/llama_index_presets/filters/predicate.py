"""Filters as a Python predicate: the reference meaning that every store is tested against."""

from __future__ import annotations

import operator as op
from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from llama_index_presets.filters.values import check, fold, number_of

__all__ = ["leaf_test", "predicate"]

Test = Callable[[Any], bool]
Predicate = Callable[[Mapping[str, Any]], bool]


def predicate(filters: MetadataFilters | None) -> Predicate:
    """Turn filters into a function of a node's metadata.

    Args:
        filters: Groups and filters, nested to any depth; None selects everything.

    Returns:
        A function of one mapping of JSON values (see `filterable_metadata`), True where it is selected. It
        never raises.

    Raises:
        FilterError: A filter's value does not fit its operator; raised here, not when the function is called.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> both = MetadataFilters(filters=[
        ...     MetadataFilter(key="tenant", value="north"),
        ...     MetadataFilters(condition="not", filters=[MetadataFilter(key="draft", value=1)]),
        ... ])
        >>> predicate(both)({"tenant": "north", "draft": True})
        False
    """
    if filters is None or not filters.filters:
        return lambda metadata: True
    parts = [_part(part) for part in filters.filters]
    if filters.condition is FilterCondition.OR:
        return lambda metadata: any(part(metadata) for part in parts)
    if filters.condition is FilterCondition.NOT:
        return lambda metadata: not any(part(metadata) for part in parts)
    return lambda metadata: all(part(metadata) for part in parts)


def _part(part: MetadataFilter | MetadataFilters) -> Predicate:
    if isinstance(part, MetadataFilters):
        return predicate(part)
    key, test = part.key, leaf_test(part)
    return lambda metadata: test(metadata.get(key))


def leaf_test(leaf: MetadataFilter) -> Test:
    """Turn one filter into a predicate over the value under its key; None is a missing key.

    Raises:
        FilterError: The value does not fit the operator.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter
        >>> leaf_test(MetadataFilter(key="tags", value=["a", "b"], operator="any"))(["b", "c"])
        True
    """
    check(leaf)
    return _TESTS[leaf.operator](leaf.value)


def _equal(wanted: Any) -> Test:
    return lambda value: value is not None and bool(value == wanted)


def _one_of(wanted: list[Any]) -> Test:
    return lambda value: value is not None and value in wanted


def _ordering(compare: Callable[[Any, Any], bool]) -> Callable[[Any], Test]:
    def build(wanted: str | int | float) -> Test:
        if not isinstance(wanted, str):
            return lambda value: isinstance(value, (int, float)) and compare(value, wanted)
        number = number_of(wanted)
        numbers = build(number) if number is not None else lambda value: False
        return lambda value: compare(value, wanted) if isinstance(value, str) else numbers(value)

    return build


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    return isinstance(value, (list, tuple, set, Mapping)) and wanted in value


def _text(wanted: str) -> Test:
    return lambda value: isinstance(value, str) and wanted in value


def _text_insensitive(wanted: str) -> Test:
    folded = fold(wanted)
    return lambda value: isinstance(value, str) and folded in fold(value)


_TESTS: dict[FilterOperator, Callable[[Any], Test]] = {
    FilterOperator.EQ: _equal,
    FilterOperator.NE: lambda wanted: lambda value: not _equal(wanted)(value),
    FilterOperator.GT: _ordering(op.gt),
    FilterOperator.GTE: _ordering(op.ge),
    FilterOperator.LT: _ordering(op.lt),
    FilterOperator.LTE: _ordering(op.le),
    FilterOperator.IN: _one_of,
    FilterOperator.NIN: lambda wanted: lambda value: not _one_of(wanted)(value),
    FilterOperator.ANY: lambda wanted: lambda value: any(_holds(value, one) for one in wanted),
    FilterOperator.ALL: lambda wanted: (
        lambda value: value is not None and all(_holds(value, one) for one in wanted)
    ),
    FilterOperator.CONTAINS: lambda wanted: lambda value: _holds(value, wanted),
    FilterOperator.TEXT_MATCH: _text,
    FilterOperator.TEXT_MATCH_INSENSITIVE: _text_insensitive,
    FilterOperator.IS_EMPTY: lambda wanted: lambda value: value is None or value == "" or value == [],
}
