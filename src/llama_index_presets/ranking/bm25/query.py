"""Keyword query: words, ``"exact phrases"`` and ``prefix*``, as a user types them."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llama_index_presets.ranking.bm25.analyzer import EXTRA, GAP, Analyzer

__all__ = ["KeywordQuery", "parse_in_languages", "parse_query"]

_PHRASE = re.compile(r'"([^"]*)"|“([^“”]*)”|„([^„“”]*)[“”]|«([^«»]*)»')
_PREFIX = re.compile(r"(?<![\w*])(\w[\w./&'’-]*)\*(?![\w*])")
_SYNTAX = '"“„«*'
_JOINT = re.compile(r"[./&'’-]+")
_SHORTEST_PREFIX = 2
"""Characters; one letter and an asterisk would ask for a large part of all words."""


@dataclass(frozen=True, slots=True)
class KeywordQuery:
    """What a query asks for.

    Attributes:
        tokens: Tokens of its words, in order, repeats kept.
        phrases: Tokens of each exact phrase of two words or more, with `GAP` where a stop word is.
        prefixes: Beginnings of tokens.
        pairs: Neighbouring words.
    """

    tokens: tuple[str, ...] = ()
    phrases: tuple[tuple[str, ...], ...] = ()
    prefixes: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()


def parse_query(text: str, analyzer: Analyzer) -> KeywordQuery:
    """Read a query.

    A phrase in double quotes is looked for word by word, stemmed; any stop word does for a stop word in it. Where there
    is nothing beside phrases, only they count; beside other words, as in a question that quotes a title, the words of a
    phrase count one by one, too. A word that ends in an asterisk, of two characters or more, stands for every indexed
    token that begins so.

    Example:
        >>> parse_query('"late fees" cod*', Analyzer())
        KeywordQuery(tokens=('late', 'fee'), phrases=(('late', 'fee'),), prefixes=('cod',), pairs=(('late', 'fee'),))
        >>> parse_query('"late fees"', Analyzer())
        KeywordQuery(tokens=(), phrases=(('late', 'fee'),), prefixes=(), pairs=())
    """
    if not any(mark in text for mark in _SYNTAX):
        return _plain(analyzer.tokens(text))
    quoted = [next(filter(None, match.groups()), "") for match in _PHRASE.finditer(text)]
    rest = _PHRASE.sub(" ", text)
    prefixes: list[str] = []
    rest = _PREFIX.sub(lambda match: _read_prefix(match[1], analyzer, prefixes), rest)
    quotes = [analyzer.tokens(phrase) for phrase in quoted]
    phrases = tuple(phrase for phrase in map(_in_place, quotes) if len(_words(phrase)) > 1)
    parts = [analyzer.tokens(rest)]
    if _words(parts[0]) or prefixes:
        parts += quotes
    else:
        parts = [tokens for tokens in quotes if _in_place(tokens) not in phrases]
    tokens = tuple(token for part in parts for token in _words(part))
    pairs = tuple(pair for part in parts for pair in itertools.pairwise(_words(_in_place(part))))
    return KeywordQuery(tokens, phrases, tuple(prefixes), pairs)


def parse_in_languages(text: str, analyzers: Sequence[Analyzer]) -> KeywordQuery:
    """Read a query for an index whose documents were analyzed each in its own language.

    Each word is asked for in the forms that it has in these languages; a form that several of them share counts once.

    Example:
        >>> parse_in_languages("running", [Analyzer(), Analyzer(language="german")]).tokens
        ('run', 'running')
    """
    read = [parse_query(text, analyzer) for analyzer in analyzers]
    tokens: Counter[str] = Counter()
    for query in read:
        tokens |= Counter(query.tokens)
    return KeywordQuery(
        tuple(tokens.elements()),
        tuple(dict.fromkeys(phrase for query in read for phrase in query.phrases)),
        tuple(dict.fromkeys(prefix for query in read for prefix in query.prefixes)),
        tuple(dict.fromkeys(pair for query in read for pair in query.pairs)),
    )


def _plain(tokens: Sequence[str]) -> KeywordQuery:
    """Query without phrases and prefixes."""
    words = _words(tokens)
    placed = _words(_in_place(tokens)) if EXTRA in tokens else words
    return KeywordQuery(tuple(words), pairs=tuple(itertools.pairwise(placed)))


def _words(tokens: Sequence[str]) -> list[str]:
    """Tokens without marks."""
    return [token for token in tokens if token not in (GAP, EXTRA)]


def _in_place(tokens: Sequence[str]) -> tuple[str, ...]:
    """Tokens that have a place of their own, and gaps."""
    before = ("", *tokens)
    return tuple(token for last, token in zip(before, tokens, strict=False) if EXTRA not in (last, token))


def _read_prefix(word: str, analyzer: Analyzer, prefixes: list[str]) -> str:
    """Note the prefix, and give what of the word is an ordinary word before it."""
    word = analyzer.fold(word)
    *before, last = _JOINT.split(word)
    if analyzer.identifiers and any(map(str.isdigit, word)):
        before, last = [], re.sub("[-/'’]", "", word)
    if len(last) >= _SHORTEST_PREFIX:
        prefixes.append(last)
        return " ".join(before)
    return word
