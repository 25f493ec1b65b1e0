"""Plain text of a long file, read part by part: a log of any length is cut in the memory of one part."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.plain_text import PlainText

__all__ = ["TextInParts", "long_text"]

_PART: Final = 1 << 19  # bytes, and as many more as the last line of them has
_CLEANED: Final = bytes({*range(32), 127} - {9, 10})
"""Bytes of ASCII that `clean` replaces or drops."""
_ESCAPE: Final = b"\x1b$"
"""Begins the escape sequences by which ISO-2022 switches to other characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Survey:
    """What a first reading of a file found.

    Attributes:
        size: Bytes of the file; what is appended later is not read.
        digest: Of these.
        starts: Where each part begins: characters of the text before it, and bytes of the file.
        length: Characters of the text.
        is_blank: Whether there is nothing but white space.
    """

    size: int
    digest: bytes
    starts: tuple[tuple[int, int], ...]
    length: int
    is_blank: bool


class TextInParts(PlainText):
    """Text of a UTF-8 file without headings, pages and tables, which is read again wherever it is asked for.

    ``text`` is the whole of it, as of any `PlainText`; those who take `parts` never hold it.

    Args:
        path: The file.
        begin: Bytes of a byte order mark before the text.
        survey: What is there.
        encoding: See `PlainText`.
    """

    __slots__ = ("_begin", "_path", "_survey")

    _path: Path
    _begin: int
    _survey: _Survey

    def __init__(self, path: Path, begin: int, survey: _Survey, encoding: str) -> None:
        values = {
            "headings": (),
            "pages": (),
            "tables": (),
            "lines": (),
            "warnings": (),
            "encoding": encoding,
        }
        own = {"_path": path, "_begin": begin, "_survey": survey}
        for name, value in (values | own).items():
            object.__setattr__(self, name, value)

    @property
    def text(self) -> str:
        """The whole text, read now."""
        return "".join(self.parts())

    @property
    def length(self) -> int:
        """Characters of the text."""
        return self._survey.length

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing but white space."""
        return self._survey.is_blank

    def whole(self) -> PlainText:
        """The same text in memory, for a file that does not stay."""
        return PlainText(self.text, encoding=self.encoding)

    def stretch(self, start: int, end: int) -> str:
        """Characters from one offset to another; only the parts that hold them are read."""
        first = max(bisect_right(self._survey.starts, start, key=lambda one: one[0]) - 1, 0)
        before, place = self._survey.starts[first]
        found = ""
        for raw in _parts(self._path, place, self._survey.size):
            found += _characters(raw)
            if before + len(found) >= end:
                break
        return found[start - before : end - before]

    def parts(self) -> Iterator[str]:
        """The text in parts that end at line ends.

        Raises:
            IngestError: After the last part: the file is no longer what it was when it was opened.
        """
        digest = hashlib.blake2b()
        for raw in _parts(self._path, self._begin, self._survey.size):
            digest.update(raw)
            yield _characters(raw)
        if digest.digest() != self._survey.digest:
            raise IngestError(
                "The file was changed while it was read. Ingest it again when nothing writes to it, or writes at its "
                "end only."
            )


def long_text(path: Path, begin: int, encoding: str) -> TextInParts | None:
    """Text of a file that is read part by part; None where it is not UTF-8, or may be ISO-2022.

    Args:
        path: The file; it must stay where it is as long as the text is in use.
        begin: Bytes of a byte order mark.
        encoding: Name of the encoding, for `PlainText`.
    """
    size, place, length, blank, starts, digest = path.stat().st_size, begin, 0, True, [], hashlib.blake2b()
    for raw in _parts(path, begin, size):
        if _ESCAPE in raw:
            return None
        try:
            text = _characters(raw)
        except UnicodeDecodeError:
            return None
        starts.append((length, place))
        digest.update(raw)
        blank = blank and not text.strip()
        length, place = length + len(text), place + len(raw)
    survey = _Survey(size=place, digest=digest.digest(), starts=tuple(starts), length=length, is_blank=blank)
    return TextInParts(path, begin, survey, encoding)


def _parts(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Bytes of a file from one place to another, in parts that end at line ends."""
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            raw = file.read(min(_PART, end - start))
            raw += file.readline(end - start - len(raw))
            if not raw:
                return
            yield raw
            start += len(raw)


def _characters(raw: bytes) -> str:
    """Characters of whole lines, cleaned: what is cleaned never depends on what stands in another line."""
    if raw.isascii() and len(raw.translate(None, _CLEANED)) == len(raw):
        return raw.decode("ascii")
    return plain_from_text(raw.decode("utf-8")).text
