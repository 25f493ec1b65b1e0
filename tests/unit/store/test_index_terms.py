"""Labels are stored beside the nodes, so the same metadata has the same labels in every release."""

from __future__ import annotations

from typing import Any

import pytest

from llama_index_presets.store.index_terms import LABEL_CHARACTERS, label


@pytest.mark.parametrize(
    ("key", "value", "stored"),
    [
        ("Stadt", "Köln", '["Stadt","Köln"]'),
        ("of", {"b": 1, "a": 2.0}, '["of",{"a":2,"b":1}]'),
        ("k", "é" * 600, "#866f831d365603aff3f8c4bd9fa0366a"),
    ],
    ids=["letters", "mapping", "long"],
)
def test_a_label_is_written_as_it_is_stored(key: str, value: Any, stored: str) -> None:
    """Letters stay letters, names are in order, and a number has one form; a filter would find nothing otherwise."""
    assert label(key, value) == stored


def test_a_label_is_hashed_where_it_is_too_long() -> None:
    """Brackets, quotation marks, a comma and the key are 8 characters of it."""
    assert label("k", "x" * (LABEL_CHARACTERS - 8)) == f'["k","{"x" * (LABEL_CHARACTERS - 8)}"]'
    assert len(label("k", "x" * (LABEL_CHARACTERS - 7))) == len("#") + 32
