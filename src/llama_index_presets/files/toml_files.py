"""Reading TOML files that people write."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from llama_index_presets.errors import SettingsError

__all__ = ["read_settings_toml", "read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a byte order mark, which Windows' Notepad writes, is no part of it.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not TOML, not UTF-8, nests too deeply, or has a number of thousands of digits.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def read_settings_toml(path: Path, what: str) -> dict[str, Any]:
    """`read_toml`, with what is wrong in words for the user.

    Args:
        path: The file.
        what: What it is, such as ``"project file"``.

    Raises:
        SettingsError: It cannot be read, or is not TOML.
    """
    try:
        return read_toml(path)
    except OSError as error:
        raise SettingsError(f"The {what} '{path}' cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise SettingsError(f"The {what} '{path}' is not TOML ({error}).") from error
