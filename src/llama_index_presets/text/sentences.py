"""Sentence splitting, verbatim: chunk boundaries, and the units of an extractive answer."""

from __future__ import annotations

import io
import itertools
import re
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

from llama_index_presets.packages.extras import require
from llama_index_presets.packages.private_modules import PrivateModules
from llama_index_presets.text.languages import ENGLISH, script_language

__all__ = ["split_sentences"]


def split_sentences(text: str, language: str | None = None) -> list[str]:
    """Cut a text into sentences, each with the white space behind it; joined again they are the text.

    A blank line ends a sentence, whatever its last character is. For English the model is the trained Punkt that
    llama-index-core packages (its own splitter uses an untrained one, which cuts behind every "Dr."); for every other
    language the rules of Wikimedia's sentencex, with its abbreviations and marks such as ``。`` and ``।``.

    Args:
        text: Any text.
        language: ISO 639-1 code; None takes the largest language of the text's script, such as English.

    Example:
        >>> split_sentences("Dr. Who came. He left.")
        ['Dr. Who came. ', 'He left.']
        >>> split_sentences("Das kostet z. B. 5 Mio. Euro. Gut.", "de")
        ['Das kostet z. B. 5 Mio. Euro. ', 'Gut.']
    """
    if language is None:
        language = script_language(text)
    cut = _english_sentences if language == ENGLISH else partial(_other_sentences, language=language)
    return [sentence for paragraph in _paragraphs(text) for sentence in cut(paragraph)]


def _other_sentences(paragraph: str, *, language: str) -> list[str]:
    """Sentences by sentencex, whose boundaries are taken, and not its texts, so that every character stays."""
    sentencex: Any = require("sentencex", extra="readers")

    starts = [one["start_index"] for one in sentencex.get_sentence_boundaries(language, paragraph)]
    bounds = [0, *starts[1:], len(paragraph)]
    return [paragraph[start:end] for start, end in itertools.pairwise(bounds) if start < end]


_MAY_END = re.compile(r"[.?!]\W")
"""Needed for an English sentence to end inside a text: logs have next to none, which Punkt is slow to say."""


_MARKS = re.compile(r"[?!]{64,}")
"""Marks that Punkt takes minutes over, then gives up; it is shown dashes, and the last of them."""


def _english_sentences(paragraph: str) -> list[str]:
    if paragraph and not _MAY_END.search(paragraph):
        return [paragraph]
    shown = _MARKS.sub(lambda run: "-" * (len(run[0]) - 1) + run[0][-1], paragraph)
    starts = [start for start, _ in _punkt().span_tokenize(shown)]
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
    """Its Punkt and the decoder of its files, without what else ``import nltk`` brings: forty modules of its own, and
    scikit-learn, SciPy and pandas where they are installed. A process that has imported it already has paid."""
    if "nltk" in sys.modules:
        from nltk.tabdata import PunktDecoder
        from nltk.tokenize import punkt

        return punkt, PunktDecoder()
    nltk = PrivateModules("nltk")
    return nltk.load("nltk.tokenize.punkt"), nltk.load("nltk.tabdata").PunktDecoder()
