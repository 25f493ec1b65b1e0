"""Metadata filters read from a question by rules: "in 2023", "by Smith"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from llama_index_presets.filters.values import fold

__all__ = ["question_filters", "states_conditions"]

AUTHOR_KEYS: Final = ("authors", "author")
YEAR_KEY: Final = "year"

_YEAR: Final = r"((?:19|20)\d\d)"
_BETWEEN: Final = re.compile(
    rf"\b(?:between|from)\s+{_YEAR}\s+(?:and|to|until|through)\s+{_YEAR}\b|\b{_YEAR}\s*[-–]\s*{_YEAR}\b",
    re.IGNORECASE,
)
_SINCE: Final = re.compile(rf"\b(since|after)\s+{_YEAR}\b", re.IGNORECASE)
_UNTIL: Final = re.compile(rf"\b(before|until|up to)\s+{_YEAR}\b", re.IGNORECASE)
_IN: Final = re.compile(rf"\b(?:in|of|from|during)\s+{_YEAR}\b", re.IGNORECASE)
_BY: Final = re.compile(
    r"\b(?:(?:written|published|authored)\s+)?[Bb]y\s+((?:(?:Dr|Prof|Mr|Ms|Mrs)\.?\s+)?[^\W\d_a-zß-ÿ][\w'’.-]*"
    r"(?:\s+(?:and\s+|&\s+|(?:van|von|de|der|den|la|le|el|al)\s+)*[^\W\d_a-zß-ÿ][\w'’.-]*)*)"
)


def states_conditions(question: str) -> bool:
    """Whether a question has words that could be filters; tells before any metadata is read."""
    return bool(_years(question) or _names(question))


def question_filters(question: str, nodes: Iterable[Mapping[str, Any]]) -> MetadataFilters | None:
    """Filters that a question states, as far as the metadata of some node can satisfy them.

    | in the question | filter |
    |---|---|
    | in 2023, of 2023, from 2023, during 2023 | ``year`` is 2023 |
    | since 2020, after 2020 | ``year`` >= 2020, > 2020 |
    | before 2020, until 2020 | ``year`` < 2020, <= 2020 |
    | between 2019 and 2021, 2019-2021 | 2019 <= ``year`` <= 2021 |
    | by Smith, written by J. Smith | ``authors`` (or ``author``) holds one whose last name is Smith |

    A condition that no node satisfies is left out, since then the words meant something else ("by Monday"), and so is
    one that together with the others leaves no node.

    Args:
        question: In English.
        nodes: Metadata of the nodes.

    Returns:
        Filters, all of which must hold; None where the question states none.

    Example:
        >>> nodes = [{"year": 2023, "authors": ["J. Smith"]}, {"year": 2021, "authors": ["A. Noether"]}]
        >>> [(one.key, one.value) for one in question_filters("What did they find in 2023?", nodes).filters]
        [('year', 2023)]
        >>> question_filters("What is due in 2024?", nodes) is None
        True
    """
    years, names = _years(question), _names(question)
    if not years and not names:
        return None
    known = list(nodes)
    found: list[MetadataFilter | MetadataFilters] = []
    for test, filters in [*_year_conditions(years), *_author_conditions(names, known)]:
        left = [metadata for metadata in known if test(metadata)]
        if left:
            known, found = left, [*found, *filters]
    return MetadataFilters(filters=found, condition=FilterCondition.AND) if found else None


def _years(question: str) -> list[tuple[FilterOperator, int]]:
    if between := _BETWEEN.search(question):
        first, last = sorted(int(one) for one in between.groups() if one)
        return [(FilterOperator.GTE, first), (FilterOperator.LTE, last)]
    conditions: list[tuple[FilterOperator, int]] = []
    if since := _SINCE.search(question):
        strict = since[1].lower() == "after"
        conditions.append((FilterOperator.GT if strict else FilterOperator.GTE, int(since[2])))
    if until := _UNTIL.search(question):
        strict = until[1].lower() == "before"
        conditions.append((FilterOperator.LT if strict else FilterOperator.LTE, int(until[2])))
    stated = _IN.findall(question)
    if not conditions and len(set(stated)) == 1:  # two years are a comparison
        conditions.append((FilterOperator.EQ, int(stated[0])))
    return conditions


def _names(question: str) -> list[str]:
    """Last names behind "by"."""
    found = []
    for group in _BY.findall(question):
        for name in re.split(r"\s+(?:and|&)\s+", group):
            words = [word for word in re.findall(r"[\w'’-]+", name) if len(word) > 1]
            if words:
                found.append(fold(words[-1].removesuffix("'s").removesuffix("’s")))
    return found


_COMPARE: Final = {
    FilterOperator.EQ: lambda a, b: a == b,
    FilterOperator.GT: lambda a, b: a > b,
    FilterOperator.GTE: lambda a, b: a >= b,
    FilterOperator.LT: lambda a, b: a < b,
    FilterOperator.LTE: lambda a, b: a <= b,
}


def _year_conditions(years: Sequence[tuple[FilterOperator, int]]) -> list[tuple[Any, list[Any]]]:
    if not years:
        return []

    def test(metadata: Mapping[str, Any]) -> bool:
        year = metadata.get(YEAR_KEY)
        return isinstance(year, int) and all(_COMPARE[operator](year, value) for operator, value in years)

    filters = [MetadataFilter(key=YEAR_KEY, value=value, operator=operator) for operator, value in years]
    return [(test, filters)]


def _author_conditions(
    names: Sequence[str], nodes: Sequence[Mapping[str, Any]]
) -> list[tuple[Any, list[Any]]]:
    """One condition a name: any of the spellings under which the nodes have it."""
    conditions: list[tuple[Any, list[Any]]] = []
    for name in names:
        spellings = sorted(
            {
                (key, author)
                for metadata in nodes
                for key in AUTHOR_KEYS
                for author in _listed(metadata.get(key))
                if name in _last_names(author)
            }
        )
        if not spellings:
            continue
        any_of = MetadataFilters(
            filters=[_has(key, author, nodes) for key, author in spellings], condition=FilterCondition.OR
        )
        conditions.append(
            (
                lambda metadata, spellings=spellings: any(
                    author in _listed(metadata.get(key)) for key, author in spellings
                ),
                [any_of],
            )
        )
    return conditions


def _has(key: str, author: str, nodes: Sequence[Mapping[str, Any]]) -> MetadataFilter:
    lists = any(isinstance(metadata.get(key), list) for metadata in nodes)
    return MetadataFilter(
        key=key, value=author, operator=FilterOperator.CONTAINS if lists else FilterOperator.EQ
    )


def _last_names(author: str) -> set[str]:
    """Last word of "Jane Smith", and what stands before the comma of "Smith, J."."""
    before = author.split(",")[0] if "," in author else author
    words = re.findall(r"[\w'’-]+", before)
    return {fold(words[-1])} if words else set()


def _listed(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]
