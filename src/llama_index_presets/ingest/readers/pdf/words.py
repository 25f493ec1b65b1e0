"""Words and ruled lines of a PDF page, with their places, from pypdfium2."""

from __future__ import annotations

import ctypes
import itertools
import math
import re
import sys
import unicodedata
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from llama_index_presets.ingest.readers.pdf.characters import Characters, Run
from llama_index_presets.ingest.readers.pdf.form_fields import filled_fields
from llama_index_presets.ingest.readers.pdf.hidden import Paint, are_shown
from llama_index_presets.ingest.readers.pdf.vertical import DOWNWARDS, may_be_vertical, vertical_words
from llama_index_presets.ingest.readers.pdf.word import Box, Word
from llama_index_presets.packages.extras import require

__all__ = ["Frame", "PageWords", "Ruling", "is_right_to_left", "joined", "page_words"]

_HYPHENS: Final = {0x02: "-", 0xFFFE: "-", 0x00AD: "\u00ad", 0x2010: "-", 0x2011: "-"}
_CHARACTERS: Final = {
    0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st",
    0x0132: "IJ", 0x0133: "ij", 0xF0B7: "•", 0xF0A7: "•", 0xF0D8: "•", 0xF076: "•", 0x25CF: "•", **_HYPHENS,
}  # fmt: skip
_REPLACED: Final = re.compile(f"[{re.escape(''.join(map(chr, _CHARACTERS)))}]")
_RIGHT_TO_LEFT: Final = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_LEFT_TO_RIGHT: Final = re.compile(r"[A-Za-z0-9\u00c0-\u024f\u0370-\u052f]")
_PRESENTATION: Final = re.compile("[\ufb1d-\ufdff\ufe70-\ufefc]")  # shapes of Arabic and Hebrew letters
_IGNORED: Final = frozenset({0, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF})
_BOLD: Final = re.compile(r"bold|black|heavy|demi|cmbx", re.IGNORECASE)
_MOST_OBJECTS: Final = 5_000  # a chart has more, and no table
_MOST_SEGMENTS: Final = 2_000
_LONGEST_NAME: Final = 256  # bytes of a font's name that are asked for at once
_THIN: Final = 3.0  # points
_LARGEST_FILLED: Final = 12.0  # points of a letter in a high field
_SLANTED: Final = 0.1  # of a quarter turn
_SLANTED_REACH: Final = 2.0  # em from the middle of a character to that of the next


def is_right_to_left(text: str) -> bool:
    """Whether most letters are of Arabic, Hebrew or another script written from right to left."""
    return len(_RIGHT_TO_LEFT.findall(text)) > len(_LEFT_TO_RIGHT.findall(text))


def joined(words: Sequence[Word]) -> str:
    """Words that stand from left to right, as one text in the order in which they are read."""
    texts = [word.text for word in words]
    text = " ".join(texts)
    if text.isascii():
        return text
    if not _RIGHT_TO_LEFT.search("".join(texts)) or not is_right_to_left("".join(texts)):
        return text
    ordered: list[str] = []
    for foreign, run in itertools.groupby(reversed(texts), key=lambda text: not _RIGHT_TO_LEFT.search(text)):
        members = list(run)  # numbers and Latin words among them run from left to right
        ordered += members[::-1] if foreign else members
    return " ".join(ordered)


class Ruling(NamedTuple):
    """A drawn line, horizontal or vertical: x0 <= x1, y0 <= y1."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def horizontal(self) -> bool:
        """Whether it is wider than high."""
        return self.x1 - self.x0 >= self.y1 - self.y0


@dataclass(frozen=True, slots=True)
class Frame:
    """Coordinates from the upper left corner of a page that is turned clockwise by so many quarters.

    Attributes:
        bounds: Left, bottom, right and top of the page in PDF's own coordinates.
        turns: Quarters, 0 to 3.
    """

    bounds: Box
    turns: int

    def point(self, x: float, y: float) -> tuple[float, float]:
        """A point of PDF's own coordinates in this frame."""
        left, bottom, right, top = self.bounds
        return ((x - left, top - y), (y - bottom, x - left), (right - x, y - bottom), (top - y, right - x))[
            self.turns
        ]

    def back(self, x: float, y: float) -> tuple[float, float]:
        """A point of this frame in PDF's own coordinates."""
        left, bottom, right, top = self.bounds
        return ((x + left, top - y), (y + left, x + bottom), (right - x, y + bottom), (right - y, top - x))[
            self.turns
        ]

    def box(self, box: Box, other: Frame) -> Box:
        """A box of this frame in another frame."""
        a, b = other.point(*self.back(box[0], box[1])), other.point(*self.back(box[2], box[3]))
        return min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])


@dataclass(slots=True)
class PageWords:
    """What stands on a page.

    Attributes:
        display: The frame in which the page is shown.
        words: Words by frame, in the order of the content; the frame with most words first.
        rulings: Drawn lines in the first of these frames.
        height: Of the page in that frame, in points.
        width: Of the page in that frame, in points.
        unmapped: Characters whose font does not say what they are.
        image_share: Part of the page that images cover, 0 to 1.
        hidden: Words left out, since the page does not show them.
    """

    display: Frame
    words: dict[Frame, list[Word]]
    rulings: list[Ruling]
    height: float
    width: float
    unmapped: int
    image_share: float
    hidden: int = 0


def page_words(page: Any) -> PageWords:
    """Words and ruled lines of a page of pypdfium2."""
    raw = require("pypdfium2.raw", extra="readers")
    bounds: Box = tuple(page.get_bbox())
    display = Frame(bounds, page.get_rotation() // 90 % 4)
    reader = _TextPage(raw, page, bounds)
    found = {Frame(bounds, turn): words for turn, words in reader.words().items()}
    if filled := list(_field_words(raw, page, display)):
        found[display] = [*found.get(display, []), *filled]
    width, height = abs(bounds[2] - bounds[0]), abs(bounds[3] - bounds[1])
    count = sum(map(len, found.values()))
    if any(word.paint for words in found.values() for word in words):
        covered = _drawn(raw, page, display)[1]
        found = _shown(page, display, found, covered / max(width * height, 1.0))
    ordered = sorted(found, key=lambda frame: -sum(len(word.text) for word in found[frame]))
    frames = {frame: found[frame] for frame in ordered} or {display: []}
    main = next(iter(frames))
    rulings, covered = _drawn(raw, page, main)
    share = min(covered / max(width * height, 1.0), 1.0)
    if main.turns % 2:
        width, height = height, width
    hidden = count - sum(map(len, frames.values()))
    return PageWords(display, frames, rulings, height, width, reader.unmapped, share, hidden)


def _field_words(raw: Any, page: Any, frame: Frame) -> Iterator[Word]:
    """A word for each line of a filled field."""
    for field in filled_fields(raw, page):
        ends = frame.point(field.left, field.bottom), frame.point(field.right, field.top)
        (x0, x1), (top, bottom) = sorted(x for x, _ in ends), sorted(y for _, y in ends)
        lines = field.text.split("\n")
        height = (bottom - top) / len(lines)
        em = max(min(_LARGEST_FILLED, 0.8 * height), 1.0)
        for at, line in enumerate(lines):
            if text := " ".join(line.split()):
                baseline = top + height * (at + 0.5) + 0.35 * em
                yield Word(text, x0, min(x1, x0 + 0.5 * em * len(text)), baseline, em)


def _shown(
    page: Any, display: Frame, found: dict[Frame, list[Word]], image_share: float
) -> dict[Frame, list[Word]]:
    """Words that the page shows, by frame."""
    looks = [
        (word.paint, frame.box((word.x0, word.top, word.x1, word.bottom), display))
        for frame, words in found.items()
        for word in words
    ]
    shown = iter(are_shown(page, looks, image_share))
    kept = {frame: [word for word in words if next(shown)] for frame, words in found.items()}
    return {frame: words for frame, words in kept.items() if words}


class _Look(NamedTuple):
    """What the characters of a text object have in common.

    Attributes:
        turn: Quarters by which the page is turned so that they are upright.
        slant: See `_slant`.
        em: Font size, as it is drawn.
        bold: Whether the font is.
        paint: See `Word`.
    """

    turn: int
    slant: float | None
    em: float
    bold: bool
    paint: str


class _TextPage:
    """Characters of a page joined to words: the calls into the library are few and direct, since they are the cost."""

    def __init__(self, raw: Any, page: Any, bounds: Box) -> None:
        self._raw = raw
        self._text = page.get_textpage()
        self._characters = Characters(raw, self._text)
        self._bounds = bounds
        self._matrix = raw.FS_MATRIX()
        self._x, self._y = ctypes.c_double(), ctypes.c_double()
        self._bold: dict[bytes, bool] = {}
        self._flags, self._name = ctypes.c_int(), ctypes.create_string_buffer(_LONGEST_NAME)
        self._paint = Paint(raw, self._text.raw)
        self._drawn: dict[int, _Look] = {}
        self.unmapped = 0

    @cached_property
    def _codes(self) -> list[int]:
        return list(map(int, self._characters.codes))

    def words(self) -> dict[int, list[Word]]:
        found: dict[int, list[Word]] = {}
        shaped = _PRESENTATION.search(self._characters.text) is not None
        for turn, word in self._runs():
            if shaped and _PRESENTATION.search(word.text):
                word.text = unicodedata.normalize("NFKC", word.text)
            if len(word.text) == 1 and unicodedata.category(word.text) in ("Co", "Cc"):
                word.text = "•"  # a sign of a symbol font: a bullet, or a box to tick
            if not word.paint and (_is_outside(word, self._bounds, turn) or _is_tiny(word)):
                word.paint = "none"
            if word.text:
                found.setdefault(turn, []).append(word)
        if (upright := found.get(0)) and may_be_vertical(self._characters.text):
            rest, lines = vertical_words(upright, self._bounds[2] - self._bounds[0])
            if lines:
                found[0] = rest
                found.setdefault(DOWNWARDS, []).extend(lines)
        return {turn: words for turn, words in found.items() if words}

    def _runs(self) -> Iterator[tuple[int, Word]]:
        """Words, each with the frame that it stands in: nearly all are upright, and end at white space."""
        text, origin, done = self._characters.text, self._bounds[0], 0
        plain = not _REPLACED.search(text)
        for run in self._characters.runs():
            if run.start < done:
                continue
            turn, slant, word = self._start(run.start)
            em = word.em
            is_word = run.end - run.start == 1 or (
                run.nearest > -0.6 * em and run.farthest < 0.35 * em and run.shift < 0.6 * em
            )
            if turn or slant is not None or run.is_odd or not is_word:
                done = yield from self._run(run, turn, slant, word)
                continue
            word.text = text[run.start : run.end]
            if not plain:
                word.text = word.text.translate(_CHARACTERS)
            word.x0, word.x1 = run.left - origin, run.right - origin
            yield turn, word

    def _run(
        self, run: Run, turn: int, slant: float | None, first: Word
    ) -> Generator[tuple[int, Word], None, int]:
        """Words of a run that is none by itself, character by character; a slanted one goes on behind white space.

        Returns:
            The place behind the last character that was read.
        """
        codes, box_of = self._codes, self._characters.box
        word: Word | None = first
        edges, gap, place = (0.0, 0.0, 0.0, 0.0), "", run.start
        for place in range(run.start, len(codes)):
            code = codes[place]
            if (code <= 32 and code != 2) or code == 0xA0:
                gap = " "
                if word is not None and slant is None:
                    yield turn, word
                    word = None
                if word is None and place >= run.end:
                    return place
                continue
            if code in _IGNORED:
                continue
            box = box_of(place)
            if word is not None and word.text:
                if slant is None:
                    goes_on = _follows(edges, box, turn, word.em)
                else:
                    goes_on = self._slant(place) == slant and _is_near(edges, box, word.em)
                if not goes_on:
                    yield turn, word
                    word = None
            if word is None:
                turn, slant, word = self._start(place)
            elif gap and word.text:
                word.text += gap
            gap = ""
            word.text += self._character(code)
            self._extend(word, turn, box)
            edges = box
        if word is not None:
            yield turn, word
        return place + 1

    def _character(self, code: int) -> str:
        """What a code stands for; those that stand for no character are counted."""
        if 0xD800 <= code <= 0xDFFF or code == 0xFFFD or code > sys.maxunicode:
            self.unmapped += 1
        return _CHARACTERS.get(code) or (chr(code) if code <= sys.maxunicode else "\ufffd")

    def _slant(self, place: int) -> float | None:
        """Angle of a character that stands neither upright nor sideways, as those of a watermark, in quarters."""
        return _slant(self._raw.FPDFText_GetCharAngle(self._text.raw, place))

    def _start(self, place: int) -> tuple[int, float | None, Word]:
        """A new word, its frame, and its slant: one that has any stands with those that are sideways."""
        drawn = self._characters.text_object(place)
        look = self._drawn.get(drawn)
        if look is None:
            look = self._look(place)
            if drawn:
                self._drawn[drawn] = look
        self._raw.FPDFText_GetCharOrigin(self._text.raw, place, self._x, self._y)
        if look.turn:
            _, baseline = Frame(self._bounds, look.turn).point(self._x.value, self._y.value)
        else:
            baseline = self._bounds[3] - self._y.value
        self.unmapped += self._characters.has_no_character(place)
        word = Word("", math.inf, -math.inf, baseline, look.em, look.bold, look.paint)
        return look.turn, look.slant, word

    def _look(self, place: int) -> _Look:
        """How the object of a character is drawn."""
        raw, text = self._raw, self._text.raw
        angle = raw.FPDFText_GetCharAngle(text, place)
        slant = _slant(angle) if angle else None
        quarters = round(angle / (math.pi / 2))
        if slant is not None:
            quarters = math.floor(slant) if math.floor(slant) % 2 else math.ceil(slant)
        raw.FPDFText_GetMatrix(text, place, self._matrix)
        scale = math.hypot(self._matrix.c, self._matrix.d) or 1.0
        em = abs(raw.FPDFText_GetFontSize(text, place) * scale) or 1.0
        turn = -quarters % 4  # the library counts clockwise
        return _Look(turn, slant, em, self._is_bold(place), self._paint.of(place))

    def _extend(self, word: Word, turn: int, box: Box) -> None:
        frame = Frame(self._bounds, turn)
        ends = frame.point(box[0], box[1])[0], frame.point(box[2], box[3])[0]
        word.x0, word.x1 = min(word.x0, *ends), max(word.x1, *ends)

    def _is_bold(self, place: int) -> bool:
        raw, flags, buffer = self._raw, self._flags, self._name
        size = raw.FPDFText_GetFontInfo(self._text.raw, place, buffer, len(buffer), flags)
        if size > len(buffer):  # then nothing is written
            buffer = ctypes.create_string_buffer(size)
            raw.FPDFText_GetFontInfo(self._text.raw, place, buffer, size, flags)
        name = buffer.value if size else b""
        if name not in self._bold:
            self._bold[name] = bool(_BOLD.search(name.decode("utf-8", "replace")))
        return self._bold[name] or raw.FPDFText_GetFontWeight(self._text.raw, place) >= 600


def _slant(angle: float) -> float | None:
    quarters = angle / (math.pi / 2)
    return round(quarters, 2) if abs(quarters - round(quarters)) > _SLANTED else None


def _is_outside(word: Word, bounds: Box, turn: int) -> bool:
    """Whether all of a word stands beside its page; a page without size says nothing."""
    width, height = bounds[2] - bounds[0], bounds[3] - bounds[1]
    if turn % 2:
        width, height = height, width
    beside = word.x1 < 0 or word.x0 > width or word.bottom < 0 or word.top > height
    return beside and min(width, height) > 1


def _is_tiny(word: Word) -> bool:
    """Whether neither the font nor the letters have a size to be seen: fonts of bitmaps have the size 1."""
    return word.em <= 1.0 and word.x1 - word.x0 <= len(word.text)


def _follows(last: Box, box: Box, turn: int, em: float) -> bool:
    """Whether a character stands directly behind the last one, on its line."""
    if turn % 2 == 0:
        gap = box[0] - last[2] if turn == 0 else last[0] - box[2]
        if gap < -0.6 * em:  # a script that runs from right to left
            gap = last[0] - box[2] if turn == 0 else box[0] - last[2]
        shift = abs(box[1] - last[1])
    else:
        gap = box[1] - last[3] if turn == 1 else last[1] - box[3]
        shift = abs(box[0] - last[0]) if turn == 1 else abs(box[2] - last[2])
    # both letters of a ligature have one box
    return box == last or (-0.6 * em < gap < 0.35 * em and shift < 0.6 * em)


def _is_near(last: Box, box: Box, em: float) -> bool:
    """Whether a slanted character is the next of its line, a space between them or not."""
    across = (box[0] + box[2] - last[0] - last[2]) / 2, (box[1] + box[3] - last[1] - last[3]) / 2
    return math.hypot(*across) < _SLANTED_REACH * em


def _drawn(raw: Any, page: Any, frame: Frame) -> tuple[list[Ruling], float]:
    """Thin lines of the page's drawings, and the area that its images cover."""
    rulings, covered = list[Ruling](), 0.0
    for place in range(min(raw.FPDFPage_CountObjects(page.raw), _MOST_OBJECTS)):
        item = raw.FPDFPage_GetObject(page.raw, place)
        kind = raw.FPDFPageObj_GetType(item)
        if kind == raw.FPDF_PAGEOBJ_PATH:
            rulings += _path_rulings(raw, item, frame)
        elif kind in (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_FORM):  # a form holds either
            edges = [ctypes.c_float() for _ in range(4)]
            if raw.FPDFPageObj_GetBounds(item, *edges):
                left, bottom, right, top = (edge.value for edge in edges)
                covered += abs((right - left) * (top - bottom))
    return rulings, covered


def _path_rulings(raw: Any, item: Any, frame: Frame) -> Iterator[Ruling]:
    matrix, x, y = raw.FS_MATRIX(), ctypes.c_float(), ctypes.c_float()
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    raw.FPDFPageObj_GetMatrix(item, matrix)
    raw.FPDFPath_GetDrawMode(item, fill, stroke)
    points: list[tuple[float, float]] = []
    segments = raw.FPDFPath_CountSegments(item)
    if segments > _MOST_SEGMENTS:
        return
    for place in range(segments):
        segment = raw.FPDFPath_GetPathSegment(item, place)
        raw.FPDFPathSegment_GetPoint(segment, x, y)
        at = frame.point(
            matrix.a * x.value + matrix.c * y.value + matrix.e,
            matrix.b * x.value + matrix.d * y.value + matrix.f,
        )
        if raw.FPDFPathSegment_GetType(segment) == raw.FPDF_SEGMENT_MOVETO:
            yield from _shape_rulings(points, bool(stroke.value))
            points = []
        points.append(at)
        if raw.FPDFPathSegment_GetClose(segment) and points:
            points.append(points[0])
    yield from _shape_rulings(points, bool(stroke.value))


def _shape_rulings(points: list[tuple[float, float]], stroked: bool) -> Iterator[Ruling]:
    """A thin shape is one line; of a stroked one each side is."""
    if len(points) < 2:
        return
    xs, ys = [x for x, _ in points], [y for _, y in points]
    box = Ruling(min(xs), min(ys), max(xs), max(ys))
    if min(box.x1 - box.x0, box.y1 - box.y0) <= _THIN:
        yield box
    elif stroked:
        for (ax, ay), (bx, by) in itertools.pairwise(points):
            if min(abs(ax - bx), abs(ay - by)) <= 0.5:
                yield Ruling(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
