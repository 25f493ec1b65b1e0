"""Filters as Lance SQL: exact, and mostly answered by one index for any key.

Each row carries `labels`: one text per metadata key, per value and per list item. Equality, membership and
emptiness are questions about labels, and Lance's LABEL_LIST index answers them. Order and substrings read the
`fields`
column (Lance JSON). Lance has no bound parameters, so values and keys enter the SQL through `literal`
alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from llama_index_presets.filters import Dialect
from llama_index_presets.filters.values import fold
from llama_index_presets.store.index_terms import label

__all__ = ["READS_ROWS", "InexpressibleError", "LanceDialect", "fields_of", "literal", "one_of"]

EXACT_INTEGER = 2**53
"""From here on a double cannot tell neighbouring integers apart."""

READS_ROWS = "json_get_"
"""In the SQL of conditions that no index answers."""

TEXT, NUMBER = "s", "n"
"""What the keys of `fields` begin with."""


class InexpressibleError(Exception):
    """Lance SQL cannot express this filter exactly: the caller evaluates the predicate instead."""


def literal(text: str) -> str:
    """Quote text as a Lance (DataFusion) string literal: a quote is doubled, nothing else is special.

    Raises:
        InexpressibleError: The text has no UTF-8 form (a lone surrogate).

    Example:
        >>> literal("it's")
        "'it''s'"
    """
    if not _has_utf8(text):
        raise InexpressibleError
    return "'" + text.replace("'", "''") + "'"


def one_of(column: str, values: Iterable[str]) -> str:
    """SQL for ``column IN (values)``; no value means no row, and a value without a UTF-8 form is in no row.

    Example:
        >>> one_of("id", ["a", "b"])
        "id IN ('a','b')"
    """
    listed = ",".join(literal(value) for value in values if _has_utf8(value))
    return f"{column} IN ({listed})" if listed else "false"


def _has_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def fields_of(metadata: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Strings and numbers of one node's metadata under keys that tell their type: Lance reads JSON by type.

    Example:
        >>> fields_of({"lang": "en", "page": 3, "draft": True, "tags": ["a"]})
        {'slang': 'en', 'npage': 3, 'ndraft': 1}
    """
    fields: dict[str, str | int | float] = {}
    for key, value in metadata.items():
        if isinstance(value, str):
            fields[TEXT + key] = value
        elif isinstance(value, (int, float)):
            fields[NUMBER + key] = int(value) if isinstance(value, bool) else value
    return fields


class LanceDialect(Dialect):
    """Conditions over the columns `labels` and `fields` of a table of `LanceDBVectorStore`."""

    true = "true"
    false = "false"

    def bind(self, value: Any) -> str:
        """Quote a string; Lance has no parameters."""
        return literal(value)

    def present(self, key: str) -> str:
        """See `Dialect.present`."""
        return self._labelled(label(key))

    def empty(self, key: str) -> str:
        """See `Dialect.empty`."""
        return f"(NOT {self.present(key)} OR {self._labelled(label(key, ''), label(key, []))})"

    def equals(self, key: str, value: str | int | float | list[Any]) -> str:
        """See `Dialect.equals`."""
        return self._labelled(label(key, value))

    def one_of(self, key: str, strings: list[str], numbers: list[int | float]) -> str:
        """See `Dialect.one_of`; one look at the label index."""
        return self._labelled(*(label(key, value) for value in [*strings, *numbers]))

    def compares(self, key: str, operator: str, value: str | int | float) -> str:
        """See `Dialect.compares`."""
        if isinstance(value, str):
            return f"coalesce({self._text(key)} {operator} {self.bind(value)}, false)"
        if math.isnan(value):
            return self.false
        if abs(value) >= EXACT_INTEGER:
            raise InexpressibleError
        number = f"json_get_float(fields, {self.bind(NUMBER + key)})"
        return f"coalesce({number} {operator} {float(value)!r}, false)"

    def holds(self, key: str, value: str | int | float) -> str:
        """See `Dialect.holds`."""
        held = self._labelled(label(key, 0, value))
        if not isinstance(value, str):
            return held
        return self.any_of([held, self.matches(key, value, fold_case=False)])

    def matches(self, key: str, text: str, *, fold_case: bool) -> str:
        """See `Dialect.matches`."""
        found = self._text(key)
        if fold_case:
            found, text = f"replace(lower({found}), 'ς', 'σ')", fold(text)
        return f"coalesce(contains({found}, {self.bind(text)}), false)"

    def _labelled(self, *labels: str) -> str:
        """Test that the row carries one of these labels; never NULL, as the column never is."""
        return f"array_has_any(labels, [{','.join(map(self.bind, labels))}])"

    def _text(self, key: str) -> str:
        """Give the value if it is a string, else NULL."""
        return f"json_get_string(fields, {self.bind(TEXT + key)})"
