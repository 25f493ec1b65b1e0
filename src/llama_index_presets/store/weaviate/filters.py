"""Filters as Weaviate's filter objects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Set
from typing import Any

from weaviate.classes.query import Filter

from llama_index_presets.store.index_terms import LabelDialect

__all__ = ["EVERY", "WeaviateDialect", "number_property"]

EVERY = "*"
"""Label of every object."""

_NOBODY = "-"
"""Label of none: metadata labels begin with ``[`` or ``#``."""

_METHODS = {">": "greater_than", ">=": "greater_or_equal", "<": "less_than", "<=": "less_or_equal"}


def number_property(key: str) -> str:
    """Name the property that holds the numbers of a metadata key: letters, digits and ``_`` only.

    Example:
        >>> number_property("year"), number_property("a.b")
        ('number_year', 'coded_612e62')
    """
    if re.fullmatch(r"[A-Za-z0-9_]{1,100}", key):
        return f"number_{key}"
    coded = key.encode("utf-8", "surrogatepass").hex()
    if len(coded) <= 200:
        return f"coded_{coded}"
    return "digest_" + hashlib.blake2b(coded.encode(), digest_size=16).hexdigest()


class WeaviateDialect(LabelDialect):
    """Conditions as objects of ``weaviate.classes.query.Filter``. Negation needs Weaviate 1.33.

    Args:
        properties: Names of the collection's properties: Weaviate refuses to compare one that is not there.
    """

    service = "Weaviate"
    true: Any = Filter.by_property("labels").contains_any([EVERY])
    false: Any = Filter.by_property("labels").contains_any([_NOBODY])

    def __init__(self, properties: Set[str] = frozenset()) -> None:
        super().__init__()
        self._properties = properties

    def labelled(self, *labels: str) -> Any:
        """See `LabelDialect.labelled`."""
        return Filter.by_property("labels").contains_any(list(labels))

    def numbered(self, key: str, operator: str, number: float) -> Any:
        """See `LabelDialect.numbered`."""
        name = number_property(key)
        if name not in self._properties:
            return self.false
        return getattr(Filter.by_property(name), _METHODS[operator])(number)

    def any_of(self, parts: list[Any]) -> Any:
        """See `Dialect.any_of`."""
        return (Filter.any_of(parts) if len(parts) > 1 else parts[0]) if parts else self.false

    def all_of(self, parts: list[Any]) -> Any:
        """See `Dialect.all_of`."""
        return (Filter.all_of(parts) if len(parts) > 1 else parts[0]) if parts else self.true

    def none_of(self, parts: list[Any]) -> Any:
        """See `Dialect.none_of`."""
        return Filter.not_(self.any_of(parts))
