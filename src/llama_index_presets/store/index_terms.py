"""Index terms of metadata: equality, membership and emptiness as tests of set membership.

A database that indexes a list of texts can so answer these filters exactly, whatever the keys and types are.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from llama_index_presets.errors import FilterError
from llama_index_presets.filters import Dialect
from llama_index_presets.filters.values import canonical

__all__ = ["LabelDialect", "label", "labels_of"]

LABEL_CHARACTERS = 200
"""Longer labels are stored as their BLAKE2b-128 digest, so that a long value costs 33 bytes."""


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
        found[label(key)] = None
        found[label(key, value)] = None
        if isinstance(value, (list, Mapping)):
            found |= dict.fromkeys(label(key, 0, item) for item in value)
    return list(found)


def label(key: str, *parts: Any) -> str:
    """Write one label: of a key, of a key with its value, or of a key, 0 and something that its value holds.

    Example:
        >>> label("page", 3.0)
        '["page",3]'
    """
    text = json.dumps(
        [key, *map(canonical, parts)], ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    if len(text) <= LABEL_CHARACTERS:
        return text
    return "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


# Metadata filters for managed services: exact by labels and numbers, or refused before anything is sent.
#
# Services compare numbers and ask whether a list of texts holds one of some texts; they have no substrings
# and no order
# of texts. Equality, membership and emptiness become questions about `labels`.


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
        if math.isinf(value):  # beyond every number, none of which is infinite
            beyond = operator[0] == (">" if value > 0 else "<")
            most = math.copysign(sys.float_info.max, value)
            return self.false if beyond else self.numbered(key, f"{operator[0]}=", most)
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
