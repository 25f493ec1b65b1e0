"""Validation of filter values against their operator, and their decomposition for the renderers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter

from llama_index_presets.errors import FilterError
from llama_index_presets.text.utf8 import has_utf8, printable
from llama_index_presets.values import map_leaves

__all__ = ["ORDERINGS", "NumberBounds", "canonical", "check", "fold", "number_bounds", "number_of", "scalars"]

ORDERINGS = {
    FilterOperator.GT: ">",
    FilterOperator.GTE: ">=",
    FilterOperator.LT: "<",
    FilterOperator.LTE: "<=",
}

_WRITTEN_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_MOST_DIGITS = 1_000

_LISTS = (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
_TEXTS = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)


def check(leaf: MetadataFilter) -> None:
    """Refuse a filter whose value is meaningless with its operator.

    Raises:
        FilterError: Names key, operator and value, and says what the operator takes.
    """
    operator, value = leaf.operator, leaf.value
    for text in (leaf.key, *(value if isinstance(value, list) else [value])):
        if isinstance(text, str) and not has_utf8(text):
            raise FilterError(
                f"The filter on '{printable(leaf.key)}' has '{printable(text)}', with a lone surrogate, which has no "
                "UTF-8 form. Nothing in a store can match it: repair the text."
            )
    if operator in _LISTS and not isinstance(value, list):
        raise _refused(leaf, "a list")
    if operator in _TEXTS and not isinstance(value, str):
        raise _refused(leaf, "a string")
    if (operator in ORDERINGS or operator is FilterOperator.CONTAINS) and not isinstance(
        value, (str, int, float)
    ):
        raise _refused(leaf, "one string or number")


def number_of(text: str) -> int | float | None:
    """The number that a string writes in digits; None for a date, a word, or anything else.

    Example:
        >>> number_of("2024"), number_of("-1.5e3"), number_of("2024-01-31"), number_of("nan")
        (2024, -1500.0, None, None)
    """
    if len(text) > _MOST_DIGITS or not _WRITTEN_NUMBER.fullmatch(text):
        return None
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _refused(leaf: MetadataFilter, expected: str) -> FilterError:
    shown = repr(leaf.value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return FilterError(
        f"The filter on '{leaf.key}' has {shown} for '{leaf.operator.value}', which takes {expected}. "
        f"Give it {expected} or choose another operator."
    )


def fold(text: str) -> str:
    """Fold case for ``text_match_insensitive``: lower case, with one small sigma.

    Example:
        >>> fold("ΟΔΟΣ")
        'οδοσ'
    """
    return text.lower().replace("ς", "σ")


@dataclass(frozen=True, slots=True)
class NumberBounds:
    """One comparison with a number, made exact for integer columns and for float columns.

    ``value <operator> number`` is, for integers, ``value <integer_operator> integer`` and, for floats,
    ``value <float_operator> float_``; neither loses a digit where a cast between the two would.

    Attributes:
        integer_operator: SQL comparison, or ``""`` where no integer can match and ``"*"`` where all do.
        integer: Its right side.
        float_operator: SQL comparison, or ``""`` where no float can match.
        float_: Its right side.
    """

    integer_operator: str
    integer: int
    float_operator: str
    float_: float


def number_bounds(operator: str, number: int | float) -> NumberBounds:
    """Split ``value <operator> number`` into its integer and its float form.

    Args:
        operator: One of ``=``, ``>``, ``>=``, ``<``, ``<=``.
        number: Any int or float; NaN matches nothing.

    Example:
        >>> number_bounds(">", 2.5)
        NumberBounds(integer_operator='>', integer=2, float_operator='>', float_=2.5)
    """
    if isinstance(number, float):
        return NumberBounds(*_for_integers(operator, number), "" if math.isnan(number) else operator, number)
    return NumberBounds(operator, int(number), *_for_floats(operator, int(number)))


def _for_integers(operator: str, number: float) -> tuple[str, int]:
    if math.isnan(number):
        return "", 0
    if math.isinf(number):
        return ("*" if (number > 0) == operator.startswith("<") and operator != "=" else ""), 0
    if operator == "=":
        return ("=", int(number)) if number.is_integer() else ("", 0)
    rounded = math.floor(number) if operator in (">", "<=") else math.ceil(number)
    return operator, rounded


def _for_floats(operator: str, number: int) -> tuple[str, float]:
    try:
        nearest = float(number)
    except OverflowError:
        nearest = math.inf if number > 0 else -math.inf
    if nearest == number:
        return operator, nearest
    if operator == "=":
        return "", 0.0
    # No float lies between `number` and `nearest`, so only the strictness can change.
    above = nearest > number
    return {True: {">": ">=", "<=": "<"}, False: {">=": ">", "<": "<="}}[above].get(
        operator, operator
    ), nearest


def scalars(values: list[Any]) -> tuple[list[str], list[int | float]]:
    """Split a list of filter values into its strings and its numbers, without repeats, in order."""
    strings = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    numbers = list(dict.fromkeys(value for value in values if isinstance(value, (int, float))))
    return strings, numbers


def canonical(value: Any) -> Any:
    """One spelling for values that Python calls equal: 1, 1.0 and True."""
    return map_leaves(value, _whole_number)


def _whole_number(value: Any) -> Any:
    if isinstance(value, (bool, float)) and math.isfinite(value) and value == int(value):
        return int(value)
    return value
