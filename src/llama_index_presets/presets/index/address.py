"""Address of vectors outside a folder: what a URL names, its password kept out of sight."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from llama_index_presets._addresses import is_loopback
from llama_index_presets.errors import SettingsError

__all__ = ["SCHEMES", "Address", "is_url", "read_address"]

SCHEMES: dict[str, str] = {
    "postgresql": "pgvector",
    "postgres": "pgvector",
    "s3": "lancedb",
    "gs": "lancedb",
    "az": "lancedb",
    "pinecone": "pinecone",
    "weaviate": "weaviate",
}
"""Scheme of a URL -> the store that it names, a key of `matrix.STORES`."""

_FORMS = (
    "postgresql://user@host/database, s3://bucket/folder, gs://…, az://…, pinecone://index/namespace or "
    "weaviate://host/collection"
)
_SECRET = re.compile(r"pass|key|secret|token", re.IGNORECASE)
_OPTIONS = {"pgvector": {"table", "schema", "dim"}}
_WINDOWS_DRIVE = 1  # letters


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Address of vectors outside a folder.

    Attributes:
        store: The store that the URL names, a key of `matrix.STORES`.
        shown: The URL without its password: what messages, `explain` and files may carry.
        host: Server or bucket or index; empty for a socket.
        path: What stands behind the host, without slashes at its ends.
        query: Options after ``?``.
        options: Options after ``#``, such as ``table``.
        url: The URL with everything in it; never shown.
    """

    store: str
    shown: str
    host: str
    path: str
    query: Mapping[str, str] = field(repr=False)
    options: Mapping[str, str]
    url: str = field(repr=False)

    @property
    def local(self) -> bool:
        """Whether it stays on this machine: a socket, or a server on loopback."""
        if self.store == "lancedb":
            return False
        named = self.host if self.store in ("pgvector", "weaviate") else "remote"
        host = self.query.get("host") or named or os.environ.get("PGHOST", "")
        if host.startswith("/") or not host:
            return True
        return is_loopback(host)

    @property
    def slug(self) -> str:
        """Folder name of an address: readable, and different for every address, whatever the login."""
        place = re.sub(r"[^a-z0-9.]+", "-", f"{self.host}-{self.path}".lower()).strip("-.")[:60]
        return f"{self.store}-{place}-{hashlib.sha256(self.shown.encode()).hexdigest()[:12]}"


def is_url(storage: object) -> bool:
    """Whether a storage is given as a URL.

    Example:
        >>> is_url("s3://bucket/folder"), is_url("./folder"), is_url("file:///folder")
        (True, False, False)
    """
    text = str(storage)
    scheme, separator, _ = text.partition("://")
    return bool(separator) and len(scheme) > _WINDOWS_DRIVE and scheme != "file"


def read_address(url: str) -> Address:
    """Read a URL.

    Raises:
        SettingsError: Its scheme is not of a store, or it cannot be read. The message never shows a URL that it
            cannot read, as a password may stand anywhere in it.

    Example:
        >>> read_address("postgresql://ada:secret@db.example.com/docs#table=papers").shown
        'postgresql://db.example.com/docs#table=papers'
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise SettingsError(f"'{scheme}://' names no store. Give a folder, or {_FORMS}.")
    store = SCHEMES[scheme]
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        options = dict(parse_qsl(parts.fragment.replace(";", "&"), strict_parsing=bool(parts.fragment)))
        _check(parts, store, options)
        host = _host(parts)
    except ValueError:
        raise SettingsError(
            f"The {scheme}:// URL cannot be read. Write it as {_FORMS}; special characters of a password are "
            "percent-encoded."
        ) from None
    if "@" in parts.netloc and store != "pgvector":
        raise SettingsError(f"A {scheme}:// URL carries no user or password. Give them in the environment.")
    path = unquote(parts.path).strip("/")
    if not host and not query.get("host") and store != "pgvector":
        raise SettingsError(f"The {scheme}:// URL names nothing. Write it as {_FORMS}.")
    shown = _shown(scheme, host, path, query, options)
    return Address(store=store, shown=shown, host=host, path=path, query=query, options=options, url=url)


def _check(parts: SplitResult, store: str, options: Mapping[str, str]) -> None:
    """What a password with unescaped characters would turn the URL into is refused."""
    if "@" in parts.path or "@" in parts.query or options.keys() - _OPTIONS.get(store, set()):
        raise ValueError("not as the standard writes it")


def _host(parts: SplitResult) -> str:
    """Host and port; a bucket or index keeps its capitals."""
    _ = parts.port  # raises ValueError where it is no number
    return parts.netloc.rpartition("@")[2]


def _shown(scheme: str, host: str, path: str, query: Mapping[str, str], options: Mapping[str, str]) -> str:
    """Without user and password, options in a fixed order: equal places look equal."""
    kept = {name: value for name, value in query.items() if not _SECRET.search(name) and name != "user"}
    tail = "&".join(f"{name}={value}" for name, value in sorted(kept.items()))
    fragment = "&".join(f"{name}={value}" for name, value in sorted(options.items()) if name != "dim")
    scheme = "postgresql" if scheme == "postgres" else scheme
    return (
        f"{scheme}://{host}/{path}".rstrip("/")
        + (f"?{tail}" if tail else "")
        + (f"#{fragment}" if fragment else "")
    )
