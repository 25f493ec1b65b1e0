"""The documentation says what is there."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import llama_index_presets
from llama_index_presets import PRESETS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(llama_index_presets.__path__, "llama_index_presets.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    """Every example of a docstring gives the result that it shows."""
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


def test_the_readme_shows_the_matrix_and_the_two_commands() -> None:
    """All seven presets, make demo, make test."""
    assert all(f"`{name}`" in README for name in PRESETS)
    assert "make demo" in README and "make test" in README


def test_links_between_pages_lead_somewhere() -> None:
    """No page links to a file that is not there."""
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_no_page_names_a_path_of_a_developers_machine() -> None:
    """Paths in the docs work anywhere."""
    assert [page for page in PAGES if re.search(r"(?<![\w.~-])/(root|home)/\w", page.read_text())] == []
