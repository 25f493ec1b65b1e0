"""Text analyzer: text to tokens, the same for documents and queries, with a serialized form."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import Stemmer

from llama_index_presets.errors import SettingsError

__all__ = ["ANALYZED", "EXTRA", "GAP", "LANGUAGES", "Analyzer"]

GAP = "~"
"""Token in place of a stop word; no word is spelled so."""

EXTRA = "^"
"""Token before one that has no place of its own: the whole of an identifier, or a part of one that is a word."""

_UNSPACED = ("cjk", "none")
"""Settings without a stemmer and without stop words."""

LANGUAGES: tuple[str, ...] = (*sorted(set(Stemmer.algorithms()) - {"porter"}), *_UNSPACED)
"""Every accepted `language`: the Snowball languages, ``"cjk"`` and ``"none"``."""

# fmt: off
_ALIASES = {
    "ar": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "da": "danish", "nl": "dutch",
    "en": "english", "fi": "finnish", "fr": "french", "de": "german", "el": "greek", "hi": "hindi",
    "hu": "hungarian", "id": "indonesian", "ga": "irish", "it": "italian", "lt": "lithuanian",
    "ne": "nepali", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sr": "serbian", "es": "spanish", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
    "zh": "cjk", "ja": "cjk", "ko": "cjk", "chinese": "cjk", "japanese": "cjk", "korean": "cjk",
}
# fmt: on

_UNSTEMMED = "uk bg mk be kk mn fa ur ps mr he ka te kn ml bn gu pa am pl cs sk sl hr lv et vi az sq is af ms"
ANALYZED: Mapping[str, str] = {
    **{code: name for code, name in _ALIASES.items() if len(code) == 2},
    **dict.fromkeys(("th", "lo", "my", "km"), "cjk"),
    **dict.fromkeys(_UNSTEMMED.split(), "none"),
}
"""ISO 639-1 code -> the `language` that analyzes it: ``"none"`` where there is no stemmer."""

# Letters that an apostrophe ties to a word without being one: "company's", "l'eau", "dell'anno".
_ENCLITICS = frozenset({"s", "t", "d", "m", "re", "ve", "ll"})
_ELISIONS = frozenset(
    {"l", "d", "j", "m", "t", "s", "c", "n", "qu", "jusqu", "lorsqu", "puisqu", "quoiqu"}
    | {"dell", "nell", "all", "sull", "dall", "un", "quell"}
)
_ELIDING = frozenset({"french", "italian", "catalan"})

_ASCII_WORDS = re.compile(r"[a-z0-9_]+(?:'[a-z0-9_]+)*")
_JOINED = r"(?:(?:['.&-]|(?<=\d)/(?=\d)|(?<=\d),(?=\d{{3}})){letter}+)*(?:\([a-z0-9]{{1,4}}\))*"
"""What may follow a word and belong to it: the rest of ``10-k``, ``v2.3.1``, ``1,234``, ``r&d`` and ``4(a)``."""
_ASCII_RUNS = re.compile(r"[a-z0-9_]+" + _JOINED.format(letter="[a-z0-9_]"))
_JOINTS = re.compile(r"[./&,()-]+")
_ONE_BOUNDARY = re.compile(r"([^\W\d_]+)(\d+)|(\d+)([^\W\d_]+)")
# Scripts written without spaces: Han, kana, Hangul, Thai, Lao, Myanmar, Khmer (and their supplements).
_UNSPACED_SCRIPTS = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
_TURKISH_CAPITALS = {ord("I"): "ı", ord("İ"): "i"}
_DOTTED_I = "i\u0307"
"""What Python makes of ``İ`` in lower case: two characters, the second of which no user types."""
_MEMO_WORDS = 300_000
_LONGEST_WORD = 64
"""Longer runs of letters are cut into pieces of this length, so that base64 cannot fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyzer:
    """Turns text into tokens: NFKC, lower case, words, stop words away, stemmed.

    Digits, underscores and words of one letter are always kept. Scripts without spaces (Chinese, Japanese,
    Korean, Thai, ...) give every character and every pair of neighbours, in any `language`. Compare two
    analyzers with ``==``; write one down with `settings` and read it back with `from_settings`.

    Attributes:
        language: One of `LANGUAGES` or an ISO 639-1 code of one; ``"cjk"`` and ``"none"`` stem nothing.
        stem: Whether to stem with the language's Snowball stemmer.
        stopwords: Whether to drop the language's stop words of two letters and more. Languages without a list
            (see the files beside this module) drop nothing.
        marks: Whether a stop word leaves `GAP`, so that exact phrases know of it, and `EXTRA` stands before each token
            that is another form of the words before it.
        identifiers: Whether numbers and names with a digit or an ampersand are also kept whole, after their parts:
            ``10-K``, ``B12``, ``v2.3.1``, ``1,234``, ``4(a)``, ``R&D``. Hyphens, slashes and commas do not count in
            the whole, so that ``B-12`` and ``B12`` are the same; ``4(a)(ii)`` is also ``4(a)``. The words of
            ``payment_terms`` follow it.

    Raises:
        SettingsError: The language is not known; the message lists those that are.

    Example:
        >>> Analyzer().tokens("The valve AB-123's running temperatures, type C")
        ['valv', 'ab', '123', 'run', 'temperatur', 'type', 'c']
        >>> Analyzer(language="cjk").tokens("東京都")
        ['東', '東京', '京', '京都', '都']
        >>> Analyzer(identifiers=True).tokens("vitamin B-12")
        ['vitamin', 'b', '12', 'b12']
        >>> Analyzer(identifiers=True).tokens("payment_terms")
        ['payment_term', 'payment', 'term']
    """

    language: str = "english"
    stem: bool = True
    stopwords: bool = True
    marks: bool = False
    identifiers: bool = False

    def __post_init__(self) -> None:
        name = _ALIASES.get(self.language.lower(), self.language.lower())
        if name not in LANGUAGES:
            raise SettingsError(
                f"There is no language '{self.language}'. Choose one of: {', '.join(LANGUAGES)}."
            )
        object.__setattr__(self, "language", name)

    def tokens(self, text: str) -> list[str]:
        """Split a text into tokens, in their order, repeats kept."""
        memo, text = _memo(self), self.fold(text)
        if text.isascii():
            words = _ASCII_RUNS if self.identifiers else _ASCII_WORDS
            return [token for word in words.findall(text) for token in memo[word]]
        return [token for word in _any_words(self.identifiers).findall(text) for token in memo[word]]

    def fold(self, text: str) -> str:
        """A text in the spelling in which words are compared: NFKC, in the lower case of the language.

        Turkish has two letters i, so that ``I`` is the capital of ``ı``; elsewhere ``İ`` is taken for ``I``.

        Example:
            >>> Analyzer(language="turkish").fold("IŞIK, İzmir"), Analyzer().fold("İzmir")
            ('ışık, izmir', 'izmir')
        """
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
        if self.language == "turkish":
            text = text.translate(_TURKISH_CAPITALS)
        if text.isascii():
            return text.lower()
        return text.lower().replace(_DOTTED_I, "i").replace("’", "'")

    def settings(self) -> dict[str, Any]:
        """Everything needed to make an equal analyzer, as plain JSON values."""
        return asdict(self)


class _Memo(dict[str, tuple[str, ...]]):
    """Cache of tokens by word, which makes tokenising fast, since words repeat."""

    def __init__(self, analyzer: Analyzer) -> None:
        super().__init__()
        self._stems = analyzer.stem and analyzer.language not in _UNSPACED
        self._stemmer = Stemmer.Stemmer(analyzer.language) if self._stems else None
        self._stop = stop_words(analyzer.language) if analyzer.stopwords else frozenset()
        self._elides = analyzer.language in _ELIDING
        self._identifiers = analyzer.identifiers
        self._gap: tuple[str, ...] = (GAP,) if analyzer.marks else ()
        self._extra: tuple[str, ...] = (EXTRA,) if analyzer.marks else ()

    def __missing__(self, word: str) -> tuple[str, ...]:
        found = self._run(word) if self._identifiers else self._tokens(word)
        if len(self) >= _MEMO_WORDS:
            self.clear()
        if len(word) <= _LONGEST_WORD:
            self[word] = found
        return found

    def _run(self, run: str) -> tuple[str, ...]:
        """Tokens of words that joints tie together, and the whole where it is an identifier."""
        words = [word for word in _JOINTS.split(run) if word]
        found = [
            token
            for word in words
            for token in (*self._tokens(word), *self._extras((*_sides(word), *self._of_name(word))))
        ]
        if len(words) > 1 and len(run) <= _LONGEST_WORD and ("&" in run or any(map(str.isdigit, run))):
            found += self._extras(_wholes(run))
        return tuple(found)

    def _of_name(self, word: str) -> list[str]:
        """Tokens of the words of ``payment_terms``, a name that nobody says as it is written."""
        parts = [part for part in word.split("_") if part]
        if len(parts) < 2 or len(word) > _LONGEST_WORD:
            return []
        return [token for part in parts for token in self._tokens(part) if (token,) != self._gap]

    def _extras(self, tokens: Sequence[str]) -> list[str]:
        return [part for token in tokens for part in (*self._extra, sys.intern(token))]

    def _tokens(self, word: str) -> tuple[str, ...]:
        if word in self._stop:
            return self._gap
        if _is_unspaced(word[0]):
            return tuple(_characters_and_pairs(word))
        kept = (part for part in self._parts(word) if part not in self._stop)
        return tuple(self._stemmed(piece) for part in kept for piece in _pieces(part))

    def _parts(self, word: str) -> list[str]:
        parts = word.split("'")
        if len(parts) > 1 and parts[-1] in _ENCLITICS:
            parts.pop()
        if self._elides and len(parts) > 1 and parts[0] in _ELISIONS:
            parts.pop(0)
        return parts

    def _stemmed(self, word: str) -> str:
        return sys.intern(self._stemmer.stemWord(word) if self._stemmer else word)


@functools.lru_cache(maxsize=64)
def _memo(analyzer: Analyzer) -> _Memo:
    return _Memo(analyzer)


@functools.cache
def stop_words(language: str) -> frozenset[str]:
    """The Snowball stop words of a language, those of one letter left out; empty where there is no list."""
    file = resources.files(__package__) / "stopwords" / f"{language}.txt"
    if not file.is_file():
        return frozenset()
    words = unicodedata.normalize("NFKC", file.read_text(encoding="utf-8")).lower().split()
    return frozenset(word for word in words if len(word) > 1)


@functools.cache
def _any_words(identifiers: bool) -> re.Pattern[str]:
    """Words of any script. Python's ``\\w`` lacks combining marks, without which Hindi words fall apart."""
    marks = "".join(chr(c) for c in range(0x300, 0x10000) if unicodedata.category(chr(c)).startswith("M"))
    letter = rf"(?:(?![{_UNSPACED_SCRIPTS}])[\w{marks}])"
    more = _JOINED.format(letter=letter) if identifiers else rf"(?:'{letter}+)*"
    return re.compile(rf"{letter}+{more}|[{_UNSPACED_SCRIPTS}]+")


def _sides(word: str) -> tuple[str, ...]:
    """Letters and digits of a word with one boundary between them, such as ``b12`` or ``10k``."""
    match = _ONE_BOUNDARY.fullmatch(word)
    return tuple(filter(None, match.groups())) if match else ()


def _wholes(run: str) -> list[str]:
    """An identifier as it is compared, after what ``4(a)(ii)`` lies in; dots and ampersands count, other joints not."""
    name, *brackets = re.sub(r"'[^\W\d_]*$|[-/,']", "", run).split("(")
    levels = ["(".join([name, *brackets[:depth]]) for depth in range(1, len(brackets) + 1)]
    return levels or [name]


def _is_unspaced(character: str) -> bool:
    return character > "\u0dff" and re.match(f"[{_UNSPACED_SCRIPTS}]", character) is not None


def _characters_and_pairs(run: str) -> list[str]:
    """Every character and every pair, so that a query of one character finds it inside a longer word."""
    found = []
    for place, character in enumerate(run):
        found.append(character)
        if place + 1 < len(run):
            found.append(run[place : place + 2])
    return found


def _pieces(word: str) -> list[str]:
    if len(word) <= _LONGEST_WORD:
        return [word]
    return [word[start : start + _LONGEST_WORD] for start in range(0, len(word), _LONGEST_WORD)]
