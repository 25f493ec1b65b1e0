"""Lengths of words in WordPiece tokens, without a Python object for each token, which is what takes the library's time.

A log has a number or an identifier of its own in each line, and each of them is counted once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["WordPieces"]


class _Pieces(NamedTuple):
    known: frozenset[str]
    longest: dict[str, int]  # two characters -> length of the longest piece that begins with them


class WordPieces:
    """Counts what a WordPiece model makes of words of ASCII letters and digits: the longest known piece, and so on.

    Args:
        model: ``tokenizers.models.WordPiece``.
        vocabulary: Its tokens.

    Example:
        >>> from tokenizers.models import WordPiece
        >>> tokens = {"[UNK]": 0, "pump": 1, "##s": 2, "##room": 3}
        >>> pieces = WordPieces(WordPiece(tokens, unk_token="[UNK]"), tokens)
        >>> pieces.length("pumprooms"), pieces.length("valve")
        (3, 1)
    """

    def __init__(self, model: Any, vocabulary: Iterable[str]) -> None:
        prefix = model.continuing_subword_prefix
        plain = [token for token in vocabulary if token.isascii()]
        self._longest_word = model.max_input_chars_per_word
        self._first = _pieces(token for token in plain if token.isalnum())
        self._later = _pieces(token.removeprefix(prefix) for token in plain if token.startswith(prefix))

    def length(self, word: str) -> int:
        """Tokens of a word, in the letters that the vocabulary has; one of a word that is not made of known pieces."""
        end = len(word)
        if end > self._longest_word:
            return 1
        count = at = 0
        known, longest = self._first
        while at < end:
            stop = at + longest.get(word[at : at + 2], 1)
            while word[at:stop] not in known:
                stop -= 1
                if stop <= at:
                    return 1
            count += 1
            at = stop
            known, longest = self._later
        return count


def _pieces(tokens: Iterable[str]) -> _Pieces:
    known, longest = frozenset(tokens), dict[str, int]()
    for token in known:
        begin = token[:2]
        if len(token) > longest.get(begin, 0):
            longest[begin] = len(token)
    return _Pieces(known, longest)
