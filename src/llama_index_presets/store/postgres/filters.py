"""Filters as SQL over a JSONB column, exact, with every value and key bound."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from llama_index_presets.filters import Dialect
from llama_index_presets.filters.values import canonical, fold

__all__ = ["PostgresDialect", "fields_of", "folded_of", "unstorable"]


def fields_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as the column `fields` keeps it: null values left out, values that Python calls equal spelt alike.

    Example:
        >>> fields_of({"page": 1.0, "draft": True, "none": None})
        {'page': 1, 'draft': 1}
    """
    return {key: canonical(value) for key, value in metadata.items() if value is not None}


def folded_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Strings of the metadata that change when their case is folded, folded as Python folds them."""
    return {
        key: fold(value) for key, value in metadata.items() if isinstance(value, str) and fold(value) != value
    }


class PostgresDialect(Dialect):
    """Conditions over the columns `fields` and `folded`; placeholders are psycopg2's.

    Equality with one value and membership in a list are containment (``@>``), which the GIN index answers.
    """

    def placeholder(self, name: str) -> str:
        """Spell a named parameter for psycopg2."""
        return f"%({name})s"

    def present(self, key: str) -> str:
        """See `Dialect.present`."""
        return f"jsonb_exists(fields, {self._text(key)})"

    def empty(self, key: str) -> str:
        """See `Dialect.empty`."""
        return f"(coalesce({self._value(key)}, 'null') IN ('null', '\"\"', '[]'))"

    def equals(self, key: str, value: str | int | float | list[Any]) -> str:
        """See `Dialect.equals`."""
        if unstorable({key: value}):
            return self.false
        if isinstance(value, list):
            return f"coalesce({self._value(key)} = {self._json(value)}, FALSE)"
        return f"(fields @> {self._json({key: value})})"

    def one_of(self, key: str, strings: list[str], numbers: list[int | float]) -> str:
        """See `Dialect.one_of`; one parameter for the whole list."""
        wanted = [value for value in [*strings, *numbers] if not unstorable(value)]
        listed = f"jsonb_array_elements({self._json(wanted)})"
        return f"coalesce({self._value(key)} IN (SELECT {listed}), FALSE)"

    def compares(self, key: str, operator: str, value: str | int | float) -> str:
        """See `Dialect.compares`."""
        found = self._value(key)
        if isinstance(value, str):
            if "\0" in value:  # No stored string has one, so it only decides on the prefix before it.
                value, operator = value.split("\0")[0], {">": ">", ">=": ">", "<": "<=", "<=": "<="}[operator]
            test = f"({found} #>> '{{}}') COLLATE \"C\" {operator} {self._text(value)}"
            return f"(CASE jsonb_typeof({found}) WHEN 'string' THEN {test} ELSE FALSE END)"
        if math.isnan(value):
            return self.false
        number = self.bind(repr(canonical(value)).replace("inf", "Infinity"))
        test = f"({found} #>> '{{}}')::numeric {operator} {number}::numeric"
        return f"(CASE jsonb_typeof({found}) WHEN 'number' THEN {test} ELSE FALSE END)"

    def holds(self, key: str, value: str | int | float) -> str:
        """See `Dialect.holds`."""
        if unstorable({key: value}):
            return self.false
        held = f"(fields @> {self._json({key: [value]})})"
        if not isinstance(value, str):
            return held
        found = self._value(key)
        named = f"coalesce(jsonb_typeof({found}) = 'object' AND jsonb_exists({found}, {self._text(value)}), FALSE)"
        return self.any_of([held, named, self.matches(key, value, fold_case=False)])

    def matches(self, key: str, text: str, *, fold_case: bool) -> str:
        """See `Dialect.matches`."""
        if unstorable(text):
            return self.false
        found = f"{self._value(key)} #>> '{{}}'"
        if fold_case:
            found, text = f"coalesce(folded ->> {self._text(key)}, {found})", fold(text)
        test = f"strpos({found}, {self._text(text)}) > 0"
        return f"(CASE jsonb_typeof({self._value(key)}) WHEN 'string' THEN {test} ELSE FALSE END)"

    def _value(self, key: str) -> str:
        return f"(fields -> {self._text(key)})"

    def _text(self, text: str) -> str:
        """Bind a string; one that Postgres cannot hold becomes one that no row has."""
        return f"{self.bind(_NOWHERE if unstorable(text) else text)}::text"

    def _json(self, value: Any) -> str:
        return f"{self.bind(json.dumps(canonical(value), ensure_ascii=False))}::jsonb"


_NOWHERE = "\U0010fffe llama-index-presets: no such key \U0010fffe"


def unstorable(value: Any) -> bool:
    """Whether a value has a character that Postgres cannot store, or a number that JSON cannot: no row has it."""
    if isinstance(value, str):
        return "\0" in value or any("\ud800" <= one <= "\udfff" for one in value)
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(unstorable(key) or unstorable(one) for key, one in value.items())
    return isinstance(value, list) and any(map(unstorable, value))
