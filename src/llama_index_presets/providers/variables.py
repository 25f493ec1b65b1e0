"""Variables of vendors, such as keys and endpoints: from the environment, a ``.env`` file, or the keyring.

Each vendor's SDK reads variables of its own. What the environment does not set is looked for in the ``.env`` beside the
settings file (`use_env_file`), then, where the package `keyring` is installed, in the keyring of the system, under the
service ``llama-index-presets``. Nothing is put into the environment, where every child process would inherit it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from llama_index_presets.errors import SettingsError
from llama_index_presets.packages.extras import installed, require

__all__ = ["KEYRING_SERVICE", "Variable", "find_variable", "first_variable", "use_env_file"]

KEYRING_SERVICE: Final = "llama-index-presets"
"""Service under which the keyring of the system is asked: ``keyring set llama-index-presets OPENAI_API_KEY``."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that is set.

    Attributes:
        name: Its name.
        value: Its value, in no repr.
        source: ``"environment"``, the path of a ``.env`` file, or ``"keyring"``.
    """

    name: str
    value: str = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class _EnvFile:
    path: Path
    values: Mapping[str, str] = field(repr=False)


_env_file: ContextVar[_EnvFile | None] = ContextVar("llama_index_presets_env_file", default=None)


def use_env_file(settings: Path | None) -> None:
    """Read the ``.env`` beside a settings file, for everything that is built next in this thread or task.

    Args:
        settings: The settings file; None, or one without such a neighbour, ends the use of an earlier one.

    Raises:
        SettingsError: The file is there and cannot be read.
    """
    path = settings.with_name(".env") if settings is not None else None
    if path is None or not path.is_file():
        _env_file.set(None)
        return
    dotenv = require("dotenv", extra="dotenv")
    try:
        values = dotenv.dotenv_values(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsError(f"'{path}' cannot be read ({reason}). Correct it or move it away.") from None
    _env_file.set(_EnvFile(path, {name: value for name, value in values.items() if value}))


def find_variable(name: str, *, secret: bool = False) -> Variable | None:
    """Look a variable up; None where it is set nowhere.

    Args:
        name: Its name.
        secret: Whether the keyring may have it, too.

    Example:
        >>> find_variable("NO_SUCH_VARIABLE_ANYWHERE") is None
        True
    """
    if value := os.environ.get(name):
        return Variable(name, value, "environment")
    file = _env_file.get()
    if file is not None and name in file.values:
        return Variable(name, file.values[name], str(file.path))
    if secret and (value := _in_keyring(name)):
        return Variable(name, value, "keyring")
    return None


def first_variable(names: tuple[str, ...], *, secret: bool = False) -> Variable | None:
    """Look several variables up; the first that is set."""
    found = (find_variable(name, secret=secret) for name in names)
    return next((variable for variable in found if variable is not None), None)


def _in_keyring(name: str) -> str | None:
    if not installed("keyring"):
        return None
    import keyring
    from keyring.backends import fail

    if isinstance(keyring.get_keyring(), fail.Keyring):  # the system has none, as on most servers
        return None
    try:
        return keyring.get_password(KEYRING_SERVICE, name)
    except Exception as error:  # a locked or broken keyring has no say in what the environment could answer
        _log.warning("The keyring cannot be asked for %s (%s).", name, type(error).__name__)
        return None
