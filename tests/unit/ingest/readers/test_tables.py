"""Tables as text: each cell with its row and column, spans filled, whatever marks the table has or lacks."""

from __future__ import annotations

from datetime import timedelta

import pytest

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import COLUMNS_KEY, SentenceChunker, SourceText
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.plain_text import PlainText, TableSpan
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.office.number_formats import shown
from llama_index_presets.ingest.readers.tables import Cell, fill_spans, table_text


def cells_of(rows: list[list[str]], *, has_names: bool = False) -> list[list[Cell]]:
    """Cells of plain texts; the first row is the column names where `has_names`."""
    return [
        [Cell(text, has_names and not at, key=(at, place)) for place, text in enumerate(row)]
        for at, row in enumerate(rows)
    ]


def test_two_columns_without_marks_are_pairs() -> None:
    """Nothing tells a head from a first pair, so no value becomes the name of another."""
    rows = table_text(cells_of([["Seat", "Ulm"], ["Founded", "1987"], ["Staff", "412"]])).rows
    assert rows == ["Seat: Ulm", "Founded: 1987", "Staff: 412"]


def test_a_column_without_cells_keeps_its_name() -> None:
    """A form to fill in says what is asked for; the name of a column that has a cell is not repeated."""
    rows = table_text(cells_of([["Part", "Shelf", "Checked by"], ["Seal", "B7", ""], ["Ring", "", ""]])).rows
    assert rows == ["Part: Seal; Shelf: B7", "Part: Ring", "Checked by"]


def test_names_of_rows_alone_stand_before_all_cells_beside_them() -> None:
    """An infobox with two pairs a row is two pairs."""
    row = [Cell("Born", True), Cell("1815"), Cell("Died", True), Cell("1852")]
    assert table_text(fill_spans([row, row])).rows[0] == "Born: 1815; Died: 1852"


@pytest.mark.parametrize(
    ("first", "is_head"),
    [
        (["Product", "Q1", "Q2"], True),
        (["", "2024", "2023"], True),
        (["Pump", "17", "23"], False),
        (["A", "A", "B"], False),
        (["x" * 100, "b", "c"], False),
    ],
)
def test_a_first_row_without_marks_names_columns_by_its_look(first: list[str], is_head: bool) -> None:
    """Different short texts, or years, are names; figures, repeated words and prose are not."""
    assert bool(table_text(cells_of([first, ["Valve", "4", "5"]])).names) is is_head


def test_names_in_two_rows_are_joined_and_a_group_stands_in_each_of_its_rows() -> None:
    """A cell is understood alone, as a hit shows it."""
    rows = fill_spans(
        [
            [Cell("Part", True, rows=2), Cell("2024", True, columns=2)],
            [Cell("Q1", True), Cell("Q2", True)],
            [Cell("North", columns=3)],
            [Cell("Pump"), Cell("1"), Cell("2")],
        ]
    )
    found = table_text(rows)
    assert (found.header, found.rows) == (
        "Part; 2024 Q1; 2024 Q2",
        ["North; Part: Pump; 2024 Q1: 1; 2024 Q2: 2"],
    )


def test_a_head_that_is_repeated_after_a_page_break_is_no_row() -> None:
    """Word repeats it in print, converters write it again."""
    head = [Cell("a", True), Cell("b", True)]
    assert table_text(fill_spans([head, [Cell("1"), Cell("2")], head, [Cell("3"), Cell("4")]])).rows == [
        "a: 1; b: 2",
        "a: 3; b: 4",
    ]


def test_a_row_longer_than_a_chunk_repeats_its_first_cell() -> None:
    """Forty columns of thirty characters are two or more paragraphs, each of which says whose they are."""
    head = [f"column {at:02}" for at in range(40)]
    rows = table_text(cells_of([head, ["Ulm", *("v" * 20 for _ in head[1:])]], has_names=True)).rows
    assert len(rows) > 1 and all(row.startswith("column 00: Ulm; ") for row in rows)


def test_signs_in_cells_of_their_own_stand_at_their_figures() -> None:
    """Filings put the dollar sign and the closing bracket beside the number, under one name that spans all three."""
    head = [Cell("", True), Cell("2024", True, columns=3), Cell("2023", True, columns=3)]
    body = [Cell("Loss"), *(Cell(text) for text in ("$", "(7.2", ")", "$", "6.1", ""))]
    assert table_text(fill_spans([head, body])).rows == ["Loss; 2024: $(7.2); 2023: $6.1"]


def test_a_lone_row_of_names_is_no_pair() -> None:
    """Nothing stands below them."""
    assert table_text([[Cell("Mon", True), Cell("Tue", True)]]).rows == ["Mon; Tue"]


def test_spans_beyond_the_table_take_neither_time_nor_memory() -> None:
    """Two cells that each span 65,534 rows and a thousand columns, 2,000 times over."""
    rows = [[Cell("a", rows=65_534, columns=1_000), Cell("b")]] * 2_000
    assert sum(map(len, fill_spans(rows))) < 3_000_000


def test_names_count_against_the_limit() -> None:
    """A name of 3,000 characters in 400 rows is 1.2 million."""
    rows = cells_of([["n" * 3_000, "b"], *([["1", "2"]] * 400)], has_names=True)
    with pytest.raises(IngestError, match="more than 1 MB of text"):
        table_text(rows, SizeLimit(1))


def chunker() -> SentenceChunker:
    return SentenceChunker(tokenize=str.split, max_tokens=40)


def test_a_long_table_is_cut_between_rows_and_each_chunk_cites_it() -> None:
    """Every chunk is whole rows under the caption, and names the table beside the text."""
    rows = "".join(f"<tr><td>Part {at}<td>{at} kg" for at in range(30))
    html = f"<h1>Stock</h1><table><caption>Table 2: Weights</caption><tr><th>Part<th>Weight{rows}</table>"
    nodes = chunker().chunks(SourceText(doc_id="d", plain=plain_from_html(html)))
    assert len(nodes) > 2
    for node in nodes:
        assert node.metadata["table"] == "Table 2: Weights"
        assert node.metadata["heading"] == "Stock > Table 2: Weights"
        assert all(
            line.startswith("Part: Part ") and line.endswith(" kg") for line in node.text.split("\n\n")
        )
    assert sum(node.text.count("Weight:") for node in nodes) == 30


def test_a_part_whose_rows_do_not_name_their_columns_has_them_beside_it() -> None:
    """The names are embedded and shown with a later part, within what the model reads; the text stays verbatim."""
    text = "city height\n\n" + "\n\n".join(f"Ulm{at} {at}" for at in range(60))
    plain = PlainText(text, tables=[TableSpan(0, len(text), "Heights", "city; height")])
    nodes = chunker().chunks(SourceText(doc_id="d", plain=plain))
    assert [COLUMNS_KEY in node.metadata for node in nodes] == [False, *[True] * (len(nodes) - 1)]
    assert all(chunker().length(node) <= 40 for node in nodes)
    assert all(text[node.start_char_idx : node.end_char_idx] == node.text for node in nodes)


def test_text_outside_of_tables_cites_none() -> None:
    """A chunk that begins after the table is prose."""
    plain = plain_from_html("<h2>A</h2><table><tr><th>a<th>b<tr><td>1<td>2</table><h2>B</h2><p>After it.</p>")
    nodes = chunker().chunks(SourceText(doc_id="d", plain=plain))
    assert [node.metadata.get("table") for node in nodes] == ["Table 1", None]


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (1234.5, "General", "1234.5"),
        (3.0, "General", "3"),
        (0.125, "0%", "13%"),
        (2.675, "0.00", "2.68"),
        (1234567, "#,##0,", "1,235"),
        (-80, '#,##0.00 "EUR";(#,##0.00 "EUR")', "(80.00 EUR)"),
        (-5, "0.0", "-5.0"),
        (0, '0;-0;"-"', "-"),
        (7, "000", "007"),
        (1.5, "0.##", "1.5"),
        (12345.678, "0.00E+00", "1.23E+04"),
        (1234.5, '[$€-407] #,##0.00', "€ 1,234.50"),
        (5, '0" pcs."', "5 pcs."),
        (True, "General", "TRUE"),
    ],
)  # fmt: skip
def test_numbers_are_as_the_cell_shows_them(value: object, code: str, text: str) -> None:
    """Excel's codes for signs, places, thousands, percents, currencies and words."""
    assert shown(value, code) == text


HALVES = (
    "<tr><td></td><td colspan=2>2023</td><td>2024</td></tr>"
    "<tr><td>Region</td><td>Q1</td><td>Q2</td><td>Q1</td></tr>"
)


def test_two_rows_of_names_are_found_by_their_look() -> None:
    """Cells of the first span columns, figures stand below the second; nothing marks them, as in most files of Word."""
    page = f"<table>{HALVES}<tr><td>EU</td><td>5</td><td>6</td><td>7</td></tr></table>"
    assert plain_from_html(page).text.strip() == "Region: EU; 2023 Q1: 5; 2023 Q2: 6; 2024 Q1: 7"


def test_rows_of_words_below_a_spanning_cell_are_no_names() -> None:
    """Without figures below, a second row may be the first of the data."""
    page = f"<table>{HALVES}<tr><td>EU</td><td>five</td><td>six</td><td>seven</td></tr></table>"
    assert "2023 Q1" not in plain_from_html(page).text


def test_text_for_those_who_see_no_frames_is_read() -> None:
    """A parser takes it for letters, tags and all."""
    page = "<frameset><frame src=a><noframes><body><p>Old <b>words</b>.</p></body></noframes></frameset>"
    assert plain_from_html(page).text.strip() == "Old words."


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (timedelta(hours=30, minutes=15), "[h]:mm", "30:15"),
        (timedelta(days=2, minutes=5), "[h]:mm:ss", "48:05:00"),
        (timedelta(minutes=5, seconds=7), "[h]:mm", "0:05:07"),
        (-timedelta(minutes=90), "[h]:mm", "-1:30"),
        (timedelta(0), "[h]:mm", "0:00"),
    ],
)
def test_a_length_of_time_is_shown_in_hours(value: timedelta, code: str, text: str) -> None:
    """Hours of work came as "1 day, 6:15:00"."""
    assert shown(value, code) == text
