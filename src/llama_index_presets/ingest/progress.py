"""Progress of a long ingest: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol

__all__ = ["Progress", "Silent", "TerminalBar", "progress_bar"]


class Progress(Protocol):
    """Progress protocol: the total, then each batch of finished documents."""

    def start(self, total: int) -> None:
        """Start with the number of documents."""

    def advance(self, documents: int = 1) -> None:
        """Add finished documents."""

    def __enter__(self) -> Progress:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""


class Silent:
    """Shows nothing."""

    def start(self, total: int) -> None:
        """Nothing to show."""

    def advance(self, documents: int = 1) -> None:
        """Nothing to show."""

    def __enter__(self) -> Silent:
        """Nothing to begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


class TerminalBar:
    """A bar on standard error.

    Args:
        doing: What stands before it.
        things: What is counted.
    """

    def __init__(self, doing: str, things: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(things),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(doing, total=None)
        # it imports LlamaIndex, which a list of commands need not
        from llama_index_presets.inference.loading import report_loads

        self._loads = report_loads(
            lambda model: self._bar.update(self._task, description=f"Loading {model}"),
            lambda: self._bar.update(self._task, description=doing),
        )

    def start(self, total: int) -> None:
        """Show the total."""
        self._bar.update(self._task, total=total)

    def advance(self, documents: int = 1) -> None:
        """Move the bar."""
        self._bar.advance(self._task, documents)

    def __enter__(self) -> TerminalBar:
        """Draw it; while a model is loaded, it says so."""
        self._loads.__enter__()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self._loads.__exit__(None, None, None)
        self._bar.stop()


def progress_bar(show: bool | None = None, doing: str = "Ingesting", things: str = "documents") -> Progress:
    """Bar on a terminal, else nothing.

    Args:
        show: None asks whether standard error is a terminal.
        doing: What stands before the bar.
        things: What is counted.
    """
    return TerminalBar(doing, things) if (sys.stderr.isatty() if show is None else show) else Silent()
