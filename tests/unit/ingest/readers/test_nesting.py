"""Documents whose parts stand inside each other without end: read, or refused with their reason, never in minutes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.html.nesting import check_nesting
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.markdown import plain_from_markdown

MANY = 200_000
SELECTORS = ",".join(f"li.a{n}" for n in range(20_000))
MISNESTED = (
    "".join(f"<b {n}>" for n in range(4_000)) + "".join(f"<i {n}>" for n in range(4_000)) + "x</b>" * 4_000
)
REOPENED = "<p>" + "".join(f"<font color={n}>" for n in range(3_000)) + "<p>x" * MANY


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("<div>" * MANY + "x", "more than 2,000 blocks inside each other"),
        ("<div>" * MANY + "x" + "</div>" * MANY, "more than 2,000 blocks inside each other"),
        ("<ul><li>" * MANY + "x", "more than 2,000 blocks inside each other"),
        ("<table><tr><td>" * MANY + "x", "more than 2,000 blocks inside each other"),
        ("<div><!--</div>-->" * MANY + "x", "more than 2,000 blocks inside each other"),
        ("<svg><style>" + "<div>" * MANY + "x", "more than 2,000 blocks inside each other"),
        ("<x>" * MANY + "</y>" * MANY, "200,000 tags open at once"),
        (MISNESTED, r"\d,\d{3} different formats open at once"),
        (REOPENED, "3,000 different formats open at once"),
        ("<p " + " ".join(f"a{n}=1" for n in range(MANY)) + ">x", "a tag with 200,000 attributes"),
        (f"<style>{SELECTORS}{{display:none}}</style>" + "<li>x" * 2_000, "20,000 selectors for 2,"),
        (f"<style>{SELECTORS}{{list-style:none}}</style>" + "<li>x" * 2_000, "20,000 selectors for 2,"),
        ("".join(f"<style>.a{n}{{display:none}}</style>" for n in range(9_000)), "9,000 selectors for 9,"),
    ],
    ids=[
        "div",
        "closed div",
        "list",
        "table",
        "comment",
        "drawing",
        "unknown",
        "misnested",
        "reopened",
        "attributes",
        "hiding",
        "list styles",
        "sheets",
    ],
)
def test_a_page_that_would_take_minutes_or_gigabytes_is_refused(page: str, reason: str) -> None:
    """A parser compares each tag with all that are open: a megabyte of these takes minutes, or all memory."""
    with pytest.raises(IngestError, match=reason):
        plain_from_html(page)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<p><font size=2>word " * 5_000, 5_000),
        ("<li>word " * 5_000, 5_000),
        ("<table>" + "<tr><td>word" * 5_000, 5_000),
        ("<div>" * 500 + "word" + "</div>" * 500 + "<br>" * 5_000, 1),
        ("<span>" * 20_000 + "word", 1),
        ("<script>" + "a = '<div>' + b + '</div>';" * 5_000 + "</script>word", 1),
        ("<svg>" + '<path d="M0 0"/>' * 70_000 + "</svg><p>word" + "</p><p></p>" * 70_000, 1),
    ],
    ids=["font", "list", "table", "deep", "spans", "script", "drawing"],
)
def test_a_page_with_many_tags_that_nothing_closes_is_read(page: str, words: int) -> None:
    """Tags that another one closes, formats that a parser forgets, scripts and drawings are not taken for depth."""
    assert plain_from_html(page).text.replace("- ", "").split() == ["word"] * words


def test_comments_among_many_open_tags_take_no_time() -> None:
    """The open tags are not gone through at each comment."""
    check_nesting("".join(f"<x{number}>" for number in range(100_000)) + "<!-- -->" * 100_000)


def test_one_selector_that_is_written_again_and_again_takes_no_time() -> None:
    """Each of them named every item anew."""
    rules = "li{list-style:none}" * 400
    page = f"<style>{'b,' * 20_000}b{{display:none}}{rules}</style>" + "<li>x<b>y</b>" * 20_000
    begun = time.process_time()
    assert plain_from_html(page).text.split() == ["x"] * 20_000
    assert time.process_time() - begun < 5


def test_quotations_in_markdown_lose_nothing_however_deep() -> None:
    """The parser leaves out what stands below a hundred levels; a line of ``>`` is often a rule, not a quotation."""
    assert plain_from_markdown(">" * 300 + "\n\n" + ">" * 200 + " word").text.split() == ["word"]


def test_lists_that_markdown_cannot_follow_are_named() -> None:
    """Their lower levels would be left out, and nobody would know."""
    text = "".join(f"{'  ' * level}- item\n" for level in range(120))
    with pytest.raises(IngestError, match="lists stand inside each other 49 levels deep"):
        plain_from_markdown(text)


def _mail(levels: int) -> str:
    parts = (f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(levels))
    return "From: a@example.org\n" + "".join(parts) + "Content-Type: text/plain\n\nword\n"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.eml", _mail(3_000), "stands inside itself too many times"),
        ("a.json", '{"a":' * 900 + "1" + "}" * 900, "stands inside itself too many times"),
        ("a.json", "[" * MANY, "nests too deep"),
        (
            "a.rst",
            "\n".join(f"{' ' * level}* item" for level in range(400)),
            "stands inside itself too many times",
        ),
        (
            "a.xml",
            "<a>" * MANY + "word" + "</a>" * MANY,
            "Excessive depth in document.*no text stands before that",
        ),
        ("a.tex", "\\begin{document}" + "{" * MANY + "word" + "}" * MANY, "groups and environments"),
    ],
)
def test_other_formats_say_that_they_nest_too_deep(tmp_path: Path, name: str, text: str, reason: str) -> None:
    """The reason is the depth, neither an error of Python nor a file without text."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(IngestError, match=reason):
        read_file(tmp_path / name, "h")
