"""JSON, JSON Lines and XML: each value beside its name, under the path of names that leads to it.

Lists of messages, as chat programs export them, keep sender and time before each text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.long_text import Rendered, TextInParts, is_long, line_parts, survey
from llama_index_presets.ingest.clean import plain_from_text, without_controls
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file, utf8_start
from llama_index_presets.ingest.readers.epub import plain_from_xhtml
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.office.packages import local_name
from llama_index_presets.packages.extras import require

__all__ = ["read_json", "read_json_lines", "read_xml"]

_SENDERS: Final = ("from", "sender", "author", "user_name", "username", "user", "role", "name")
_TEXTS: Final = ("text", "message", "content", "body")
_TIMES: Final = ("date", "timestamp", "ts", "time", "created_at", "createdDateTime", "create_time", "sent")
_MARKUP: Final = re.compile(
    r"</(?:p|div|a|b|i|ul|ol|li|h[1-6]|span|strong|em|table|td)>|<br\s*/?>", re.IGNORECASE
)
_LONG: Final = 200  # characters of a value that stands in a paragraph of its own
_LISTED: Final = 5  # broken lines that a warning names
_NAMES: Final = ("name", "title", "id", "key")


class _Writer:
    """Writes paragraphs under paths of names.

    Args:
        limit: What they may come to.
        label: The path that stands above the first paragraph; None where that is not known.
    """

    def __init__(self, limit: SizeLimit, *, label: str | None = "") -> None:
        self._limit = limit
        self._label = label
        self._parts: list[str] = []
        self._length = 0
        self.headings: list[Mark] = []

    def write(self, path: tuple[str, ...], text: str) -> None:
        text = without_controls(text)
        if not text.strip():
            return
        label = " > ".join(path)
        if label != self._label:
            self.headings.append((self._length, label))
            self._label = label
        self._parts.append(text + "\n\n")
        self._length += len(text) + 2
        self._limit.check_text(self._length)

    def plain(self, *warnings: str) -> PlainText:
        return PlainText("".join(self._parts), self.headings, warnings=warnings)

    def rendered(self) -> Rendered:
        """What was written, as a part of a file."""
        return Rendered("".join(self._parts), self.headings)


def read_json(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Values of a JSON file; a broken one is read as text, with a warning that says where it breaks."""
    decoded = read_text_file(path, limit)
    try:
        value = _load(decoded.text)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Extra data"):
            return read_json_lines(path, limit)
        plain = plain_from_text(decoded.text)
        where = f"{error.msg.removesuffix(' at')}, line {error.lineno}"
        warning = f"The file is no complete JSON ({where}); it was read as text."
        return decoded.of(PlainText(plain.text, warnings=(warning,))), {}
    except RecursionError as error:
        raise IngestError("The JSON nests too deep to be read. Flatten it.") from error
    return decoded.of(_plain_from_json(value, limit)), {}


def _load(text: str) -> Any:
    """Values with their numbers as they are written."""
    return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)


def read_json_lines(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """A value a line; broken lines are read as text, and named in a warning. A long file is read part by part."""
    limit.check_file(path)
    if is_long(path) and (plain := _long_json_lines(path, limit)):
        return plain, {}
    decoded, broken = read_text_file(path, limit), _Broken()
    writer = _Writer(limit)
    _write_json_lines(writer, decoded.text, broken)
    return decoded.of(writer.plain(*broken.warnings())), {}


def _long_json_lines(path: Path, limit: SizeLimit) -> TextInParts | None:
    """A long file in UTF-8; None for any other, which is decoded as a whole."""
    start, broken = utf8_start(path), _Broken()
    if start is None:
        return None
    parts = ((raw, _rendered_json_lines(raw, limit, broken)) for raw in line_parts(path, start[0]))
    try:
        found = survey(parts, start[0], limit)
    except UnicodeDecodeError:
        return None
    if found is None:
        return None
    return TextInParts(
        path, found, lambda raw, _: _rendered_json_lines(raw, limit), start[1], warnings=broken.warnings()
    )


def _rendered_json_lines(raw: bytes, limit: SizeLimit, broken: _Broken | None = None) -> Rendered:
    writer = _Writer(limit, label=None)
    _write_json_lines(writer, raw.decode("utf-8"), broken or _Broken())
    return writer.rendered()


class _Broken:
    """Lines that are no JSON."""

    def __init__(self) -> None:
        self.lines = 0  # all, read so far
        self._count = 0
        self._first: list[int] = []

    def add(self) -> None:
        self._count += 1
        if self._count <= _LISTED:
            self._first.append(self.lines)

    def warnings(self) -> list[str]:
        if not self._count:
            return []
        more = f" and {self._count - _LISTED:,} more" if self._count > _LISTED else ""
        where = f"{', '.join(map(str, self._first))}{more}"
        if self._count == 1:
            return [f"Line {where} is no JSON; it was read as text."]
        return [f"{counted(self._count, 'line', 'are')} no JSON (lines {where}); they were read as text."]


def _write_json_lines(writer: _Writer, text: str, broken: _Broken) -> None:
    lines = re.split(r"\r\n|\r|\n", text)  # others, such as U+2028, may stand in a string
    for line in lines if lines[-1] else lines[:-1]:
        broken.lines += 1
        if line.strip():
            try:
                _write_json(writer, _load(line), ())
            except json.JSONDecodeError:
                broken.add()
                writer.write((), line.strip())
            except RecursionError as error:
                raise IngestError(
                    f"Line {broken.lines} of the file nests too deep to be read. Flatten it."
                ) from error


def _plain_from_json(value: Any, limit: SizeLimit = DEFAULT_LIMIT) -> PlainText:
    """A parsed JSON value as text.

    Example:
        >>> _plain_from_json({"drug": "antitoxin", "dose": {"adults": "20 ml"}}).text.strip()
        'drug: antitoxin; dose adults: 20 ml'
        >>> _plain_from_json([{"user": "Ada", "date": "2024-05-01", "text": "It works."}]).text.strip()
        'Ada, 2024-05-01: It works.'
    """
    writer = _Writer(limit)
    _write_json(writer, value, ())
    return writer.plain()


def _write_json(writer: _Writer, value: Any, path: tuple[str, ...]) -> None:
    if isinstance(value, dict):
        _write_record(writer, value, path)
    elif isinstance(value, list):
        if any(isinstance(one, dict | list) for one in value):
            for one in value:
                _write_json(writer, one, path)
        else:
            texts = list(filter(None, map(_scalar, value)))
            short = sum(map(len, texts)) <= _LONG
            for text in [", ".join(texts)] if short else texts:
                writer.write(path, text)
    else:
        writer.write(path, _scalar(value))


def _write_record(writer: _Writer, record: Mapping[str, Any], path: tuple[str, ...]) -> None:
    """Short values in one paragraph, long texts and inner records below it."""
    if message := _message(record):
        writer.write(path, message)
        return
    short, below = list[str](), list[tuple[str, Any]]()
    for name, value in record.items():
        flat = _flat(name, value)
        if flat is None:
            below.append((name, value))
        else:
            short += flat
    writer.write(path, "; ".join(short))
    for name, value in below:
        if isinstance(value, str):
            writer.write(path, f"{name}: {_scalar(value)}")
        else:
            _write_json(writer, value, (*path, _label(name)))


def _label(name: str) -> str:
    return " ".join(name.split())[:100]


def _flat(name: str, value: Any) -> list[str] | None:
    """``name: value`` of a short value, a list of short values or a record of such; None for anything else."""
    if isinstance(value, dict):
        inner = [
            _flat(f"{name} {key}", one) if not isinstance(one, dict) else None for key, one in value.items()
        ]
        lines = [line for one in inner if one is not None for line in one]
        return lines if None not in inner and sum(map(len, lines)) <= _LONG else None
    if isinstance(value, list):
        texts = [None if isinstance(one, dict | list) else _scalar(one) for one in value]
        joined = ", ".join(filter(None, texts))
        return None if None in texts or len(joined) > _LONG else [f"{name}: {joined}"] if joined else []
    text = _scalar(value)
    return None if len(text) > _LONG or "\n" in text else [f"{name}: {text}"] if text else []


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else _without_tags(str(value).strip())


def _without_tags(text: str) -> str:
    """Words of a value that is HTML, as feeds and exports of web sites hold it.

    Example: ``<p>Two <b>pumps</b>.</p>`` is ``Two pumps.``
    """
    if not _MARKUP.search(text):
        return text
    return re.sub(r"\n{3,}", "\n\n", plain_from_html(text, keep_menus=True).text).strip() or text


def _message(record: Mapping[str, Any]) -> str:
    """``sender, time: text`` of a message, other short values behind it; empty for what is no message."""
    keys = [
        next((name for name in names if _scalar_at(record, name)), None)
        for names in (_SENDERS, _TIMES, _TEXTS)
    ]
    sender, when, text = keys
    if not (sender and when and text):
        return ""
    rest = [
        line
        for name, value in record.items()
        if name not in keys
        for line in (
            _flat(name, value) or [f"{name}: {json.dumps(value, ensure_ascii=False)}" if value else ""]
        )
    ]
    tail = f" ({'; '.join(filter(None, rest))})" if any(rest) else ""
    return f"{record[sender]}, {_time(str(record[when]))}: {_scalar(record[text])}{tail}"


def _scalar_at(record: Mapping[str, Any], name: str) -> bool:
    return isinstance(record.get(name), str) and bool(record[name].strip())


def _time(value: str) -> str:
    """Seconds or milliseconds since 1970, as chat programs store them, as a date; anything else as it is."""
    whole = value.partition(".")[0]
    if not whole.isdecimal() or len(whole) not in (10, 13):
        return value
    seconds = int(whole) / (1000 if len(whole) == 13 else 1)
    return (
        datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="minutes").removesuffix("+00:00")
        + " UTC"
    )


def read_xml(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of an XML file: values beside their names, prose as it is; a damaged one as far as it goes."""
    limit.check_file(path)
    etree = require("lxml.etree", extra="readers")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        remove_comments=True,
        remove_pis=True,
        recover=True,
        huge_tree=False,
    )
    root = etree.fromstring(path.read_bytes(), parser)
    if root is None:
        raise IngestError("The file cannot be read: it is no XML, or damaged from the beginning. Correct it.")
    if local_name(root.tag) == "html":
        return plain_from_xhtml(read_text_file(path, limit).text, limit), {}
    writer = _Writer(limit)
    if local_name(root.tag) == "svg":
        _write_drawing(writer, root)
    else:
        _write_element(writer, root, ())
    damage = [one for one in parser.error_log if one.level_name in ("ERROR", "FATAL")]
    found = f"The XML is damaged ({damage[0].message}, line {damage[0].line})" if damage else ""
    encoding = (root.getroottree().docinfo.encoding or "").lower()
    plain = writer.plain(*([f"{found}; what follows may be lost."] if found else ()))
    if found and plain.is_blank:
        raise IngestError(f"{found}, and no text stands before that. Correct it.")
    return PlainText(plain.text, plain.headings, warnings=plain.warnings, encoding=encoding), {}


def _write_drawing(writer: _Writer, root: Any) -> None:
    """Titles, descriptions and labels of a drawing."""
    for element in root.iter():
        if local_name(element.tag) in ("title", "desc", "text"):
            writer.write((), " ".join("".join(element.itertext()).split()))


def _write_element(writer: _Writer, root: Any, path: tuple[str, ...]) -> None:
    """An element with all below it; with a stack of its own, since XML nests deeper than Python recurses."""
    stack: list[tuple[Any, tuple[str, ...]]] = [(root, path)]
    while stack:
        element, above = stack.pop()
        children = [one for one in element if local_name(one.tag)]
        if _is_prose(element, children):
            for empty in (one for one in element.iter() if not len(one) and not one.text):
                empty.text = " "  # a line or a page ends there
            writer.write(above, " ".join(_without_tags("".join(element.itertext())).split()))
            continue
        leaves = [one for one in children if not len(one) and len((one.text or "").strip()) <= _LONG]
        line = "; ".join([*_attributes(element), *(text for one in leaves for text in _leaf(one))])
        writer.write(above, line)
        own = set(map(id, leaves))
        for child in reversed([one for one in children if id(one) not in own]):
            stack.append((child, (*above, _element_label(child)) if len(child) else above))


def _is_prose(element: Any, children: list[Any]) -> bool:
    """Whether text stands between its children, or it has none."""
    if not children:
        return True
    return any((one.tail or "").strip() for one in children) or bool((element.text or "").strip())


def _attributes(element: Any) -> Iterator[str]:
    for name, value in element.attrib.items():
        if value.strip() and "schemaLocation" not in name:
            yield f"{local_name(name)}: {' '.join(value.split())}"


def _leaf(element: Any) -> Iterator[str]:
    text = " ".join(_without_tags(element.text or "").split())
    attributes = ", ".join(_attributes(element))
    if text:
        yield f"{local_name(element.tag)}: {text}" + (f" ({attributes})" if attributes else "")
    elif attributes:
        yield f"{local_name(element.tag)} ({attributes})"


def _element_label(element: Any) -> str:
    """Name of an element, with the name that it gives itself."""
    own = next((element.get(name) for name in _NAMES if (element.get(name) or "").strip()), "")
    return _label(f"{local_name(element.tag)} {own or ''}")
