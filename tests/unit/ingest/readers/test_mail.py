"""Mail: head, body, history and attachments apart; every encoding; never a line of base64."""

from __future__ import annotations

import os
import re
import time
from email.message import EmailMessage
from pathlib import Path

import pytest
from reportlab.pdfgen.canvas import Canvas

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.mail.history import split_history


def mail(
    subject: str = "Rechnung überfällig", body: str = "Bitte zahlen Sie die überfällige Rechnung 4711.\n"
) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Jürgen Groß <jg@example.org>"
    message["To"] = "Ada <ada@example.org>, bob@example.org"
    message["Date"] = "Fri, 16 Dec 2022 17:04:16 -0500"
    message["Subject"] = subject
    message.set_content(body)
    return message


def read(tmp_path: Path, content: bytes | EmailMessage, name: str = "a.eml") -> SourceText:
    path = tmp_path / name
    path.write_bytes(bytes(content))
    return read_file(path, "h")


def sections(source: SourceText) -> dict[str, str]:
    found: dict[str, str] = {}
    for section in source.plain.sections():
        found[section.heading] = f"{found.get(section.heading, '')}\n\n{section.text.strip()}".strip()
    return found


def test_sender_date_and_subject_are_text_and_metadata(tmp_path: Path) -> None:
    """A question for a sender finds the mail, and a filter, too."""
    source = read(tmp_path, mail())
    assert source.plain.text.strip() == (
        "From: Jürgen Groß <jg@example.org>\nTo: Ada <ada@example.org>, bob@example.org\n"
        "Date: 2022-12-16T17:04:16-05:00\nSubject: Rechnung überfällig\n\n"
        "Bitte zahlen Sie die überfällige Rechnung 4711."
    )
    about = {key: source.metadata[key] for key in ("title", "sender", "recipients", "date", "year")}
    assert about == {
        "title": "Rechnung überfällig",
        "sender": "Jürgen Groß <jg@example.org>",
        "recipients": ["Ada <ada@example.org>", "bob@example.org"],
        "date": "2022-12-16T17:04:16-05:00",
        "year": 2022,
    }


def test_attachments_are_read_by_their_own_kind(tmp_path: Path) -> None:
    """A PDF, a table and a mail within the mail; what cannot be read is a warning, and nothing is base64."""
    message = mail()
    canvas = Canvas(str(tmp_path / "r.pdf"))
    canvas.drawString(72, 700, "The invoice names four pumps.")
    canvas.save()
    message.add_attachment(
        (tmp_path / "r.pdf").read_bytes(), maintype="application", subtype="pdf", filename="r.pdf"
    )
    message.add_attachment(
        "Artikel;Preis\nPumpe;1,50\n".encode("cp1252"), maintype="text", subtype="csv", filename="p.csv"
    )
    message.add_attachment(mail("Older", "An older message."))
    message.add_attachment(
        os.urandom(6_000), maintype="application", subtype="octet-stream", filename="x.bin"
    )
    message.add_attachment(
        b"\x89PNG\r\n\x1a\n" + os.urandom(90_000), maintype="image", subtype="png", filename="logo.png"
    )
    source = read(tmp_path, message)
    found = sections(source)
    top = "Rechnung überfällig"
    assert "The invoice names four pumps." in found[f"{top} > Attachment r.pdf"]
    assert found[f"{top} > Attachment p.csv"] == "Artikel: Pumpe; Preis: 1,50"
    assert "An older message." in found[f"{top} > Older"]
    assert [warning.split(" was")[0] for warning in source.plain.warnings] == [
        "Attachment 'x.bin'",
        "Attachment 'logo.png' is an image and",
    ]
    assert not re.search(r"[A-Za-z0-9+/]{40}", source.plain.text)
    assert "Attachments: r.pdf, p.csv, Older, x.bin, logo.png" in source.plain.text


def test_a_mail_of_html_alone_is_its_text(tmp_path: Path) -> None:
    """Also where the plain part only says that there is another one; an inline picture is no text."""
    message = mail(body="Please view as HTML.")
    picture = "data:image/png;base64," + "QUJD" * 5_000
    page = (
        "<p>Dear Ada,</p><p>the pump runs <b>again</b>, and the valve was changed on Monday morning.</p>"
        f"<p>It took two hours, as planned.</p><img src='{picture}'>"
    )
    message.add_alternative(page, subtype="html")
    text = read(tmp_path, message).plain.text
    assert "the pump runs again, and the valve was changed" in text
    assert "view as HTML" not in text and "QUJD" not in text


@pytest.mark.parametrize(
    ("body", "own", "history"),
    [
        (
            "Yes.\n\nOn Fri, 3 May 2024 at 10:00, Ada <a@b.c>\nwrote:\n\n> Shall we meet?\n> At ten?",
            "Yes.",
            "Shall we meet?",
        ),
        ("Ja.\n\nAm 03.05.2024 um 10:00 schrieb Ada:\n> Treffen wir uns?", "Ja.", "Treffen wir uns?"),
        ("Oui.\n\nLe ven. 3 mai 2024 à 10:00, Ada a écrit :\n> On se voit ?", "Oui.", "On se voit ?"),
        ("Да.\n\n3 мая 2024 г., 10:00, Ада пишет:\n> Встретимся?", "Да.", "Встретимся?"),
        (
            "Ok.\n\n-----Original Message-----\nFrom: Ada\nSent: Friday\n\nShall we meet?",
            "Ok.",
            "Shall we meet?",
        ),
        (
            "Gut.\n\nVon: Ada <a@b.c>\nGesendet: Freitag\nAn: Bob\nBetreff: Treffen\n\nTreffen?",
            "Gut.",
            "Treffen?",
        ),
        ("On 3 May 2024, Ada wrote:\n> Shall we meet?\n\nYes, at ten.", "Yes, at ten.", "Shall we meet?"),
        (
            "See below.\n\n---------- Forwarded message ---------\nFrom: Ada\n\nThe plan.",
            "See below.",
            "The plan.",
        ),
    ],
)
def test_quoted_history_stands_apart(body: str, own: str, history: str) -> None:
    """Below or above the answer, in the words of several mail programs."""
    above, below = split_history(body)
    assert above == own
    assert history in below and ">" not in below.replace("<a@b.c>", "")


def test_answers_between_the_lines_keep_their_questions() -> None:
    """Taken apart, neither would make sense."""
    body = "> Shall we meet?\nYes.\n> At ten?\nAt eleven."
    assert split_history(body) == (body, "")


def test_a_long_mail_is_split_in_one_pass() -> None:
    """Tens of thousands of quoted lines between answers."""
    body = "> a question\nan answer\n" * 30_000
    assert split_history(body)[1] == ""


def test_prose_that_says_on_and_wrote_is_no_history() -> None:
    """Only a line that ends with a colon before a quotation introduces one."""
    body = "Hello,\n\nOn Monday I wrote:\n\nnothing.\n\nFrom: here we go on."
    assert split_history("Dear Ada,\n\nFrom: here we go on without a date.")[1] == ""
    assert split_history(body)[0].startswith("Hello,")


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "koi8-r", "gb2312", "iso-2022-jp"])
def test_bodies_and_headers_of_any_charset_are_decoded(tmp_path: Path, charset: str) -> None:
    """By quoted-printable or base64, as the sender's program does."""
    text = {
        "koi8-r": "Срок хранения",
        "gb2312": "保修期为二十四个月",
        "iso-2022-jp": "保証期間は二年です",
    }.get(charset, "Größe")
    message = EmailMessage()
    message["Subject"] = text
    message.set_content(text, charset=charset)
    source = read(tmp_path, message)
    assert source.metadata["title"] == text
    assert source.plain.text.strip().endswith(text) and source.plain.warnings == ()


def test_undeclared_bytes_are_guessed_and_reported(tmp_path: Path) -> None:
    """An old program sends cp1251 without saying so, in the header as well."""
    words = "Срок хранения вакцины составляет двенадцать месяцев."
    raw = f"From: a@b.c\nSubject: {words}\n\n{words}\n".encode("cp1251")
    source = read(tmp_path, raw)
    assert source.plain.text.count(words) == 2 and "read as cp1251" in source.plain.warnings[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_a_message_saved_in_wide_characters_is_read(tmp_path: Path, encoding: str) -> None:
    """Some programs save eml files so."""
    source = read(tmp_path, bytes(mail("Plain", "Four pumps.\n")).decode().encode(encoding))
    assert source.metadata["title"] == "Plain" and "Four pumps." in source.plain.text


def test_a_mailbox_is_its_messages(tmp_path: Path) -> None:
    """Each is a page to cite; lines that begin with an escaped From are whole again."""
    raw = b""
    for number in (1, 2, 3):
        body = f"Message {number} says so.\n>From here on it goes.\n".encode()
        raw += b"From a@b.c Fri Dec 16 17:04:16 2022\nFrom: a@b.c\nSubject: Number %d\n\n%s\n" % (
            number,
            body,
        )
    source = read(tmp_path, raw, "a.mbox")
    assert [label for _, label in source.plain.pages] == ["1", "2", "3"]
    assert "Message 2 says so.\nFrom here on it goes." in sections(source)["Number 2"]


def test_a_message_of_apple_mail_is_read_without_its_property_list(tmp_path: Path) -> None:
    """Above it stands its length, below it what the program keeps of it."""
    message = b"From: ada@example.org\nSubject: Pump\n\nThe pump is dry.\n"
    raw = b"%d      \n%s<?xml version='1.0'?><plist><string>flags</string></plist>" % (len(message), message)
    text = read(tmp_path, raw, "a.emlx").plain.text
    assert "Subject: Pump" in text and text.rstrip().endswith("The pump is dry.")
    assert "plist" not in text


def test_an_encrypted_message_and_a_file_that_is_none_say_so(tmp_path: Path) -> None:
    """Both reasons are true ones."""
    encrypted = b"From: a@b.c\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n\nMIIB"
    with pytest.raises(IngestError, match="message is encrypted"):
        read(tmp_path, encrypted)
    with pytest.raises(IngestError, match="no header such as From"):
        read(tmp_path, b"just some words\n\nand more of them")
    with pytest.raises(IngestError, match="no Outlook message"):
        read(tmp_path, b"just some words", "a.msg")
    with pytest.raises(IngestError, match="no line begins with 'From '"):
        read(tmp_path, b"just some words", "a.mbox")


ENVELOPE = b"From ada@example.org Thu Jan  4 10:15:00 2024\n"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (ENVELOPE + b"\nNo header.\n", "From: ada@example.org\nDate: 2024-01-04T10:15:00\n\nNo header."),
        (
            ENVELOPE + b"\nNo header.\n\n" + ENVELOPE + b"Subject: Two\n\nSecond.\n",
            "From: ada@example.org\nDate: 2024-01-04T10:15:00\n\nNo header.\n\nSubject: Two\n\nSecond.",
        ),
        (b"\xef\xbb\xbf" + ENVELOPE + b"Subject: Two\n\nSecond.\n", "Subject: Two\n\nSecond."),
        (b"Subject: One\n\nAlone.\n", "Subject: One\n\nAlone."),
        (
            b"Subject: One\n\nFirst.\n\n" + ENVELOPE + b"Subject: Two\n\nSecond.\n",
            "Subject: One\n\nFirst.\n\nSubject: Two\n\nSecond.",
        ),
    ],
    ids=["no header", "no header, then another", "byte order mark", "no envelope", "first without envelope"],
)
def test_no_message_of_a_mailbox_is_lost(tmp_path: Path, raw: bytes, words: str) -> None:
    """Messages without headers keep who sent them and when; those without a line above them are messages as well."""
    assert read(tmp_path, raw, "a.mbox").plain.text.strip() == words


def test_words_of_a_message_that_begin_like_an_envelope_stay_its_words(tmp_path: Path) -> None:
    """A sentence may begin with From and state a time."""
    raw = ENVELOPE + b"Subject: Hours\n\nOpen.\n\nFrom Monday at 10:00 on\n\nwe are open.\n"
    assert read(tmp_path, raw, "a.mbox").plain.text.endswith("From Monday at 10:00 on\n\nwe are open.\n\n")


@pytest.mark.parametrize(("levels", "lost"), [(7, False), (8, True)])
def test_a_message_inside_eight_others_is_named_and_not_lost(tmp_path: Path, levels: int, lost: bool) -> None:
    """Messages attached to each other are read to the eighth; a warning says that there is more."""
    message = EmailMessage()
    message["From"] = "a@example.org"
    message.set_content("Valves close at 40 bar.")
    for level in range(levels):
        around = EmailMessage()
        around["From"] = "b@example.org"
        around.set_content(f"Forwarded {level}.")
        around.add_attachment(message)
        message = around
    path = tmp_path / "a.eml"
    path.write_bytes(message.as_bytes())
    plain = read_file(path, "h").plain
    assert plain.text.count("Forwarded") == levels
    assert ("Valves close" in plain.text) is not lost
    assert any("A message inside 8 others was not read" in one for one in plain.warnings) is lost


def test_a_comma_in_a_name_without_quotes_splits_nobody(tmp_path: Path) -> None:
    """Programs leave the quotes out: the sender was "Hotel Astoria" without an address, the rest a second person."""
    head = (
        b"From: Hotel Astoria, Purchasing <buy@astoria.example>\r\n"
        b"To: Gross, Dr. Ada <ada@example.org>, bob@example.org, root\r\nSubject: Beans\r\n\r\nSend more beans.\r\n"
    )
    about = read(tmp_path, head).metadata
    assert about["sender"] == "Hotel Astoria, Purchasing <buy@astoria.example>"
    assert about["recipients"] == ["Gross, Dr. Ada <ada@example.org>", "bob@example.org", "root"]


def test_a_header_of_blanks_and_commas_takes_no_time(tmp_path: Path) -> None:
    """Half a megabyte of them took half a minute."""
    header = (b" " * 79 + b",") * 7_000
    begun = time.process_time()
    read(tmp_path, b"From: a@b.example\r\nTo: " + header + b"\r\n\r\nHello.\r\n")
    assert time.process_time() - begun < 5
