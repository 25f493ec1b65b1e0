"""One lock for files and folders: who excludes whom, and what a fork, a death and a full disk leave of it."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_index_presets.files import locks as _locks
from llama_index_presets.files.locks import FileLock, delete_lone_neighbours
from llama_index_presets.monitor.ledger.journal import Journal, delete_old_drafts, is_orphan


@pytest.fixture(params=["the file itself", "its neighbour, as on Windows"], autouse=True)
def locked_file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which file bears the lock."""
    monkeypatch.setattr(_locks, "_neighbours", request.param.startswith("its"))
    return str(request.param)


@pytest.mark.parametrize("folder", [True, False])
def test_readers_share_and_a_writer_is_alone(tmp_path: Path, folder: bool) -> None:
    """Shared goes with shared, exclusive with nothing; a lock can change its kind."""
    path = tmp_path / "locked"
    if folder:
        path.mkdir()
    with FileLock(path) as first, FileLock(path) as second:
        assert first.acquire(shared=True) and second.acquire(shared=True, timeout_s=0)
        assert not first.acquire(timeout_s=0)
        second.release()
        assert first.acquire(timeout_s=0)
        assert not second.acquire(shared=True, timeout_s=0.01)
        first.close()
        assert second.acquire()


def test_a_waiting_thread_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    """Without a limit it waits as long as it takes."""
    with FileLock(tmp_path / "lock") as first, FileLock(tmp_path / "lock") as second:
        first.acquire()
        waiting = threading.Thread(target=second.acquire)
        waiting.start()
        first.close()
        waiting.join(60)
        assert not waiting.is_alive()


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    """The system drops it, also when the process is killed; what it noted is still there to be read."""
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", held))
    holder.start()
    assert held.wait(60)
    with FileLock(tmp_path / "lock") as lock:
        assert not lock.acquire(timeout_s=0)
        assert lock.read_note() == str(holder.pid)
        os.kill(holder.pid or 0, signal.SIGKILL)
        holder.join()
        assert lock.acquire(timeout_s=0)


def _hold(path: Path, held: Any) -> None:
    with FileLock(path) as lock:
        lock.acquire()
        lock.write_note(str(os.getpid()))
        held.set()
        signal.pause()


def test_a_fork_holds_none_of_its_parents_locks_and_drops_none(tmp_path: Path) -> None:
    """It outlives the parent's use of them, and its end changes nothing."""
    context = multiprocessing.get_context("fork")
    go_on = context.Event()
    with FileLock(tmp_path / "lock") as lock, FileLock(tmp_path / "lock") as other:
        lock.acquire()
        quick = context.Process(target=lock.close)
        quick.start()
        quick.join()
        assert quick.exitcode == 0 and not other.acquire(timeout_s=0)
        child = context.Process(target=go_on.wait, args=(60,))
        child.start()
        os.close(lock.fileno())  # not unlocked: only the copies of the fork could still hold it
        lock._descriptor = lock._holder = None
        assert other.acquire(timeout_s=5)
        go_on.set()
        child.join()


def test_a_full_disk_loses_the_note_and_not_the_lock(tmp_path: Path) -> None:
    """Documents can still be taken out."""
    with FileLock(tmp_path / "lock") as lock, _full_disk():
        assert lock.acquire(timeout_s=0)
        lock.write_note("held by me")
        assert lock.read_note() == ""


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_an_older_version_at_the_same_storage_is_excluded(tmp_path: Path, locked_file: str) -> None:
    """It takes `flock` on the file itself. On Windows no older version ran."""
    with FileLock(tmp_path / "lock") as lock, (tmp_path / "lock").open("a") as older:
        lock.acquire()
        if locked_file == "the file itself":
            with pytest.raises(BlockingIOError):
                fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.release()
            fcntl.flock(older, fcntl.LOCK_EX)
            assert not lock.acquire(timeout_s=0)
        else:
            assert (tmp_path / "lock.lock").exists()


def test_a_journal_is_no_orphan_until_it_is_closed(tmp_path: Path) -> None:
    """It has its name only with the lock on it, and no second file stays when it is folded."""
    journal = Journal(tmp_path)
    journal.append([])
    (path,) = tmp_path.glob("*.jsonl")
    assert path == journal.path and not is_orphan(path)
    journal.close()
    assert is_orphan(path)
    path.unlink()
    assert not is_orphan(path)
    delete_old_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_neighbour_of_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """Its lock may be held."""
    for name in ("a.jsonl", "a.jsonl.lock", "b.jsonl.lock"):
        (tmp_path / name).touch()
    delete_lone_neighbours(tmp_path, "*.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.jsonl.lock"]
