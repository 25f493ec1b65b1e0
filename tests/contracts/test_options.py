"""Every public class and function refuses a keyword that it does not know, and names the nearest."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.schema import BaseComponent, NodeWithScore

import llama_index_presets
from llama_index_presets._options import option_names
from llama_index_presets.errors import SettingsError, UnknownOptionError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "index.md"
KINDS = (BaseComponent, BaseRetriever, BaseCallbackHandler)


def documented() -> list[str]:
    """Dotted paths of the public names and of those on the reference page, modules left out."""
    paths = [f"{module}.{name}" for name, module in llama_index_presets._PUBLIC.items()]
    paths += re.findall(r"^::: (\S+)$", REFERENCE.read_text(), re.MULTILINE)
    last = [path.rsplit(".", 1)[-1] for path in paths]
    return sorted(
        {path for path, name in zip(paths, last, strict=True) if name not in ("settings", "errors")}
    )


def at(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def assert_strict(target: Callable[..., Any]) -> None:
    """A name with its last letter doubled is refused before anything else is looked at."""
    for name in option_names(target):
        with pytest.raises(UnknownOptionError, match=f"did you mean '{name}'") as refused:
            target(**{name + name[-1]: None})
        assert refused.value.nearest == {name + name[-1]: name}


@pytest.mark.parametrize("path", documented())
def test_a_misspelt_keyword_is_refused_with_the_name_that_was_meant(path: str) -> None:
    """Of each option of each public class and function; dataclasses are values that the package makes."""
    target = at(path)
    if callable(target) and not is_dataclass(target):
        assert_strict(target)


@pytest.mark.parametrize("path", documented())
def test_a_keyword_that_is_like_none_is_refused(path: str) -> None:
    """Nothing is swallowed, whether or not a name comes near."""
    target = at(path)
    if callable(target) and not is_dataclass(target):
        with pytest.raises((SettingsError, TypeError), match="quux"):
            target(quux=1)


def test_every_llamaindex_part_of_the_package_is_strict() -> None:
    """A retriever, model, store, postprocessor or handler that is not on the reference page, too; a hit is a value."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(llama_index_presets.__path__, "llama_index_presets.")
        if not module.name.endswith("__main__")
    ]
    parts = {
        value
        for module in modules
        for name in getattr(module, "__all__", ())
        if inspect.isclass(value := getattr(module, name)) and issubclass(value, KINDS)
    }
    ours = [
        part
        for part in parts
        if part.__module__.startswith("llama_index_presets.")
        and not issubclass(part, NodeWithScore)
        and not inspect.isabstract(part)  # a base, which nobody makes
    ]
    assert len(ours) > 12
    for part in ours:
        assert_strict(part)
