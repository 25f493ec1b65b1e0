"""Filters as SQL: one walk over `MetadataFilters`, and the few tests that a dialect spells itself.

To support another database, subclass `Dialect` and write its seven methods. Each gives an expression that is
true or false, never NULL, so groups can be joined with AND, OR and NOT without three-valued surprises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from llama_index_presets.filters.values import ORDERINGS, check, number_of, scalars

__all__ = ["Condition", "Dialect", "render"]


@dataclass(frozen=True, slots=True)
class Condition:
    """An SQL condition and the values bound to it.

    Attributes:
        sql: A boolean expression that is never NULL.
        parameters: Parameter name -> value; the names are those in `sql`, without the marker.
    """

    sql: str
    parameters: dict[str, Any] = field(default_factory=dict)


class Dialect(ABC):
    """How one database tests a metadata value.

    An instance renders one condition: it holds the parameters bound so far. `render` makes the walk; the
    methods below are its vocabulary. ``key`` is always the literal metadata key, ``value`` what the caller
    wrote; put either into SQL only through `bind`.
    """

    true = "TRUE"
    false = "FALSE"

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}

    def bind(self, value: Any) -> str:
        """Bind a value as a parameter; returns its placeholder.

        A database without parameters overrides this with a quoting function that has tests of its own.
        """
        name = f"f{len(self.parameters)}"
        self.parameters[name] = value
        return self.placeholder(name)

    def placeholder(self, name: str) -> str:
        """Spell a named parameter; ``$name`` unless overridden."""
        return f"${name}"

    @abstractmethod
    def present(self, key: str) -> str:
        """Test that the value is there and not null."""

    @abstractmethod
    def empty(self, key: str) -> str:
        """Test that the value is missing, null, ``""`` or ``[]``."""

    @abstractmethod
    def equals(self, key: str, value: str | int | float | list[Any]) -> str:
        """Test equality with a scalar, or with a list element by element."""

    @abstractmethod
    def compares(self, key: str, operator: str, value: str | int | float) -> str:
        """Test ``value-in-row <operator> value``, for ``>``, ``>=``, ``<``, ``<=``, within one type."""

    @abstractmethod
    def holds(self, key: str, value: str | int | float) -> str:
        """Test for an element of a list, a substring of a string or a key of an object."""

    @abstractmethod
    def matches(self, key: str, text: str, *, fold_case: bool) -> str:
        """Test that the value is a string with this substring."""

    def one_of(self, key: str, strings: list[str], numbers: list[int | float]) -> str:
        """Test equality with any of these; override where the database has a faster form than OR."""
        return self.any_of([self.equals(key, value) for value in [*strings, *numbers]])

    def any_of(self, parts: list[str]) -> str:
        """Join with OR; false when there are none."""
        return "(" + " OR ".join(parts) + ")" if parts else self.false

    def all_of(self, parts: list[str]) -> str:
        """Join with AND; true when there are none."""
        return "(" + " AND ".join(parts) + ")" if parts else self.true

    def none_of(self, parts: list[str]) -> str:
        """Negate the OR of these."""
        return f"(NOT {self.any_of(parts)})"


def render(filters: MetadataFilters | None, dialect: Dialect) -> Condition:
    """Turn filters into a condition of a dialect; means what `predicate` means.

    Args:
        filters: Groups and filters, nested to any depth; None selects everything.
        dialect: A fresh instance.

    Raises:
        FilterError: A filter's value does not fit its operator.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> from llama_index_presets.filters import DuckDBDialect
        >>> named = MetadataFilters(filters=[MetadataFilter(key="it's", value="x'; DROP TABLE t")])
        >>> "DROP" in render(named, DuckDBDialect()).sql
        False
    """
    return Condition(_group(filters, dialect), dialect.parameters)


def _group(filters: MetadataFilters | None, dialect: Dialect) -> str:
    if filters is None or not filters.filters:
        return dialect.true
    parts = [
        _group(part, dialect) if isinstance(part, MetadataFilters) else _leaf(part, dialect)
        for part in filters.filters
    ]
    if filters.condition is FilterCondition.OR:
        return dialect.any_of(parts)
    if filters.condition is FilterCondition.NOT:
        return dialect.none_of(parts)
    return dialect.all_of(parts)


def _leaf(leaf: MetadataFilter, dialect: Dialect) -> str:
    check(leaf)
    key, value, operator = leaf.key, leaf.value, leaf.operator
    if operator in ORDERINGS:
        return _ordered(dialect, key, ORDERINGS[operator], value)  # type: ignore[arg-type]  # check() saw to it
    return _RENDER[operator](dialect, key, value)


def _ordered(dialect: Dialect, key: str, operator: str, value: str | int | float) -> str:
    """A string that writes a number is compared with numbers as one, and with strings as a string."""
    number = number_of(value) if isinstance(value, str) else None
    as_written = dialect.compares(key, operator, value)
    return (
        as_written
        if number is None
        else dialect.any_of([as_written, dialect.compares(key, operator, number)])
    )


def _equals(dialect: Dialect, key: str, value: Any) -> str:
    return dialect.false if value is None else dialect.equals(key, value)


def _one_of(dialect: Dialect, key: str, values: list[Any]) -> str:
    return dialect.one_of(key, *scalars(values)) if values else dialect.false


def _all(dialect: Dialect, key: str, values: list[Any]) -> str:
    # `all` of nothing asks only that the value is there.
    return dialect.all_of([dialect.present(key), *(dialect.holds(key, value) for value in values)])


_RENDER: dict[FilterOperator, Callable[[Dialect, str, Any], str]] = {
    FilterOperator.EQ: _equals,
    FilterOperator.NE: lambda dialect, key, value: dialect.none_of([_equals(dialect, key, value)]),
    FilterOperator.IN: _one_of,
    FilterOperator.NIN: lambda dialect, key, values: dialect.none_of([_one_of(dialect, key, values)]),
    FilterOperator.ANY: lambda dialect, key, values: dialect.any_of(
        [dialect.holds(key, value) for value in values]
    ),
    FilterOperator.ALL: _all,
    FilterOperator.CONTAINS: lambda dialect, key, value: dialect.holds(key, value),
    FilterOperator.TEXT_MATCH: lambda dialect, key, text: dialect.matches(key, text, fold_case=False),
    FilterOperator.TEXT_MATCH_INSENSITIVE: lambda dialect, key, text: dialect.matches(
        key, text, fold_case=True
    ),
    FilterOperator.IS_EMPTY: lambda dialect, key, value: dialect.empty(key),
}
