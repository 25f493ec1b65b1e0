"""Files behind a URL as a source: S3, Google Cloud, Azure, HTTP, zip archives, memory; anything that fsspec opens."""

from __future__ import annotations

import importlib.util
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from llama_index_presets._addresses import is_loopback
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT
from llama_index_presets.ingest.sources.document_source import SourceItem

__all__ = ["FileSystemSource", "is_url", "source_name", "stays_here"]

_VERSIONS: Final = ("ETag", "etag", "e_tag", "md5Hash", "checksum", "generation", "version_id", "CRC")
_TIMES: Final = ("mtime", "LastModified", "last_modified", "updated", "created", "date_time")
_BY_ARROW: Final = {
    "s3": ("s3fs", "S3FileSystem"),
    "s3a": ("s3fs", "S3FileSystem"),
    "gs": ("gcsfs", "GcsFileSystem"),
}
"""Scheme -> what fsspec needs for it, and the file system that pyarrow brings, for where that is not installed."""

_HERE: Final = frozenset({"file", "local", "memory", "zip", "tar"})


def is_url(path: object) -> bool:
    """Whether a path is a URL of files, such as ``s3://bucket/docs`` or ``zip://*::file:///docs.zip``.

    Example:
        >>> is_url("s3://bucket/docs"), is_url("./docs"), is_url("C:/docs")
        (True, False, False)
    """
    return isinstance(path, str) and "://" in path


def stays_here(url: str) -> bool:
    """Whether a URL is read without a request that leaves this machine."""
    for part in url.split("::"):
        scheme = urlsplit(part).scheme if "://" in part else part
        if scheme in ("http", "https"):
            if not is_loopback(part):
                return False
        elif scheme not in _HERE:
            return False
    return True


class FileSystemSource:
    """Every file under a URL; hidden ones are left out.

    S3 and Google Cloud work without another package (pyarrow opens them); where s3fs or gcsfs is installed, that is
    taken. Keys come from the environment, as the service's own tools read them.

    Args:
        url: Of a folder, or of one file. ``http(s)`` is one file, or with a slash at its end a page whose links are
            files.
        storage_options: What fsspec's file system takes; nothing of it is kept in an id.

    Raises:
        IngestError: The scheme is unknown, or its package is missing.

    Example:
        >>> import fsspec
        >>> with fsspec.open("memory://shelf/pump.txt", "w") as file:
        ...     _ = file.write("The pump leaks.")
        >>> [item.id for item in FileSystemSource("memory://shelf").list()]
        ['pump.txt']
    """

    def __init__(self, url: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
        self._url = url
        self._fs, self._root = _open(url, dict(storage_options or {}))
        self.name = _without_secrets(url).rstrip("/")
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    def list(self) -> Iterable[SourceItem]:
        """See `DocumentSource.list`."""
        with _named(self._url, "listed"):
            found = self._fs.find(self._root, detail=True)
            if not found and self._is_file():
                found = {self._root: self._fs.info(self._root)}
        items = [self._item(path, info) for path, info in sorted(found.items())]
        kept = [item for item in items if item is not None]
        if not kept:
            raise IngestError(f"There is no file to ingest in '{self.name}'.")
        return kept

    def read(self, id: str) -> Path:
        """A copy of one file, which stays as long as this source does; an ingest takes `copy`, of which none stays.

        Raises:
            IngestError: It cannot be read, or is larger than a document may be.
        """
        if self._copies is None:
            self._copies = tempfile.TemporaryDirectory(prefix="llama-presets-")
        return self._copied(id, Path(tempfile.mkdtemp(dir=self._copies.name)), DEFAULT_LIMIT.units)

    @contextmanager
    def copy(self, id: str, most_bytes: int) -> Iterator[Path]:
        """A copy of one file on this machine, under its own name, for a ``with`` block.

        Raises:
            IngestError: It cannot be read, or has more bytes than these.
        """
        folder = Path(tempfile.mkdtemp(prefix="llama-presets-"))
        try:
            yield self._copied(id, folder, most_bytes)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _copied(self, id: str, folder: Path, most_bytes: int) -> Path:
        target = folder / (_safe_name(id or self._root) or "document")
        with _named(f"{self.name}/{id}", "read"), self._fs.open(self._path(id), "rb") as remote:
            _copy(remote, target, most_bytes)
        return target

    def _is_file(self) -> bool:
        return bool(self._fs.exists(self._root)) and not self._fs.isdir(self._root)

    def _item(self, path: str, info: Mapping[str, Any]) -> SourceItem | None:
        if info.get("type") not in (None, "file"):
            return None
        relative = _relative(path, self._root)
        if any(part.startswith(".") for part in PurePosixPath(relative).parts):
            return None
        size = info.get("size")
        known = [str(info[key]) for key in _VERSIONS if info.get(key)]
        if not known:
            times = [str(info[key]) for key in _TIMES if info.get(key)]
            known = [str(size), *times] if times and size is not None else []
        return SourceItem(id=relative, version=" ".join(known), size=size if isinstance(size, int) else None)

    def _path(self, id: str) -> str:
        return f"{self._root.rstrip('/')}/{id}" if id else self._root


def _relative(path: str, root: str) -> str:
    """Path below the root; empty for the root itself, when it is a file."""
    if path.rstrip("/") == root.rstrip("/"):
        return ""
    return path[len(root.rstrip("/")) :].lstrip("/") if path.startswith(root) else posixpath.basename(path)


def _open(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    import fsspec

    scheme = url.partition("://")[0]
    package, arrow_name = _BY_ARROW.get(scheme, ("", ""))
    if arrow_name and not importlib.util.find_spec(package):
        return _arrow(arrow_name, options), url.partition("://")[2].rstrip("/")
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise IngestError(f"'{_without_secrets(url)}' cannot be opened ({error}).") from error
    return fs, str(path)


def _arrow(name: str, options: dict[str, Any]) -> Any:
    """A file system of pyarrow, asked as fsspec's are."""
    import pyarrow.fs
    from fsspec.implementations.arrow import ArrowFSWrapper

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if name == "S3FileSystem" and endpoint and "endpoint_override" not in options:
        parts = urlsplit(endpoint)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    return ArrowFSWrapper(getattr(pyarrow.fs, name)(**options))


def _copy(remote: Any, target: Path, most_bytes: int) -> None:
    left = most_bytes
    with target.open("wb") as file:
        while block := remote.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise IngestError(
                    f"The file has more than {most_bytes / 1e6:,.0f} MB. Split it, or raise max_document_mb."
                )
            file.write(block)


def _safe_name(id: str) -> str:
    name = posixpath.basename((urlsplit(id).path if "?" in id else id).rstrip("/"))
    return "".join(one if one.isprintable() and one not in '\\/:*?"<>|' else "_" for one in name)[-150:]


def _without_secrets(url: str) -> str:
    """A URL without user, password and query, which may be a signature."""
    parts = []
    for part in url.split("::"):
        scheme, mark, rest = part.partition("://")
        rest = rest.partition("?")[0] if scheme in ("http", "https") else rest
        host, slash, path = rest.partition("/")
        parts.append(f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}")
    return "::".join(parts)


def source_name(source: Any) -> str:
    """Name of a source, or of the one that a URL stands for; see `DocumentSource`."""
    return _without_secrets(source).rstrip("/") if isinstance(source, str) else str(source.name)


class _named:
    """Errors of any file system as one that names the place.

    No `contextmanager`: on Python 3.12 and 3.13 its generator, which raises from the error, leaves a cycle that keeps
    what the block used, here the source with its copies, until the collector runs.
    """

    def __init__(self, what: str, done: str) -> None:
        self._what, self._done = what, done

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, IngestError):
            return
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise IngestError(
            f"'{_without_secrets(self._what)}' cannot be {self._done} ({type(error).__name__}: {said}). Nothing was "
            "removed."
        ) from error
