"""Index directory of the keyword index: one writer at a time, any number of readers.

    MANIFEST.json     settings, which snapshot and journal are current, sizes and checksums of the snapshot's
                      files, and a checksum of itself; replaced whole, by renaming
    snapshot-<n>/     arrays and texts of the index as it was when the snapshot was taken
    journal-<n>.log   every change since, one record each
    LOCK              held by the process that is writing
    CHANGE            held, shared, by processes in the middle of a change of index and vector store

A crash leaves the manifest as it was, or as it is to be; the journal whole, or with a tail that is ignored.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_presets.counting import counted
from llama_index_presets.errors import StoreCorruptError, StoreLockedError, StoreWriteError
from llama_index_presets.files.locks import FileLock
from llama_index_presets.files.private_files import private_folder, tighten
from llama_index_presets.retrieve.bm25.documents import DocumentTable, write_array
from llama_index_presets.retrieve.bm25.write_ahead_log import Journal, damaged

__all__ = ["IndexDirectory", "Manifest"]

_FORMAT = 3
"""Goes up when the files change their meaning, or when the same text gives other tokens than before.

Format 1 had no checksums of the snapshot and no header in the journal, format 2 neither fields nor the order of tokens.
Both are read; `BM25Index` writes them afresh as format 3 when it opens them.
"""
_READ = (2, 3)

_PATIENCE_S = 10.0
_BLOCK_BYTES = 2**20
_ARRAYS = ("lengths", "terms", "starts", "rows", "counts")
_ORDER = ("order", "pairs", "buckets")
"""Arrays that format 3 has beside the others."""
_CHECKED_WHEN_READ = "bodies.bin"
"""By far the largest file: the document table has a checksum for each text, so that opening does not read it all."""
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError, EOFError, OverflowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Manifest: the current snapshot and write-ahead log, and the settings.

    Attributes:
        generation: Number of the snapshot and the journal.
        settings: How the index was made, as plain JSON values.
        unfinished: Source documents whose change had begun and not ended when the snapshot was taken.
        files: Size in bytes and CRC-32 of each file of the snapshot; None in a folder of format 1, which has none.
    """

    generation: int
    settings: dict[str, Any]
    unfinished: list[str]
    files: dict[str, list[int]] | None = None


class IndexDirectory:
    """Index directory. Not thread safe: the index guards it.

    Args:
        path: The folder; made, with its parents, by `commit_snapshot`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._stamp: tuple[int, int, int] | None = None

    # -- reading ------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether an index was ever published here.

        Raises:
            StoreCorruptError: It was, and its manifest is gone.
        """
        if self._manifest.exists():
            return True
        # A first publication that was cut short leaves an empty snapshot 0, never another.
        if (
            any(old != self.snapshot(0) for old in self.path.glob("snapshot-*"))
            and not self._manifest.exists()
        ):
            raise damaged(self._manifest, "it is missing")
        return False

    def changed(self) -> bool:
        """Whether the manifest on disk is another than at the last `manifest`."""
        return self._stamp != _stamp(self._manifest)

    def forget(self) -> None:
        """Take the manifest for changed until it is read again: what it named could not be loaded."""
        self._stamp = None

    def manifest(self) -> Manifest:
        """Read the current manifest.

        Raises:
            StoreCorruptError: The manifest cannot be read, or a newer version of this package wrote it.
        """
        self._stamp = _stamp(self._manifest)
        try:
            fields = json.loads(self._manifest.read_text(encoding="utf-8"))
            written = fields.pop("format")
            if written == 1:
                return _checked(Manifest(**fields, files=None))
            if written in _READ:
                if fields.pop("checksum") != _checksum({"format": written, **fields}):
                    raise ValueError("its checksum does not match")
                return _checked(Manifest(**fields))
        except _UNREADABLE as error:
            raise damaged(self._manifest, str(error) or type(error).__name__) from error
        raise StoreCorruptError(
            f"{self._manifest} has format {written}; this version reads format {_FORMAT}. Upgrade "
            "llama-index-presets, or build the index again."
        )

    def snapshot(self, generation: int) -> Path:
        """Folder of a snapshot."""
        return self.path / f"snapshot-{generation}"

    def journal(self, manifest: Manifest) -> Journal:
        """File of the changes since a snapshot."""
        return Journal(self._journal(manifest.generation), headed=manifest.files is not None)

    def load(self, manifest: Manifest) -> tuple[dict[str, Any], DocumentTable]:
        """Read a snapshot: the export of `Postings`, and the document table; arrays and texts are mapped, not read.

        Raises:
            StoreCorruptError: A file is not as it was written.
            FileNotFoundError: A file is missing; a writer may have replaced the snapshot meanwhile.
        """
        folder = self.snapshot(manifest.generation)
        for name, (size, checksum) in (manifest.files or {}).items():
            _check(folder / name, size, None if name == _CHECKED_WHEN_READ else checksum)
        try:
            names = [*_ARRAYS, *(name for name in _ORDER if (folder / f"{name}.npy").exists())]
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
            words = json.loads((folder / "words.json").read_text(encoding="utf-8"))
            exported, document_table = (
                {**words, **arrays},
                DocumentTable.open(folder, checked=manifest.files is not None),
            )
            if manifest.files is None:
                _check_shapes(exported, len(document_table))
        except (OSError, StoreCorruptError):
            raise
        except Exception as error:
            # without checksums numpy meets damaged headers, and its errors are of every kind
            raise damaged(folder, str(error) or type(error).__name__) from error
        return exported, document_table

    # -- writing ------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the writer lock; waits a while for another writer.

        Raises:
            StoreLockedError: Another process holds the lock; carries its process id.
            StoreWriteError: The folder cannot be written.
        """
        with self._lock("LOCK") as lock:
            _wait_for(lock, self.path)
            yield

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Mark a change of this index and a vector store as open for other processes; ends with the process."""
        with self._lock("CHANGE") as lock:
            lock.acquire(shared=True)
            yield

    def _lock(self, name: str) -> FileLock:
        try:
            private_folder(self.path)
            return FileLock(self.path / name)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def change_under_way(self) -> bool:
        """Whether another process is inside a change, so that it is unfinished rather than interrupted."""
        try:
            with FileLock(self.path / "CHANGE", create=False) as lock:
                return not lock.acquire(timeout_s=0)
        except FileNotFoundError:
            return False

    def commit_snapshot(
        self, manifest: Manifest, exported: Mapping[str, Any], write_document_table: Any
    ) -> None:
        """Write a snapshot and an empty log, and make them current; a crash leaves the old ones current.

        Args:
            manifest: What is to be current.
            exported: What `Postings.export` gave.
            write_document_table: Called with the snapshot's folder, to write the document table into it.

        Raises:
            StoreWriteError: The folder cannot be written, or is full; the old files are still current.
        """
        try:
            folder = self.snapshot(manifest.generation)
            shutil.rmtree(folder, ignore_errors=True)
            private_folder(folder)
            for name in [name for name in (*_ARRAYS, *_ORDER) if name in exported]:
                write_array(folder / f"{name}.npy", exported[name])
            words = {name: exported[name] for name in ("ids", "vocabulary")}
            (folder / "words.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
            write_document_table(folder)
            Journal(self._journal(manifest.generation)).create()
            for file in [*folder.iterdir(), folder, self._journal(manifest.generation)]:
                _sync(file)
            for made in (folder, self._journal(manifest.generation)):
                tighten(made)
            files = {file.name: list(_sum(file)) for file in sorted(folder.iterdir())}
            self._put_in_force(replace(manifest, files=files))
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._sweep(manifest.generation)

    def _put_in_force(self, manifest: Manifest) -> None:
        fields: dict[str, Any] = {
            "format": _FORMAT,
            "generation": manifest.generation,
            "settings": manifest.settings,
            "unfinished": manifest.unfinished,
            "files": manifest.files,
        }
        fields["checksum"] = _checksum(fields)
        draft = self.path / "MANIFEST.draft"
        draft.write_text(json.dumps(fields, indent=2), encoding="utf-8")
        tighten(draft)
        _sync(draft)
        draft.replace(self._manifest)
        _sync(self.path)
        self._stamp = _stamp(self._manifest)

    def _sweep(self, generation: int) -> None:
        """Delete files that are not current. Readers keep their mapped files until they refresh."""
        for old in self.path.glob("snapshot-*"):
            if old != self.snapshot(generation):
                shutil.rmtree(old, ignore_errors=True)
        for old in self.path.glob("journal-*.log"):
            if old != self._journal(generation):
                old.unlink(missing_ok=True)

    def _journal(self, generation: int) -> Path:
        return self.path / f"journal-{generation}.log"

    @property
    def _manifest(self) -> Path:
        return self.path / "MANIFEST.json"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _checked(manifest: Manifest) -> Manifest:
    kinds = (int, dict, list)
    values = (manifest.generation, manifest.settings, manifest.unfinished)
    if not all(isinstance(value, kind) for value, kind in zip(values, kinds, strict=True)):
        raise ValueError("a field is of another type")
    return manifest


def _checksum(fields: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())


def _sum(path: Path) -> tuple[int, int]:
    """Size in bytes and CRC-32 of a file."""
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return size, checksum


def _check(path: Path, size: int, checksum: int | None) -> None:
    """Compare a file with what was written; its size alone where `checksum` is None."""
    found = path.stat().st_size
    if found != size:
        raise damaged(path, f"it has {counted(found, 'byte')} and was written with {size:,}")
    if checksum is not None and _sum(path)[1] != checksum:
        raise damaged(path, "its checksum does not match")


def _check_shapes(exported: Mapping[str, Any], rows: int) -> None:
    """Refuse arrays that do not fit each other: all that can be said of a snapshot without checksums."""
    ids, terms, starts = exported["ids"], exported["terms"], exported["starts"]
    postings = len(exported["rows"])
    steps = np.diff(starts)
    sound = (
        len(ids) == len(set(ids)) == len(exported["lengths"]) == rows
        and all(exported[name].ndim == 1 and exported[name].dtype.kind in "iu" for name in _ARRAYS)
        and len(starts) == len(terms) + 1
        and (starts[0], starts[-1]) == (0, postings)
        and len(exported["counts"]) == postings
        and bool((steps >= 0).all())
        and (not postings or (exported["rows"].min() >= 0 and exported["rows"].max() < rows))
        and (not len(terms) or (terms.min() >= 0 and terms.max() < len(exported["vocabulary"])))
    )
    if not sound:
        raise ValueError("its arrays do not fit each other")


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    if path.is_dir() and sys.platform == "win32":
        return  # Windows cannot open folders, and keeps their lists of names in its own journal.
    descriptor = os.open(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> StoreWriteError:
    return StoreWriteError(
        f"{path} cannot be written ({error}); the index is as it was before. Free space or fix the "
        "permissions, then run it again."
    )


def _wait_for(lock: FileLock, path: Path) -> None:
    if not lock.acquire(timeout_s=_PATIENCE_S):
        holder = lock.read_note()
        raise StoreLockedError(
            f"{path} is held by process {holder or 'unknown'} since more than {_PATIENCE_S:.0f} s; "
            "one writer is allowed at a time. Wait for it, or stop it.",
            pid=int(holder) if holder.isdigit() else None,
        )
    lock.write_note(str(os.getpid()))
