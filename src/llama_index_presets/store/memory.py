"""Keeping a bulk copy small: memory that one phase has freed goes back to the system before the next takes its own."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import duckdb
import pyarrow

__all__ = ["emptied", "few_threads", "frugal", "frugal_process", "returned"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of glibc's ``mallopt`` (malloc.h)."""

_SMALL, _USUAL = 256 * 1024, 32 * 2**20
"""The threshold while frugal, and the one that glibc itself drifts to in a process with large buffers."""

_LANCE = {
    "LANCE_DEFAULT_IO_BUFFER_SIZE": str(16 * 2**20),
    "LANCE_DEFAULT_BATCH_SIZE": "2048",
    "LANCE_DEFAULT_FRAGMENT_READAHEAD": "1",
}
"""How many bytes a scan of Lance may read before they are asked for (usually 2 GiB, so a whole table), how many rows
it handles at once (usually 8,192), and how many files it opens ahead."""

_THREADS = 2
_LANCE_THREADS = {"LANCE_CPU_THREADS": str(_THREADS), "TOKIO_WORKER_THREADS": str(_THREADS)}
"""How many threads Lance starts, each with buffers of its own (usually one for each core); read when it starts."""


@contextmanager
def frugal() -> Iterator[None]:
    """While in the block, large buffers go back to the system when they are freed, and Lance reads little ahead.

    Without this, glibc keeps the buffers of every thread for later use, and the phases of a copy add up; elsewhere
    than on glibc that half does nothing. What the environment says of Lance is kept.
    """
    with _environment(_LANCE):
        _mallopt(_SMALL)
        try:
            yield
        finally:
            _mallopt(_USUAL)
            returned()


@contextmanager
def frugal_process() -> Iterator[None]:
    """Be `frugal` in a process that does nothing but copy, from before it opens its stores.

    Lance starts two threads whatever the number of cores, and all threads that start from now on take small buffers
    from one place, so that what one frees serves all. Neither can be taken back, and many threads would wait for each
    other.
    """
    glibc = _glibc()
    if glibc is not None:
        glibc.mallopt(_ARENA_MAX, 1)
    with _environment(_LANCE_THREADS), frugal():
        yield


@contextmanager
def few_threads(store: Any) -> Iterator[None]:
    """While in the block, DuckDB uses two threads at most, each with buffers of its own; other stores do as before."""
    if store.class_name() != "DuckDBVectorStore":
        yield
        return
    usual = store.client.execute("SELECT current_setting('threads')").fetchall()[0][0]
    store.client.execute(f"SET threads = {min(_THREADS, usual)}")
    try:
        yield
    finally:
        store.client.execute(f"SET threads = {usual}")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that the environment does not have, and take them away again."""
    set_here = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(set_here)
    try:
        yield
    finally:
        for name in set_here:
            os.environ.pop(name, None)


def emptied(store: Any) -> None:
    """Have DuckDB drop the blocks of its file that it caches; other stores cache none.

    DuckDB has no command for it, but keeps to a lower limit at once. The limit is not left low: a batch with long
    texts may need more.
    """
    if store.class_name() != "DuckDBVectorStore" or store.path == ":memory:":
        return
    limit = _memory_limit(store)
    # What it cannot let go of, such as changes that are not in the file yet, it keeps, with the limit as it was.
    with suppress(duckdb.OutOfMemoryException):
        store.client.execute("SET memory_limit = '1MB'")
    store.client.execute(f"SET memory_limit = '{limit}'")


def _memory_limit(store: Any) -> str:
    """Read DuckDB's limit so that it can be set again, in the middle of what it may be.

    DuckDB shows one digit after the point and drops the rest: set and read again a few hundred times, its own words
    would fall to nothing. No limit at all it shows in a unit that it does not read.
    """
    shown = store.client.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
    number, unit = shown.split()
    if unit == "PiB":
        return "-1"
    return f"{float(number) + 0.05:.2f} {unit}"


def returned() -> None:
    """Give memory that is free back to the system; only Arrow's pool and glibc need to be told."""
    pyarrow.default_memory_pool().release_unused()
    glibc = _glibc()
    if glibc is not None:
        glibc.malloc_trim(0)


def _mallopt(threshold: int) -> None:
    glibc = _glibc()
    if glibc is not None:
        glibc.mallopt(_MMAP_THRESHOLD, threshold)
        glibc.mallopt(_TRIM_THRESHOLD, threshold)


def _glibc() -> Any | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
