"""Notes and comments of a Word document, below the block that holds their mark.

mammoth puts them behind the text, where they would stand under its last heading.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["notes_at_marks"]

_BACK: Final = re.compile(r'(?<!\s)\s*<a href="#[^"]*">↑</a>')
_NOTES: Final = re.compile(r'<ol>(<li id="[^"]*(?:foot|end)note-.*)</ol>\s*\Z', re.DOTALL)
_NOTE: Final = re.compile(r'<li id="([^"]*(?:foot|end)note-[^"]*)">(?:<p>)?\s*')
_COMMENTS: Final = re.compile(r'<dl>(<dt id="[^"]*comment-.*)</dl>\s*\Z', re.DOTALL)
_COMMENT: Final = re.compile(r'(?:</dd>)?<dt id="([^"]*comment-[^"]*)">Comment \[(.*?)\]</dt><dd>(?:<p>)?\s*')
_COMMENT_WITHOUT_NAME: Final = re.compile(r'(<a href="#[^"]*comment-[^"]*"[^>]*>\[)(?=\d+\]</a>)')
_MARK: Final = re.compile(r'<a href="#([^"]*(?:footnote|endnote|comment)-[^"]*)" id="')
_RAISED_MARK: Final = re.compile(
    r'<sup><a href="#[^"]*(?:footnote|endnote|comment)-[^"]*" id="[^"]*">[^<]*</a></sup>'
)
_TAG: Final = re.compile(r"<(/?)([a-z]\w*)[^>]*?(/?)>")
_HEADING: Final = re.compile(r"<h[1-6]\b")


def notes_at_marks(html: str) -> str:
    """HTML of mammoth in which each note follows the paragraph, list or table with its mark.

    Example:
        >>> mark = '<a href="#footnote-2" id="footnote-ref-2">[1]</a>'
        >>> note = '<ol><li id="footnote-2"><p>Note.</p></li></ol>'
        >>> notes_at_marks(f"<p>One{mark}</p><p>Two</p>{note}").endswith("<div><p>[1] Note.</p></div><p>Two</p>")
        True
    """
    body, notes = _taken_out(html)
    if not notes:
        return html
    written, depth, start = list[str](), 0, 0
    for tag in _TAG.finditer(body):
        depth += 0 if tag[3] else -1 if tag[1] else 1
        if depth == 0 and (tag[1] or tag[3]):
            block = body[start : tag.end()]
            start = tag.end()
            found = [notes.pop(note) for note in dict.fromkeys(_MARK.findall(block)) if note in notes]
            written.append(_RAISED_MARK.sub("", block) if found and _HEADING.match(block) else block)
            written += found
    return "".join([*written, body[start:], *notes.values()])


def _taken_out(html: str) -> tuple[str, dict[str, str]]:
    """The text without notes and comments, and these by the id that their marks name."""
    notes: dict[str, str] = {}
    html = _BACK.sub("", html)
    found = _COMMENTS.search(html)
    for comment, text in _parts(_COMMENT, found[1]) if found else ():
        label = f"Comment {comment[2]}" if comment[2].isdecimal() else f"Comment [{comment[2]}]"
        notes[comment[1]] = f"<div><p>{label}: {text.removesuffix('</dd>')}</div>"
    html = html[: found.start()] + html[found.end() :] if found else html
    found = _NOTES.search(html)
    for number, (note, text) in enumerate(_parts(_NOTE, found[1]) if found else (), 1):
        notes[note[1]] = f"<div><p>[{number}] {text.removesuffix('</li>')}</div>"
    html = html[: found.start()] + html[found.end() :] if found else html
    return _COMMENT_WITHOUT_NAME.sub(r"\1Comment ", html), notes


def _parts(beginning: re.Pattern[str], text: str) -> list[tuple[re.Match[str], str]]:
    begins = list(beginning.finditer(text))
    ends = [one.start() for one in begins[1:]] + [len(text)]
    return [(one, text[one.end() : end]) for one, end in zip(begins, ends, strict=True)]
