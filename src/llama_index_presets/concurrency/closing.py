"""Closing at the end of a block: an error while closing never replaces the error that ended the block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["close_behind", "closes_all", "closes_on_error"]

_log = logging.getLogger(__name__)


def close_behind(close: Callable[[], object], error: BaseException | None, what: str) -> None:
    """Close an object at the end of a block, keeping the block's own error.

    Args:
        close: Does it.
        error: What ended the block, or None where it ended well.
        what: What is closed, for the message; in lower case.

    Raises:
        Exception: Whatever `close` raises, when the block ended well. Otherwise that is logged, and added as a note to
            the block's own error, which the caller goes on raising.

    Example:
        >>> def close():
        ...     raise OSError("disk full")
        >>> try:
        ...     try:
        ...         raise KeyError("lost")
        ...     except KeyError as error:
        ...         close_behind(close, error, "the ledger")
        ...         raise
        ... except KeyError as error:
        ...     print(error, error.__notes__)
        'lost' ['Then the ledger failed: OSError: disk full']
    """
    try:
        close()
    except Exception as failure:
        if error is None:
            raise
        note = f"Then {what} failed: {type(failure).__name__}: {failure}"
        error.add_note(note)
        _log.error("%s", note)


@contextmanager
def closes_on_error(what: str) -> Iterator[ExitStack]:
    """An `ExitStack` of parts that are opened one after the other, closed when a later one fails.

    A block that ends well closes nothing: it takes the parts along with ``pop_all``.

    Args:
        what: What the parts are of, for the message.
    """
    opened = ExitStack()
    try:
        yield opened
    except BaseException as error:
        close_behind(opened.close, error, what)
        raise


@contextmanager
def closes_all(what: str) -> Iterator[ExitStack]:
    """`closes_on_error` for a block that keeps nothing: its parts are closed in any case."""
    with closes_on_error(what) as opened:
        yield opened
        opened.pop_all().close()
