"""Rich text: striprtf makes text of it; tables are rows of cells; notes, which striprtf drops, stand at the end."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.html import plain_from_html
from llama_index_presets.packages.extras import require

__all__ = ["read_rtf"]

_NOTE: Final = re.compile(r"\{(?:\\\*)?\s*\\(?:footnote|annotation)(?![a-z])(?:\\ftnalt)?")
_BRACE: Final = re.compile(r"\\bin(\d+) ?|\\[^a-zA-Z]|[{}]")
_OWN_NUMBER: Final = re.compile(r"\\chftn(?![a-z])|\\chatn(?![a-z])")
_NUMBER_BEFORE: Final = re.compile(r"(?:\{[^{}]{0,200}\\chftn\s*\}|\\chftn(?![a-z]) ?)\s*$")


def read_rtf(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a rich text file; its tables are rows of cells, its footnotes and comments stand behind it by number."""
    limit.check_file(path)
    rtf_to_text = require("striprtf.striprtf", extra="readers-all").rtf_to_text
    source = _with_notes(path.read_bytes().decode("latin-1"))
    text = rtf_to_text(source, errors="replace")
    html, table = list[str](), list[str]()
    for line in [*plain_from_text(text).text.split("\n"), ""]:
        if line.endswith("|"):
            cells = "".join(f"<td>{escape(cell.strip())}</td>" for cell in line[:-1].split("|"))
            table.append(f"<tr>{cells}</tr>")
            continue
        if table:
            html.append(f"<table>{''.join(table)}</table>")
            table = []
        html.append(f"<p>{escape(line)}</p>")
    return plain_from_html("".join(html), limit, keep_menus=True), {}


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


def _end_of_group(source: str, place: int) -> int | None:
    """The place behind the brace that closes a group, for a place inside it; None where nothing does."""
    depth = 1
    while found := _BRACE.search(source, place):
        place = found.end() + int(found[1] or 0)
        depth += (found[0] == "{") - (found[0] == "}")
        if not depth:
            return place
    return None
