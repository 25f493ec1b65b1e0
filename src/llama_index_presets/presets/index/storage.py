"""Storage of an engine: its folder and the files in it, its metadata and compatibility checks."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llama_index_presets.answer.cache.store import ANSWERS_FILE
from llama_index_presets.errors import (
    FingerprintError,
    SettingsError,
    StoreCorruptError,
    StoreError,
    StoreWriteError,
)
from llama_index_presets.files.paths import read_path
from llama_index_presets.files.private_files import private_folder, private_open, tighten
from llama_index_presets.files.whole_files import create_file
from llama_index_presets.presets.index.address import SCHEMES, Address, is_url, read_address
from llama_index_presets.values import Fingerprint

__all__ = [
    "Storage",
    "check_metadata",
    "open_storage",
    "prepare_storage",
    "read_metadata",
    "resolve_storage",
]

_METADATA = "preset.json"
_FORMAT = 1
_WITH_PERMISSIONS = 2
"""Format of a metadata file with permissions: releases that know nothing of them refuse the storage."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Storage of an engine: paths of its files.

    Attributes:
        folder: The folder that the user named; for a URL, the state folder of that URL.
        address: Where the vectors are, when that is a URL; None when they are in the folder.
    """

    folder: Path
    address: Address | None = None

    @property
    def shown(self) -> str:
        """What the user named, without any password."""
        return self.address.shown if self.address else str(self.folder)

    @property
    def metadata_file(self) -> Path:
        """File that names the preset and model of the folder."""
        return self.folder / _METADATA

    @property
    def vectors(self) -> Path:
        """Folder or file stem of the vector store."""
        return self.folder / "vectors"

    @property
    def keywords(self) -> Path:
        """Folder of the keyword index of the hybrid pattern."""
        return self.folder / "keywords"

    @property
    def manifest(self) -> Path:
        """Manifest file: the documents of the index."""
        return self.folder / "documents.sqlite"

    @property
    def embeddings(self) -> Path:
        """Folder of the embedding cache, unless a setting puts it elsewhere."""
        return self.folder / "embeddings"

    @property
    def answers(self) -> Path:
        """File of the answer cache."""
        return self.folder / ANSWERS_FILE

    @property
    def contexts(self) -> Path:
        """File of the sentences that a language model wrote for chunks."""
        return self.folder / "contexts.sqlite"

    @property
    def lock(self) -> Path:
        """Lock file, held during an ingest."""
        return self.folder / "ingest.lock"

    @property
    def ledger(self) -> Path:
        """Ledger file: the calls and their cost."""
        return self.folder / "calls.duckdb"

    @property
    def logs(self) -> Path:
        """JSON log, one object a line."""
        return self.folder / "logs" / "calls.jsonl"

    @property
    def audit(self) -> Path:
        """The audit log of level `audit`, one chained entry a line."""
        return self.folder / "audit.jsonl"

    def manifest_inode(self) -> int | None:
        """Number of the manifest's file, by which another one in its place is noticed; None where there is none."""
        try:
            return self.manifest.stat().st_ino
        except OSError:
            return None

    def protect(self) -> None:
        """Take what an engine keeps here away from other users: 0600 for files, 0700 for folders.

        A folder with the set-group-ID bit is shared with its group on purpose, which keeps what it has. Files of
        others in the folder, such as documents beside the index, are left alone, and then so is the folder itself.
        """
        with suppress(OSError):
            shared = bool(self.folder.stat().st_mode & stat.S_ISGID)
            others = [entry for entry in self.folder.iterdir() if not _is_own(entry.name)]
            if not others:
                tighten(self.folder, shared=shared)
                return
            own = [
                entry for entry in self.folder.iterdir() if _is_own(entry.name) and entry != self.logs.parent
            ]
            for entry in [*own, self.logs]:
                tighten(entry, shared=shared)


def resolve_storage(storage: str | Path, *, state: str | None = None) -> Storage:
    """Resolve a storage to its paths; nothing is made or opened.

    The URL of a server or bucket names where the vectors lie. Manifest, ledger, logs and keyword index need a disk:
    they are in a folder of that URL's own under `state`, which does not depend on the user or password in the URL.

    Args:
        storage: A folder, or a URL of `address.SCHEMES`.
        state: Folder of the state folders; None takes ``$LLAMA_PRESETS_STATE``, else
            ``$XDG_STATE_HOME/llama-presets``, else ``~/.local/state/llama-presets``.

    Raises:
        SettingsError: The URL cannot be read, or was turned into a `Path`, which drops one of its slashes; or the path
            cannot be looked at, see `files.paths.read_path`.

    Example:
        >>> location = resolve_storage("pinecone://papers/tenant-1", state="/var/lib/app")
        >>> location.shown, location.folder.name
        ('pinecone://papers/tenant-1', 'pinecone-papers-tenant-1-881cba22a8d8')
    """
    if is_url(storage):
        address = read_address(str(storage))
        root = Path(state) if state else _state_folder()
        return Storage(read_path(root, "The state folder") / address.slug, address)
    text = str(storage)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    first = Path(text).parts[:1]
    if first and first[0].endswith(":") and first[0][:-1] in SCHEMES:
        raise SettingsError(f"A '{first[0]}//' URL was given as a Path. Give it as text.")
    return Storage(read_path(text, "The storage"))


def prepare_storage(location: Storage, preset: str, fingerprint: Fingerprint) -> None:
    """Make the folder when it is missing, and refuse one that something else made; `open_storage` writes its metadata.

    A folder without metadata belongs to no preset yet: an engine that never ingests leaves it open to every preset.

    Raises:
        StoreWriteError: It cannot be written.
        StoreError: As `check_metadata`.
    """
    _make(location)
    if location.metadata_file.exists():
        check_metadata(location, preset, fingerprint)


def open_storage(
    storage: str | Path | Storage, preset: str, fingerprint: Fingerprint, *, permissions: bool = False
) -> Storage:
    """Open the folder for a preset, making it when it is missing: from now on it is this preset's.

    With `permissions` a new one has them from its first document on; an existing one keeps what it has.

    Of several processes that make the same folder at once, one writes the metadata; the others find it and are held to
    it.

    Raises:
        StoreWriteError: It cannot be written.
        StoreCorruptError: Its metadata file cannot be read.
        StoreError: Another preset made it.
        FingerprintError: Another embedding model or chunk size made it.
    """
    location = storage if isinstance(storage, Storage) else resolve_storage(storage)
    _make(location)
    if not location.metadata_file.exists():
        metadata: dict[str, object] = {"format": _FORMAT, "preset": preset, "fingerprint": str(fingerprint)}
        if permissions:
            metadata |= {"format": _WITH_PERMISSIONS, "permissions": "on"}
        if location.address:
            metadata["vectors"] = location.address.shown
        _write_once(location.metadata_file, json.dumps(metadata, indent=1) + "\n")
    check_metadata(location, preset, fingerprint)  # it may be another process's, made since we looked
    return location


def has_permissions(location: Storage) -> bool:
    """Whether permissions were turned on for a storage; False where nothing was ingested yet.

    Raises:
        StoreCorruptError: The metadata file cannot be read.
    """
    return location.metadata_file.exists() and read_metadata(location)["format"] == _WITH_PERMISSIONS


def turn_on_permissions(location: Storage) -> bool:
    """Write into the metadata of an existing storage that it has permissions, for good; False where there is none yet.

    Raises:
        StoreWriteError: The metadata file cannot be written; it is as it was.
    """
    if not location.metadata_file.exists() or has_permissions(location):
        return location.metadata_file.exists()
    try:
        metadata = json.loads(location.metadata_file.read_text(encoding="utf-8"))
        text = json.dumps(metadata | {"format": _WITH_PERMISSIONS, "permissions": "on"}, indent=1) + "\n"
        draft = location.folder / f".{_METADATA}-{os.getpid()}"
        with private_open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(location.metadata_file)
    except OSError as error:
        raise StoreWriteError(
            f"'{location.metadata_file}' cannot be written ({error.strerror}), so permissions are not on. Make room, "
            "or check the folder, and build again."
        ) from error
    return True


def read_metadata(storage: str | Path | Storage) -> dict[str, object]:
    """Preset and model of a storage, as its metadata file names them.

    Raises:
        StoreError: The folder holds no index, or a newer release made it.
        StoreCorruptError: The metadata file cannot be read.
    """
    location = storage if isinstance(storage, Storage) else resolve_storage(storage)
    file = location.metadata_file
    if not file.exists():
        raise StoreError(
            f"'{location.shown}' holds no index. Run 'llama-presets ingest' with this --storage first."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        format_ = int(content["format"])
        _check_format(location, format_)  # first: what else the file of another format names is not known
        return {
            "format": format_,
            "preset": str(content["preset"]),
            "fingerprint": str(content["fingerprint"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreCorruptError(
            f"'{file}' is damaged ({type(error).__name__}). Restore it from a backup, or ingest into a new folder."
        ) from error


def _check_format(storage: Storage, format_: int) -> None:
    if format_ not in (_FORMAT, _WITH_PERMISSIONS):
        raise StoreError(
            f"'{storage.shown}' has format {format_}; this release reads {_FORMAT} and {_WITH_PERMISSIONS}. A newer "
            "release of llama-index-presets made it: upgrade, or use another --storage. Nothing was changed."
        )


_OWN = (
    "preset.json",
    ".preset.json-*",
    ".writable",
    "vectors",
    "vectors.duckdb*",
    "keywords",
    "documents.sqlite*",
    "embeddings",
    "*.lock",
    "calls.duckdb*",
    "citations.sqlite*",
    "answers.sqlite*",
    "contexts.sqlite*",
    "quality.sqlite*",
    "logs",
    "audit.jsonl*",
)
"""Names of everything that an engine makes in its folder."""


def _is_own(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _OWN)


def _make(storage: Storage) -> None:
    try:
        private_folder(storage.folder)
        probe = storage.folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise StoreWriteError(
            f"The storage folder '{storage.folder}' cannot be written ({error.strerror}). Choose another --storage."
        ) from error


def check_metadata(storage: Storage, preset: str, fingerprint: Fingerprint) -> None:
    """Refuse a storage that another preset or program made.

    Raises:
        StoreCorruptError: Its metadata file cannot be read.
        StoreError: Another preset made it, or a newer release.
        FingerprintError: Another embedding model or chunk size made it.
    """
    metadata = read_metadata(storage)
    if metadata["preset"] != preset:
        raise StoreError(
            f"'{storage.shown}' was made by the preset '{metadata['preset']}', not '{preset}'. Use another --storage."
        )
    if metadata["fingerprint"] != str(fingerprint):
        raise FingerprintError(
            f"'{storage.shown}' was made with {metadata['fingerprint']}; you are using {fingerprint}. Vectors of two "
            "models cannot be mixed: use the original settings, or ingest into a new --storage.",
            stored=str(metadata["fingerprint"]),
            given=str(fingerprint),
        )


def _write_once(path: Path, text: str) -> None:
    """Make a file with all of the text, unless another process made it first; a crash leaves no part of it.

    Raises:
        StoreWriteError: The file cannot be written.
    """
    try:
        create_file(path, text.encode())
    except OSError as error:
        raise StoreWriteError(
            f"'{path}' cannot be written ({error.strerror}). Free space, or choose another --storage."
        ) from error


def _state_folder() -> Path:
    given = os.environ.get("LLAMA_PRESETS_STATE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "llama-presets"
