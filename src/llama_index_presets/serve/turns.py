"""Turns of removals and ingest jobs at one storage, which takes one change at a time.

A job ingests batch after batch, so that a removal that only tried would be refused for as long as jobs are sent, by
whomever. A removal waits for the batch under way instead, and the next batch waits for it. Both are locks on files, so
that they hold among the processes that serve a storage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from llama_index_presets.errors import StoreLockedError
from llama_index_presets.files.locks import FileLock
from llama_index_presets.files.private_files import private_folder

__all__ = ["JOBS_LOCK", "between_batches", "let_removals_pass"]

T = TypeVar("T")

JOBS_LOCK: Final = "jobs.lock"
"""Name of the lock that the process that runs the jobs of a storage holds meanwhile."""
_REMOVALS_LOCK: Final = "removals.lock"
_LONGEST_S: Final = 10.0  # that a removal waits for a batch, and a batch for removals
_POLL_S: Final = 0.02


def between_batches(state: Path, remove: Callable[[], T]) -> T:
    """Remove something, between two batches where a job runs.

    Args:
        state: Folder of the server's files of the storage.
        remove: Tries once; raises `StoreLockedError` while the storage is in use.

    Raises:
        StoreLockedError: No job has the storage, so that nobody knows for how long it is in use; or a batch took long.
    """
    private_folder(state)
    until = time.monotonic() + _LONGEST_S
    with FileLock(state / _REMOVALS_LOCK) as turn:
        turn.acquire(shared=True)
        while True:
            try:
                return remove()
            except StoreLockedError:
                if not _jobs_run(state) or time.monotonic() >= until:
                    raise
            time.sleep(_POLL_S)


def let_removals_pass(state: Path) -> None:
    """Wait for the removals that wait, before the next batch of a job."""
    with FileLock(state / _REMOVALS_LOCK) as turn:
        turn.acquire(timeout_s=_LONGEST_S)


def _jobs_run(state: Path) -> bool:
    with FileLock(state / JOBS_LOCK) as lock:
        return not lock.acquire(timeout_s=0)
