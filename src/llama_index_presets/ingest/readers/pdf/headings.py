"""Headings of a PDF: its outline, or the lines that are larger or bolder than the text or are named like sections."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from llama_index_presets.ingest.plain_text import Mark, is_table_caption
from llama_index_presets.ingest.readers.pdf.lines import Line

__all__ = ["heading_marks", "outline_marks"]

Span = tuple[int, int, Line, int]
"""Start and end of a line in the text, the line, and the place of its page."""

_NAMES: Final = (
    "abstract|introduction|background|related work|methods?|methodology|materials and methods|experiments|evaluation|"
    "results|results and discussion|discussion|limitations|conclusions?|references|bibliography|acknowledge?ments?|"
    "appendix|executive summary|risk factors"
)
_SECTION: Final = re.compile(
    rf"^(?:(?:\d{{1,2}}(?:\.\d{{1,2}})*\.?\s+)?(?i:{_NAMES})"
    r"|\d{1,2}\.\d{1,2}(?:\.\d{1,2})?\s+[A-Z][A-Za-z][^\d.;:!?]{2,70}"
    r"|(?:Item|ITEM|Part|PART|Note|NOTE)\s+(?:\d{1,2}[A-Z]?|[IVX]{1,4})\b[.:]?\s*[^.!?]{0,90})\.?$"
)
_LARGER: Final = 1.12  # times the size of the text
_LONGEST: Final = 200  # characters of a heading
_MOST_SHARE: Final = (
    0.2  # of the lines; where more are large or bold, and say more than headings do, they are none
)
_BETWEEN_LINES: Final = 2  # characters
_MOST_SAID: Final = 0.12  # of the characters: headings of a short document are many lines, and few words


def outline_marks(
    outline: Sequence[tuple[int, str, int, float]],
    spans: Sequence[Span],
    pages: Mapping[int, int],
    title: str,
) -> tuple[Mark, ...]:
    """Marks of an outline's entries: at the line with the entry's words, otherwise where its page begins."""
    by_page: dict[int, list[Span]] = {}
    for span in spans:
        by_page.setdefault(span[3], []).append(span)
    levels: list[tuple[int, int, str]] = []
    for level, name, page, _ in outline:
        if name and page in pages:
            start = _start_of(name, by_page.get(page, ()))
            levels.append((pages[page] if start is None else start, level + 1, name[:_LONGEST]))
    return _paths(sorted(levels, key=lambda one: one[0]), spans, title)


def _start_of(name: str, spans: Sequence[Span]) -> int | None:
    wanted = _plain(name)
    for start, _, line, _ in spans:
        found = _plain(line.text)
        if found and (
            found == wanted or found.endswith(wanted) or (len(found) > 8 and wanted.startswith(found))
        ):
            return start
    return None


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def heading_marks(spans: Sequence[Span], title: str) -> tuple[Mark, ...]:
    """Marks of the lines that look like headings; those below the largest size are below its headings."""
    body = _body_size(spans)
    sizes = _sizes(spans, body)
    found = [(start, level, name) for start, name, level in _whole_headings(spans, sizes)]
    return _paths(found, spans, title)


def _body_size(spans: Sequence[Span]) -> float:
    sizes: Counter[float] = Counter()
    for start, end, line, _ in spans:
        sizes[round(line.em, 1)] += end - start
    return sizes.most_common(1)[0][0] if sizes else 0.0


def _sizes(spans: Sequence[Span], body: float) -> list[float]:
    """Sizes of headings, largest first; none where most of the text would be one."""
    large = [
        place
        for place, (_, _, line, _) in enumerate(spans)
        if line.em > _LARGER * body and _may_head(line.text)
    ]
    if _are_too_many([spans[place][:2] for place in large], spans):
        return []
    by_size: dict[float, list[Span]] = {}
    for place in large:
        by_size.setdefault(round(spans[place][2].em, 1), []).append(spans[place])
    few = len(large) <= max(_MOST_SHARE * len(spans), 5)
    return sorted((size for size, lines in by_size.items() if few or _stand_apart(lines)), reverse=True)


def _stand_apart(lines: Sequence[Span]) -> bool:
    """Whether most lines have a text or a table below them: those of a list in large letters have the next one."""
    beside = sum(below[0] - line[1] <= _BETWEEN_LINES for line, below in itertools.pairwise(lines))
    return beside <= len(lines) // 3


def _are_too_many(heads: Sequence[tuple[int, int]], spans: Sequence[Span]) -> bool:
    """Whether lines are too many, and too much of the text, to be its headings."""
    if len(heads) <= max(_MOST_SHARE * len(spans), 5):
        return False
    characters = max(end for _, end, _, _ in spans)  # of the text with its tables, which have no lines here
    return sum(end - start for start, end in heads) > _MOST_SAID * characters


def _may_head(text: str) -> bool:
    return (
        len(text) <= _LONGEST and sum(char.isalpha() for char in text) >= 2 and not text.endswith((",", ";"))
    )


def _whole_headings(spans: Sequence[Span], sizes: Sequence[float]) -> list[tuple[int, str, int]]:
    """Start, words and level of each heading; lines of one size directly below each other are one heading."""
    bold = _bold_heads(spans)
    found: list[tuple[int, str, int]] = []
    last: tuple[Line, int] | None = None
    for place, (start, _, line, _) in enumerate(spans):
        level = _level(line, sizes, bold, place)
        if level is None:
            last = None
            continue
        if (
            last
            and last[1] == level
            and 0 < line.baseline - last[0].baseline < 1.8 * line.em
            and level <= len(sizes)
        ):
            before, name, _ = found[-1]
            found[-1] = (before, f"{name} {line.text}"[:_LONGEST], level)
        else:
            found.append((start, line.text, level))
        last = line, level
    return found


def _level(line: Line, sizes: Sequence[float], bold: set[int], place: int) -> int | None:
    size = round(line.em, 1)
    if size in sizes and _may_head(line.text):
        return sizes.index(size) + 1
    name = " ".join(line.text.split())
    if _SECTION.match(name) or place in bold:
        return len(sizes) + 1
    return None


def _bold_heads(spans: Sequence[Span]) -> set[int]:
    """Places of short bold lines that stand alone above plain text."""
    found = set()
    for place, (_, _, line, _) in enumerate(spans):
        below = spans[place + 1][2] if place + 1 < len(spans) else None
        alone = below is not None and not below.bold and below.em <= line.em
        if (
            line.bold
            and alone
            and _may_head(line.text)
            and len(line.text) <= 90
            and not line.text.endswith((".", ":"))
        ):
            found.add(place)
    return set() if _are_too_many([spans[place][:2] for place in found], spans) else found


def _paths(found: Sequence[tuple[int, int, str]], spans: Sequence[Span], title: str) -> tuple[Mark, ...]:
    """Paths of headings in order, table captions among them; what is left of a caption ends with its table."""
    marks: list[Mark] = [(0, title)] if title else []
    path: list[tuple[int, str]] = []
    heads = {start: (level, name) for start, level, name in found}
    captions = {start: line.text for start, _, line, _ in spans if is_table_caption(line.text)}
    after_caption = False
    for start in sorted({*heads, *captions, *(span[0] for span in spans)}):
        if start in heads:
            level, name = heads[start]
            if not path and _plain(name) == _plain(title):
                continue
            path = [one for one in path if one[0] < level] + [(level, name.rstrip("."))]
            after_caption = False
            marks.append((start, _joined(title, path)))
        elif start in captions:
            after_caption = True
            marks.append(
                (start, " > ".join(filter(None, (_joined(title, path), captions[start].rstrip(".")))))
            )
        elif after_caption:
            after_caption = False
            marks.append((start, _joined(title, path)))
    return tuple(marks) if found or captions or title else ()


def _joined(title: str, path: Sequence[tuple[int, str]]) -> str:
    return " > ".join(filter(None, (title, *(name for _, name in path))))
