"""Metadata filters as Lance SQL: exact, and mostly answered by one index whatever the keys are.

Each row carries `labels`: one text per metadata key, per value and per list item. Equality, membership and
emptiness are questions about labels, and Lance's LABEL_LIST index answers them. Order and substrings read the
`fields`
column (Lance JSON). Lance has no bound parameters, so values and keys enter the SQL through `literal`
alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from llama_index_presets.filters import Dialect
from llama_index_presets.filters.values import fold

__all__ = ["InexpressibleError", "LanceDialect", "fields_of", "labels_of", "literal", "one_of"]

LABEL_CHARACTERS = 200
"""Longer labels are stored as their BLAKE2b-128 digest, so that a long value costs 33 bytes."""

EXACT_INTEGER = 2**53
"""From here on a double cannot tell neighbouring integers apart."""

TEXT, NUMBER = "s", "n"
"""What the keys of `fields` begin with."""


class InexpressibleError(Exception):
    """Lance SQL cannot say this filter exactly: the caller evaluates the predicate instead."""


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


def labels_of(metadata: Mapping[str, Any]) -> list[str]:
    """Labels of one node's metadata: its keys, its values, and what its lists and mappings hold.

    Example:
        >>> labels_of({"lang": "en", "tags": ["a", 1.0], "none": None})
        ['["lang"]', '["lang","en"]', '["tags"]', '["tags",["a",1]]', '["tags",0,"a"]', '["tags",0,1]']
    """
    found: dict[str, None] = {}
    for key, value in metadata.items():
        if value is None:
            continue
        found[_label(key)] = None
        found[_label(key, value)] = None
        if isinstance(value, (list, Mapping)):
            found |= dict.fromkeys(_label(key, 0, item) for item in value)
    return list(found)


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
        return self._labelled(_label(key))

    def empty(self, key: str) -> str:
        """See `Dialect.empty`."""
        return f"(NOT {self.present(key)} OR {self._labelled(_label(key, ''), _label(key, []))})"

    def equals(self, key: str, value: str | int | float | list[Any]) -> str:
        """See `Dialect.equals`."""
        return self._labelled(_label(key, value))

    def one_of(self, key: str, strings: list[str], numbers: list[int | float]) -> str:
        """See `Dialect.one_of`; one look at the label index."""
        return self._labelled(*(_label(key, value) for value in [*strings, *numbers]))

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
        held = self._labelled(_label(key, 0, value))
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


def _label(key: str, *parts: Any) -> str:
    text = json.dumps(
        [key, *map(_canonical, parts)], ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    if len(text) <= LABEL_CHARACTERS:
        return text
    return "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _canonical(value: Any) -> Any:
    """One spelling for values that Python calls equal: 1, 1.0 and True."""
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, (bool, float)) and math.isfinite(value) and value == int(value):
        return int(value)
    return value
