"""Outlook messages (msg), read by python-oxmsg."""

from __future__ import annotations

import codecs
import struct
import tempfile
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import decode
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.mail.compressed_rtf import decompressed_rtf
from llama_index_presets.ingest.readers.mail.eml import decoded_header
from llama_index_presets.ingest.readers.mail.message import (
    Attachment,
    Message,
    body_of,
    message_about,
    message_text,
)
from llama_index_presets.ingest.readers.office.rtf import read_rtf
from llama_index_presets.packages.extras import require

__all__ = ["read_msg"]

_HTML, _RTF, _NAME = 0x1013, 0x1009, 0x3704
_CODEPAGES: Final = (0x3FFD, 0x3FDE)  # of the strings, of the body
_TEXT, _BYTES = 0x001F, 0x001E
_OBJECTS: Final = ("__attach", "__recip")
_PROPERTIES: Final = "__properties_version1.0"
_INNER: Final = "__substg1.0_3701000D"
"""Where a message that is attached to another one is kept."""
_INNER_HEADER, _HEADER = 24, 32  # bytes before the properties of a message
_DEEPEST: Final = 8  # messages within messages
_OLE: Final = b"\xd0\xcf\x11\xe0"
_NAMED_CODEPAGES: Final = {65001: "utf-8", 20127: "ascii", 20866: "koi8-r", 21866: "koi8-u", 936: "gb18030"}


def read_msg(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of an Outlook message: sender, recipients, date, subject, body, quoted history, attachments.

    Raises:
        IngestError: It is no Outlook message, or larger than `limit`.
    """
    limit.check_file(path)
    with path.open("rb") as file:
        if file.read(4) != _OLE:
            raise IngestError("The file is no Outlook message, although its name ends in .msg.")
    oxmsg = require("oxmsg", extra="readers-all")
    with require("olefile", extra="readers-all").OleFileIO(str(path)) as ole:
        storage = require("oxmsg.storage", extra="readers-all").Storage.from_ole(ole)
    if not any(stream.name == _PROPERTIES for stream in storage.streams):
        raise IngestError(
            "The file is no Outlook message, although its name ends in .msg: it has no properties."
        )
    message = _message(oxmsg.Message(_as_unicode(storage, _HEADER, "")), limit)
    return message_text(message, limit), message_about(message)


def _as_unicode(storage: Any, header: int, codepage: str) -> Any:
    """A storage whose strings of bytes are Unicode, which is all that the library decodes without failing."""
    kind = type(storage)
    own = next((one.bytes_ for one in storage.streams if one.name == _PROPERTIES), b"")
    codepage = _codepage(own[header:]) or codepage
    streams = tuple(_stream(one, header, codepage) for one in storage.streams)
    if not own and storage.name.startswith(_OBJECTS):
        # it may have lost them; the message has its text all the same
        streams += (
            require("oxmsg.storage", extra="readers-all").Stream(
                f"{storage.path}/{_PROPERTIES}", bytes(header)
            ),
        )
    storages = tuple(
        _as_unicode(one, _INNER_HEADER if one.name == _INNER else 8, codepage) for one in storage.storages
    )
    return kind(path=storage.path, streams=streams, storages=storages)


def _codepage(properties: bytes) -> str:
    """Python's name of the encoding that a message states for its strings; empty where it states none."""
    entries = (properties[at : at + 16] for at in range(0, len(properties) - 15, 16))
    found = {struct.unpack_from("<H", one, 2)[0]: struct.unpack_from("<I", one, 8)[0] for one in entries}
    number = next((found[pid] for pid in _CODEPAGES if found.get(pid)), 0)
    name = _NAMED_CODEPAGES.get(number) or (
        f"iso8859-{number - 28590}" if 28591 <= number <= 28605 else f"cp{number}"
    )
    try:
        return codecs.lookup(name).name if number else ""
    except LookupError:
        return ""


def _stream(stream: Any, header: int, codepage: str) -> Any:
    kind = type(stream)
    if stream.name == _PROPERTIES:
        raw = bytearray(stream.bytes_)
        for at in range(header, len(raw) - 15, 16):
            if struct.unpack_from("<H", raw, at)[0] == _BYTES:
                struct.pack_into("<H", raw, at, _TEXT)
        padding = bytes(_HEADER - _INNER_HEADER) if header == _INNER_HEADER else b""
        return kind(stream.path, bytes(raw[:header] + padding + raw[header:]))
    if stream.name.startswith("__substg1.0_") and stream.name.endswith(f"{_BYTES:04X}"):
        text = _decoded(stream.bytes_.rstrip(b"\0"), codepage)
        return kind(f"{stream.path[:-4]}{_TEXT:04X}", text.encode("utf-16-le", "surrogatepass"))
    return stream


def _decoded(raw: bytes, codepage: str) -> str:
    try:
        return decode(raw, codepage).text
    except IngestError:
        return raw.decode(codepage or "cp1252", "replace")


def _message(found: Any, limit: SizeLimit, depth: int = 0) -> Message:
    attachments, warnings = [], []
    for attachment in found.attachments:
        read = _attachment(attachment, limit, depth)
        if isinstance(read, Attachment):
            attachments.append(read)
        else:
            warnings.append(read)
    body = body_of(_text(found, "body"), _html(found, limit))
    if not body.text.strip() and (packed := found.properties.binary_prop_value(_RTF)):
        body, problem = _rich_text(packed, limit)
        warnings += [problem] if problem else []
    date = found.sent_date
    return Message(
        sender=decoded_header(_text(found, "sender")).replace('"', ""),
        recipients=[person for one in found.recipients if (person := _person(one))],
        date=date.isoformat() if date else "",
        subject=_text(found, "subject"),
        body=body,
        attachments=attachments,
        warnings=warnings,
    )


def _attachment(attachment: Any, limit: SizeLimit, depth: int) -> Attachment | str:
    """An attachment, or why it was not read."""
    short = attachment.properties.str_prop_value(_NAME)
    name = attachment.file_name or short or "attachment"
    inner = next((one for one in attachment._storage.storages if one.name == _INNER), None)
    if inner is not None and depth < _DEEPEST and any(one.name == _PROPERTIES for one in inner.streams):
        message = _message(require("oxmsg", extra="readers-all").Message(inner), limit, depth + 1)
        return Attachment(message.subject or name, plain=message_text(message, limit))
    content = attachment.file_bytes
    if content is None:
        return f"Attachment '{name}' is an object or a link inside the file and was not read."
    return Attachment(name, content)


def _html(found: Any, limit: SizeLimit) -> PlainText | None:
    raw = found.properties.binary_prop_value(_HTML)
    codepage = _codepage(found._storage.properties_stream_bytes[_HEADER:])
    text = _decoded(raw, codepage) if raw else _text(found, "html_body")
    return plain_from_html(text, limit) if text else None


def _rich_text(packed: bytes, limit: SizeLimit) -> tuple[PlainText, str]:
    """Text of a body that is rich text alone, and what is wrong with it."""
    try:
        raw = decompressed_rtf(packed, limit)
    except ValueError as error:
        return PlainText(""), f"The body is rich text and was not read ({error}). Save the message as eml."
    with tempfile.TemporaryDirectory(prefix="mail-") as folder:
        path = Path(folder) / "body.rtf"
        path.write_bytes(raw)
        return read_rtf(path, limit)[0], ""


def _text(found: Any, name: str) -> str:
    return str(getattr(found, name) or "").replace("\0", "")


def _person(recipient: Any) -> str:
    name, address = _text(recipient, "name"), _text(recipient, "email_address")
    return f"{name} <{address}>" if name and address and name != address else address or name
