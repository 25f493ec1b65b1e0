"""Fork safety: objects that a child process may use, and errors for those it may not.

A fork copies one thread. The thread pools of PyTorch and LanceDB do not come along, and a call that hands them
work waits for ever; sockets and database connections come along twice. So a library with threads of its own is
guarded: the child of a process that used it gets an error at once, never a hang. A parent that only imported the
library, or constructed objects that load later, leaves its children free.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from llama_index_presets.errors import ModelError

__all__ = ["ADVICE", "TORCH", "UseGuard", "in_forked_child"]

ADVICE = (
    "Build the engine, model or store in the worker, after the fork, or start workers with 'spawn' "
    "(docs/how-to/workers.md)."
)
"""What every message about a fork ends with."""


class UseGuard:
    """Guard of a library whose threads do not survive a fork: one process may use it, its forks may not.

    Args:
        library: Its name, for the message.
        error: Class of the error that is raised.

    Example:
        >>> guard = UseGuard("PyTorch", RuntimeError)
        >>> guard.check()
    """

    def __init__(self, library: str, error: type[Exception]) -> None:
        self._library = library
        self._error = error
        self._process: int | None = None

    def check(self) -> None:
        """Call before each use; takes well below a microsecond.

        Raises:
            Exception: Of the class given: this process was forked after its parent had used the library.
        """
        process = os.getpid()
        if self._process is None:
            self._process = process
        elif self._process != process:
            raise self._error(
                f"{self._library} was used in process {self._process} before it forked process {process}, where "
                f"a call could hang: the fork has none of its threads, and shares its connections. {ADVICE}"
            )

    def __reduce__(self) -> tuple[type[UseGuard], tuple[str, type[Exception]]]:
        return UseGuard, (self._library, self._error)  # a copy in another process begins anew


TORCH: Final = UseGuard("PyTorch", ModelError)
"""Of every model that runs in this process: one that ran breaks all others of a fork, also those loaded there."""


def in_forked_child(reset: Callable[[], None]) -> None:
    """Call a function in every child that this process forks from now on; systems without fork never call it."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
