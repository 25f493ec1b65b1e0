"""Plain text of a long file, read part by part: a log or a table of any length is cut in the memory of one part."""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText, Section, TableSpan

__all__ = ["PART", "Rendered", "TextInParts", "is_long", "line_parts", "long_text", "survey"]

PART: Final = 1 << 19
"""Bytes of a part, and as many more as its last line or row has."""
_LONG: Final = 2_000_000  # bytes
_CLEANED: Final = bytes({*range(32), 127} - {9, 10})
"""Bytes of ASCII that `clean` replaces or drops."""
_ESCAPE: Final = b"\x1b$"
"""Begins the escape sequences by which ISO-2022 switches to other characters."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Text of a part of a file.

    Attributes:
        text: As it stands in the document.
        headings: Where heading paths begin in it; the first one at its first character, or none at all.
    """

    text: str
    headings: Sequence[Mark] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a first reading of a file found.

    Attributes:
        digest: Of its bytes, as far as it went then; what is appended later is not read.
        starts: Where each part begins: characters of the text before it, and bytes of the file.
        size: Bytes of the file.
        length: Characters of the text.
        is_blank: Whether there is nothing but white space.
        roots: First parts of its heading paths, at most two of them.
    """

    digest: bytes
    starts: tuple[tuple[int, int], ...]
    size: int
    length: int
    is_blank: bool
    roots: tuple[str, ...] = ()


class TextInParts(PlainText):
    """Text of a UTF-8 file without pages, which is read again wherever it is asked for.

    ``text`` is the whole of it, as of any `PlainText`; those who take `runs` never hold it.

    Args:
        path: The file.
        survey: What is there.
        render: Bytes of a part, and whether it is the first, to its text.
        encoding: See `PlainText`.
        tables: See `PlainText`.
        warnings: See `PlainText`.
    """

    __slots__ = ("_path", "_render", "_survey")

    _path: Path
    _survey: Survey
    _render: Callable[[bytes, bool], Rendered]

    def __init__(
        self,
        path: Path,
        survey: Survey,
        render: Callable[[bytes, bool], Rendered],
        encoding: str,
        *,
        tables: Sequence[TableSpan] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        values: dict[str, Any] = {
            "pages": (),
            "tables": tables,
            "lines": (),
            "warnings": warnings,
            "encoding": encoding,
        }
        own = {"_path": path, "_survey": survey, "_render": render}
        for name, value in (values | own).items():
            object.__setattr__(self, name, value)

    @property
    def text(self) -> str:
        """The whole text, read now."""
        return "".join(run.text for run in self.runs())

    @property
    def headings(self) -> Sequence[Mark]:
        """All heading paths, read now."""
        return _marks(self.runs())

    @property
    def root_headings(self) -> Sequence[str]:
        """See `PlainText`."""
        return self._survey.roots

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
        runs = list(self.runs())
        return PlainText(
            "".join(run.text for run in runs),
            _marks(runs) or (),
            tables=self.tables,
            warnings=self.warnings,
            encoding=self.encoding,
        )

    def stretch(self, start: int, end: int) -> str:
        """Characters from one offset to another; only the parts that hold them are read."""
        starts = self._survey.starts
        first = max(bisect_right(starts, start, key=lambda one: one[0]) - 1, 0)
        before, found = starts[first][0] if starts else 0, ""
        for raw, place in self._raw(first):
            found += self._render(raw, place == 0).text
            if before + len(found) >= end:
                break
        return found[start - before : end - before]

    def runs(self) -> Iterator[Section]:
        """The text in stretches under one heading each, of a part at most; several of one heading may follow.

        Raises:
            IngestError: After the last one: the file is no longer what it was when it was opened.
        """
        digest, start = hashlib.blake2b(), 0
        for raw, place in self._raw(0):
            digest.update(raw)
            part = self._render(raw, place == 0)
            if not part.text:
                continue
            ends = [at for at, _ in part.headings[1:]] + [len(part.text)]
            for (at, heading), end in zip(part.headings or [(0, "")], ends, strict=True):
                yield Section(heading, start + at, part.text[at:end])
            start += len(part.text)
        if digest.digest() != self._survey.digest:
            raise IngestError(
                "The file was changed while it was read. Ingest it again when nothing writes to it, or writes at its "
                "end only."
            )

    def sections_in_parts(self) -> Iterator[tuple[str, Iterator[Section]]]:
        """Each heading path in order, with the stretches under it; a stretch is gone when the next one is asked for."""
        return itertools.groupby(self.runs(), _HEADING)

    def _raw(self, first: int) -> Iterator[tuple[bytes, int]]:
        """Bytes of the parts from one on, each with its number."""
        bounds = [*(place for _, place in self._survey.starts), self._survey.size]
        with self._path.open("rb") as file:
            for number, (start, end) in enumerate(itertools.pairwise(bounds[first:]), start=first):
                file.seek(start)
                yield file.read(end - start), number


_HEADING: Final = attrgetter("heading")


def _marks(runs: Iterable[Section]) -> list[Mark]:
    """Where each heading path begins; none for text above the first."""
    starts = ((next(group).start, heading) for heading, group in itertools.groupby(runs, _HEADING))
    return [mark for mark in starts if mark != (0, "")]


def is_long(path: Path) -> bool:
    """Whether a file is read part by part, where its encoding allows it."""
    return path.stat().st_size >= _LONG


def survey(
    parts: Iterable[tuple[bytes, Rendered]], begin: int, limit: SizeLimit = DEFAULT_LIMIT
) -> Survey | None:
    """What the parts of a file hold; None where one of them shows that the file may be ISO-2022.

    Args:
        parts: Bytes of each part, in order, and its text.
        begin: Bytes of a byte order mark before the first.
        limit: What the text may come to.

    Raises:
        IngestError: It is longer than `limit`.
    """
    place, length, blank, digest = begin, 0, True, hashlib.blake2b()
    starts, roots = list[tuple[int, int]](), dict[str, None]()
    for raw, part in parts:
        if _ESCAPE in raw:
            return None
        starts.append((length, place))
        digest.update(raw)
        blank = blank and not part.text.strip()
        for _, label in part.headings if len(roots) < 2 else ():
            roots |= {label.split(" > ")[0]: None} if label else {}
        length, place = length + len(part.text), place + len(raw)
        limit.check_text(length)
    return Survey(
        digest=digest.digest(),
        starts=tuple(starts),
        size=place,
        length=length,
        is_blank=blank,
        roots=tuple(roots)[:2],
    )


def long_text(path: Path, begin: int, encoding: str) -> TextInParts | None:
    """Text of a file that is read part by part; None where it is not UTF-8, or may be ISO-2022.

    Args:
        path: The file; it must stay where it is as long as the text is in use.
        begin: Bytes of a byte order mark.
        encoding: Name of the encoding, for `PlainText`.
    """
    try:
        found = survey(((raw, _rendered(raw)) for raw in line_parts(path, begin)), begin)
    except UnicodeDecodeError:
        return None
    return TextInParts(path, found, _rendered, encoding) if found else None


def line_parts(path: Path, begin: int) -> Iterator[bytes]:
    """Bytes of a file in parts that end at line ends; what is appended meanwhile is left out."""
    end = path.stat().st_size
    with path.open("rb") as file:
        file.seek(begin)
        while begin < end:
            raw = file.read(min(PART, end - begin))
            raw += file.readline(end - begin - len(raw))
            if not raw:
                return
            yield raw
            begin += len(raw)


def _rendered(raw: bytes, is_first: bool = False) -> Rendered:
    """Characters of whole lines, cleaned; what is cleaned in a line never depends on another line."""
    if raw.isascii() and len(raw.translate(None, _CLEANED)) == len(raw):
        return Rendered(raw.decode("ascii"))
    return Rendered(plain_from_text(raw.decode("utf-8")).text)
