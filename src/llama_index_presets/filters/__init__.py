"""Metadata filters with one meaning: a Python predicate, and the same as SQL for every dialect.

The reference is LlamaIndex core's ``build_metadata_filter_fn``, with groups nested to any depth. What core
leaves open, or answers with a ``TypeError`` in the middle of a search, is settled here:

- A missing key and a null value are the same. They match ``!=``, ``nin`` and ``is_empty``, nothing else.
- A value of another type never matches: ``"2" == 2`` is false, ``"abc" > 1`` is false. Integers and floats
  are one type, compared exactly; ``true`` is 1 and ``false`` is 0, as in Python.
- An order against a string that writes a number, ``> "1"``, means the number for values that are numbers, and the
  string for values that are strings: what a form or a URL hands on selects what its user meant.
- ``contains``, ``any`` and ``all`` look for elements of a list, substrings of a string, keys of a mapping.
- ``text_match`` looks in strings only; ``text_match_insensitive`` folds case by Unicode, and treats the two
  forms of a small sigma as one letter (core does not find "ΟΔΟΣ" in "ΟΔΟΣ 5").
- Strings are ordered by code point, so ISO dates compare as dates.
- ``not`` means "none of these"; an empty group selects everything, whatever its condition.
- A filter that cannot mean anything (``in`` without a list, ``>`` with a list) is a `FilterError` before
  anything is searched.
- Keys are taken literally: ``"a.b"`` is the key ``a.b``.

Example:
    >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
    >>> wanted = MetadataFilters(filters=[MetadataFilter(key="year", value=2024, operator=">=")])
    >>> predicate(wanted)({"year": 2025})
    True
    >>> render(wanted, DuckDBDialect()).parameters
    {'f0': '/year', 'f1': 2024.0, 'f2': 2024}
"""

from llama_index_presets.filters.dialect import Condition, Dialect, render
from llama_index_presets.filters.duckdb import DuckDBDialect
from llama_index_presets.filters.metadata import REFERENCE_KEYS, filterable_metadata
from llama_index_presets.filters.predicate import leaf_test, predicate

__all__ = [
    "REFERENCE_KEYS",
    "Condition",
    "Dialect",
    "DuckDBDialect",
    "filterable_metadata",
    "leaf_test",
    "predicate",
    "render",
]
