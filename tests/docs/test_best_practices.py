"""docs/best-practices.md names places and tests that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "best-practices.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| Practice")
]


def resolve(name: str) -> Any:
    """The module, class or function of a dotted name."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def test_the_page_has_every_practice_of_the_guide() -> None:
    """Nothing is left out because it would look bad."""
    for practice in (
        "batches", "token limit", "sentence", "content hash", "Normalise", "Count tokens", "plain text", "two models",
        "bulk load", "before the search", "type of index", "Source metadata", "No DuckDB", "Cite", "token budget",
        "I don't know", "too many chunks", "Re-rank", "without encryption", "every call", "Hash prompts",
        "Cost by model", "Alert", "Retry", "Structured logs", "No prompts", "hit rate",
    ):  # fmt: skip
        assert practice in PAGE


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_practice_says_how_where_and_what_holds_it(row: list[str]) -> None:
    """How is one of the three words (or says how to ask for it); places import; tests are there."""
    _, how, where, held = row
    assert re.match(r"(enforced|warned|documented|shown|on request)\b", how)
    places = re.findall(r"`(llama_index_presets\.[\w.]+)`", where)
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", held)
    assert places and tests
    for place in places:
        assert resolve(place) is not None
    for file, name in tests:
        assert re.search(rf"^\s*(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), (
            file,
            name,
        )
