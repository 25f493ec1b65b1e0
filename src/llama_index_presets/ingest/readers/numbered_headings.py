"""Headings of plain text that are numbered: "4.2 Error codes" on a line of its own between blank lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from llama_index_presets.ingest.plain_text import Mark

__all__ = ["numbered_headings"]

_HEADING: Final = re.compile(
    r"(?:\A|(?<=\n\n))[ \t]{0,3}(?P<number>\d{1,2}(?:\.\d{1,2}){0,4})\.?[ \t]{1,4}"
    r"(?P<title>[\dA-Z\"“(][^\n]{1,70})(?=\n[ \t]*\n)"
)
_ENDS_A_SENTENCE: Final = tuple(".,;:!?…")
_CONTENTS: Final = re.compile(r"\.{3}|\. \. |[ \t]{3,}\d+$")  # a line of a table of contents
_FURTHEST: Final = 3
"""Numbers that may be missing between two headings of a level."""


class _Heading(NamedTuple):
    start: int
    number: tuple[int, ...]
    text: str


def numbered_headings(text: str) -> Sequence[Mark]:
    """Where the sections of a text begin whose headings count on: 1, 2, 2.1, 2.2, 3; none where it has no such ones.

    A list of numbered lines has no number of several parts. Of several texts in one file the longest has its headings,
    unless more than half of it stands below the last one: that is another text, whose headings are not numbered.

    Args:
        text: Plain text with ``"\\n"`` at line ends.

    Returns:
        Offsets of the headings, which stay in the text, and their paths.

    Example:
        >>> lines = ["1 Scope", "All of it.", "2 Use", "2.1 At home", "Plug it in.", "2.2 Abroad", "Take an adapter."]
        >>> [label for _, label in numbered_headings("\\n\\n".join(lines))]
        ['1 Scope', '2 Use', '2 Use > 2.1 At home', '2 Use > 2.2 Abroad']
    """
    runs = _runs(text)
    starts = [run[0].start for run in runs]
    known = [
        (end - start, run)
        for run, start, end in zip(runs, starts, [*starts[1:], len(text)], strict=False)
        if len(run) > 2
        and any(len(one.number) > 1 for one in run)
        and (end - run[-1].start) * 2 < end - start
    ]
    return _paths(max(known)[1]) if known else ()


def _runs(text: str) -> list[list[_Heading]]:
    """Headings that count on, each run from a first number on; a table of contents is a run of its own."""
    runs: list[list[_Heading]] = []
    for found in _HEADING.finditer(text):
        title = found["title"].strip()
        if title.endswith(_ENDS_A_SENTENCE) or _CONTENTS.search(title) or not re.search("[A-Za-z]{2}", title):
            continue
        number = tuple(map(int, found["number"].split(".")))
        one = _Heading(found.start(), number, f"{found['number']} {' '.join(title.split())}")
        if number in ((0,), (1,)) and (not runs or runs[-1][-1].number != (0,)):
            runs.append([one])
        elif runs and _follows(runs[-1][-1].number, number):
            runs[-1].append(one)
    return runs


def _follows(last: tuple[int, ...], number: tuple[int, ...]) -> bool:
    """Whether a number may be the next one: of the next part, or one that is a little larger on its level or above."""
    level = next((place for place, (a, b) in enumerate(zip(last, number, strict=False)) if a != b), None)
    if level is None:
        return len(number) > len(last) and max(number[len(last) :]) <= _FURTHEST
    return 0 < number[level] - last[level] <= _FURTHEST and all(
        part <= _FURTHEST for part in number[level + 1 :]
    )


def _paths(run: Sequence[_Heading]) -> list[Mark]:
    marks: list[Mark] = []
    above: list[_Heading] = []
    for one in run:
        while above and one.number[: len(above[-1].number)] != above[-1].number:
            above.pop()
        above.append(one)
        marks.append((one.start, " > ".join(part.text for part in above)))
    return marks
