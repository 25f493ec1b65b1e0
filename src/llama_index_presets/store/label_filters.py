"""Metadata filters for managed services: exact by labels and numbers, or refused before anything is sent.

Services compare numbers and ask whether a list of texts holds one of some texts; they have no substrings and no order
of texts. Equality, membership and emptiness become questions about `labels`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

from llama_index_presets.errors import FilterError
from llama_index_presets.filters import Dialect
from llama_index_presets.store.labels import label

__all__ = ["LabelDialect"]


class LabelDialect(Dialect):
    """Conditions as a service's own filter objects instead of SQL; `render(...).sql` is one.

    Raises:
        FilterError: From ``text_match``, from order of strings, and from order against numbers of 2**53 and above:
            the service cannot say them.
    """

    service: ClassVar[str]
    """What errors call the service."""

    true: Any
    false: Any

    @abstractmethod
    def labelled(self, *labels: str) -> Any:
        """Test that the record has one of these labels."""

    @abstractmethod
    def numbered(self, key: str, operator: str, number: float) -> Any:
        """Test ``number under the key <operator> number``, for ``>``, ``>=``, ``<``, ``<=``."""

    def present(self, key: str) -> Any:
        """See `Dialect.present`."""
        return self.labelled(label(key))

    def empty(self, key: str) -> Any:
        """See `Dialect.empty`."""
        return self.any_of([self.none_of([self.present(key)]), self.labelled(label(key, ""), label(key, []))])

    def equals(self, key: str, value: str | int | float | list[Any]) -> Any:
        """See `Dialect.equals`."""
        return self.labelled(label(key, value))

    def one_of(self, key: str, strings: list[str], numbers: list[int | float]) -> Any:
        """See `Dialect.one_of`."""
        return self.labelled(*(label(key, value) for value in [*strings, *numbers]))

    def compares(self, key: str, operator: str, value: str | int | float) -> Any:
        """See `Dialect.compares`."""
        if isinstance(value, str):
            raise self._refused(f"{key} {operator} '{value[:40]}'", "order of strings; keep dates as numbers")
        if math.isnan(value):
            return self.false
        if abs(value) >= 2**53:
            raise self._refused(f"{key} {operator} {value}", "numbers of 2**53 and above")
        return self.numbered(key, operator, float(value))

    def holds(self, key: str, value: str | int | float) -> Any:
        """Test for an element of a list, a key of an object or, for a string, the whole string.

        The one filter that means less here: substrings of strings are not looked for.
        """
        whole = [label(key, value)] if isinstance(value, str) else []
        return self.labelled(label(key, 0, value), *whole)

    def matches(self, key: str, text: str, *, fold_case: bool) -> Any:
        """Refuse: the service does not look inside strings."""
        raise self._refused(f"{key} text_match '{text[:40]}'", "substrings")

    def _refused(self, asked: str, what: str) -> FilterError:
        return FilterError(
            f"{self.service} cannot filter by `{asked}`: it has no {what}. Use ==, in, contains or numbers, or a "
            "store that can, such as LanceDB or Postgres."
        )
