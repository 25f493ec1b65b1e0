"""Answers as `ask` and `chat` show them: piece by piece on a terminal, then the sources with the words cited."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from llama_index_presets.cli.terminal import (
    Working,
    is_terminal,
    print_table,
    printable,
    say,
    table,
)
from llama_index_presets.text.excerpt import excerpt

__all__ = ["cited_words", "show_closest", "show_pieces", "show_sources"]

_MOST_WORDS: Final = 240
"""Characters of a passage that are shown."""

_MARKERS = re.compile(r"((?<!\s)(?:\s*+\[\d+\])+)")


def show_pieces(pieces: Iterable[str], status: Working) -> None:
    """Print an answer as it comes; the status line goes when its first piece is there.

    One that breaks off ends with an ellipsis and its line, before the error is said.
    """
    shown, end = False, " …\n"
    try:
        for piece in pieces:
            if piece and not shown:
                status.stop()
                shown = True
            sys.stdout.write(printable(piece))
            sys.stdout.flush()
        shown, end = True, "\n"
    finally:
        status.stop()
        if shown:
            sys.stdout.write(end)
            sys.stdout.flush()


def show_sources(answer: str, cited: Sequence[dict[str, Any]]) -> None:
    """Print what an answer cites: a table on a terminal, two lines a source elsewhere.

    Args:
        answer: Its text.
        cited: Its valid citations.
    """
    if not cited:
        return
    if not is_terminal(sys.stdout):
        for citation in cited:
            say(f"  [{citation['n']}] {_place(citation)}, {_score(citation)}")
            if words := cited_words(answer, citation):
                say(f'      "{words}"')
        return
    shown = table("", "Source", "Words cited", "Score")
    for citation in cited:
        score = "-" if citation["score"] is None else f"{citation['score']:.3f}"
        shown.add_row(f"[{citation['n']}]", _place(citation), cited_words(answer, citation), score)
    print_table(shown)


def show_closest(passages: Sequence[dict[str, Any]]) -> None:
    """Print the passages that are nearest to a question that nothing answered, two lines each."""
    if not passages:
        return
    say("Closest passages, none of which is sure to hold the answer:")
    for one in passages:
        say(f"  {_place(one)}")
        say(f'      "{_line(one["quote"])}"')


def cited_words(answer: str, citation: dict[str, Any]) -> str:
    """Words of a passage that an answer rests on.

    The citation's own ``quote`` where it has one; else what the answer repeats word by word before the marker; else
    the beginning of the passage. Empty for an image.

    Example:
        >>> passage = "Pens last 28 days. Store them cool."
        >>> cited_words("Store them cool. [1]", {"n": 1, "text": passage})
        'Store them cool.'
        >>> cited_words("Four weeks [1].", {"n": 1, "text": passage})
        'Pens last 28 days. Store them cool.'
    """
    if citation.get("image"):
        return ""
    return _line(citation.get("quote") or _repeated(answer, citation) or str(citation.get("text") or ""))


def _line(words: str) -> str:
    return excerpt(" ".join(printable(words).split()), _MOST_WORDS)


def _repeated(answer: str, citation: dict[str, Any]) -> str:
    """The answer's texts before a citation's markers, where they stand in its passage."""
    passage = " ".join(str(citation.get("text") or "").split())
    parts = _MARKERS.split(answer)
    said = [
        " ".join(text.split())
        for text, markers in zip(parts[::2], parts[1::2], strict=False)
        if f"[{citation['n']}]" in markers
    ]
    return " … ".join(text for text in said if text and text in passage)


def _place(citation: dict[str, Any]) -> str:
    """Work and position in it, for people."""
    by = ", ".join(citation.get("authors", ()))
    year = f" ({citation['year']})" if "year" in citation else ""
    title = citation.get("title", "")
    work = f"{by}{year}: {title}. " if title and by else f"{title}{year}. " if title and year else ""
    page = f", page {citation['page']}" if citation["page"] else ""
    heading = f" ({citation['heading']})" if citation["heading"] else ""
    return f"{work}{_from_here(str(citation['source']))}{page}{heading}{_size(citation)}"


def _from_here(source: str) -> str:
    """The path of a file below the current folder, from there."""
    here = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118  # a text, which a URL is too
    return source.removeprefix(here)


def _score(citation: dict[str, Any]) -> str:
    return "not re-ranked" if citation["score"] is None else f"score {citation['score']:.3f}"


def _size(citation: dict[str, Any]) -> str:
    image = citation.get("image")
    return f" ({image['format']}, {image['width']} × {image['height']})" if image else ""
