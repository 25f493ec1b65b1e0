"""Packages whose ``__init__`` gathers hundreds of modules: each name from the one that defines it, when asked for."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

__all__ = ["import_by_name"]

_WHOLE: Final = ("__all__", "__version__")
"""Names of Python's that say that the whole package is meant."""


def import_by_name(package: str) -> None:
    """Import a name of a package, or of a package below it, from the module that its ``__init__`` has it from.

    ``from package import Name`` then runs that module alone. An ``__init__`` runs as it always did, in its own module,
    once a name is asked for that it makes itself, or all of them, so nothing is missing and nothing exists twice. For a
    process of our own alone: the order in which modules are first imported is another one. Nothing is done when the
    package is imported already.

    Example:
        >>> import_by_name("xmlrpc")
        >>> from xmlrpc import client
        >>> client.__name__
        'xmlrpc.client'
    """
    if package not in sys.modules:
        sys.meta_path.insert(0, _Finder(package))


class _Finder:
    """Finds the packages at and below one."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._package and not name.startswith(self._package + "."):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.submodule_search_locations is None or spec.loader is None:
            return None
        spec.loader = cast("Loader", _Loader(spec.loader))
        return spec


class _Loader:
    """Makes the module of a package and leaves its ``__init__`` for later."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self._real
        module.__dict__["_lazy"] = _Lazy(module)


class _Lazy:
    """What an ``__init__`` would bind, without running it."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._lock = threading.RLock()
        self._running = False
        file = module.__file__
        source = Path(file).read_bytes() if file and file.endswith(".py") else b""
        self.imported, self.constants = _bound_names(source)

    def value(self, name: str) -> Any:
        """Value of a name; AttributeError when even the whole ``__init__`` has none."""
        module = self._module
        if name in self.constants:
            return self.constants[name]
        if name in self.imported and not self._running:
            source, attribute = self.imported[name]
            found = getattr(importlib.import_module(source), attribute)
            module.__dict__[name] = found
            return found
        below = f"{module.__name__}.{name}"
        if name not in _WHOLE and PathFinder.find_spec(below, module.__path__) is not None:
            return importlib.import_module(below)
        self._run()
        if name in module.__dict__:
            return module.__dict__[name]
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    def _run(self) -> None:
        """Run the ``__init__``; what others set in the module meanwhile stays."""
        module = self._module
        with self._lock:
            if self._running or module.__class__ is ModuleType:
                return
            self._running = True
            kept = {
                name: value
                for name, value in module.__dict__.items()
                if not name.startswith("_") and not isinstance(value, ModuleType)
            }
            try:
                assert module.__spec__ is not None and module.__spec__.loader is not None
                module.__spec__.loader.exec_module(module)
                module.__dict__.update(kept)
                module.__class__ = ModuleType
            finally:
                self._running = False


class _Package(ModuleType):
    """A package whose ``__init__`` has not run."""

    _lazy: _Lazy

    def __getattr__(self, name: str) -> Any:
        if (name.startswith("__") and name not in _WHOLE) or "_lazy" not in self.__dict__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return self._lazy.value(name)

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds a module in its package; where the __init__ then gives the name another meaning,
        # that one holds.
        lazy = self.__dict__.get("_lazy")
        if lazy is None or not isinstance(value, ModuleType) or name not in lazy.imported:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._lazy.imported, *self._lazy.constants})


def _bound_names(source: bytes) -> tuple[dict[str, tuple[str, str]], dict[str, Any]]:
    """Names of a module that absolute imports bind, with their origins, and those of constants.

    What a statement of another kind binds is in neither, whatever else binds it.
    """
    imported: dict[str, tuple[str, str]] = {}
    constants: dict[str, Any] = {}
    others: set[str] = set()
    for statement in ast.parse(source).body:
        match statement:
            case ast.ImportFrom(module=str(origin), level=0, names=aliases):
                imported.update({one.asname or one.name: (origin, one.name) for one in aliases})
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                constants[name] = value
            case _:
                others |= {
                    node.id if isinstance(node, ast.Name) else node.name
                    for node in ast.walk(statement)
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                    or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
                }
    if "*" in imported:
        return {}, {}
    twice = others | (imported.keys() & constants.keys())
    return (
        {name: origin for name, origin in imported.items() if name not in twice},
        {name: value for name, value in constants.items() if name not in twice},
    )
