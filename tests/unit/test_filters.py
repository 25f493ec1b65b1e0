"""One meaning of filters: core's where core has one, the predicate's, and DuckDB's."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from llama_index_presets.errors import FilterError
from llama_index_presets.filters import DuckDBDialect, filterable_metadata, predicate, render

LISTS = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}
TEXTS = {FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE}
HOSTILE = [
    "'",
    '"',
    ";",
    "$",
    ":",
    "\\",
    "%",
    "_",
    "--",
    "/",
    "~",
    "a.b",
    "it's",
    "$f0",
    "x'; DROP TABLE t; --",
    "\x00",
]

numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(-3, 3).map(lambda x: round(x, 1)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**53, 2**53 + 1, float(2**53), -(2**53) - 1]),
)
strings = st.one_of(
    st.sampled_from(["", "a", "A", "ab", "2024-01-31", "2024-02", "true", "1", "null", "İ", "i̇", *HOSTILE]),
    # Sigma has its own test: core lowers it by its place in the word.
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="Σς"), max_size=4),
)
keys = st.sampled_from(["k", "a.b", "it's", '"', "", "/", "~1", "$.k", "0", "ß"])
scalar = st.one_of(st.none(), st.booleans(), numbers, strings)
values = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=2),
    max_leaves=4,
)
metadatas = st.dictionaries(keys, values, max_size=4)
string_lists, number_lists = st.lists(strings, max_size=3), st.lists(numbers, max_size=3)


@st.composite
def leaves(draw: st.DrawFn) -> MetadataFilter:
    operator = draw(st.sampled_from(FilterOperator))
    if operator in LISTS:
        value = draw(
            string_lists | st.lists(st.integers(-3, 3), max_size=3) | st.lists(st.floats(-3, 3), max_size=3)
        )
    elif operator in TEXTS:
        value = draw(strings)
    elif operator in (FilterOperator.EQ, FilterOperator.NE):
        value = draw(st.none() | numbers | strings | string_lists)
    else:
        value = draw(numbers | strings)
    return MetadataFilter(key=draw(keys), value=value, operator=operator)


conditions = st.sampled_from([*FilterCondition, None])
groups = st.builds(MetadataFilters, filters=st.lists(leaves(), max_size=3), condition=conditions)
trees = st.recursive(
    groups,
    lambda inner: st.builds(
        MetadataFilters, filters=st.lists(leaves() | inner, min_size=1, max_size=3), condition=conditions
    ),
    max_leaves=4,
)


def one(key: str, operator: str, value: Any = None) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def selected(
    database: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], filters: MetadataFilters
) -> list[int]:
    condition = render(filters, DuckDBDialect())
    rows_sql = "SELECT unnest($rows) AS n, CAST(unnest($metadata) AS JSON) AS metadata, NULL AS ref_doc_id"
    found = database.execute(
        f"SELECT n FROM ({rows_sql}) WHERE {condition.sql} ORDER BY n",
        {
            "rows": list(range(len(rows))),
            "metadata": [json.dumps(row) for row in rows],
            **condition.parameters,
        },
    )
    return [n for (n,) in found.fetchall()]


EXAMPLES = [
    pytest.param(50, id="few"),
    pytest.param(
        400, id="many", marks=pytest.mark.slow("a minute of examples, of which fifty run in make test")
    ),
]


@pytest.mark.parametrize("examples", EXAMPLES)
def test_sql_and_predicate_select_the_same_rows(database: duckdb.DuckDBPyConnection, examples: int) -> None:
    """The SQL that DuckDB runs means what the predicate means, for any tree over any metadata."""

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(rows=st.lists(metadatas, min_size=1, max_size=4), filters=trees)
    def same_rows(rows: list[dict[str, Any]], filters: MetadataFilters) -> None:
        accepts = predicate(filters)
        assert selected(database, rows, filters) == [n for n, row in enumerate(rows) if accepts(row)]

    same_rows()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_predicate_is_core_where_core_has_an_answer(examples: int) -> None:
    """Core's own filter function is the reference wherever it neither raises nor is asked to nest."""
    settings(max_examples=examples)(given(metadata=metadatas, filters=groups)(_predicate_is_core))()


def _predicate_is_core(metadata: dict[str, Any], filters: MetadataFilters) -> None:
    try:
        expected = build_metadata_filter_fn(lambda _: metadata, filters)("n")
    except TypeError:
        return
    assert predicate(filters)(metadata) == expected


@pytest.mark.parametrize("hostile", [*HOSTILE, "x" * 10_000, "'" * 10_000])
@pytest.mark.parametrize("operator", ["==", "text_match", "text_match_insensitive", "contains", "any", "in"])
def test_hostile_values_and_keys_only_ever_match_themselves(
    database: duckdb.DuckDBPyConnection, hostile: str, operator: str
) -> None:
    """Quotes, wildcards, markers and long strings are data in the key and in the value."""
    value = [hostile] if operator in ("any", "in") else hostile
    rows = [{hostile: hostile}, {"key": "nothing"}, {hostile: "other!"}]
    assert selected(database, rows, one(hostile, operator, value)) == [0]


def test_a_thousand_values_are_one_test(database: duckdb.DuckDBPyConnection) -> None:
    """A long `in` list neither grows the SQL nor hits a depth limit."""
    rows = [{"k": 4999}, {"k": 4999.5}, {"k": "s4999"}, {"k": -1}]
    assert selected(database, rows, one("k", "in", list(range(5000)))) == [0]
    assert selected(database, rows, one("k", "nin", [f"s{n}" for n in range(5000)])) == [0, 1, 3]
    assert len(render(one("k", "in", list(range(5000))), DuckDBDialect()).sql) < 1000


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("in", "abc", "a list"),
        ("nin", 1, "a list"),
        ("any", "abc", "a list"),
        ("all", None, "a list"),
        (">", ["a"], "one string or number"),
        ("<=", None, "one string or number"),
        ("contains", ["a"], "one string or number"),
        ("text_match", 5, "a string"),
        ("text_match_insensitive", None, "a string"),
    ],
)
def test_a_filter_that_cannot_mean_anything_is_refused_at_once(
    operator: str, value: Any, expected: str
) -> None:
    """The value is checked against the operator before any row is looked at."""
    with pytest.raises(FilterError, match=f"filter on 'k' has .* for '{operator}', which takes {expected}"):
        predicate(one("k", operator, value))
    with pytest.raises(FilterError, match=f"takes {expected}"):
        render(one("k", operator, value), DuckDBDialect())


def test_the_two_small_sigmas_are_one_letter(database: duckdb.DuckDBPyConnection) -> None:
    """Core lowers Σ by its place in the word and so misses it in the middle of a phrase."""
    rows = [{"k": "ΟΔΟΣ 5"}, {"k": "οδος"}, {"k": "x"}]
    wanted = one("k", "text_match_insensitive", "ΟΔΟΣ")
    assert selected(database, rows, wanted) == [0, 1]
    assert [predicate(wanted)(row) for row in rows] == [True, True, False]


def test_the_source_document_can_be_filtered_unless_the_metadata_has_the_key() -> None:
    """`ref_doc_id`, `doc_id` and `document_id` stand for the source, a key of the user's own wins."""
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d1")}
    node = TextNode(text="a", metadata={"doc_id": "mine"}, relationships=source)
    assert filterable_metadata(node) == {"doc_id": "mine", "ref_doc_id": "d1", "document_id": "d1"}


@pytest.mark.parametrize("nothing", [None, MetadataFilters(filters=[], condition="not")])
def test_no_filter_selects_everything(
    database: duckdb.DuckDBPyConnection, nothing: MetadataFilters | None
) -> None:
    """None and an empty group, even a negated one, select all rows."""
    assert predicate(nothing)({}) is True
    assert selected(database, [{}, {"k": 1}], nothing or MetadataFilters(filters=[])) == [0, 1]


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        (">", "1", [2, 2.5, "2", "10", "x"]),
        (">=", "1", [1, 2, 2.5, "2", "10", "x"]),
        ("<", "2.0", [1, "2", "10"]),
        ("<=", "2", [1, 2, "2", "10"]),
        (">", "1e0", [2, 2.5, "2", "x"]),
        (">", "abc", ["x"]),
        ("<", "2024-01-31", ["2", "10"]),
    ],
)
def test_a_string_that_writes_a_number_is_compared_with_numbers_as_one(
    operator: str, value: str, expected: list[Any], database: duckdb.DuckDBPyConnection
) -> None:
    """A form hands on "1" for 1: numbers are ordered as numbers, strings still as strings, words match no number."""
    rows = [{"n": n} for n in (1, 2, 2.5, "2", "10", "x", None)]
    wanted = one("n", operator, value)
    assert [row["n"] for row in rows if predicate(wanted)(row)] == expected
    assert [rows[place]["n"] for place in selected(database, rows, wanted)] == expected
