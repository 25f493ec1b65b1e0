"""Sentence splitting, verbatim: chunk boundaries, and the units of an extractive answer."""

from __future__ import annotations

import io
import itertools
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from llama_index_presets._lazy_packages import deferring, is_command

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
    """Punkt with the parameters that llama-index-core packages.

    Read here: nltk refuses files with several hard links, which is how uv installs packages.
    """
    import llama_index.core

    punkt, decoder = _modules_of_nltk()
    folder = Path(llama_index.core.__file__).parent / "_static" / "nltk_cache/tokenizers/punkt_tab/english"
    texts = {file.stem: io.StringIO(file.read_text(encoding="utf-8")) for file in folder.iterdir()}
    tokenizer = punkt.PunktSentenceTokenizer()
    tokenizer._params = parameters = punkt.PunktParameters()
    parameters.collocations = set(decoder.tab2tups(texts["collocations"]))
    parameters.sent_starters = decoder.txt2set(texts["sent_starters"])
    parameters.abbrev_types = decoder.txt2set(texts["abbrev_types"])
    parameters.ortho_context = decoder.tab2intdict(texts["ortho_context"])
    return tokenizer


def _modules_of_nltk() -> tuple[Any, Any]:
    """Its Punkt and the decoder of its files; in a command of ours without the forty modules that nltk imports."""
    with deferring("nltk", "nltk.tokenize") if is_command() else nullcontext():
        from nltk.tabdata import PunktDecoder
        from nltk.tokenize import punkt

    return punkt, PunktDecoder()
