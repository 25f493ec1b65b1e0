"""A message as plain text: a head of sender, recipients, date and subject, the text, its history, its attachments."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from llama_index_presets.errors import IngestError, MissingExtraError
from llama_index_presets.images import is_image_file
from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import plain_values
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.mail.history import split_history
from llama_index_presets.ingest.readers.parts import joined_parts

__all__ = ["Attachment", "Message", "body_of", "message_about", "message_text"]


_NOTHING: Final = PlainText("")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file within a message.

    Attributes:
        name: File name.
        content: Its bytes, decoded.
        plain: Its text where it is a message of its own; otherwise it is read by its kind.
    """

    name: str
    content: bytes = b""
    plain: PlainText | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message.

    Attributes:
        sender: Name and address.
        recipients: Each with name and address.
        copies: Recipients of copies.
        date: ISO 8601, empty where it has none.
        subject: Empty where it has none.
        body: Its text.
        attachments: Files in it, without those that are only signatures.
        warnings: What could not be decoded with certainty.
        encoding: Of its body.
    """

    sender: str = ""
    recipients: Sequence[str] = ()
    copies: Sequence[str] = ()
    date: str = ""
    subject: str = ""
    body: PlainText = _NOTHING
    attachments: Sequence[Attachment] = ()
    warnings: Sequence[str] = ()
    encoding: str = ""


def message_about(message: Message) -> dict[str, Any]:
    """Metadata of a message: ``title`` (its subject), ``sender``, ``recipients``, ``date``, ``year``."""
    return plain_values(
        {
            "title": message.subject,
            "sender": message.sender,
            "recipients": [*message.recipients, *message.copies],
            "date": message.date,
        }
    )


def message_text(message: Message, limit: SizeLimit) -> PlainText:
    """Text of a message; its history and each attachment are sections of their own below the subject."""
    subject = message.subject
    text, history = split_history(message.body.text)
    body = message.body if not history else PlainText(text)
    parts = [_titled(PlainText(_head(message)), subject)]
    if text.strip():
        parts.append(_titled(body, subject))
    if history.strip():
        parts.append(_titled(PlainText(history), subject, "Earlier messages"))
    warnings = list(message.warnings)
    for attachment in message.attachments:
        read = _attached_text(attachment, limit)
        if isinstance(read, str):
            warnings.append(read)
        else:
            name = () if attachment.plain else (f"Attachment {attachment.name}",)  # a message has its subject
            parts.append(_titled(read, subject, *name))
    joined = joined_parts([("", part) for part in parts], limit)
    return replace(joined, warnings=(*warnings, *joined.warnings), encoding=message.encoding)


def _head(message: Message) -> str:
    rows = (
        ("From", message.sender),
        ("To", ", ".join(message.recipients)),
        ("Cc", ", ".join(message.copies)),
        ("Date", message.date),
        ("Subject", message.subject),
        ("Attachments", ", ".join(attachment.name for attachment in message.attachments)),
    )
    return "\n".join(f"{name}: {value}" for name, value in rows if value)


def _titled(plain: PlainText, *path: str) -> PlainText:
    """The same text with its headings below a path; pages of an attachment are not pages of the mail."""
    above = " > ".join(filter(None, path))
    headings = [(at, " > ".join(filter(None, (above, name)))) for at, name in plain.headings]
    if not headings or headings[0][0] > 0:
        headings.insert(0, (0, above))
    return replace(plain, headings=headings, pages=(), lines=())


def _attached_text(attachment: Attachment, limit: SizeLimit) -> PlainText | str:
    """Text of an attachment, or the reason why there is none; what a mail shows inline is no loss."""
    from llama_index_presets.ingest.readers.registry import reader_for

    if attachment.plain is not None:
        return attachment.plain
    name = PurePosixPath(attachment.name.replace("\\", "/")).name or "attachment"
    if is_image_file(Path(name)):
        return f"Attachment '{name}' is an image and was not read."
    if not attachment.content:
        return f"Attachment '{name}' is empty."
    with tempfile.TemporaryDirectory(prefix="mail-") as folder:
        path = Path(folder) / f"attachment{Path(name).suffix[:20]}"
        path.write_bytes(attachment.content)
        try:
            plain, _ = reader_for(path).load()(path, limit)
        except (IngestError, MissingExtraError) as error:
            return f"Attachment '{name}' was not read: {error}"
        except Exception as error:  # a damaged attachment must not take the mail with it
            return f"Attachment '{name}' was not read ({type(error).__name__}: {error})."
    if not plain.text.strip():
        return f"Attachment '{name}' holds no text."
    return replace(plain, warnings=[f"Attachment '{name}': {warning}" for warning in plain.warnings])


def body_of(text: str, html: PlainText | None) -> PlainText:
    """The plain part, or the HTML part where the plain one is empty or only says that there is an HTML one."""
    plain = plain_from_text(text)
    if html is None or not html.text.strip():
        return plain
    return html if 4 * len(plain.text.strip()) < len(html.text.strip()) else plain
