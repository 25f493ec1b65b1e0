"""Old paths and names: what was documented stays importable for one release, and says where it is now."""

from __future__ import annotations

import importlib
import sys

import pytest
from llama_index.core.schema import TextNode

from llama_index_presets import BM25Index
from llama_index_presets._moved import MOVED, REMOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_a_documented_path_gives_the_names_of_the_new_module(old: str) -> None:
    """With a warning that names the new path."""
    new = importlib.import_module(f"llama_index_presets.{MOVED[old]}")
    sys.modules.pop(f"llama_index_presets.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to llama_index_presets.{MOVED[old]}"):
        module = importlib.import_module(f"llama_index_presets.{old}")
    public = [name for name in vars(new) if not name.startswith("_")]
    assert public
    assert all(getattr(module, name) is getattr(new, name) for name in public)


@pytest.mark.parametrize("old", sorted(REMOVED))
def test_a_module_that_left_the_package_says_what_to_use(old: str) -> None:
    """As an import error, so that a fallback of the caller still works."""
    with pytest.raises(ModuleNotFoundError, match=f"{old}: .*{REMOVED[old].split(':')[0]}"):
        importlib.import_module(f"llama_index_presets.{old}")


def test_a_name_that_is_nowhere_is_an_import_error() -> None:
    """As for any other module."""
    with pytest.raises(ModuleNotFoundError, match="llama_index_presets.nowhere"):
        importlib.import_module("llama_index_presets.nowhere")


def test_old_names_of_the_keyword_index_do_what_they_did() -> None:
    """`change` is `transaction`, `settle` is `mark_finished`, `verify_in_step` is `check_consistency`."""
    from llama_index_presets import retrieve

    index = BM25Index()
    with pytest.warns(DeprecationWarning, match="now called transaction"), index.change("a") as change:
        change.upsert([TextNode(id_="1", text="botulism")])
    assert "1" in index
    with pytest.warns(DeprecationWarning, match="now called mark_finished"):
        index.settle("a")
    with pytest.warns(DeprecationWarning, match="now called check_consistency"):
        assert retrieve.verify_in_step is retrieve.check_consistency
