"""Paths that the user names: `~` is read, and one that the system cannot look at is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llama_index_presets.errors import SettingsError

__all__ = ["read_path", "shortened"]

_LONGEST: Final = 120


def read_path(path: str | Path, what: str, *, links: bool = True) -> Path:
    """Path of a file or folder, which need not be there.

    Args:
        path: As the user wrote it.
        what: What it is, for the message, such as ``"The storage"``.
        links: Whether links are followed, which makes the path absolute; a file that is replaced by pointing its link
            at another one keeps its link.

    Raises:
        SettingsError: Its links lead in a circle, a name is too long, has a NUL character or may not be looked at, or
            there is no such user.

    Example:
        >>> read_path("/tmp/../tmp/a", "The storage").name
        'a'
    """
    try:
        given = Path(path).expanduser()
        found = given.resolve()
        found.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # a circle of links is a RuntimeError before Python 3.13
        reason = getattr(error, "strerror", None) or str(error).split(" from ")[0].rstrip(".")
        raise SettingsError(
            f"{what} '{shortened(path)}' cannot be looked at ({reason}). Check its name, its links and its rights, or "
            "give another path."
        ) from error
    return found if links else given


def shortened(path: str | Path) -> str:
    """A path for a message: the middle of a very long one is left out.

    Example:
        >>> shortened("a" * 300).count("a")
        119
    """
    text = str(path)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[1 - _LONGEST // 2 :]}"
