"""Private files and folders: modes 0600 and 0700, where the file system has modes.

The folder's mode is what keeps others out; the files' modes are the second line, for a folder that somebody opens
later. Libraries that make files of their own (DuckDB, Lance, SQLite) make them by the process's umask, which is
shared by all threads and so is never changed here: `tighten` corrects the modes afterwards.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

__all__ = ["configuration_file", "private_file", "private_folder", "private_open", "tighten"]


def configuration_file(name: str) -> Path:
    """Path of a file of this package in the user's configuration folder."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "llama-index-presets" / name


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


def tighten(path: Path, *, shared: bool = False) -> None:
    """Take a file, or a folder with everything in it, away from all others.

    What belongs to another user is left alone, and a folder that holds something of another user stays open for
    that user to pass through. Links are not followed. A file system without modes, or one that refuses, is left as
    it is; so is a path where nothing is.

    Args:
        path: A file or folder.
        shared: Whether its group keeps what it has.
    """
    taken = stat.S_IRWXO if shared else stat.S_IRWXG | stat.S_IRWXO
    with suppress(OSError):
        status = path.lstat()
        if not hasattr(os, "geteuid") or status.st_uid != os.geteuid():
            return
        if stat.S_ISDIR(status.st_mode):
            entries = list(path.iterdir())
            for entry in entries:
                tighten(entry, shared=shared)
            if not all(_own(entry) for entry in entries):
                taken &= ~(stat.S_IXGRP | stat.S_IXOTH)
        if status.st_mode & taken and (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            path.chmod(stat.S_IMODE(status.st_mode) & ~taken)


def _own(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:  # it vanished meanwhile
        return True
