"""Metadata read from a file itself: title, authors, year and other plain values, for filters and citations.

Later sources win: the document's own head (YAML front matter, HTML meta tags, PDF info, ``Title: …`` lines), then a
sidecar ``NAME.meta.json`` beside the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk_context import CONTEXT_KEYS
from llama_index_presets.ingest.clean import whole_characters
from llama_index_presets.ingest.metadata.flat_values import (
    LONGEST_VALUE,
    MetadataChanges,
    field_name,
    flat_fields,
    flat_value,
)
from llama_index_presets.packages.extras import require

__all__ = [
    "ALLOWED",
    "ALLOWED_KEY",
    "RESERVED",
    "SIDECAR",
    "about_front_matter",
    "about_head_lines",
    "about_html",
    "about_pdf",
    "about_sidecar",
    "allowed_beside",
    "plain_values",
    "sidecar_of",
]

SIDECAR: Final = ".meta.json"

ALLOWED: Final = "allowed"
"""Field of a document, a sidecar, ``metadata=`` or a data frame that names who may see it."""

ALLOWED_KEY: Final = "permissions:allowed"
"""Metadata key with the names of those who may see a node, where a storage has permissions; see `permissions`."""

RESERVED: Final = frozenset(
    {
        "source",
        "file_name",
        "page",
        "heading",
        "heading_start",
        "table",
        "table_columns",
        *CONTEXT_KEYS,
        "boxes",
        "char_start",
        "char_end",
        ALLOWED_KEY,
    }
)
"""Keys that say where a passage stands, and who may see it: a file cannot set them."""

_MOST: Final = 20_000  # characters of all that a file says of itself: each of its chunks carries it
_LONGEST_SIDECAR: Final = 1_000_000  # bytes
_LONGEST_DATE: Final = 1_000  # characters in which a year is looked for
_PARTS_OF_A_NAME: Final = ("name", "literal", "given", "family")
_TOO_MUCH: Final = (
    f"beyond the {_MOST:,} characters that a file may say of itself; what is beyond was left out"
)
_SET_BY_READERS: Final = "under a name that says where a passage stands, which a file cannot set; left out"
_AGAIN: Final = "given again under the same name; the last was kept"
_NO_YEAR: Final = "without a year from 1500 to 2099; left out"
_HEAD_KEYS: Final = "title|authors?|year|date|department|section|category|tags"
_HTML_NAMES: Final = {
    "citation_title": "title", "citation_author": "authors", "author": "authors", "citation_publication_date": "date",
    "citation_date": "date", "date": "date", "dc.title": "title", "dc.creator": "authors", "dc.date": "date",
}  # fmt: skip
_NO_TITLE: Final = re.compile(
    r"\A(untitled.*|\(?anonymous\)?|\(?unspecified\)?|microsoft word.*|powerpoint[ -]pr\w+|(document|slide)\s?\d*"
    r"|.*\.(docx?|pdf|tex|indd|od[tps]|pptx?|xlsx?|rtf|txt|html?))?\Z",
    re.I,
)
_NO_AUTHOR: Final = re.compile(
    r"\A(\(?anonymous\)?|\(?unspecified\)?|\(?unknown\)?( author)?|un-?named|owner|author|autor|admin(istrator)?|root"
    r"|(default |windows |microsoft office |office )?user|python-(docx|pptx)|openpyxl|xlsx?writer|phpspreadsheet"
    r"|phpword|sheetjs|apache (poi|fop)|docx4j|aspose\S*|epplus|closedxml|libreoffice|openoffice(\.org)?"
    r"|microsoft (office|word|excel)|google (docs|sheets|slides)|pandoc|reportlab|latex)?\Z",
    re.I,
)
"""What a program, or an account that nobody named, writes as the author of a file."""
_MONTHS: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_YEAR_LINE: Final = re.compile(
    rf"^(?:(?:published|submitted|accepted|presented|proceedings|arxiv|conference|workshop|journal|©|\(c\)|copyright)"
    rf".{{0,60}}?|(?:\d{{1,2}}\s+)?(?:{_MONTHS})[a-z]*\.?,?\s+(?:\d{{1,2}},\s+)?)\b((?:19|20)\d\d)\b\.?$",
    re.IGNORECASE,
)


def about_front_matter(text: str, left_out: list[str] | None = None) -> dict[str, Any]:
    """Values of the YAML block that opens a Markdown file.

    Args:
        text: The file.
        left_out: See `plain_values`.

    Raises:
        IngestError: The block is not YAML, uses aliases (a few lines of them can stand for billions of values), or is
            longer than 20,000 characters.

    Example:
        >>> about_front_matter("---\\ntitle: On Sparse Sums\\nauthors: [A. Noether]\\ndate: 2021-05-01\\n---\\nText")
        {'title': 'On Sparse Sums', 'authors': ['A. Noether'], 'date': '2021-05-01', 'year': 2021}
    """
    found = re.match(r"\A---\r?\n(.*?)\r?\n---\r?\n", text, re.DOTALL)
    if not found:
        return {}
    if len(found[1]) > _MOST:
        raise IngestError(
            f"The front matter has {counted(len(found[1]), 'character')}; at most {_MOST:,} are read. Shorten it, or "
            "remove the '---' lines."
        )
    yaml = require("yaml", extra="readers")
    try:
        values = yaml.load(found[1], Loader=_without_aliases(yaml))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise IngestError(
            f"The front matter is not YAML ({line}). Correct it, or remove the '---' lines."
        ) from error
    return plain_values(values, left_out) if isinstance(values, dict) else {}


@cache
def _without_aliases(yaml: Any) -> Any:
    """A safe loader that refuses aliases."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.composer.ComposerError(problem="aliases, such as *name, are not read")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [field_name(key.value) for key, _ in node.value if isinstance(key.value, str)]
            if names.count(ALLOWED) > 1:
                raise yaml.constructor.ConstructorError(problem=_TWICE)
            return super().construct_mapping(node, deep)

    return Loader


def about_head_lines(text: str) -> dict[str, Any]:
    """``Title: …`` lines at the very top of a plain text.

    Example:
        >>> about_head_lines("Title: On Sums\\nAuthors: A. Noether; E. Artin\\nYear: 2019\\n\\nText")
        {'title': 'On Sums', 'authors': ['A. Noether', 'E. Artin'], 'year': 2019}
    """
    values: dict[str, Any] = {}
    for line in text[:_MOST].splitlines()[:12]:
        found = re.match(rf"^({_HEAD_KEYS}):\s+(.+)$", line.strip(), re.IGNORECASE)
        if not found:
            break
        values[found[1].lower()] = found[2]
    return plain_values(values)


def about_html(html: str) -> dict[str, Any]:
    """Meta tags of an HTML page: ``author``, ``date``, ``citation_*``, Dublin Core; its title where they name none."""
    head = require("selectolax.lexbor", extra="readers").LexborHTMLParser(whole_characters(html))
    values: dict[str, Any] = {}
    for tag in head.css("meta"):
        name = _HTML_NAMES.get(str(tag.attributes.get("name") or "").lower())
        content = str(tag.attributes.get("content") or "").strip()
        if name == "authors" and content:
            values.setdefault("authors", []).append(content)
        elif name and content:
            values.setdefault(name, content)
    title = head.css_first("head > title")
    if "title" not in values and values and title is not None and title.text().strip():
        values["title"] = title.text()
    return plain_values(values)


def about_properties(title: Any, author: Any) -> dict[str, Any]:
    """Title and author that the properties of a file name, without what programs write there.

    Example:
        >>> about_properties("Prices", "openpyxl"), about_properties("Microsoft Word - a.docx", "A. Noether")
        ({'title': 'Prices'}, {'authors': ['A. Noether']})
    """
    known = {"title": " ".join(str(title or "").split()), "authors": " ".join(str(author or "").split())}
    nobody = {"title": _NO_TITLE, "authors": _NO_AUTHOR}
    return plain_values({key: value for key, value in known.items() if not nobody[key].match(value)})


def about_pdf(info: Mapping[str, Any] | None, first_page: str) -> dict[str, Any]:
    """Title and author of a PDF's information, and the year of a line of its first page that gives a date.

    The date on which the file was made is not taken for the year: it is often that of a conversion.

    Example:
        >>> about_pdf({"/Title": "On Sums", "/Author": "A. Noether"}, "On Sums\\nA. Noether\\nMay 2019\\nWe add.")
        {'title': 'On Sums', 'authors': ['A. Noether'], 'year': 2019}
    """
    info = info or {}
    kept = about_properties(info.get("/Title"), info.get("/Author"))
    for line in first_page.splitlines()[:20]:
        if year := _YEAR_LINE.match(line.strip()):
            return plain_values({**kept, "year": year[1]})
    return kept


def sidecar_of(path: Path) -> Path | None:
    """``paper.pdf.meta.json`` or ``paper.meta.json`` beside ``paper.pdf``, where there is one."""
    for sidecar in (path.with_name(path.name + SIDECAR), path.with_name(path.stem + SIDECAR)):
        if sidecar.is_file():
            return sidecar
    return None


def about_sidecar(path: Path, left_out: list[str] | None = None) -> dict[str, Any]:
    """Values of a file's sidecar; empty where it has none.

    Args:
        path: The file.
        left_out: See `plain_values`.

    Raises:
        IngestError: The sidecar is not a JSON object, says twice who is allowed, or is longer than 1,000,000 bytes.
    """
    return plain_values(_sidecar(path), left_out)


def allowed_beside(path: Path) -> Any:
    """Who may see a file by its sidecar, as written there; None where it does not say.

    A field that is there and empty, or null, is an empty list: it allows nobody, and nothing else is asked.

    Raises:
        IngestError: As `about_sidecar`.
    """
    said = [value for key, value in _sidecar(path).items() if field_name(key) == ALLOWED]
    return (said[0] or []) if said else None


def _sidecar(path: Path) -> dict[str, Any]:
    sidecar = sidecar_of(path)
    if sidecar is None:
        return {}
    size = sidecar.stat().st_size
    if size > _LONGEST_SIDECAR:
        raise IngestError(
            f"The sidecar '{sidecar.name}' has {counted(size, 'byte')}; at most {_LONGEST_SIDECAR:,} are read. "
            "Shorten it."
        )
    try:
        values = json.loads(sidecar.read_text(encoding="utf-8-sig"), object_pairs_hook=_pairs)
    except (OSError, ValueError, RecursionError) as error:
        raise IngestError(
            f"The sidecar '{sidecar.name}' is not JSON ({type(error).__name__}). Correct it."
        ) from error
    if not isinstance(values, dict):
        raise IngestError(
            f"The sidecar '{sidecar.name}' holds a {type(values).__name__}; expected a JSON object."
        )
    return values


_TWICE: Final = f"'{ALLOWED}' is given twice, so it is unclear who may see the document"


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a field that is given twice readers take the last, which for `ALLOWED` is refused."""
    if [field_name(key) for key, _ in pairs].count(ALLOWED) > 1:
        raise IngestError(f"{_TWICE}. Keep one in the sidecar.")
    return dict(pairs)


def plain_values(values: Mapping[Any, Any], left_out: list[str] | None = None) -> dict[str, Any]:
    """Values that can be stored and filtered on: text, numbers, booleans, lists of them; a year wherever a date is.

    Nested values get names with dots (`flat_fields`).

    Args:
        values: As they stand in the file.
        left_out: Where a line is added for each kind of value that could not be kept as it is.

    Example:
        >>> plain_values({"Author": "A. Noether and E. Artin", "year": "2020", "page": 3, "due": {"day": 5}})
        {'authors': ['A. Noether', 'E. Artin'], 'year': 2020, 'due.day': 5}
    """
    found: dict[str, Any] = {}
    left, changes = _MOST, MetadataChanges()
    for key, value in values.items():
        name = field_name(key)
        for field, plain in _fields("authors" if name == "author" else name, value, changes).items():
            if not field or plain in (None, "", []):
                continue
            if field in RESERVED:
                changes.note(_SET_BY_READERS, field)
                continue
            if field in found:
                changes.note(_AGAIN, field)
            kept, left = _within(plain, left - len(field))
            if kept != plain:
                changes.note(_TOO_MUCH, field)
            if kept is not None:
                found[field] = kept
    if "year" not in found and (year := _year(found.get("date"))) is not None:
        found["year"] = year
    if left_out is not None:
        left_out += changes.lines()
    return found


def _fields(name: str, value: Any, changes: MetadataChanges) -> dict[str, Any]:
    """Values of one field of a file under their names."""
    if name == "authors":
        people = value if isinstance(value, list) else [value]
        beside = [
            {key: one for key, one in person.items() if field_name(key) not in _PARTS_OF_A_NAME}
            for person in people
            if isinstance(person, Mapping)
        ]
        names = _authors(people, changes, in_one_text=isinstance(value, str))
        return flat_fields(name, beside, changes) | {name: names}
    if name == "year":
        year = _year(value)
        if year is None and value not in (None, "", []):
            changes.note(_NO_YEAR, name)
        return {name: year}
    if name == ALLOWED:  # read as it stands by `allowed_beside`; here it is a field like another
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            value = value.split(",")  # cut in the middle, a name would be that of another group
        if isinstance(value, Mapping):
            return {}
    return flat_fields(name, value, changes)


def _within(value: Any, left: int) -> tuple[Any, int]:
    """Value truncated to the space that is left, or None; and the remaining space, in characters."""
    kept = []
    for one in value if isinstance(value, list) else [value]:
        if _size(one) > left:
            break
        kept.append(one)
        left -= _size(one)
    return ((kept or None) if isinstance(value, list) else kept[0] if kept else None), left


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str) else 8


def _authors(people: list[Any], changes: MetadataChanges, *, in_one_text: bool) -> list[str]:
    names = list[str]()
    for person in people:
        if isinstance(person, Mapping):
            parts = {field_name(key): str(one) for key, one in person.items() if one}
            whole = parts.get("name") or parts.get("literal") or ""
            names.append(whole or f"{parts.get('given', '')} {parts.get('family', '')}")
        elif in_one_text:
            names += re.split(r" ?; ?| and ", " ".join(person.split()))
        elif not isinstance(person, list):
            names.append(str(person or ""))
    plain = (flat_value(name, "authors", changes) for name in names)
    return [name for one in plain if (name := one.removeprefix("and ").strip(", "))]


def _year(value: Any) -> int | None:
    found = re.search(r"\b(1[5-9]|20)\d\d\b", str(value)[:_LONGEST_DATE]) if value is not None else None
    return int(found[0]) if found else None
