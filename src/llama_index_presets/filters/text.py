"""Filters and metadata in text form: ``department=hr``, ``year>=2020``, ``groups any hr,all``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from llama_index_presets.errors import FilterError

__all__ = ["parse_filter", "parse_filters", "parse_metadata"]

Scalar = str | int | float

_SIGNS: Final = {
    "==": FilterOperator.EQ, "=": FilterOperator.EQ, "!=": FilterOperator.NE, ">=": FilterOperator.GTE,
    "<=": FilterOperator.LTE, ">": FilterOperator.GT, "<": FilterOperator.LT,
}  # fmt: skip
_WORDS: Final = {
    "not in": FilterOperator.NIN, "in": FilterOperator.IN, "any": FilterOperator.ANY, "all": FilterOperator.ALL,
    "contains": FilterOperator.CONTAINS,
}  # fmt: skip
_LISTS: Final = {FilterOperator.NIN, FilterOperator.IN, FilterOperator.ANY, FilterOperator.ALL}
_PATTERN: Final = re.compile(
    r"\A\s*(?P<key>[^\s=!<>]+)\s*(?:(?P<sign>==|=|!=|>=|<=|>|<)|\s(?P<word>not\s+in|in|any|all|contains)\s)\s*(?P<value>.+?)\s*\Z",
    re.DOTALL,
)
_EXPECTED: Final = (
    "Expected KEY=VALUE; also !=, >, >=, <, <=, 'KEY in A,B', 'KEY not in A,B', 'KEY any A,B', "
    "'KEY contains A'."
)


def parse_filter(text: str) -> MetadataFilter:
    """Read one condition.

    A value that looks like a number is one; in quotation marks it is text. ``in`` and ``not in`` take values between
    commas; so do ``any`` and ``all``, which look into metadata that is a list.

    Raises:
        FilterError: It is no condition.

    Example:
        >>> found = parse_filter("year>=2020")
        >>> found.key, found.operator.value, found.value
        ('year', '>=', 2020)
        >>> parse_filter("groups any hr,all").value, parse_filter('code="007"').value
        (['hr', 'all'], '007')
    """
    found = _PATTERN.match(text)
    if not found:
        raise FilterError(f"'{text}' is no filter. {_EXPECTED}")
    operator = _SIGNS[found["sign"]] if found["sign"] else _WORDS[" ".join(found["word"].split())]
    value = found["value"]
    if operator in _LISTS:
        values = [_scalar(part.strip()) for part in value.split(",") if part.strip()]
        return MetadataFilter(key=found["key"], operator=operator, value=values)  # type: ignore[arg-type]
    return MetadataFilter(key=found["key"], operator=operator, value=_scalar(value))


def parse_filters(texts: Sequence[str]) -> MetadataFilters | None:
    """Read conditions that must all hold; None when there are none."""
    return MetadataFilters(filters=[parse_filter(text) for text in texts]) if texts else None


def parse_metadata(texts: Sequence[str]) -> dict[str, Scalar]:
    """Read ``KEY=VALUE`` pairs.

    Raises:
        FilterError: One of them is none.

    Example:
        >>> parse_metadata(["department=hr", "year=2024"])
        {'department': 'hr', 'year': 2024}
    """
    pairs = [text.partition("=") for text in texts]
    wrong = [
        text
        for text, (key, sign, value) in zip(texts, pairs, strict=True)
        if not (key.strip() and sign and value.strip())
    ]
    if wrong:
        raise FilterError(f"'{wrong[0]}' is no metadata. Expected KEY=VALUE.")
    return {key.strip(): _scalar(value.strip()) for key, _, value in pairs}


def _scalar(text: str) -> Scalar:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+)", text):
        return float(text)
    return text
