"""Keeping a bulk copy small: memory that one phase has freed goes back to the system before the next takes its own."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["emptied", "frugal", "returned"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt`` (malloc.h)."""

_SMALL, _USUAL = 256 * 1024, 32 * 2**20
"""The threshold while frugal, and the one that glibc itself drifts to in a process with large buffers."""

_DUCKDB_LIMIT = "96MB"
"""What DuckDB may hold of a file that is read once; a batch of 1,000 vectors of 3,072 numbers takes 24 MB."""


@contextmanager
def frugal(*stores: Any) -> Iterator[None]:
    """While in the block, large buffers are given back when they are freed, and DuckDB caches little.

    Without this, glibc keeps the buffers of every thread for later use, and the phases of a copy add up. Elsewhere
    than on glibc the first half does nothing.

    Args:
        *stores: Those of DuckDB, on files, have their ``memory_limit`` lowered meanwhile.
    """
    limited = [store for store in stores if _is_duckdb_file(store)]
    before = [
        store.client.execute("SELECT current_setting('memory_limit')").fetchall()[0][0] for store in limited
    ]
    _mallopt(_SMALL)
    for store in limited:
        store.client.execute(f"SET memory_limit = '{_DUCKDB_LIMIT}'")
    try:
        yield
    finally:
        for store, limit in zip(limited, before, strict=True):
            store.client.execute(f"SET memory_limit = '{limit}'")
        _mallopt(_USUAL)
        returned()


def emptied(store: Any) -> None:
    """Have DuckDB drop the blocks of its file that it caches, inside of `frugal`; other stores cache none."""
    if _is_duckdb_file(store):
        store.client.execute("SET memory_limit = '16MB'")
        store.client.execute(f"SET memory_limit = '{_DUCKDB_LIMIT}'")


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


def _is_duckdb_file(store: Any) -> bool:
    return bool(store.class_name() == "DuckDBVectorStore" and store.path != ":memory:")
