"""Metadata filters as Pinecone's filter objects: exact, or refused before anything is sent.

Pinecone compares numbers and asks whether a list of texts holds one of some texts; it has no NOT, no substrings
and no order of texts. Equality, membership and emptiness become questions about `labels`, and NOT is carried
down to the leaves.
"""

from __future__ import annotations

import math
from typing import Any

from llama_index_presets.errors import FilterError
from llama_index_presets.filters import Dialect
from llama_index_presets.store.labels import label

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


class PineconeDialect(Dialect):
    """Conditions as nested dictionaries instead of SQL; `render(...).sql` is one.

    Raises:
        FilterError: From ``text_match``, from order of strings, and from numbers of 2**53 and above: Pinecone
            cannot say them.
    """

    true: Any = _EVERY
    false: Any = _NONE

    def present(self, key: str) -> Any:
        """See `Dialect.present`."""
        return _labelled(label(key))

    def empty(self, key: str) -> Any:
        """See `Dialect.empty`."""
        return {"$or": [_not(self.present(key)), _labelled(label(key, ""), label(key, []))]}

    def equals(self, key: str, value: str | int | float | list[Any]) -> Any:
        """See `Dialect.equals`."""
        return _labelled(label(key, value))

    def one_of(self, key: str, strings: list[str], numbers: list[int | float]) -> Any:
        """See `Dialect.one_of`."""
        return _labelled(*(label(key, value) for value in [*strings, *numbers]))

    def compares(self, key: str, operator: str, value: str | int | float) -> Any:
        """See `Dialect.compares`."""
        if isinstance(value, str):
            raise _refused(f"{key} {operator} '{value[:40]}'", "order of strings; keep dates as numbers")
        if math.isnan(value):
            return self.false
        if abs(value) >= 2**53:
            raise _refused(f"{key} {operator} {value}", "numbers of 2**53 and above")
        return {NUMBER + key: {_OPERATORS[operator]: float(value)}}

    def holds(self, key: str, value: str | int | float) -> Any:
        """Test for an element of a list, a key of an object or, for a string, the whole string.

        The one filter that means less here: substrings of strings are not looked for.
        """
        whole = [label(key, value)] if isinstance(value, str) else []
        return _labelled(label(key, 0, value), *whole)

    def matches(self, key: str, text: str, *, fold_case: bool) -> Any:
        """Refuse: Pinecone does not look inside strings."""
        raise _refused(f"{key} text_match '{text[:40]}'", "substrings")

    def any_of(self, parts: list[Any]) -> Any:
        """See `Dialect.any_of`."""
        return {"$or": parts} if parts else self.false

    def all_of(self, parts: list[Any]) -> Any:
        """See `Dialect.all_of`."""
        return {"$and": parts} if parts else self.true

    def none_of(self, parts: list[Any]) -> Any:
        """See `Dialect.none_of`."""
        return _not(self.any_of(parts))


def _labelled(*labels: str) -> Filter:
    return {"labels": {"$in": list(labels)}}


def _not(condition: Filter) -> Filter:
    ((name, inner),) = condition.items()
    if name in ("$and", "$or"):
        return {"$or" if name == "$and" else "$and": [_not(part) for part in inner]}
    ((operator, value),) = inner.items()
    if operator == "$exists":
        return {name: {"$exists": not value}}
    opposite = {name: {_OPPOSITE[operator]: value}}
    return opposite if name == "labels" else {"$or": [opposite, {name: {"$exists": False}}]}


def _refused(asked: str, what: str) -> FilterError:
    return FilterError(
        f"Pinecone cannot filter by `{asked}`: it has no {what}. Use ==, in, contains or numbers, or a store that "
        "can, such as LanceDB or Postgres."
    )
