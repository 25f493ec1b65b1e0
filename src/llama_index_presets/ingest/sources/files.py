"""File discovery under the given paths; links that lead out of the named folder are not followed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.metadata.document_metadata import SIDECAR
from llama_index_presets.values import PROJECT_FILE

__all__ = ["FileEntry", "find_files", "root_path"]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A path below a root, or the root itself.

    Attributes:
        path: Absolute. A link keeps its own path, so that it is a document of its own.
        boundary: Real folder that the content of the file, its sidecar and its caption must stand in.
        problem: Why it is left out; empty for a file to read.
        absent: Whether it is no document of the folder at all, such as a link that leaves it: `sync` removes what was
            stored under its path, where an unreadable file keeps its last good text.
        named: Whether the user named it; then it may be a link to anywhere.
    """

    path: Path
    boundary: Path
    problem: str = ""
    absent: bool = False
    named: bool = False

    @property
    def has_left(self) -> bool:
        """Whether the path leads out of its boundary by now, as when a link has replaced the file."""
        return not self.named and not self.path.resolve().is_relative_to(self.boundary)


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path
    real: Path
    boundary: Path
    separate: bool = False  # each of its subfolders is a boundary of its own
    linked: bool = False  # it was reached through a link


def find_files(paths: Iterable[str | Path], *, separate_folders: bool = False) -> list[FileEntry]:
    """All files under the paths, sorted; hidden files and folders, and sidecars, are left out.

    A path that is named itself may be a link. Below it, a link to a file or folder inside is read under its own path;
    one that leaves the folder, leads to something hidden, leads back above itself, or leads nowhere is an entry with
    a problem. Folders reached through a link are not left through another one, so the walk ends.

    Args:
        paths: Files and folders.
        separate_folders: Whether each direct subfolder is kept apart (it names a tenant): then a link may not leave it.

    Raises:
        IngestError: A path does not exist or cannot be looked at, or there is no file at all.
    """
    entries: dict[Path, FileEntry] = {}
    paths = list(paths)
    if "" in paths:
        raise IngestError("A path is empty. Give a file or a folder; '.' is the folder that you are in.")
    roots = [Path(path) for path in paths]
    for root in roots:
        for entry in sorted(_below(root, separate_folders), key=lambda entry: entry.path):
            known = entries.get(entry.path)
            if known is None or known.problem:
                entries[entry.path] = entry
    if not entries:
        raise IngestError(f"There is no file to ingest in {', '.join(f'{str(root)!r}' for root in roots)}.")
    return list(entries.values())


def root_path(path: str | Path) -> Path:
    """Named path in the spelling of document ids: parent folders resolved, its own name kept where it is a link.

    So an id stays the same when the link is pointed at something else, and `sync` sees what vanished.
    """
    path = Path(path)
    return path.parent.resolve() / path.name if path.is_symlink() else path.resolve()


def _below(root: Path, separate: bool) -> Iterator[FileEntry]:
    try:
        exists = root.exists()
    except (OSError, ValueError) as error:  # the latter for a path with a zero byte
        problem = getattr(error, "strerror", None) or error
        raise IngestError(f"'{root}' cannot be opened ({problem}). Check its name and rights.") from error
    if not exists:
        raise IngestError(f"There is no '{root}'. Give a file or a folder that exists.")
    path = root_path(root)
    if path.is_file():
        yield _checked(FileEntry(path, path.parent, named=True))
        return
    if not path.is_dir():
        raise IngestError(f"'{root}' is neither a file nor a folder. Give a file or a folder.")
    real = path.resolve()
    waiting = [_Folder(path, real, real, separate=separate)]
    while waiting:
        for item in _items(waiting.pop()):
            if isinstance(item, _Folder):
                waiting.append(item)
            else:
                yield _checked(item)


def _checked(entry: FileEntry) -> FileEntry:
    """An entry whose path can be an id; one that cannot is named in a readable way."""
    try:
        str(entry.path).encode()
    except UnicodeEncodeError:
        name = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
        return FileEntry(Path(name), entry.boundary, "The name is not UTF-8. Rename the file or folder.")
    return entry


def _items(folder: _Folder) -> Iterator[FileEntry | _Folder]:
    try:
        with os.scandir(folder.path) as listing:
            found = [item for item in listing if not item.name.startswith(".")]
    except OSError as error:
        yield FileEntry(folder.path, folder.boundary, f"The folder cannot be opened ({error.strerror}).")
        return
    for item in found:
        path = folder.path / item.name
        if item.is_symlink():
            yield from _linked(path, folder)
        elif item.is_dir(follow_symlinks=False):
            real = folder.real / item.name
            yield _Folder(path, real, real if folder.separate else folder.boundary, linked=folder.linked)
        elif item.is_file(follow_symlinks=False) and not _is_about_documents(item.name):
            yield FileEntry(path, folder.boundary)


def _linked(path: Path, folder: _Folder) -> Iterator[FileEntry | _Folder]:
    try:
        target = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        yield FileEntry(path, folder.boundary, f"The link leads nowhere ({error.strerror}).", absent=True)
        return
    is_folder = target.is_dir()
    problem = _link_problem(target, is_folder, folder)
    if problem:
        yield FileEntry(path, folder.boundary, problem, absent=True)
    elif is_folder:
        yield _Folder(path, target, folder.boundary, linked=True)
    elif target.is_file() and not _is_about_documents(path.name):
        yield FileEntry(path, folder.boundary)


def _is_about_documents(name: str) -> bool:
    return name.endswith(SIDECAR) or name == PROJECT_FILE


def _link_problem(target: Path, is_folder: bool, folder: _Folder) -> str:
    if not target.is_relative_to(folder.boundary) or (is_folder and folder.separate):
        return (
            f"The link leads out of '{folder.path if folder.separate else folder.boundary}' and is not followed. "
            "Copy what it points to, or ingest that by its own path."
        )
    if any(part.startswith(".") for part in target.relative_to(folder.boundary).parts):
        return "The link leads to something hidden and is not followed. Copy it under a name without a dot."
    if is_folder and folder.real.is_relative_to(target):
        return "The link leads back to a folder above it and is not followed. Remove the link."
    if is_folder and folder.linked:
        return "The link is in a folder that was reached through a link, and is not followed. Remove one of them."
    return ""
