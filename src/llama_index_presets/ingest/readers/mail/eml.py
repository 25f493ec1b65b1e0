"""MIME messages: eml files, mailboxes of them, and web pages saved as one file (mhtml)."""

from __future__ import annotations

import email
import mimetypes
import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message as MimeMessage
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import Decoded, decode
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.mail.message import (
    Attachment,
    Message,
    body_of,
    message_about,
    message_text,
)
from llama_index_presets.ingest.readers.parts import joined_parts

__all__ = ["decoded_header", "read_eml", "read_mbox"]

_DEEPEST: Final = 8  # messages within messages
_SIGNATURES: Final = (
    "application/pkcs7-signature",
    "application/x-pkcs7-signature",
    "application/pgp-signature",
    "application/pgp-keys",
)
_ENCRYPTED: Final = ("application/pkcs7-mime", "application/x-pkcs7-mime", "multipart/encrypted")
_HEADERS: Final = ("from", "to", "subject", "date", "message-id", "received", "mime-version", "content-type")
_LENGTH: Final = re.compile(rb"\A\s*(\d{1,10})[ \t]*\r?\n")
_ENVELOPE: Final = re.compile(rb"From +(\S+) +((?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} .*?)\s*\Z")
_FROM_LINE: Final = re.compile(
    rb"^From (?:(?=.*\d{2}:\d{2}.*\n[\w-]+:)|(?=\S+ +(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} .*\d{2}:\d{2}.*\n\r?\n))",
    re.MULTILINE,
)
"""Line above a message: of any form above headers, of the usual one above a message without any."""


def read_eml(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a message: sender, recipients, date, subject, body, quoted history, attachments.

    Raises:
        IngestError: It is encrypted, is no message, or is larger than `limit`.
    """
    limit.check_file(path)
    message = _message_of(_parsed(_of_apple_mail(path.read_bytes())), limit)
    return message_text(message, limit), message_about(message)


def _of_apple_mail(raw: bytes) -> bytes:
    """The message of an emlx file, which has its length above it and a property list below it; any other as it is."""
    if found := _LENGTH.match(raw):
        return raw[found.end() : found.end() + int(found[1])]
    return raw


def read_mbox(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Messages of a mailbox, each a page, in its order; one that cannot be read is a warning.

    Raises:
        IngestError: It holds no message, or more text than `limit`.
    """
    limit.check_file(path)
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    starts = [match.start() for match in _FROM_LINE.finditer(raw)]
    if not starts:  # one message, as some programs save it
        try:
            return read_eml(path, limit)
        except IngestError as error:
            raise IngestError(
                f"The mailbox holds no message: no line begins with 'From '. {error}"
            ) from error
    if starts[0]:
        starts.insert(0, 0)
    return joined_parts(_messages(raw, starts, limit), limit), {}


def _messages(raw: bytes, starts: list[int], limit: SizeLimit) -> Iterator[tuple[str, PlainText]]:
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(raw)], strict=True), start=1):
        content = _without_envelope(raw[start:end])
        content = re.sub(rb"^>(>*From )", rb"\1", content, flags=re.MULTILINE)
        try:
            yield str(number), message_text(_message_of(_parsed(content), limit), limit)
        except IngestError as error:
            yield str(number), PlainText("", warnings=(f"Message {number} was not read: {error}",))


def _without_envelope(raw: bytes) -> bytes:
    """A message of a mailbox; one without headers gets those that the line above it states."""
    if not raw.startswith(b"From "):
        return raw
    line, _, content = raw.partition(b"\n")
    envelope = _ENVELOPE.match(line)
    if envelope and content.startswith((b"\n", b"\r\n")):
        return b"From: %b\nDate: %b\n" % envelope.groups() + content
    return content


def _parsed(raw: bytes) -> MimeMessage:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")) or b"\0" in raw[:64]:
        raw = decode(raw).text.encode("utf-8", "surrogatepass")
    message = email.message_from_bytes(raw.lstrip(b"\r\n"))
    if not any(name in message for name in _HEADERS):
        raise IngestError("The file is no message: it has no header such as From, Subject or Date.")
    return message


def _message_of(message: MimeMessage, limit: SizeLimit, depth: int = 0) -> Message:
    """Values of a parsed message."""
    texts, pages, warnings, encoding = list[str](), list[str](), list[str](), ""
    attachments = list[Attachment]()
    for part in _leaves(message):
        kind, name = part.get_content_type(), _file_name(part)
        is_body = not name and part.get_content_disposition() != "attachment"
        if kind in _SIGNATURES:
            continue
        if kind.startswith("message/") and part.is_multipart():
            if depth + 1 >= _DEEPEST:
                warnings.append(f"A message inside {_DEEPEST} others was not read, nor what is in it.")
            else:
                attachments.append(_attached_message(part, limit, depth))
        elif kind in ("text/plain", "text/html") and is_body:
            decoded = _text_of(part)
            encoding = encoding or decoded.encoding
            warnings += decoded.warnings
            (texts if kind == "text/plain" else pages).append(decoded.text)
        elif kind in _ENCRYPTED and "signed" not in str(part.get_param("smime-type", "")):
            warnings.append("A part is encrypted and was not read.")
        else:
            attachments.append(Attachment(name or _invented_name(kind, len(attachments)), _bytes_of(part)))
    if not (texts or pages or attachments) and _is_encrypted(message):
        raise IngestError("The message is encrypted. Decrypt it in a mail program and save it again.")
    html = plain_from_html("\n<hr>\n".join(pages), limit) if pages else None
    return Message(
        sender=next(iter(_addresses(message, "from")), ""),
        recipients=_addresses(message, "to"),
        copies=_addresses(message, "cc"),
        date=_date(message),
        subject=_header(message, "subject"),
        body=body_of("\n\n".join(texts), html),
        attachments=attachments,
        warnings=tuple(dict.fromkeys(warnings)),
        encoding=encoding,
    )


def _leaves(message: MimeMessage) -> Iterator[MimeMessage]:
    """Parts that hold content; of alternatives all, since `body_of` chooses; messages within are one part."""
    if message.get_content_type() == "multipart/encrypted":
        return
    if message.is_multipart() and not message.get_content_type().startswith("message/"):
        for part in message.get_payload():
            if isinstance(part, MimeMessage):
                yield from _leaves(part)
    else:
        yield message


def _attached_message(part: MimeMessage, limit: SizeLimit, depth: int) -> Attachment:
    inner = next((one for one in part.walk() if one is not part), None)
    message = _message_of(inner, limit, depth + 1) if inner is not None else Message()
    name = message.subject or _file_name(part) or "message"
    return Attachment(name, plain=message_text(message, limit))


def _is_encrypted(message: MimeMessage) -> bool:
    return any(part.get_content_type() in _ENCRYPTED for part in message.walk())


def _bytes_of(part: MimeMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text_of(part: MimeMessage) -> Decoded:
    raw = _bytes_of(part)
    charset = part.get_content_charset("") or ""
    try:
        decoded = decode(raw, charset)
    except IngestError:
        return Decoded("", charset, ("A text part is binary and was not read.",))
    text = decoded.text.replace("\r\n", "\n")
    if part.get_param("format") == "flowed":
        text = re.sub(r"(?<!--) \n(?!>)", " ", text)
    return Decoded(text, decoded.encoding, decoded.warnings)


def _file_name(part: MimeMessage) -> str:
    try:
        return decoded_header(part.get_filename() or "")
    except (ValueError, LookupError, TypeError):
        return ""


def _invented_name(kind: str, number: int) -> str:
    return f"attachment-{number + 1}{mimetypes.guess_extension(kind) or ''}"


def _header(message: MimeMessage, name: str) -> str:
    return decoded_header(next(iter(_raw(message, name)), ""))


def _raw(message: MimeMessage, name: str) -> list[str]:
    """Values of a header as they stand in the file; `get` puts a question mark for each byte beyond ASCII."""
    return [str(value) for key, value in message.raw_items() if key.lower() == name]


def decoded_header(value: str) -> str:
    """A header's text: encoded words decoded, raw bytes read as UTF-8 or what they look like."""
    try:
        parts = [
            decode(part, charset or "").text if isinstance(part, bytes) else part
            for part, charset in decode_header(value)
        ]
    except (ValueError, LookupError, IngestError):
        parts = [value]
    text = "".join(parts)
    raw = (
        text.encode("ascii", "surrogateescape") if any("\udc80" <= char <= "\udcff" for char in text) else b""
    )
    return " ".join((decode(raw).text if raw else text).split())


_PART_OF_NAME: Final = r'[^"@<>,;:()\\]{1,80}+'
_COMMA_IN_NAME: Final = re.compile(rf"(?:^|(?<=,))\s*+({_PART_OF_NAME}(?:,{_PART_OF_NAME}){{1,4}}?)<")
"""Name with commas before its address, which should stand in quotes: Astoria, Purchasing <a@b.example>."""


def _addresses(message: MimeMessage, name: str) -> list[str]:
    values = [
        _COMMA_IN_NAME.sub(lambda found: f' "{found[1].strip()}" <', value) for value in _raw(message, name)
    ]
    pairs = ((decoded_header(person), address) for person, address in getaddresses(values))
    return [
        f"{person} <{address}>" if person and address else person or address
        for person, address in pairs
        if person or address
    ]


def _date(message: MimeMessage) -> str:
    value = _header(message, "date")
    try:
        return parsedate_to_datetime(value).isoformat() if value else ""
    except (ValueError, TypeError, OverflowError):
        return value
