"""Keeping a bulk copy small: memory that one phase has freed goes back to the system before the next takes its own."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import duckdb

__all__ = ["emptied", "frugal", "returned"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt`` (malloc.h)."""

_SMALL, _USUAL = 256 * 1024, 32 * 2**20
"""The threshold while frugal, and the one that glibc itself drifts to in a process with large buffers."""


@contextmanager
def frugal() -> Iterator[None]:
    """While in the block, large buffers are given back to the system when they are freed.

    Without this, glibc keeps the buffers of every thread for later use, and the phases of a copy add up. Elsewhere
    than on glibc it does nothing.
    """
    _mallopt(_SMALL)
    try:
        yield
    finally:
        _mallopt(_USUAL)
        returned()


def emptied(store: Any) -> None:
    """Have DuckDB drop the blocks of its file that it caches; other stores cache none.

    DuckDB has no command for it, but keeps to a lower limit at once. The limit is not left low: a batch with long
    texts may need more.
    """
    if store.class_name() != "DuckDBVectorStore" or store.path == ":memory:":
        return
    limit = store.client.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
    # What it cannot let go of, such as changes that are not in the file yet, it keeps, with the limit as it was.
    with suppress(duckdb.OutOfMemoryException):
        store.client.execute("SET memory_limit = '16MB'")
    store.client.execute(f"SET memory_limit = '{limit}'")


def returned() -> None:
    """Give memory that is free back to the system; only glibc needs to be told."""
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
