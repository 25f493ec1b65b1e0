"""Numbered headings of plain text."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_presets.ingest.readers.text import numbered_headings, read_text

MANUAL = (
    "Pump P-20\n\n1 Safety\n\nRead this.\n\n2 Faults\n\n"
    "2.1 No water\n\nOpen the tap.\n\n2.1.1 In winter\n\nThaw it.\n\n"
    "2.2 Noise\n\nCall service.\n\n3 Care\n\nOil it."
)


def test_headings_have_the_path_of_their_numbers(tmp_path: Path) -> None:
    """The line of a heading stays in the text, and what stands above the first one has none."""
    file = tmp_path / "manual.txt"
    file.write_text(MANUAL)
    plain, _ = read_text(file)
    assert plain.text == MANUAL
    assert [(section.heading, section.text.split("\n\n")[0]) for section in plain.sections()] == [
        ("", "Pump P-20"),
        ("1 Safety", "1 Safety"),
        ("2 Faults", "2 Faults"),
        ("2 Faults > 2.1 No water", "2.1 No water"),
        ("2 Faults > 2.1 No water > 2.1.1 In winter", "2.1.1 In winter"),
        ("2 Faults > 2.2 Noise", "2.2 Noise"),
        ("3 Care", "3 Care"),
    ]


def test_a_table_of_contents_has_no_sections() -> None:
    """The text itself is longer; leaders and page numbers give the contents away as well."""
    contents = "1 Safety\n\n2 Faults\n\n2.1 No water\n\n2.2 Noise\n\n3 Care\n\n"
    expected = [(start + len(contents), label) for start, label in numbered_headings(MANUAL)]
    assert list(numbered_headings(contents + MANUAL)) == expected
    assert numbered_headings(contents.replace("\n\n", " ........ 7\n\n")) == ()


@pytest.mark.parametrize(
    "text",
    [
        "1. Mix\n\n2. Knead\n\n3. Bake",  # a list
        "1 Scope\n\nText.\n\n2.1 Million people came.\n\nText.\n\n3 Ends.\n\nText.",  # sentences
        "1 Scope\nText.\n2 Use\n2.1 At home\nText.",  # no blank lines
        "1.1 Here\n\nText.\n\n1.2 There\n\nText.\n\n1.3 Where\n\nText.",  # begins in the middle
        "1 A\n\n2 B\n\n2.1 C\n\n" + "Another text follows. " * 40,
        "",
    ],
)
def test_what_does_not_count_on_is_no_heading(text: str) -> None:
    """Better none than a wrong one: it would be cited."""
    assert numbered_headings(text) == ()


def test_a_heading_may_be_missing_and_a_number_of_the_text_is_none() -> None:
    """A page break or a typing error costs one heading, not all that follow."""
    text = MANUAL.replace("2.1 No water\n\n", "").replace(
        "Oil it.", "9 Bars\n\nare too much.\n\n4 Parts\n\nNone."
    )
    labels = [label.split(" > ")[-1] for _, label in numbered_headings(text)]
    assert labels == ["1 Safety", "2 Faults", "2.1.1 In winter", "2.2 Noise", "3 Care", "4 Parts"]
