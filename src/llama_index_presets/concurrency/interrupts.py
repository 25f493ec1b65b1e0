"""Ctrl-C in a command, also where a library swallows the `KeyboardInterrupt`."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts", "interrupts_noted"]

_REPEATED_AFTER_S = 0.01


class Interrupts:
    """Whether Ctrl-C was pressed since the command began.

    Python raises `KeyboardInterrupt` wherever the main thread is at that moment, and not all code lets it pass: DuckDB
    turns it into ``RuntimeError("Query interrupted")``, a compiled module that is being imported into an
    `ImportError`, and Python itself drops it in a ``__del__``. An error that follows is the user's stop, not a fault.
    """

    def __init__(self) -> None:
        self.heard = False
        self.shown_otherwise = sys.unraisablehook

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Note the signal, then do as Python does.

        Raises:
            KeyboardInterrupt: Always.
        """
        self.heard = True
        raise KeyboardInterrupt

    def on_unraisable(self, dropped: sys.UnraisableHookArgs) -> None:
        """Raise an interrupt again that was dropped in a ``__del__``, a moment later; other exceptions are shown."""
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            again = threading.Timer(_REPEATED_AFTER_S, _thread.interrupt_main)
            again.daemon = True
            again.start()
        else:
            self.shown_otherwise(dropped)


@contextmanager
def interrupts_noted() -> Iterator[Interrupts]:
    """Note Ctrl-C while a command runs, from the outermost call on.

    Nothing changes outside the main thread, or where the process ignores the signal or handles it otherwise.
    """
    handler = signal.getsignal(signal.SIGINT)
    outer = getattr(handler, "__self__", None)
    interrupts = outer if isinstance(outer, Interrupts) else Interrupts()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or handler is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts.on_signal)
    sys.unraisablehook = interrupts.on_unraisable
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = interrupts.shown_otherwise
