"""Rich text as a reader of the page sees it: headings, cells, margins, and nothing that was struck out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.office.rtf import read_rtf


def read(tmp_path: Path, body: str) -> PlainText:
    styles = r"{\stylesheet{\s0 Normal;}{\s1\b Heading 1;}{\s2\outlinelevel1 Titre 2;}}"
    head = rf"{{\rtf1\ansi\deff0{{\fonttbl{{\f0 Arial;}}}}{styles}"
    (tmp_path / "a.rtf").write_text(f"{head}{body}}}")
    return read_rtf(tmp_path / "a.rtf")[0]


def lines(plain: PlainText) -> list[str]:
    return [line for line in plain.text.split("\n") if line]


def test_headings_come_from_styles_and_outline(tmp_path: Path) -> None:
    """A style by its name or its level, or the level of the paragraph itself."""
    plain = read(
        tmp_path,
        r"\pard\plain\s1 Profit\par\pard\plain\s2 North\par\pard\plain\s0 It rose.\par"
        r"{\pard\outlinelevel0 Loss\par}\pard\plain It fell.\par",
    )
    assert [label for _, label in plain.headings] == ["Profit", "Profit > North", "Loss"]
    assert lines(plain) == ["It rose.", "It fell."]


def test_what_was_struck_out_is_not_read(tmp_path: Path) -> None:
    """While changes are tracked, as programs write it, in groups with other marks before and inside."""
    plain = read(
        tmp_path,
        r"The price is {\rtlch\fcs1 \deleted\revauthdel1 100{\b !}}{\revised 200}{\deleted0  EUR}.\par",
    )
    assert lines(plain) == ["The price is 200 EUR."]


def test_figures_above_the_line_do_not_run_into_words(tmp_path: Path) -> None:
    """A power, and no other raised words."""
    assert lines(read(tmp_path, r"5 m{\super 2} of the 5{\super th}\par")) == ["5 m^2 of the 5th"]


def test_a_paragraph_in_a_cell_does_not_end_its_row(tmp_path: Path) -> None:
    """And a row with fewer cells than others ends with a merged one."""
    row = r"\trowd\cellx1\cellx2\cellx3\pard\intbl "
    plain = read(
        tmp_path,
        rf"{row}Region\cell Sales\par \cell\row{row}Name\cell 2023\cell 2024\cell\row"
        rf"{row}North\par of it\cell 5\cell 7\cell\row\pard Below.\par More.\par",
    )
    assert lines(plain) == ["Region Name: North of it; Sales 2023: 5; Sales 2024: 7", "Below.", "More."]


def test_margins_stand_around_the_text(tmp_path: Path) -> None:
    """Each once, in the order of the page, without those that number it, nor those of LibreOffice's own list."""
    header, footer = r"{\header\pard ACME\par}", r"{\footer\pard Secret\par}"
    plain = read(
        tmp_path,
        rf"{{\*\pgdsctbl{{\pgdsc0{header}}}}}{header}{footer}{{\footerf Page \chpgn\par}}\pard Text.\par"
        rf"\sect{header}\pard Rest.\par",
    )
    assert lines(plain) == ["ACME", "Text.", "Rest.", "Secret"]


@pytest.mark.parametrize("part", [r"{\a ", r"\trowd ", r"{\header ", r"{\deleted ", r"\s1 ", r"\super\a "])
def test_rich_text_made_to_keep_a_reader_busy_is_read_in_time(tmp_path: Path, part: str) -> None:
    """Marks that are never closed, by the hundred thousand."""
    begin = time.process_time()
    read(tmp_path, part * 20_000 + "Text.")
    assert time.process_time() - begin < 10
