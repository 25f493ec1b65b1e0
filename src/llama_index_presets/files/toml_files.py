"""Reading TOML files that people write."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

__all__ = ["read_toml"]


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
