"""Output of the commands: plain text and tables on standard output, a status line on a terminal, no colour elsewhere.

What comes from documents and models is data: control characters, with which a text could drive a terminal, are shown
as a replacement character.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final

import typer

__all__ = [
    "Working",
    "can_ask",
    "clear_screen",
    "complain",
    "console",
    "is_terminal",
    "model_loads_shown",
    "print_table",
    "printable",
    "say",
    "table",
    "working",
]

STATUS_AFTER_S: Final = 0.3
"""Seconds of silence after which a status line says what is being done."""

_PIPE_WIDTH: Final = 140
_LEAST_COLUMNS: Final = 3
_LONG_WORD: Final = 24
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text without characters that drive a terminal.

    Example:
        >>> printable("a\\x1b[2Jb\\tc")
        'a\\ufffd[2Jb\\tc'
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str) -> None:
    """Print a line on standard output."""
    typer.echo(printable(text))


def complain(text: str) -> None:
    """Print a line on standard error; on a terminal a word like "Error:" at its head is red."""
    text = printable(text)
    head, colon, rest = text.partition(":")
    if colon and head == "Error" and _coloured(sys.stderr):
        text = f"\x1b[1;31m{head}:\x1b[0m{rest}"
    typer.echo(text, err=True)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; False for one that cannot move its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") != "dumb"


def can_ask() -> bool:
    """Whether standard input can be answered on; a service or a scheduler may have closed it."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def _coloured(stream: Any) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


# -- tables -----------------------------------------------------------------------------------------------------------


def table(*columns: str) -> Any:
    """A table without lines; a cell is text, never markup, and is folded, never cut."""
    from rich.table import Column, Table
    from rich.text import Text

    class PlainTable(Table):
        """Table whose texts are shown as they are."""

        def add_row(self, *cells: Any, **options: Any) -> None:
            shown = [Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells]
            super().add_row(*shown, **options)

    made = [Column(header=column, overflow="fold") for column in columns]
    return PlainTable(*made, box=None, padding=(0, 1, 0, 0))


def print_table(table: Any) -> None:
    """Print a table; on a screen too narrow for its longest words, a block of lines for each row."""
    screen = console()
    if len(table.columns) < _LEAST_COLUMNS or sum(map(_needed, table.columns)) <= screen.width:
        screen.print(table)
        return
    for row in _rows(table):
        screen.print(row, soft_wrap=False)


def _needed(column: Any) -> int:
    """Width below which a column is no pleasure to read: its longest word, of long ones a part."""
    words = (word for cell in (column.header, *column.cells) for word in str(cell).split())
    return 1 + min(max(map(len, words), default=0), _LONG_WORD)


def _rows(table: Any) -> Iterator[Any]:
    """Each row as lines of a column's name and its cell."""
    from rich.table import Column, Table
    from rich.text import Text

    headers = [str(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        block = Table(
            Column(style="bold", no_wrap=True),
            Column(overflow="fold"),
            box=None,
            padding=(0, 1, 0, 0),
            show_header=False,
        )
        for header, cell in zip(headers, cells, strict=True):
            block.add_row(Text(header), cell)
        yield block
        yield Text("")


def console(*, stderr: bool = False) -> Any:
    """A stream; wide enough for whole tables where it is no terminal and ``COLUMNS`` says nothing."""
    from rich.console import Console

    class Quiet(Console):
        """Console that leaves a broken pipe to `main`; rich would exit with the code of a failure."""

        def on_broken_pipe(self) -> None:
            raise

    stream = sys.stderr if stderr else sys.stdout
    fixed = None if stream.isatty() or os.environ.get("COLUMNS", "").isdecimal() else _PIPE_WIDTH
    return Quiet(stderr=stderr, width=fixed, highlight=False)


def clear_screen() -> None:
    """Empty a terminal."""
    console().clear()


# -- what is being done -----------------------------------------------------------------------------------------------


class Working:
    """Status line; see `working`."""

    def __init__(self, doing: str) -> None:
        self._doing = [doing]
        self._status: Any = None
        self._lock = threading.Lock()
        self._over = not is_terminal(sys.stderr)
        self._timer = threading.Timer(STATUS_AFTER_S, self._show)
        self._timer.daemon = True

    def _show(self) -> None:
        with self._lock:
            if not self._over and self._status is None:
                self._status = console(stderr=True).status(self._line())
                self._status.start()

    def begin(self, doing: str) -> None:
        """Say that something else is being done, until `done`."""
        with self._lock:
            self._doing.append(printable(doing))
            self._update()

    def done(self) -> None:
        """What `begin` named is done; the line says what it said before."""
        with self._lock:
            if len(self._doing) > 1:
                self._doing.pop()
            self._update()

    def _line(self) -> Any:
        """What is being done, as text: a model's folder may have brackets in its name, which are no markup."""
        from rich.text import Text

        return Text(f"{self._doing[-1]} …")

    def _update(self) -> None:
        if self._status is not None:
            self._status.update(self._line())

    def stop(self) -> None:
        """Take the line away: there is something to show."""
        with self._lock:
            self._over = True
            self._timer.cancel()
            if self._status is not None:
                self._status.stop()
                self._status = None

    def __enter__(self) -> Working:
        if not self._over:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def working(doing: str) -> Working:
    """Context manager: on a terminal, a line on standard error says what is being done if it takes 0.3 s.

    Args:
        doing: As "Loading the index".
    """
    return Working(doing)


def model_loads_shown(status: Working) -> AbstractContextManager[None]:
    """Let a status line name each model while it is loaded."""
    from llama_index_presets.inference.loading import report_loads

    return report_loads(lambda model: status.begin(f"Loading {model}"), status.done)
