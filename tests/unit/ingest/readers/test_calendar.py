"""Calendars and address cards: what a person reads of them, an entry a section."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.mail.calendar import plain_from_entries

CALENDAR = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VTIMEZONE\r\nTZNAME:CET\r\nEND:VTIMEZONE\r\nBEGIN:VEVENT\r\nUID:1\r\n"
    "SUMMARY;LANGUAGE=en:Board meeting\\, yearly\r\nDTSTART;TZID=Europe/Berlin:20240501T100000\r\n"
    "DTEND:20240501T090000Z\r\nDESCRIPTION:Bring it\\nand what is folded he\r\n re.\r\n"
    'ATTENDEE;CN="Lovelace, Ada":mailto:ada@a.b\r\nBEGIN:VALARM\r\nDESCRIPTION:Ring\r\nEND:VALARM\r\nEND:VEVENT\r\n'
    "BEGIN:VEVENT\r\nSUMMARY:Party\r\nDTSTART;VALUE=DATE:20241224\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
CARDS = (
    "BEGIN:VCARD\nN:Noether;Emmy;;;\nFN:Emmy Noether\nORG:Erlangen;Algebra\nitem1.TEL;TYPE=WORK:+49 1\n"
    "PHOTO;ENCODING=b;TYPE=JPEG:/9j/4AAQSkZJRgAB\n AQEAYABgAAD\nEND:VCARD\n"
    "BEGIN:VCARD\nVERSION:2.1\nN:Artin;Emil\nNOTE;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:K=C3=B6nigs=\nberg\nEND:VCARD\n"
)


def test_entries_of_a_calendar_have_names_and_times(tmp_path: Path) -> None:
    """Folded lines are whole; zones, alarms and ids are left out."""
    (tmp_path / "a.ics").write_bytes(CALENDAR.encode())
    plain = read_file(tmp_path / "a.ics", "h").plain
    assert plain.text.split("\n\n")[:2] == [
        "Summary: Board meeting, yearly\nStart: 2024-05-01 10:00 (Europe/Berlin)\nEnd: 2024-05-01 09:00 UTC\n"
        "Description: Bring it\nand what is folded here.\nAttendee: Lovelace, Ada <ada@a.b>",
        "Summary: Party\nStart: 2024-12-24",
    ]
    assert [label for _, label in plain.headings] == ["Board meeting, yearly", "Party"]


def test_cards_are_read_without_their_pictures(tmp_path: Path) -> None:
    """The name once, quoted-printable text as text."""
    (tmp_path / "a.vcf").write_text(CARDS)
    assert read_file(tmp_path / "a.vcf", "h").plain.text.split("\n\n")[:2] == [
        "Name: Emmy Noether\nOrganization: Erlangen, Algebra\nPhone (work): +49 1",
        "Name: Artin, Emil\nNote: Königsberg",
    ]


def test_variants_of_genes_are_plain_text(tmp_path: Path) -> None:
    """They have the ending of address cards."""
    (tmp_path / "a.vcf").write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\n20\t14370\n")
    assert "14370" in read_file(tmp_path / "a.vcf", "h").plain.text


@pytest.mark.parametrize(
    "part", ["quoted-printable:a=\n", "quoted-printable", 'A;B="', "BEGIN:VEVENT\n", ";", "\n "]
)
def test_calendars_made_to_keep_a_reader_busy_are_read_in_time(part: str) -> None:
    """By the hundred thousand."""
    begin = time.process_time()
    plain_from_entries("BEGIN:VEVENT\n" + part * 100_000)
    assert time.process_time() - begin < 10
