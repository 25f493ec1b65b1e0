"""Rich text: striprtf makes text of it; tables are rows of cells; notes, which striprtf drops, stand at the end."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.packages.extras import require

__all__ = ["read_rtf"]

_NOTE: Final = re.compile(r"\{(?:\\\*)?\s*\\(?:footnote|annotation)(?![a-z])(?:\\ftnalt)?")
_BRACE: Final = re.compile(r"\\bin(\d+) ?|\\[^a-zA-Z]|[{}]")
_OWN_NUMBER: Final = re.compile(r"\\chftn(?![a-z])|\\chatn(?![a-z])")
_NUMBER_BEFORE: Final = re.compile(r"(?:\{[^{}]{0,200}\\chftn\s*\}|\\chftn(?![a-z]) ?)\s*$")
_DELETED: Final = re.compile(r"\{(?=(?:\\(?!deleted(?![a-z\d]))[a-z]++-?\d*+|\s)*+\\deleted(?![a-z\d]))")
_MARGIN: Final = re.compile(r"\{\\(header|footer)[lrf]?(?![a-z])")
_PAGE_FIELD: Final = re.compile(r"\\chpgn(?![a-z])|\b(?:PAGE|NUMPAGES|SECTIONPAGES)\b")
_RAISED: Final = re.compile(r"\\super(?![a-z\d])((?:\\[a-z]++-?\d*+){0,20}+)\s+(?=[-+]?\d+\s*\})")
_ROW_OR_PARAGRAPH: Final = re.compile(r"\\(trowd|row|par)(?![a-z]) ?")
_STYLE: Final = re.compile(r"\{\\s(\d+)(?!\d)[^{};]*?(?:\\outlinelevel(\d)|\bheading ([1-9])(?=;))", re.I)
_OUTLINE: Final = re.compile(r"\\s(\d+)(?!\d)|\\outlinelevel(\d)")
_HEADING: Final = re.compile("\ue000(\\d) ?")
"""Mark of a heading, and its level from 0."""


def read_rtf(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a rich text file; its tables are rows of cells, its footnotes and comments stand behind it by number."""
    limit.check_file(path)
    rtf_to_text = require("striprtf.striprtf", extra="readers-all").rtf_to_text
    source = _without_deletions(path.read_bytes().decode("latin-1"))
    source = _with_notes(_with_margins(source))
    source = _RAISED.sub(r"\\super\1 ^", _with_headings(_with_whole_cells(source)))
    text = rtf_to_text(source, errors="replace")
    html, table = list[str](), list[list[str]]()
    for line in [*plain_from_text(text).text.split("\n"), ""]:
        if line.endswith("|"):
            table.append(_HEADING.sub("", line[:-1]).split("|"))
            continue
        html += _table(table)
        table = []
        level, words = _HEADING.findall(line)[-1:], _HEADING.sub("", line)
        tag = f"h{int(level[0]) + 1}" if level and words.strip() else "p"
        html.append(f"<{tag}>{escape(words)}</{tag}>")
    return plain_from_html("".join(html), limit, keep_menus=True), {}


def _table(rows: list[list[str]]) -> list[str]:
    """A table as HTML; in a row with fewer cells than others, the last is taken for a merged one."""
    width = max(map(len, rows), default=0)
    found = list[str]()
    for row in rows:
        spans = [1] * (len(row) - 1) + [width - len(row) + 1]
        cells = (f'<td colspan="{n}">{escape(one.strip())}</td>' for n, one in zip(spans, row, strict=True))
        found.append(f"<tr>{''.join(cells)}</tr>")
    return [f"<table>{''.join(found)}</table>"] if rows else []


def _with_notes(source: str) -> str:
    """Rich text with each note as a number in brackets, and the notes as paragraphs at its end."""
    kept, notes, place = list[str](), list[str](), 0
    while found := _NOTE.search(source, place):
        end = _end_of_group(source, found.end())
        if end is None:  # cut off: nothing more can be told apart
            break
        notes.append(_OWN_NUMBER.sub(" ", source[found.end() : end - 1]))
        before = source[place : found.start()]
        kept += [_NUMBER_BEFORE.sub("", before), f"[{len(notes)}]{{}}"]
        place = end
    if not notes:
        return source
    body = "".join([*kept, source[place:]])
    last = body.rfind("}")
    last = last if last >= 0 else len(body)
    paragraphs = (f"\\par\\pard\\plain [{number}] {{{note}}}" for number, note in enumerate(notes, 1))
    return body[:last] + "".join(paragraphs) + "\\par" + body[last:]


def _without_deletions(source: str) -> str:
    """Rich text without what was struck out while changes were tracked."""
    kept, place = list[str](), 0
    for found in _DELETED.finditer(source):
        if found.start() < place:  # inside another
            continue
        end = _end_of_group(source, found.end())
        if end is None:
            break
        kept.append(source[place : found.start()])
        place = end
    return "".join([*kept, source[place:]])


def _with_whole_cells(source: str) -> str:
    """Rich text in which a paragraph inside a cell does not end the row."""
    kept, place, in_row, last = list[str](), 0, False, source.rfind("\\row")
    for found in _ROW_OR_PARAGRAPH.finditer(source):
        if found[1] != "par":
            in_row = found[1] == "trowd" and found.start() < last
        elif in_row:
            kept += [source[place : found.start()], "\\~ "]
            place = found.end()
    return "".join([*kept, source[place:]])


def _with_margins(source: str) -> str:
    """Rich text with what stands above and below the pages as text: once, and without page numbers."""
    kept, below, place = list[str](), dict[str, None](), 0
    seen = set[str]()
    table = source.find("{\\*\\pgdsctbl")  # LibreOffice writes them there, too, where no program shows them
    if table >= 0 and (behind := _end_of_group(source, table + 1)):
        source = source[:table] + source[behind:]
    for found in _MARGIN.finditer(source):
        if found.start() < place:
            continue
        end = _end_of_group(source, found.end())
        if end is None:  # cut off
            break
        text = source[found.end() : end - 1]
        kept.append(source[place : found.start()])
        if found[1] == "footer":
            below.setdefault(text)
        elif text not in seen and not _PAGE_FIELD.search(text):
            kept.append(f"{{{text}\\par}}")
        seen.add(text)
        place = end
    if not kept:
        return source
    body = "".join([*kept, source[place:]])
    last = body.rfind("}")
    last = last if last >= 0 else len(body)
    footers = (f"\\par\\pard\\plain {{{text}}}" for text in below if not _PAGE_FIELD.search(text))
    return body[:last] + "".join(footers) + body[last:]


def _with_headings(source: str) -> str:
    """Rich text with a mark in paragraphs that have a level in the outline, by themselves or by their style."""
    sheet = source.find("{\\stylesheet")
    end = _end_of_group(source, sheet + 1) if sheet >= 0 else None
    styles = source[sheet : end or sheet] if sheet >= 0 else ""
    levels = {style: level or str(int(named) - 1) for style, level, named in _STYLE.findall(styles)}
    head, body = (source[:end], source[end:]) if end else ("", source)

    def marked(found: re.Match[str]) -> str:
        level = levels.get(found[1], "") if found[1] else found[2]
        return f"{found[0]}\\u-8192?{level} " if level and level < "6" else found[0]

    return head + _OUTLINE.sub(marked, body)


def _end_of_group(source: str, place: int) -> int | None:
    """The place behind the brace that closes a group, for a place inside it; None where nothing does."""
    depth = 1
    while found := _BRACE.search(source, place):
        place = found.end() + int(found[1] or 0)
        depth += (found[0] == "{") - (found[0] == "}")
        if not depth:
            return place
    return None
