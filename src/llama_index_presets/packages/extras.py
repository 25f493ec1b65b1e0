"""Optional packages: import one, or raise the error that names the extra to install."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from llama_index_presets.errors import MissingExtraError

__all__ = ["installed", "require"]


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Dotted module name, such as ``"torch"``.
        extra: The extra of llama-index-presets that brings it.

    Raises:
        MissingExtraError: It is not installed; the message carries the install line.
        KeyboardInterrupt: Ctrl-C was pressed during the import, which compiled modules report as an `ImportError`.

    Example:
        >>> require("json", extra="local").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(missing + "."):
            raise MissingExtraError(module, extra) from error
        raise
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            # a compiled module says that it cannot be initialized
            raise error.__cause__ from None
        raise


def installed(module: str) -> bool:
    """Whether a module can be imported, found without importing it (parent packages excepted)."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
