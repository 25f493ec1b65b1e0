"""Changes of files that are followed: by watchfiles where it is installed, else by looking again and again."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from llama_index_presets.ingest.sources.file_system_source import is_url
from llama_index_presets.ingest.sources.files import root_path

__all__ = ["follow"]

_Look = dict[str, tuple[int, int]]


def follow(
    paths: Sequence[str], *, interval_s: float = 2.0, stop: threading.Event | None = None
) -> Iterator[None]:
    """Wait for changes: gives one item at once, and one after each change, until `stop` is set.

    Several changes within a moment are one. What changed is not told: an ingest finds out, and unchanged documents cost
    nothing. URLs are asked at every interval.

    Args:
        paths: Files, folders and URLs.
        interval_s: Seconds between two looks, where the system does not tell of changes.
        stop: Ends the waiting.
    """
    stop = stop or threading.Event()
    before = _look(paths)  # before the first ingest, so that what changes during it is seen
    yield None
    if any(map(is_url, paths)):
        while not stop.wait(interval_s):
            yield None
        return
    while not stop.is_set():
        if (now := _look(paths)) != before:
            before = now
            yield None
        else:
            _wait(paths, interval_s, stop)


def _wait(paths: Sequence[str], interval_s: float, stop: threading.Event) -> None:
    """Return after a change, or after an interval: a look decides, so that no change between the two is missed."""
    there = [root for path in paths if (root := root_path(path)).exists()]
    if importlib.util.find_spec("watchfiles") is None or not there:
        stop.wait(interval_s)
        return
    from watchfiles import watch

    timeout_ms = max(int(interval_s * 1000), 100)
    next(
        watch(*there, stop_event=stop, rust_timeout=timeout_ms, yield_on_timeout=True, raise_interrupt=True),
        None,
    )


def _look(paths: Sequence[str]) -> _Look:
    """Change time and size of every file; one that vanishes meanwhile is passed over."""
    found: _Look = {}
    for path in paths:
        if is_url(path):
            continue
        root = root_path(path)
        if root.is_file():
            _note(found, root)
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith("."):
                    _note(found, Path(folder) / name)
    return found


def _note(found: _Look, path: Path) -> None:
    try:
        about = path.stat()
    except OSError:
        return
    found[str(path)] = (about.st_mtime_ns, about.st_size)
