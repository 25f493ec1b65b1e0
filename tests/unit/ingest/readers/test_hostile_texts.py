"""Texts that repeat the beginning of a pattern: none may take a time that grows with the square of their length."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import pytest

from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.mail.calendar import plain_from_entries
from llama_index_presets.ingest.readers.office.word_notes import notes_at_marks

MANY = 100_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.rtf", "{\\rtf1 a" + "\\super" * MANY + " b}"),
        ("a.org", "* Title\n- a" + " " * MANY + "b\n"),
        ("a.vcf", "BEGIN:VCARD\nFN:Ada\n" + "BEGIN:X\n" * MANY + "A:b\n" * MANY + "END:X\n" * MANY),
    ],
)
def test_a_repeated_beginning_takes_a_time_that_grows_with_the_text(
    tmp_path: Path, name: str, text: str
) -> None:
    """A megabyte of them took minutes."""
    (tmp_path / name).write_text(text)
    began = time.process_time()
    read_file(tmp_path / name, "h")
    assert time.process_time() - began < 8


def test_blanks_before_notes_of_word_take_a_time_that_grows_with_the_text() -> None:
    """A back link was looked for from each of them."""
    began = time.process_time()
    notes_at_marks(f"<p>{' ' * MANY}</p>")
    assert time.process_time() - began < 3


def book(path: Path, chapters: int, links: int, sheet: str) -> PlainText:
    """A book whose chapters link one style sheet this many times."""
    link = '<link rel="stylesheet" href="a.css"/>' * links
    page = f"<html><head>{link}</head><body><p>Seen.</p><p class='x'>Hidden.</p></body></html>"
    items = "".join(f'<item id="c{n}" href="c{n}.xhtml"/>' for n in range(chapters))
    order = "".join(f'<itemref idref="c{n}"/>' for n in range(chapters))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", '<container><rootfile full-path="b.opf"/></container>')
        archive.writestr("b.opf", f"<package><manifest>{items}</manifest><spine>{order}</spine></package>")
        archive.writestr("a.css", sheet)
        for n in range(chapters):
            archive.writestr(f"c{n}.xhtml", page)
    return read_file(path, "h").plain


def test_a_sheet_that_a_chapter_links_often_is_read_once(tmp_path: Path) -> None:
    """A small book could come to gigabytes."""
    began = time.process_time()
    plain = book(tmp_path / "a.epub", 1, 400, ".x{display:none}/*" + "a" * 3_000_000 + "*/")
    assert "Seen." in plain.text
    assert "Hidden." not in plain.text
    assert not plain.warnings
    assert time.process_time() - began < 5


def test_chapters_beyond_the_length_of_sheets_are_read_without_and_counted(tmp_path: Path) -> None:
    """The sheets of all chapters together have a limit."""
    plain = book(tmp_path / "a.epub", 7, 1, ".x{display:none}/*" + "a" * 10_000_000 + "*/")
    assert plain.text.count("Seen.") == 7
    assert plain.warnings == ("3 chapters are read without style sheets, which are too long.",)


def test_a_calendar_has_its_name_and_an_alarm_that_does_not_end_hides_no_other_entry() -> None:
    """Programs write the name into a field of their own."""
    text = (
        "BEGIN:VCALENDAR\nX-WR-CALNAME:Team\nX-OTHER:1\nBEGIN:VEVENT\nSUMMARY:One\nBEGIN:VALARM\nA:1\n"
        "BEGIN:VEVENT\nSUMMARY:Two\nEND:VEVENT\nEND:VCALENDAR\n"
    )
    assert plain_from_entries(text).text.split("\n\n")[:3] == [
        "Calendar: Team",
        "Summary: One",
        "Summary: Two",
    ]


def test_a_list_inside_a_comment_stays_in_the_comment() -> None:
    """And not in the last footnote, whose list it was taken for."""
    html = (
        '<p>One<a href="#footnote-2" id="footnote-ref-2">[1]</a></p>'
        '<p>Two<a href="#comment-0" id="comment-ref-0">[1]</a></p>'
        '<ol><li id="footnote-2"><p>Note.</p></li></ol>'
        '<dl><dt id="comment-0">Comment [1]</dt><dd><ol><li>First</li></ol></dd></dl>'
    )
    placed = notes_at_marks(html)
    assert "</p><div><p>[1] Note.</p></div><p>Two" in placed
    assert placed.endswith("Comment 1: <ol><li>First</li></ol></div>")
