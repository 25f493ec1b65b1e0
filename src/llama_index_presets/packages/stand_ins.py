"""Stand-ins: empty modules in place of packages that are not installed, or of which only names are used."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["stand_in", "standing_in"]


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
    """Put empty modules in place of a package of which only names are used, in annotations.

    For a process of our own alone, such as a command: nobody else in it can use the package any more.
    """
    if package not in sys.modules:
        sys.meta_path.insert(0, _StandInFinder(package))


@contextmanager
def standing_in(*packages: str) -> Iterator[None]:
    """Empty modules in place of packages that are not installed, while in the block."""
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
