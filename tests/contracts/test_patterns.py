"""Regular expressions of the package: none takes a time that doubles with each character of a hostile text."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import llama_index_presets

_PIECES = (
    " ",
    "\n",
    "a",
    "A",
    "1",
    "1,",
    "1.",
    "a ",
    "A ",
    "a, ",
    ". ",
    '"',
    "(",
    "[",
    "*",
    "- ",
    "|",
    "; ",
    "a: ",
    "<a ",
    "/a",
    "é",
)
_BEFORE = ("", "aa", "(", "# ", "http://")
_BEHIND = ("a", "!")
_TIMES = 40
"""Two to the power of 40 steps take an hour; a cubic pattern needs 64,000."""


class _TooLong(Exception):
    """A match that was stopped."""


@contextmanager
def _stopped_after(cpu_seconds: float) -> Iterator[None]:
    """Raise `_TooLong` once that much CPU was used; `re` looks for signals now and then."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _patterns_in(value: Any) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        if isinstance(value.pattern, str):
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _patterns_in(one)
    elif isinstance(value, (tuple, list, frozenset, set)):
        for one in value:
            yield from _patterns_in(one)


def _patterns() -> dict[re.Pattern[str], str]:
    """Patterns that modules of the package keep, and the module."""
    found: dict[re.Pattern[str], str] = {}
    for module in pkgutil.walk_packages(llama_index_presets.__path__, "llama_index_presets."):
        try:
            loaded = importlib.import_module(module.name)
        except ImportError:  # of an extra that is not installed
            continue
        for value in vars(loaded).values():
            for pattern in _patterns_in(value):
                found.setdefault(pattern, module.name)
    return found


def _hang(pattern: re.Pattern[str], cpu_seconds: float) -> str | None:
    """A text on which a pattern does not end in time, or None."""
    text = ""
    try:
        with _stopped_after(cpu_seconds):
            for before, piece, behind in itertools.product(_BEFORE, _PIECES, _BEHIND):
                text = before + piece * _TIMES + behind
                pattern.search(text)
    except _TooLong:
        return text
    return None


def test_no_pattern_takes_exponential_time() -> None:
    """A row of figures took twice as long with each digit: with a long number in a passage no answer ever came."""
    patterns = _patterns()
    assert len(patterns) > 200
    hanging = {
        (module, pattern.pattern): text
        for pattern, module in patterns.items()
        if (text := _hang(pattern, 5.0))
    }
    assert hanging == {}


def test_the_texts_find_such_a_pattern() -> None:
    """The pattern of rows of figures as it once was does not end."""
    was = re.compile(r"^\D{2,80}(?:[$€£]?\s*\(?[$€£]?\d[\d,.]*\)?\s*%?\s*[*)]?\s*){2,}$")
    assert _hang(was, 0.5) == "aa" + "1" * _TIMES + "a"
