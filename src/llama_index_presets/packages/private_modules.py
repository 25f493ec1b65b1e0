"""Modules of a package without the package's ``__init__``, as copies that nobody else in the process sees."""

from __future__ import annotations

import builtins
import importlib.util
import threading
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["PrivateModules"]


class PrivateModules:
    """Loads modules of a package whose ``__init__`` imports far more than they need.

    Neither the package nor its modules appear in `sys.modules`, so an application, or another thread at the same time,
    imports all of the package as ever. The modules import each other from here and everything else as usual. Safe to
    use from several threads.

    Args:
        package: Name of an installed top-level package.

    Example:
        >>> import sys
        >>> PrivateModules("pydoc_data").load("pydoc_data.topics").__name__, "pydoc_data.topics" in sys.modules
        ('pydoc_data.topics', False)
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._loaded: dict[str, ModuleType] = {}
        self._lock = threading.RLock()
        self._builtins = {**vars(builtins), "__import__": self._import}

    def load(self, name: str) -> ModuleType:
        """A module of the package, run at the first call; of a package only its name and place are there.

        Raises:
            ModuleNotFoundError: There is none of this name.
        """
        with self._lock:
            if name not in self._loaded:
                self._run(name, self._spec(name))
            return self._loaded[name]

    def _spec(self, name: str) -> ModuleSpec:
        parent, _, _ = name.rpartition(".")
        path = self.load(parent).__path__ if parent else None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return spec

    def _run(self, name: str, spec: ModuleSpec) -> None:
        assert spec.loader is not None
        if spec.submodule_search_locations is not None:
            self._loaded[name] = _Package(self, spec)
            return
        module = self._loaded[name] = importlib.util.module_from_spec(spec)
        module.__dict__["__builtins__"] = self._builtins
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del self._loaded[name]
            raise

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What an import statement in one of the modules calls."""
        if level:
            name = importlib.util.resolve_name("." * level + name, (globals or {})["__package__"])
        if name.partition(".")[0] != self._package:
            return builtins.__import__(name, globals, locals, fromlist or (), 0)
        module = self.load(name)
        return module if fromlist else self.load(self._package)


class _Package(ModuleType):
    """A package whose ``__init__`` does not run; its modules are its attributes."""

    def __init__(self, modules: PrivateModules, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin
        self.__package__ = spec.name
        self.__path__ = list(spec.submodule_search_locations or ())
        self._modules = modules

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return self._modules.load(f"{self.__name__}.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from error
