"""Packages that run on import far more than a command of ours uses of them: empty modules in their place."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from llama_index_presets.packages.imports_by_name import import_by_name

__all__ = ["is_brief", "is_command", "run_as_command", "stand_in", "standing_in"]

_command = False
_brief = False


def run_as_command(*, brief: bool = False) -> None:
    """Say that this process is a command of ours, which decides how its modules are imported.

    Args:
        brief: It asks its models a few times and ends, so that preparing them for many runs does not pay.
    """
    global _command, _brief
    _command, _brief = True, brief
    # lancedb annotates with the models of a REST client that it does not ask: a second of a cold question.
    stand_in("lance_namespace_urllib3_client")
    import_by_name("llama_index.core")  # of its 400 modules a question needs 120
    logging.getLogger("llama_index.core").addHandler(logging.NullHandler())  # as its own __init__ does


def is_command() -> bool:
    """Whether this process is a command of ours."""
    return _command


def is_brief() -> bool:
    """Whether this process is a command of ours that asks its models a few times."""
    return _brief


class _Unused(type):
    """Class of the classes of a package that is stood in for: they serve as annotations, and cannot be made."""

    def __call__(cls, *_: object, **__: object) -> Any:
        raise ImportError(
            f"{cls.__module__}.{cls.__name__} is not loaded in the command line of llama-presets."
        )


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Unused(name, (), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class _StandInFinder:
    """Gives an empty module for a package and each of its modules."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._package and not name.startswith(self._package + "."):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def stand_in(package: str) -> None:
    """Put empty modules in the place of a package of which only names are used, in annotations.

    For a process of our own alone, such as a command: nobody else in it can use the package any more.
    """
    if package not in sys.modules:
        sys.meta_path.insert(0, _StandInFinder(package))


@contextmanager
def standing_in(*packages: str) -> Iterator[None]:
    """Empty modules in the place of packages that are not installed, while in the block."""
    finders = [_StandInFinder(package) for package in packages]
    sys.meta_path[:0] = finders
    try:
        yield
    finally:
        for finder in finders:
            sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
            if name.partition(".")[0] in packages:
                del sys.modules[name]
