"""Outlook messages (msg), read by python-oxmsg."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.html import plain_from_html
from llama_index_presets.ingest.readers.mail.eml import decoded_header
from llama_index_presets.ingest.readers.mail.message import (
    Attachment,
    Message,
    body_of,
    message_about,
    message_text,
)
from llama_index_presets.packages.extras import require

__all__ = ["read_msg"]

_RTF: Final = 0x1009
_OLE: Final = b"\xd0\xcf\x11\xe0"


def read_msg(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of an Outlook message: sender, recipients, date, subject, body, quoted history, attachments.

    Raises:
        IngestError: It is no Outlook message, or larger than `limit`.
    """
    limit.check_file(path)
    with path.open("rb") as file:
        if file.read(4) != _OLE:
            raise IngestError("The file is no Outlook message, although its name ends in .msg.")
    found = require("oxmsg", extra="readers-all").Message.load(str(path))
    message = _message(found, limit)
    return message_text(message, limit), message_about(message)


def _message(found: Any, limit: SizeLimit) -> Message:
    html = plain_from_html(found.html_body, limit) if found.html_body else None
    attachments, warnings = [], []
    for attachment in found.attachments:
        name = attachment.file_name or "attachment"
        if attachment.attached_by_value and attachment.file_bytes is not None:
            attachments.append(Attachment(name, attachment.file_bytes))
        else:
            warnings.append(f"Attachment '{name}' is a message or a link inside the file and was not read.")
    body = body_of(found.body or "", html)
    if not body.text.strip() and _RTF in {prop.pid for prop in found.properties}:
        warnings.append("The body is rich text only and was not read. Save the message as eml.")
    return Message(
        sender=decoded_header(found.sender or "").replace('"', ""),
        recipients=[
            _person(recipient) for recipient in found.recipients if recipient.email_address or recipient.name
        ],
        date=found.sent_date.isoformat() if found.sent_date else "",
        subject=found.subject or "",
        body=body,
        attachments=attachments,
        warnings=warnings,
    )


def _person(recipient: Any) -> str:
    name, address = recipient.name or "", recipient.email_address or ""
    return f"{name} <{address}>" if name and address and name != address else address or name
