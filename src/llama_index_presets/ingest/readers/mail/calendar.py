"""Calendars (ics) and address cards (vcf): a section an entry, with names that a person reads, without pictures."""

from __future__ import annotations

import quopri
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from llama_index_presets.ingest.clean import without_controls
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file
from llama_index_presets.ingest.readers.text import read_text

__all__ = ["plain_from_entries", "read_calendar"]

_FOLD: Final = re.compile(r"\n[ \t]")
_PRINTABLE: Final = re.compile(
    r"^[^\n:]*quoted-printable[^\n]*(?:(?<==)\n[^\n]*)*", re.IGNORECASE | re.MULTILINE
)
_BEGIN: Final = re.compile(r"^BEGIN:V[A-Z]+\s*$", re.IGNORECASE | re.MULTILINE)
_LINE: Final = re.compile(r'(?:[\w-]+\.)?([A-Za-z][\w-]*)((?:;(?:[^";:]++|"[^"]*")++)*)\s*:(.*)', re.DOTALL)
_PARAMETER: Final = re.compile(r';([\w-]+)=?(?:"([^"]*)"|([^;"]*))')
_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?")
_ESCAPE: Final = re.compile(r"\\([nN,;\\:])")
_NAMES: Final = {
    "DTSTART": "Start", "DTEND": "End", "FN": "Name", "TEL": "Phone", "ADR": "Address", "ORG": "Organization",
    "N": "Name", "BDAY": "Birthday", "RRULE": "Repeats", "EXDATE": "Except", "URL": "Address on the web",
    "X-WR-CALNAME": "Calendar", "X-WR-CALDESC": "Description",
}  # fmt: skip
_SKIPPED: Final = frozenset({
    "VERSION", "PRODID", "CALSCALE", "METHOD", "UID", "DTSTAMP", "SEQUENCE", "TRANSP", "REV", "LAST-MODIFIED",
    "CREATED", "KEY", "PHOTO", "LOGO", "SOUND", "TZID", "ACTION", "TRIGGER",
})  # fmt: skip
_UNSEEN: Final = frozenset({"VTIMEZONE", "STANDARD", "DAYLIGHT", "VALARM"})


class _Field(NamedTuple):
    name: str
    parameters: dict[str, str]
    value: str


def read_calendar(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Entries of a calendar or an address book."""
    decoded = read_text_file(path, limit)
    if not _BEGIN.search(decoded.text):  # such as variants of genes, which have the same ending
        return read_text(path, limit)
    return decoded.of(plain_from_entries(decoded.text)), {}


def plain_from_entries(text: str) -> PlainText:
    """Entries of a calendar or an address book, each under its name.

    Example:
        >>> card = "BEGIN:VCARD\\nFN:Ada\\nTEL;TYPE=WORK:12\\nPHOTO;ENCODING=b:/9j/4AAQ\\nEND:VCARD\\n"
        >>> plain_from_entries(card).text.strip()
        'Name: Ada\\nPhone (work): 12'
    """
    parts, headings, length = list[str](), list[Mark](), 0
    for entry in _entries(_FOLD.sub("", without_controls(text).replace("\r\n", "\n"))):
        has_name = any(field.name == "FN" for field in entry)
        shown = [field for field in entry if not (field.name == "N" and has_name)]
        lines = [line for field in shown if (line := _line(field))]
        if not lines:
            continue
        title = next((_value(field) for field in shown if field.name in ("SUMMARY", "FN", "N")), "")
        headings.append((length, " ".join(title.split())[:200]))
        parts.append("\n".join(lines) + "\n\n")
        length += len(parts[-1])
    return PlainText("".join(parts), headings)


def _entries(text: str) -> Iterator[list[_Field]]:
    """Fields of each entry; what an entry holds inside itself is a part of it."""
    open_, unseen, fields = list[str](), 0, list[_Field]()
    for line in _PRINTABLE.sub(lambda found: found[0].replace("=\n", ""), text).splitlines():
        found = _LINE.fullmatch(line)
        if not found:
            continue
        name, value = found[1].upper(), found[3].strip()
        if name == "BEGIN":
            if value.upper() in ("VEVENT", "VTODO", "VJOURNAL", "VCARD"):
                yield fields
                open_, unseen, fields = [], 0, []
            open_.append(value.upper())
            unseen += open_[-1] in _UNSEEN
        elif name == "END":
            unseen -= bool(open_) and open_.pop() in _UNSEEN
        elif not unseen:
            parameters = {
                one.upper(): (quoted or plain) for one, quoted, plain in _PARAMETER.findall(found[2])
            }
            fields.append(_Field(name, parameters, value))
    yield fields


def _line(field: _Field) -> str:
    binary = field.parameters.get("ENCODING", "").upper() in ("B", "BASE64") or field.value.startswith(
        "data:"
    )
    if binary or field.name in _SKIPPED or _is_private(field.name) or not (value := _value(field)):
        return ""
    name = _NAMES.get(field.name, field.name.replace("-", " ").capitalize())
    kind = field.parameters.get("TYPE", "").lower().replace(",", ", ")
    return (
        f"{name} ({kind}): {value}" if kind and field.name in ("TEL", "ADR", "EMAIL") else f"{name}: {value}"
    )


def _is_private(name: str) -> bool:
    """Whether a program has put a field for itself."""
    return name.startswith("X-") and name not in _NAMES


def _value(field: _Field) -> str:
    value = field.value
    if (
        field.parameters.get("ENCODING", "").upper() == "QUOTED-PRINTABLE"
        or "QUOTED-PRINTABLE" in field.parameters
    ):
        value = quopri.decodestring(value.encode("latin-1", "replace")).decode("utf-8", "replace")
    if date := _DATE.fullmatch(value):
        year, month, day, hour, minute, _, utc = date.groups()
        zone = " UTC" if utc else f" ({field.parameters['TZID']})" if "TZID" in field.parameters else ""
        return f"{year}-{month}-{day}" + (f" {hour}:{minute}{zone}" if hour else "")
    if field.name in ("ORG", "ADR", "N"):
        value = ", ".join(filter(None, re.split(r"(?<!\\);", value)))
    if value.lower().startswith("mailto:"):
        name, address = field.parameters.get("CN", ""), value[len("mailto:") :]
        return f"{name} <{address}>" if name else address
    text = _ESCAPE.sub(lambda mark: "\n" if mark[1] in "nN" else mark[1], value)
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))
