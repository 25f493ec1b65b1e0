"""Uploaded files: their names, the folder of each tenant or caller, and what callers call them."""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from pathlib import Path
from typing import Final

from llama_index_presets.files.private_files import private_folder
from llama_index_presets.serve.callers.key_file import Caller
from llama_index_presets.serve.protocols.problems import Problem

_OF_ANOTHER: Final = re.compile(r"(?:[0-9a-f]{24}|shared)/[^/]*[^/.][^/]*")
_NOBODYS: Final = "shared"  # of a server without keys

__all__ = ["document_id", "file_of", "is_upload", "keep_upload", "may_remove", "safe_name", "upload_folder"]


def safe_name(name: str | None) -> str:
    """Name of an uploaded file, when it is a plain name.

    Raises:
        Problem: 400, it is empty, too long, hidden, a path, or has control characters.

    Example:
        >>> safe_name("report.pdf")
        'report.pdf'
    """
    text = (name or "").strip()
    fault = (
        not text
        or len(text.encode("utf-8", "replace")) > 200
        or text.startswith(".")
        or text.endswith((".", "~"))
        or any(character in '/\\:*?"<>|' or not character.isprintable() for character in text)
    )
    if fault:
        raise Problem(
            400,
            "A file name is not usable. Send a plain name with an ending, such as report.pdf: no path, no control "
            "characters, at most 200 bytes, not beginning with a dot.",
            code="bad_file_name",
        )
    return text


def upload_folder(state: Path, caller: Caller) -> Path:
    """Folder of a tenant's uploads; of a caller's own where it has groups or no tenant. No two share one."""
    own = caller.id and (caller.groups or not caller.tenant)
    owner = f"{caller.tenant}\0{caller.name}" if own else caller.tenant
    return state / "uploads" / (hashlib.sha256(owner.encode()).hexdigest()[:24] if owner else _NOBODYS)


def is_upload(state: Path, stored: str) -> bool:
    """Whether an id in the index is that of an upload."""
    return stored.startswith((state / "uploads").as_posix() + "/")


def may_remove(state: Path, caller: Caller, stored: str) -> bool:
    """Whether a caller may remove a document that their view of the index shows.

    An upload is its owner's. One that permissions show to a group may be removed by whom they show it to, and one that
    was sent before there were keys by every caller without a tenant.
    """
    if not is_upload(state, stored) or not caller.id or caller.groups:
        return True
    folders = [upload_folder(state, caller), *([] if caller.tenant else [state / "uploads" / _NOBODYS])]
    return any(stored.startswith(folder.as_posix() + "/") for folder in folders)


def document_id(state: Path, caller: Caller, stored: str) -> str:
    """Id of a document as callers see it: an upload is ``uploads/NAME``, without the server's folders.

    One of another caller that this one may see is ``uploads/FOLDER/NAME``.

    Example:
        >>> document_id(Path("/srv/serve"), Caller(name="ada"), "/srv/serve/uploads/shared/a.pdf")
        'uploads/a.pdf'
    """
    folder = upload_folder(state, caller).as_posix() + "/"
    if stored.startswith(folder):
        return f"uploads/{stored.removeprefix(folder)}"
    root = (state / "uploads").as_posix() + "/"
    return f"uploads/{stored.removeprefix(root)}" if stored.startswith(root) else stored


def file_of(state: Path, caller: Caller, shown: str) -> str:
    """Id of a document in the index, from the one that `document_id` shows."""
    name = shown.removeprefix("uploads/")
    if name != shown and _OF_ANOTHER.fullmatch(name):
        # an id in the index, which the caller's view decides about
        return (state / "uploads" / name).as_posix()
    if name == shown or "/" in name or name in ("", ".", ".."):
        return shown
    return (upload_folder(state, caller) / name).as_posix()


def keep_upload(file: Path, folder: Path) -> Path:
    """Move a received file to where it stays; an earlier upload of its name is replaced at once."""
    private_folder(folder)
    draft, target = folder / f".{uuid.uuid4().hex}", folder / file.name
    shutil.move(file, draft)  # from the folder of temporary files, perhaps on another disk
    draft.chmod(0o600)
    draft.replace(target)
    return target
