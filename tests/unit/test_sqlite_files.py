"""SQLite files that other processes make, use or rewrite: the wait for a turn, and what is said without one."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llama_index_presets.answer.cache.store import AnswerCache
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.errors import StoreLockedError
from llama_index_presets.files.sqlite_files import WRITE_AHEAD, open_sqlite, rewrite
from llama_index_presets.ingest.manifest import Manifest, ManifestEntry

SECRET = b"forget-me"
_CHECKPOINT = (
    121  # byte of the shared-memory file that SQLite locks for as long as a connection moves the log
)
_HOLDER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_moves_the_log(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is moving the log into the file, until its input ends."""
    command = [sys.executable, "-c", _HOLDER, f"{path}-shm", str(_CHECKPOINT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def answers(folder: Path) -> tuple[Path, Callable[[], object], Callable[[], None]]:
    cache = AnswerCache(folder / "answers.sqlite", max_bytes=10_000, max_age_s=60)
    cache.put(cache.key("q"), {"text": SECRET.decode()})
    return cache.path, cache.clear, cache.close


def embeddings(folder: Path) -> tuple[Path, Callable[[], object], Callable[[], None]]:
    cache = EmbeddingCache(folder)
    cache.put_many({SECRET: [1.0, 2.0]})
    return cache.path, cache.compact, cache.close


def manifest(folder: Path) -> tuple[Path, Callable[[], object], Callable[[], None]]:
    file = Manifest(folder / "manifest.sqlite")
    file.record([ManifestEntry(SECRET.decode(), "hash", 1, 1)])
    file.forget([SECRET.decode()])
    return folder / "manifest.sqlite", file.compact, file.close


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is taken as SQLite takes it on POSIX")
@pytest.mark.parametrize("made", [answers, embeddings, manifest])
def test_a_rewrite_waits_for_another_process(
    tmp_path: Path, made: Callable[[Path], tuple[Path, Callable[[], object], Callable[[], None]]]
) -> None:
    """It ends when the other does, and leaves no deleted word in the file or its log."""
    path, compact, close = made(tmp_path)
    waiting = threading.Thread(target=compact)
    with another_moves_the_log(path) as other:
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        other.communicate("")  # its input ends
        waiting.join(60)
    assert not waiting.is_alive()
    assert path.with_name(f"{path.name}-wal").stat().st_size == 0
    assert all(SECRET not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    close()


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is taken as SQLite takes it on POSIX")
def test_a_file_that_is_never_free_is_named(tmp_path: Path) -> None:
    """The error says what may still be on the disk and what to do; a later try ends the work."""
    path = tmp_path / "rows.sqlite"
    connection = open_sqlite(path, timeout_s=0.1, schema="create table rows (text)", pragmas=[WRITE_AHEAD])
    with connection:
        connection.execute("insert into rows values (?)", (SECRET.decode(),))

    @contextlib.contextmanager
    def lent() -> Iterator[sqlite3.Connection]:
        yield connection

    with (
        another_moves_the_log(path),
        pytest.raises(
            StoreLockedError, match=r"used the cache '.*rows.sqlite' for 0.2 s .* do the same again"
        ),
    ):
        rewrite(path, lent, what="cache", delete="delete from rows", patience_s=0.2)
    assert rewrite(path, lent, what="cache", delete="delete from rows") == 0
    connection.close()
    assert SECRET not in path.read_bytes()


def test_an_emptied_embedding_cache_keeps_no_lock(tmp_path: Path) -> None:
    """Another process can write as soon as `clear` has returned."""
    cache = EmbeddingCache(tmp_path)
    cache.put_many({b"key": [1.0]})
    cache.clear()
    with contextlib.closing(sqlite3.connect(cache.path, timeout=0)) as other:
        other.execute("begin immediate")
        assert other.execute("select count(*) from vectors").fetchone() == (0,)
        other.rollback()
    cache.close()


def test_the_journal_mode_waits_for_another_connection(tmp_path: Path) -> None:
    """SQLite itself waits for no one there; past the timeout its error is raised."""
    path = tmp_path / "new.sqlite"
    holder = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    holder.execute("create table one (a)")
    holder.execute("begin immediate")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_sqlite(path, timeout_s=0.05, pragmas=[WRITE_AHEAD])
    release = threading.Timer(0.2, holder.execute, ["commit"])
    release.start()
    connection = open_sqlite(path, timeout_s=30, pragmas=[WRITE_AHEAD])
    release.join()
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    connection.close()
    holder.close()
