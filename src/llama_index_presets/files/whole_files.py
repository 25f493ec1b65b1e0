"""Files that are written whole or not at all: a reader, and the next start after a crash, never sees a part of one."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from llama_index_presets.files.private_files import private_open

__all__ = ["create_file", "replace_file"]


def replace_file(
    path: Path,
    content: str | bytes,
    *,
    draft: Path | None = None,
    private: bool = False,
    durable: bool = False,
) -> None:
    """Put a file in place of one, or of none, in one step. Of two processes that do it, the later one's stays.

    Args:
        path: The file.
        content: All of it; text is written as UTF-8, half characters as escapes.
        draft: Where it is written first, beside it, by a caller that holds a lock: what a killed process left there is
            written over. None takes a name of its own.
        private: Whether only the owner of the process may read it; else as the umask says.
        durable: Whether it is on the disk before it is in place.

    Raises:
        OSError: It cannot be written; what was there is as it was.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "limits.json"
        >>> replace_file(file, "{}")
        >>> file.read_text(), [one.name for one in file.parent.iterdir()]
        ('{}', ['limits.json'])
    """
    beside = draft or path.with_name(f".{_beginning(path.name)}.{secrets.token_hex(4)}.partial")
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if draft is not None:
        draft.unlink(missing_ok=True)  # its mode may be another
    try:
        with private_open(beside, "wb") if private else beside.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def create_file(path: Path, content: bytes) -> None:
    """Make a file for its owner alone, on the disk when this returns; where there is one, it stays as it is.

    Raises:
        OSError: It cannot be written.
    """
    beside = path.with_name(f".{_beginning(path.name)}.{secrets.token_hex(8)}")
    try:
        _write_new(beside, content)
        try:
            os.link(beside, path)  # unlike a rename, it never replaces another process's file
        except FileExistsError:
            return
        except OSError:  # a file system without links, such as exFAT
            with suppress(FileExistsError):
                _write_new(path, content)
    finally:
        beside.unlink(missing_ok=True)


def _beginning(name: str) -> str:
    """At most 80 bytes of a name, for a longer one: file systems count bytes, and take 255."""
    return os.fsencode(name)[:80].decode("utf-8", "ignore")


def _write_new(path: Path, content: bytes) -> None:
    with private_open(path, "xb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
