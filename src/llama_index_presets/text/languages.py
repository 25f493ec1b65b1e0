"""Language of a text: by its script, its function words, and where these leave a choice by py3langid.

A language is an ISO 639-1 code (``"de"``). Of languages that share a script, only those of `SCRIPTS` are considered:
dialects and rare languages would take short texts from their large neighbours. See ADR 0152 for the libraries tried.
"""

from __future__ import annotations

import functools
import lzma
import math
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from llama_index_presets.packages.extras import require

__all__ = [
    "ENGLISH",
    "SCRIPTS",
    "detect_language",
    "detect_language_of_stretches",
    "forget_model",
    "language_code",
    "likely_languages",
    "script_language",
]

ENGLISH: Final = "en"

_LATIN: Final = (
    "en de fr es it pt nl sv da no fi hu ro tr ca eu ga lt lv et id pl cs sk sl hr vi az sq is af ms"
)
SCRIPTS: Final = MappingProxyType(
    {
        "latin": _LATIN.split(),
        "cyrillic": ["ru", "uk", "bg", "sr", "mk", "be", "kk", "mn"],
        "arabic": ["ar", "fa", "ur", "ps"],
        "devanagari": ["hi", "ne", "mr"],
        "japanese": ["ja"],
        "han": ["zh"],
        "hangul": ["ko"],
        "thai": ["th"],
        "lao": ["lo"],
        "myanmar": ["my"],
        "khmer": ["km"],
        "greek": ["el"],
        "hebrew": ["he"],
        "armenian": ["hy"],
        "georgian": ["ka"],
        "tamil": ["ta"],
        "telugu": ["te"],
        "kannada": ["kn"],
        "malayalam": ["ml"],
        "bengali": ["bn"],
        "gujarati": ["gu"],
        "gurmukhi": ["pa"],
        "ethiopic": ["am"],
    }
)
"""Script -> codes of the languages that are told apart in it."""

_RANGES: Final = (
    ("latin", "A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿ"),
    ("cyrillic", "Ѐ-ԯ"),
    ("arabic", "ء-يٮ-ۿݐ-ݿﭐ-﷿ﹰ-ﻼ"),
    ("devanagari", "\u0900-\u097f"),
    ("japanese", "ぁ-ゟァ-ヿㇰ-ㇿｦ-ﾟ"),
    ("han", "㐀-䶿一-鿿豈-\ufaff\U00020000-\U0003ffff"),
    ("hangul", "가-힣ᄀ-ᇿ㄰-㆏"),
    ("thai", "\u0e00-\u0e7f"),
    ("lao", "\u0e80-\u0eff"),
    ("myanmar", "\u1000-\u109f"),
    ("khmer", "\u1780-\u17ff"),
    ("greek", "Ͱ-Ͽἀ-῿"),
    ("hebrew", "א-ת"),
    ("armenian", "Ա-֏"),
    ("georgian", "Ⴀ-ჿ"),
    ("tamil", "\u0b80-\u0bff"),
    ("telugu", "\u0c00-\u0c7f"),
    ("kannada", "\u0c80-\u0cff"),
    ("malayalam", "\u0d00-\u0d7f"),
    ("bengali", "\u0980-\u09ff"),
    ("gujarati", "\u0a80-\u0aff"),
    ("gurmukhi", "\u0a00-\u0a7f"),
    ("ethiopic", "\u1200-\u137f"),
)
_SAMPLE: Final = 3000  # characters, in three pieces
_SURE: Final = 0.9  # of the probability among the languages considered
_LIKELY: Final = 0.02
_FEWEST_LETTERS: Final = 12  # of a script that several languages share
_NAMES: Final = MappingProxyType(
    {
        "english": "en", "german": "de", "deutsch": "de", "french": "fr", "français": "fr", "spanish": "es",
        "español": "es", "italian": "it", "portuguese": "pt", "dutch": "nl", "swedish": "sv", "danish": "da",
        "norwegian": "no", "nb": "no", "nn": "no", "finnish": "fi", "hungarian": "hu", "romanian": "ro",
        "turkish": "tr", "türkçe": "tr", "catalan": "ca", "basque": "eu", "irish": "ga", "lithuanian": "lt",
        "indonesian": "id", "polish": "pl", "czech": "cs", "vietnamese": "vi", "russian": "ru", "ukrainian": "uk",
        "bulgarian": "bg", "serbian": "sr", "arabic": "ar", "persian": "fa", "urdu": "ur", "hindi": "hi",
        "nepali": "ne", "marathi": "mr", "japanese": "ja", "chinese": "zh", "korean": "ko", "thai": "th",
        "greek": "el", "hebrew": "he", "iw": "he", "armenian": "hy", "tamil": "ta", "yiddish": "yi",
    }
)  # fmt: skip
_ENGLISH_WORDS: Final = re.compile(
    r"\b(?:the|of|and|to|is|are|were|that|with|this|from|which|what|how|where|when|does|did|should|would|their|these|"
    r"those|there|been|must|they|have|has|its|than|your)\b",
    re.I,
)
_ENGLISH_SHARE: Final = (
    0.15  # of the words: in no other language that is written in ASCII do these make up so many
)
_COPIED: Final = 1 << 20  # bytes at a time
_OTHER_SCRIPT: Final = re.compile("[Ͱ-῿\u2e80-\uabff가-\ud7ff豈-\ufaffｦ-ﾟ\U00020000-\U0003ffff]")


def detect_language(text: str) -> str | None:
    """Code of a text's language, or None where it has too few letters to tell, or they might be of several.

    Args:
        text: Any text; of a long one, samples from its begin, middle and end are looked at.

    Example:
        >>> detect_language("How is it treated?"), detect_language("東京の人口は？"), detect_language("AB-17")
        ('en', 'ja', None)
    """
    return detect_language_of_stretches(len(text), lambda start, end: text[start:end])


def detect_language_of_stretches(length: int, stretch: Callable[[int, int], str]) -> str | None:
    """The same for a text that need not be in memory.

    Args:
        length: Its characters.
        stretch: Gives those from one offset to another.
    """
    return _language_of(_sampled(length, stretch))


@functools.lru_cache(maxsize=64)
def _language_of(sample: str) -> str | None:
    """The floor and the extractive model look at the same passages."""
    if _looks_english(sample):
        return ENGLISH
    script, letters = _script(sample)
    languages = SCRIPTS.get(script, ())
    if len(languages) <= 1:
        return languages[0] if languages else None
    if letters < _FEWEST_LETTERS:
        return None
    best, share = _shares(sample, languages)[0]
    return best if share >= _SURE else None


def script_language(text: str) -> str:
    """Code of the largest language of a text's script: fast, and enough to know how its sentences end.

    Example:
        >>> script_language("Qu'est-ce ?"), script_language("Что это?")
        ('en', 'ru')
    """
    if text.isascii():
        return ENGLISH
    script, _ = _script(_sampled(len(text), lambda start, end: text[start:end]))
    return SCRIPTS[script][0] if script else ENGLISH


def likely_languages(text: str, among: Collection[str]) -> list[str]:
    """Those of some languages that a short text, such as a question, may be in, the likeliest first.

    Empty where it is written in a script of none of them.

    Example:
        >>> likely_languages("Wie wird Botulismus behandelt?", ["en", "de"])
        ['de']
        >>> likely_languages("AB-17", ["en", "ja"])
        ['en']
    """
    if len(among) > 1 and ENGLISH in among and _looks_english(text):
        return [ENGLISH]
    script, _ = _script(text)
    possible = [code for code in among if not script or code in _written_in(script)]
    if len(possible) < 2:
        return possible
    return [code for code, share in _shares(text, possible) if share >= _LIKELY]


def language_code(name: str) -> str | None:
    """Code of a language that a document or a setting names, such as ``"de-AT"`` or ``"German"``; None if unknown.

    Example:
        >>> language_code("de-AT"), language_code("German"), language_code("Klingon")
        ('de', 'de', None)
    """
    short = re.split(r"[-_]", name.strip().lower(), maxsplit=1)[0]
    code = _NAMES.get(short, short)
    return code if code == "yi" or any(code in languages for languages in SCRIPTS.values()) else None


def _written_in(script: str) -> Collection[str]:
    return ("ja", "zh") if script == "han" else SCRIPTS[script]


def _sampled(length: int, stretch: Callable[[int, int], str]) -> str:
    if length <= _SAMPLE:
        return stretch(0, length)
    piece = _SAMPLE // 3
    return " ".join(stretch(start, start + piece) for start in (0, length // 2, length - piece))


def _looks_english(text: str) -> bool:
    """A quick test, so that English neither loads nor asks the model."""
    if not text.replace("’", "").isascii() and len(text.encode("ascii", "ignore")) < 0.97 * len(text):
        return False
    found = len(_ENGLISH_WORDS.findall(text))
    return found >= 2 and found >= _ENGLISH_SHARE * len(text.split())


def _script(text: str) -> tuple[str, int]:
    """Script of most letters, and how many these are. A fifth of kana makes a text Japanese, as it mixes with Han."""
    if not _OTHER_SCRIPT.search(text):
        letters = sum(map(str.isalpha, text))
        return ("latin", letters) if letters else ("", 0)
    counts = Counter({name: len("".join(found.findall(text))) for name, found in _patterns()})
    if counts["japanese"] * 5 >= counts["japanese"] + counts["han"] > 0:
        counts["japanese"] += counts.pop("han", 0)
    # A word of Han or Thai is two or three characters, one of Latin five.
    weighted = {name: count * (1 if name in ("latin", "cyrillic") else 2) for name, count in counts.items()}
    best = max(weighted, key=lambda name: weighted[name])
    return (best, counts[best]) if counts[best] else ("", 0)


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile(f"[{letters}]+")) for name, letters in _RANGES)


def _shares(text: str, languages: Iterable[str]) -> list[tuple[str, float]]:
    """(language, probability among these), the likeliest first."""
    wanted = set(languages)
    scores: dict[str, float] = {}
    for label, score in _model().rank(text):
        code = _NAMES.get(label, label)
        if code in wanted and code not in scores:
            scores[code] = float(score)
    highest = max(scores.values(), default=0.0)
    weights = {code: math.exp(max(score - highest, -700.0)) for code, score in scores.items()}
    total = sum(weights.values())
    return sorted(((code, weight / total) for code, weight in weights.items()), key=lambda one: -one[1])


@functools.cache
def _model() -> Any:
    """py3langid with its own model, read at the first text that is not plainly English.

    Its table has a column for each of 142 languages; those that are never told apart here are let go, which makes a
    ranking twice as fast and the model 17 MB smaller.
    """
    langid = require("py3langid.langid", extra="readers")
    tables = _mapped_tables(langid.MODEL_DIR / langid.MODEL_FILE)
    labels = tables["classes"].tolist()
    wanted = {code for codes in SCRIPTS.values() for code in codes}
    columns = [place for place, name in enumerate(labels) if _NAMES.get(name, name) in wanted]
    model = langid.LanguageIdentifier(
        tables["ptc"][:, columns],
        tables["pc"][columns],
        [labels[column] for column in columns],
        memoryview(tables["nextmove"]),
        memoryview(tables["out_feat"]),
        tk_row=(),
    )
    model._rowbase = memoryview(tables["nextmove_row"].astype("uint32") << 8)  # py3langid has a list, 4 MB
    return model


def forget_model() -> None:
    """Let the model go; the next text that is not plainly English reads it again."""
    _model.cache_clear()


def _mapped_tables(packed: Path) -> dict[str, Any]:
    """Arrays of an ``.npz`` packed by LZMA, mapped from temporary files without names.

    py3langid reads them into memory, 70 MB, of which a text of a few thousand characters needs a few pages.
    """
    with tempfile.TemporaryFile() as file:
        with lzma.open(packed) as source:
            shutil.copyfileobj(source, file, _COPIED)
        with zipfile.ZipFile(file) as archive:
            return {Path(name).stem: _mapped(archive, name) for name in archive.namelist()}


def _mapped(archive: zipfile.ZipFile, name: str) -> Any:
    import numpy as np

    with archive.open(name) as source, tempfile.TemporaryFile() as file:
        shutil.copyfileobj(source, file, _COPIED)
        file.seek(0)
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, by_columns, dtype = read(file)
        order: Any = "F" if by_columns else "C"
        return np.memmap(file, dtype=dtype, mode="r", offset=file.tell(), shape=shape, order=order)
