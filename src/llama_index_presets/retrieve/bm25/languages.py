"""Languages of a keyword index: each node analyzed in its own, and questions in those that the index holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index_presets.ranking.bm25 import FIELD_END, Analyzer, KeywordQuery, View, parse_in_languages
from llama_index_presets.ranking.bm25.analyzer import ANALYZED
from llama_index_presets.text.languages import ENGLISH, detect_language, language_code, likely_languages

__all__ = ["AUTO", "LANGUAGE_KEY", "in_languages", "language_analyzer", "language_marker", "language_of"]

AUTO = "auto"
"""Value of an index's `language`: that of each node."""

LANGUAGE_KEY = "language"
"""Metadata key of a node with its language, as ingest writes it; without it the node's text is looked at."""

_MARK = "\x02"
"""Begins the token that stands for a language in an index; no word begins so."""


def language_of(metadata: Mapping[str, Any], text: str) -> str:
    """Code of a node's language: stated in its metadata, else found in its text, else English.

    Example:
        >>> language_of({"language": "German"}, "AB-17"), language_of({}, "東京の人口"), language_of({}, "AB-17")
        ('de', 'ja', 'en')
    """
    stated = metadata.get(LANGUAGE_KEY)
    known = language_code(stated) if isinstance(stated, str) else None
    return known or detect_language(text) or ENGLISH


def language_analyzer(code: str, base: Analyzer) -> Analyzer:
    """Analyzer of a language with the other settings of `base`; without stemmer and stop words where there are none."""
    name = ANALYZED.get(code, "none")
    return Analyzer(language=name, marks=base.marks, identifiers=base.identifiers)


def language_marker(code: str) -> list[str]:
    """What is added to the tokens of a node, so that the index knows its languages; English is always looked for."""
    return [] if code == ENGLISH else [FIELD_END, _MARK + code]


def in_languages(text: str, view: View, base: Analyzer) -> KeywordQuery:
    """Read a query in those languages of the index that it may be in; in all of them where its words do not tell."""
    held = [code for code in ANALYZED if view.impacts.number(_MARK + code) is not None]
    among = [ENGLISH, *held]
    codes = (likely_languages(text, among) or among) if held else among
    return parse_in_languages(text, list(dict.fromkeys(language_analyzer(code, base) for code in codes)))
