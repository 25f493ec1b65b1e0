"""Path of a data folder that Postgres can take: a link to it where blanks, quotes or its length are in the way.

``pg_ctl`` pastes the path into a shell command, a comma ends the name of a socket folder, a URL has special characters
of its own, and the path of a socket has 100 bytes or so.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from llama_index_presets.errors import StoreError

__all__ = ["plain_path", "remove_link"]

_PLAIN: Final = re.compile(r"/[\w./@+~-]*", re.ASCII)
# In bytes: a socket's path ends after 103 on macOS, 107 on Linux.
_LONGEST: Final = 103 - len("/.s.PGSQL.5432.lock")


def plain_path(folder: Path) -> Path:
    """Path by which Postgres reaches a folder: its own, or a link in a folder of this user for temporary files.

    Args:
        folder: An absolute path.

    Raises:
        StoreError: Only a link would do, and none can be made.

    Example:
        >>> str(plain_path(Path("/srv/index/postgres")))
        '/srv/index/postgres'
    """
    if os.name == "nt" or _is_plain(folder):
        return folder
    link = _link_of(folder)
    try:
        _make_own(link.parent)
        if not _leads_to(link, folder):
            link.unlink(missing_ok=True)
            with suppress(FileExistsError):  # of another process that opens the folder too
                link.symlink_to(folder, target_is_directory=True)
            if not _leads_to(link, folder):
                raise FileExistsError(f"'{link}' leads elsewhere")
    except OSError as error:
        raise StoreError(
            f"Postgres needs a short path without blanks or quotes, and no link to the folder can be made in "
            f"'{link.parent}' ({error.strerror or error}); move the storage, or set TMPDIR to another folder"
        ) from error
    return link


def remove_link(folder: Path) -> None:
    """Remove what `plain_path` made for a folder; for after its server has stopped."""
    if not _is_plain(folder) and os.name != "nt":
        link = _link_of(folder)
        if link.is_symlink():
            link.unlink(missing_ok=True)


def _leads_to(link: Path, folder: Path) -> bool:
    try:
        return link.readlink() == folder
    except OSError:  # there is none, or it is no link
        return False


def _is_plain(path: Path) -> bool:
    return _PLAIN.fullmatch(str(path)) is not None and len(os.fsencode(path)) <= _LONGEST


def _link_of(folder: Path) -> Path:
    """The same for every process, so that each finds the socket of the others' server."""
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    parent = f"llama-presets-{os.geteuid()}"
    inside = Path(tempfile.gettempdir()).resolve() / parent
    if _is_plain(inside / name):
        return inside / name
    return Path("/tmp") / parent / name  # nosec B108  # _make_own takes the folder only from this user


def _make_own(folder: Path) -> None:
    """Make the folder of links, or take the one that is there: nobody else may write to it, who could turn a link."""
    folder.mkdir(mode=0o755, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise OSError(f"'{folder}' is another user's, or others may write to it")
