"""Lines to paragraphs: line ends that are only the width of the column become spaces, hyphens there are joined."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from llama_index_presets.ingest.readers.pdf.lines import Line

__all__ = ["WordCounts", "joint", "word_counts"]

_WORD: Final = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_HYPHEN_END: Final = re.compile(r"([^\W\d_]+(?:-[^\W\d_]+)*)(-|\u00ad)$")
_FIRST_WORD: Final = re.compile(r"[^\W\d_]+")
_ENDS_SENTENCE: Final = (".", "!", "?", ":", ";", "。", "！", "？", "؟", "।")
_EAST_ASIAN: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uff00-\uff60]")
_LIST: Final = re.compile(r"(?:[•▪◦‣·○■□*–—-]|\(?[\dA-Za-z]{1,3}[.)]|\[\d{1,3}\])\s")
# First parts of words that keep their hyphen, where the document does not show the word elsewhere.
_KEEPS_HYPHEN: Final = re.compile(
    "(?:self|well|ex|all|cross|half|quasi|high|low|long|short|year|day|week|month|time|full|part|real|state|first|second"
    "|third|one|two|three|four|five|six|seven|eight|nine|ten|large|small|old|new|open|hard|soft|fast|slow|cost|risk|tax"
    "|rate|market|world|user|data|peer|face|decision|problem)$"
)

WordCounts = Counter[str]
"""How often each word of a document, in lower case, stands within a line."""


def word_counts(texts: Iterable[str]) -> WordCounts:
    """Words of the lines, without those that a line end may have cut."""
    counts: WordCounts = Counter()
    for text in texts:
        words = _WORD.findall(text.lower())
        whole = words[1:-1] if text.rstrip().endswith(("-", "\u00ad")) else words[1:]
        counts.update(whole)
        counts.update(part for word in whole if "-" in word for part in word.split("-"))
    return counts


def joint(above: Line, below: Line, words: WordCounts) -> tuple[str, int]:
    """What stands between two lines in reading order, and how many characters it removes at the end of the first.

    Returns:
        ``" "`` within a paragraph, ``""`` within a word, ``"\\n"`` where a line ends early, two of them between
        paragraphs; and 1 where the hyphen goes, else 0.
    """
    text, following = above.text, below.text
    same = _same_column(above, below)
    if _is_break(above, below, same=same):
        return "\n\n", 0
    goes_on = same or following[:1].islower() or not text.endswith(_ENDS_SENTENCE)
    if not goes_on:
        return "\n\n", 0
    if (
        same
        and (len(above.cells) > 1 or len(below.cells) > 1)
        and not (_is_prose(above) and _is_prose(below))
    ):
        return "\n", 0
    if text.endswith(("-", "\u00ad")) and (hyphen := _HYPHEN_END.search(text)):
        return "", int(_is_soft(hyphen, following, words))
    if text.endswith("-") and text[-2:-1].isalnum():
        return "", 0
    if _EAST_ASIAN.match(text[-1:]) and _EAST_ASIAN.match(following[:1]):
        return ("" if _is_full(above, below) else "\n"), 0
    return (" " if not same or _is_full(above, below) else "\n"), 0


def _is_prose(line: Line) -> bool:
    return len(line.words) >= 6 and max(cell.x1 - cell.x0 for cell in line.cells) > 0.4 * (
        line.column[1] - line.column[0]
    )


def _same_column(above: Line, below: Line) -> bool:
    down = below.baseline - above.baseline
    overlap = min(above.box[2], below.box[2]) - max(above.box[0], below.box[0])
    return 0 < down < 3 * max(above.em, below.em) and overlap > 0


def _is_break(above: Line, below: Line, *, same: bool) -> bool:
    """A wider gap, another size, bold beside plain, a list's next item, or an indented first line."""
    larger = max(above.em, below.em) > 1.12 * min(above.em, below.em)
    if larger or above.bold != below.bold:
        return True
    if not same:
        return _starts_item(below)
    if below.baseline - above.baseline > 1.75 * below.em:
        return True
    indented = (
        below.box[0] - above.box[0] > 0.8 * below.em and above.box[0] - above.column[0] < 0.5 * above.em
    )
    return _starts_item(below) or (indented and above.text.endswith(_ENDS_SENTENCE))


def _starts_item(line: Line) -> bool:
    return bool(_LIST.match(line.text))


def _is_full(above: Line, below: Line) -> bool:
    """Whether the first word of the line below had no room in the line above."""
    first = below.words[0]
    right = max(above.column[1], below.box[2])
    return above.box[2] + 0.25 * above.em + (first.x1 - first.x0) > right - 0.5 * above.em


def _is_soft(hyphen: re.Match[str], following: str, words: WordCounts) -> bool:
    """Whether a hyphen at a line's end only cuts the word; see the document for the word with and without it."""
    left, mark = hyphen[1], hyphen[2]
    first = _FIRST_WORD.match(following)
    if mark == "\u00ad":
        return True
    if first is None or not first[0][0].islower() or len(left) == 1:
        return False
    right = first[0].lower()
    lower = left.lower()
    last = lower.rsplit("-", 1)[-1]
    if words[f"{last}{right}"] or words[f"{lower}{right}"]:
        return True
    compounds = _WORD.match(following)
    whole = compounds[0].lower() if compounds else right
    if words[f"{lower}-{right}"] or words[f"{lower}-{whole}"] or "-" in lower or "-" in whole:
        return False
    return not _KEEPS_HYPHEN.match(lower) and not (
        len(last) > 2 and len(right) > 2 and words[last] and words[right]
    )
