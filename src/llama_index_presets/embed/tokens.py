"""Token counts of a text, by the tokenizer of the model that reads it; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from llama_index_presets.counting import counted
from llama_index_presets.errors import ModelError
from llama_index_presets.inference.tokenizer import open_tokenizer
from llama_index_presets.text.tiktoken_files import CARRIED, carried_encoding

__all__ = ["HostedTokenizer", "Tokenizer", "WordPieces"]

_NEAR: Final = 16
"""A cut may move back by one part in this many of a piece, to the end of a word."""
_PLAIN: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Tokenizer:
    """The tokenizer of a local model folder, never truncating; safe to share between threads.

    Args:
        folder: Model folder that holds ``tokenizer.json``, or an older vocabulary.

    Raises:
        ModelError: The folder has no tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        # A copy of our own: that of the model is switched to truncation.
        self._tokenizer: Any = open_tokenizer(folder)
        self.special = self._tokenizer.num_special_tokens_to_add(False)
        self.word_length = _word_length(self._tokenizer)
        """Tokens of one word of ASCII letters and digits, six times as fast as `tokenize`; None where nothing is."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens, special tokens included."""
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def pieces(self, text: str, limit: int) -> list[str]:
        """Cut a text into pieces that a model of `limit` tokens can read, special tokens included."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return _cut(text, [start for start, _ in offsets], limit - self.special, self.count, limit)


def _word_length(tokenizer: Any) -> Callable[[str], int] | None:
    """Length of a word by WordPiece alone: no positions, no masks, no search for special tokens."""
    model, normalizer = tokenizer.model, tokenizer.normalizer
    special = tokenizer.get_added_tokens_decoder().values()
    if type(model).__name__ != "WordPiece" or any(one.content.isalnum() for one in special):
        return None
    if normalizer is None:
        return lambda word: len(model.tokenize(word))
    keeps = normalizer.normalize_str(_PLAIN) == _PLAIN
    pieces: list[WordPieces] = []

    def length(word: str) -> int:
        if not (keeps and word.isalnum() and word.isascii() and (word.islower() or word.isdecimal())):
            return len(model.tokenize(normalizer.normalize_str(word)))
        if not pieces:  # a question of a few words needs no vocabulary
            pieces.append(WordPieces(model, tokenizer.get_vocab(with_added_tokens=False)))
        return pieces[0].length(word)

    return length


class HostedTokenizer:
    """The tokenizer of a hosted model, offline; safe to share between threads.

    Args:
        encoding: Name of a tiktoken encoding that llama-index-core carries.

    Raises:
        ModelError: It carries no such encoding; tiktoken would have to download it.

    Example:
        >>> HostedTokenizer("cl100k_base").count(["Hello world", ""])
        [2, 0]
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = carried_encoding(encoding)
        if self._encoding is None:
            raise ModelError(
                f"The tokenizer '{encoding}' is not on this machine: llama-index-core carries {' and '.join(CARRIED)}. "
                "Name one of these as the model's encoding in the catalogue; counts are then close, not exact."
            )

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self._encoding.encode_ordinary(text))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens."""
        return [len(ids) for ids in self._encoding.encode_ordinary_batch(list(texts), num_threads=2)]

    def pieces(self, text: str, limit: int) -> list[str]:
        """Cut a text into pieces of at most `limit` tokens."""
        _, starts = self._encoding.decode_with_offsets(self._encoding.encode_ordinary(text))
        return _cut(text, starts, limit, self.count, limit)


def _cut_places(text: str, starts: Sequence[int], limit: int) -> list[int]:
    """Positions at which to cut a text: before every `limit`-th token, or after the last space shortly before it.

    Args:
        text: The text.
        starts: Character at which each of its tokens starts, rising.
        limit: Most tokens of a piece, >= 1.

    Returns:
        Characters at which pieces start, the first one, 0, included.

    Example:
        >>> _cut_places("one two three four", [0, 3, 7, 13], limit=2)
        [0, 7]
    """
    places, token = [0], limit
    while token < len(starts):
        end = starts[token]
        earliest = starts[max(token - max(limit // _NEAR, 1), token - limit + 1)]
        space = max(text.rfind(" ", earliest, end), text.rfind("\n", earliest, end))
        between_words = any(character.isspace() for character in text[end - 1 : end + 1])
        place = space + 1 if space >= earliest and not between_words else end
        if place <= places[-1]:  # several tokens of one character
            place = max(end, places[-1] + 1)
        places.append(place)
        while token > 0 and starts[token - 1] >= place:
            token -= 1
        token += limit
    return places


def _cut(text: str, starts: Sequence[int], limit: int, count: Any, most: int) -> list[str]:
    """Cut, and cut finer where a piece, tokenized by itself, has a few tokens more than it had in the text."""
    while True:
        places = [*_cut_places(text, starts, limit), len(text)]
        pieces = [text[start:end] for start, end in pairwise(places) if text[start:end].strip()]
        if max(count(pieces), default=0) <= most:
            return pieces
        limit = limit * 15 // 16
        if limit < 1:
            raise ModelError(
                f"A text cannot be cut into pieces of {counted(most, 'token')}. Split it before it is embedded."
            )


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
