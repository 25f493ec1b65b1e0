"""Sentence splitting, verbatim: chunk boundaries, and the units of an extractive answer."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["split_sentences"]


def split_sentences(text: str) -> list[str]:
    """Cut a text into sentences, each with the white space behind it; joined again they are the text.

    A blank line ends a sentence, whatever its last character is. The model is the trained English Punkt that
    llama-index-core packages (its own splitter uses an untrained one, which cuts behind every "Dr.").

    Example:
        >>> split_sentences("Dr. Who came. He left.")
        ['Dr. Who came. ', 'He left.']
    """
    return [sentence for paragraph in _paragraphs(text) for sentence in _sentences(paragraph)]


def _sentences(paragraph: str) -> list[str]:
    starts = [start for start, _ in _punkt().span_tokenize(paragraph)]
    bounds = [0, *starts[1:], len(paragraph)]
    return [paragraph[start:end] for start, end in itertools.pairwise(bounds) if start < end]


def _paragraphs(text: str) -> list[str]:
    parts = text.split("\n\n")
    return [part + "\n\n" for part in parts[:-1]] + parts[-1:]


@cache
def _punkt() -> Any:
    import llama_index.core
    import nltk
    from nltk.tokenize.punkt import PunktTokenizer

    packaged = str(Path(llama_index.core.__file__).parent / "_static" / "nltk_cache")
    if packaged not in nltk.data.path:
        nltk.data.path.append(packaged)
    return PunktTokenizer("english")
