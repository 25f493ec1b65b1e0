"""Folders and files for one user alone: modes 0700 and 0600, where the file system has modes.

The folder's mode is what keeps others out; the files' modes are the second line, for a folder that somebody opens
later. Libraries that make files of their own (DuckDB, Lance, SQLite) make them by the process's umask, which is
shared by all threads and so is never changed here: `tighten` corrects the modes afterwards.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["private_file", "private_folder", "private_open", "tighten"]

_OTHERS: Final = stat.S_IRWXO
_GROUP_AND_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def private_folder(folder: Path) -> None:
    """Make a folder for this user alone, with its parents; one that is there keeps its mode.

    Raises:
        OSError: It cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def private_file(path: Path) -> None:
    """Make an empty file for this user alone, before a library would make it for all; one that is there stays.

    Raises:
        OSError: It cannot be made.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def private_open(path: Path, mode: str, **options: Any) -> IO[Any]:
    """`open`, but a file that it makes is for this user alone.

    Raises:
        OSError: It cannot be opened.
    """
    return open(path, mode, opener=_private, **options)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def tighten(folder: Path) -> None:
    """Take a folder and everything in it away from all others; what belongs to another user is left alone.

    A folder with the set-group-ID bit is shared with its group on purpose: the group keeps what it has. Links are
    not followed. A file system without modes, or one that refuses, is left as it is.
    """
    with suppress(OSError):
        shared = folder.stat().st_mode & stat.S_ISGID
        _tighten(folder, _OTHERS if shared else _GROUP_AND_OTHERS)


def _tighten(folder: Path, taken: int) -> None:
    _take(folder, taken)
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # it may vanish meanwhile
                if entry.is_dir(follow_symlinks=False):
                    _tighten(Path(entry.path), taken)
                elif entry.is_file(follow_symlinks=False):
                    _take(Path(entry.path), taken)


def _take(path: Path, taken: int) -> None:
    status = path.lstat()
    if status.st_mode & taken and hasattr(os, "geteuid") and status.st_uid == os.geteuid():
        path.chmod(stat.S_IMODE(status.st_mode) & ~taken)
