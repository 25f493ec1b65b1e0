"""Filters as DuckDB SQL over a JSON column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index_presets.filters.dialect import Dialect
from llama_index_presets.filters.metadata import REFERENCE_KEYS
from llama_index_presets.filters.values import NumberBounds, fold, number_bounds

__all__ = ["DuckDBDialect"]

# Beyond this no 64-bit integer of a row can lie, so a filter's integer is cut to what DuckDB can bind.
_FAR = 2**100
_BOOLEAN = "CAST({} = 'true' AS HUGEINT)"
_Test = Callable[[str], str]


class DuckDBDialect(Dialect):
    """Conditions over ``metadata JSON`` and ``ref_doc_id VARCHAR``; works in DuckDB 1.4 to 2.0.

    Integers in metadata are exact up to 64 bits, larger ones compare as floats.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pointers: dict[str, str] = {}

    def present(self, key: str) -> str:
        """See `Dialect.present`."""
        return f"coalesce(json_type({self._value(key)}) <> 'NULL', FALSE)"

    def empty(self, key: str) -> str:
        """See `Dialect.empty`."""
        value = self._value(key)
        return f"coalesce(CAST({value} AS VARCHAR) IN ('null', '\"\"', '[]'), TRUE)"

    def equals(self, key: str, value: str | int | float | list[Any]) -> str:
        """See `Dialect.equals`."""
        return _never_null(self._equals(self._value(key), value))

    def compares(self, key: str, operator: str, value: str | int | float) -> str:
        """See `Dialect.compares`."""
        return _never_null(self._compares(self._value(key), operator, value))

    def holds(self, key: str, value: str | int | float) -> str:
        """See `Dialect.holds`."""
        found = self._value(key)
        inside = f"len(list_filter(json_extract({found}, '$[*]'), lambda x: {self._equals('x', value)})) > 0"
        cases = f"WHEN 'ARRAY' THEN {inside}"
        if isinstance(value, str):
            text = self.bind(value)
            cases += f" WHEN 'VARCHAR' THEN contains(json_extract_string({found}, '$'), {text})"
            cases += f" WHEN 'OBJECT' THEN list_contains(json_keys({found}), {text})"
        return _never_null(f"CASE json_type({found}) {cases} END")

    def matches(self, key: str, text: str, *, fold_case: bool) -> str:
        """See `Dialect.matches`."""
        found = f"json_extract_string({self._value(key)}, '$')"
        if fold_case:
            # DuckDB lowers one code point at a time; these two are where Python's `lower` sees more.
            found = f"replace(lower(replace({found}, 'İ', 'i̇')), 'ς', 'σ')"
            text = fold(text)
        kind = f"json_type({self._value(key)}) = 'VARCHAR'"
        return _never_null(f"{kind} AND contains({found}, {self.bind(text)})")

    def one_of(self, key: str, strings: list[str], numbers: list[int | float]) -> str:
        """See `Dialect.one_of`; the values are bound as lists, so thousands of them are one test."""
        value = self._value(key)
        parts = []
        if strings:
            found = f"list_contains({self.bind(strings)}, json_extract_string({value}, '$'))"
            parts.append(_never_null(f"json_type({value}) = 'VARCHAR' AND {found}"))
        if numbers:
            parts.append(_never_null(self._one_number_of(value, numbers)))
        return self.any_of(parts)

    def _one_number_of(self, found: str, numbers: list[int | float]) -> str:
        bounds = [number_bounds("=", number) for number in numbers]
        integers = self.bind([_bindable(one.integer) for one in bounds if one.integer_operator])
        floats = self.bind([one.float_ for one in bounds if one.float_operator])
        return _by_number_type(
            found,
            on_float=lambda column: f"list_contains(CAST({floats} AS DOUBLE[]), {column})",
            on_integer=lambda column: f"list_contains(CAST({integers} AS HUGEINT[]), {column})",
        )

    def _value(self, key: str) -> str:
        # A JSON pointer takes any key, dots and quotes included.
        if key not in self._pointers:
            self._pointers[key] = self.bind("/" + key.replace("~", "~0").replace("/", "~1"))
        found = f"json_extract(metadata, {self._pointers[key]})"
        return f"coalesce({found}, to_json(ref_doc_id))" if key in REFERENCE_KEYS else found

    def _equals(self, found: str, value: Any) -> str:
        if not isinstance(value, list):
            return self._compares(found, "=", value)
        parts = [f"json_type({found}) = 'ARRAY'", f"json_array_length({found}) = {len(value)}"]
        parts += [self._equals(f"json_extract({found}, '$[{i}]')", one) for i, one in enumerate(value)]
        return " AND ".join(f"({part})" for part in parts)

    def _compares(self, found: str, operator: str, value: str | int | float) -> str:
        if isinstance(value, str):
            return f"json_type({found}) = 'VARCHAR' AND json_extract_string({found}, '$') {operator} {self.bind(value)}"
        bounds = number_bounds(operator, value)
        return _by_number_type(
            found, on_float=self._float_test(bounds), on_integer=self._integer_test(bounds)
        )

    def _float_test(self, bounds: NumberBounds) -> _Test:
        if not bounds.float_operator:
            return lambda column: "FALSE"
        right = self.bind(bounds.float_)
        return lambda column: f"{column} {bounds.float_operator} {right}"

    def _integer_test(self, bounds: NumberBounds) -> _Test:
        if bounds.integer_operator in ("", "*"):
            return lambda column: "TRUE" if bounds.integer_operator else "FALSE"
        right = self.bind(_bindable(bounds.integer))
        return lambda column: f"{column} {bounds.integer_operator} {right}"


def _by_number_type(found: str, *, on_float: _Test, on_integer: _Test) -> str:
    text = f"json_extract_string({found}, '$')"
    on_cast = on_integer(f"TRY_CAST({text} AS HUGEINT)")
    return (
        f"CASE json_type({found}) WHEN 'DOUBLE' THEN {on_float(f'TRY_CAST({text} AS DOUBLE)')} WHEN 'UBIGINT' THEN "
        f"{on_cast} WHEN 'BIGINT' THEN {on_cast} WHEN 'BOOLEAN' THEN {on_integer(_BOOLEAN.format(text))} END"
    )


def _bindable(number: int) -> int:
    return max(-_FAR, min(_FAR, number))


def _never_null(test: str) -> str:
    return f"coalesce({test}, FALSE)"
