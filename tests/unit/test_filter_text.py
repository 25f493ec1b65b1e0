"""Filters written on a command line."""

from __future__ import annotations

import pytest
from llama_index.core.vector_stores.types import FilterOperator

from llama_index_presets.errors import FilterError
from llama_index_presets.filters.text import parse_filter, parse_filters, parse_metadata


@pytest.mark.parametrize(
    ("text", "key", "operator", "value"),
    [
        ("department=hr", "department", FilterOperator.EQ, "hr"),
        ("department == human resources", "department", FilterOperator.EQ, "human resources"),
        ("year>=2020", "year", FilterOperator.GTE, 2020),
        ("score < 0.5", "score", FilterOperator.LT, 0.5),
        ('code="007"', "code", FilterOperator.EQ, "007"),
        ("url=https://a.b/?x=1", "url", FilterOperator.EQ, "https://a.b/?x=1"),
        ("department in hr, legal", "department", FilterOperator.IN, ["hr", "legal"]),
        ("year not in 2019,2020", "year", FilterOperator.NIN, [2019, 2020]),
        ("groups any hr,all", "groups", FilterOperator.ANY, ["hr", "all"]),
        ("authors contains Ada Lovelace", "authors", FilterOperator.CONTAINS, "Ada Lovelace"),
        ("in=1", "in", FilterOperator.EQ, 1),
    ],
)
def test_a_condition_is_read(text: str, key: str, operator: FilterOperator, value: object) -> None:
    """Key, operator, typed value."""
    found = parse_filter(text)
    assert (found.key, found.operator, found.value) == (key, operator, value)


@pytest.mark.parametrize("text", ["", "department", "=hr", "department=", "a ~ b"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    """With what was expected."""
    with pytest.raises(FilterError, match="is no filter. Expected KEY=VALUE"):
        parse_filter(text)


def test_many_must_all_hold_and_none_is_none() -> None:
    """As `build(filters=…)` takes them; metadata is read the same way."""
    found = parse_filters(["a=1", "b!=2"])
    assert found is not None and len(found.filters) == 2 and parse_filters([]) is None
    assert parse_metadata(["a=1", "b=x=y"]) == {"a": 1, "b": "x=y"}
    with pytest.raises(FilterError, match="'a' is no metadata"):
        parse_metadata(["a"])
