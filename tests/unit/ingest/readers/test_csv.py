"""Delimited text: the delimiter, the header and the quoting are found; each cell stands with its column's name."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.csv import find_dialect, plain_from_rows


@pytest.mark.parametrize(
    ("text", "first_row"),
    [
        ("Artikel;Preis;Menge\nPumpe;1.234,50;3\n", "Artikel: Pumpe; Preis: 1.234,50; Menge: 3"),
        ("a\tb c, d\te\n1\t2, 3\t4\n5\t6, 7\t8\n", "a: 1; b c, d: 2, 3; e: 4"),
        ("id|name|note\n1|A, B|x;y\n2|C, D|z;w\n", "id: 1; name: A, B; note: x;y"),
        ('id,text\n1,"line one\nline; two"\n2,"b; c"\n', "id: 1; text: line one\nline; two"),
        ("comment\nI came, saw\nnothing here\nyes, no, maybe\n", "comment: I came, saw"),
        ("a,b,c\n1,2\n3,4,5,6\n7,8,9\n", "a: 1; b: 2"),
        ("1,5;2,5;3\n4,5;6,1;7\n", "column 1: 1,5; column 2: 2,5; column 3: 3"),
        ("sep=;\na;b\n1;2\n", "a: 1; b: 2"),
        ("sep=\t\na\tb\n1\t2\n", "a: 1; b: 2"),
        ("Item,2023,2024\nRevenue,1,2\n", "Item: Revenue; 2023: 1; 2024: 2"),
        ("a,b,\n1,2,\n3,4,\n", "a: 1; b: 2"),
        ("a,a,b\n1,2,3\n", "a: 1; a: 2; b: 3"),
        ('id,text\n1,"he said \\"hi, you\\" ok"\n2,"x"\n', 'id: 1; text: he said "hi, you" ok'),
        ("name,quote\n'Smith, John','it''s'\nBob,x\n", "name: Smith, John; quote: it's"),
        ("name,note\nO'Hara,don't\nBob,x\n", "name: O'Hara; note: don't"),
        ('name,age\r\n"Ada, Countess",36\r\nBob,41\r\n', "name: Ada, Countess; age: 36"),
    ],
)
def test_each_cell_stands_with_its_column(text: str, first_row: str) -> None:
    """Semicolons with decimal commas, tabs, bars, quoted line ends, one column, ragged rows, no header, years."""
    assert plain_from_rows(text).text.split("\n\n")[0] == first_row


@pytest.mark.parametrize("line", ["sep=", "sep= ", 'sep="'])
def test_a_line_that_names_no_delimiter_is_a_row(line: str) -> None:
    """Python's csv takes neither a line end nor a quotation mark for one, and says so from 3.13 on."""
    rows = plain_from_rows(f"{line}\r\na;b\r\n1;2\r\n3;4\r\n").text.split("\n\n")
    assert rows[1:] == ["a: 1; b: 2", "a: 3; b: 4"]


def test_cells_beyond_the_header_keep_a_name() -> None:
    """A row that is longer than the header loses nothing."""
    assert (
        plain_from_rows("a,b,c\n1,2\n3,4,5,6\n7,8,9\n").text.split("\n\n")[1]
        == "a: 3; b: 4; c: 5; column 4: 6"
    )


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (
            "Report,Sales 2024\nRegion,EMEA\n\nProduct,Quantity,Price\nPump,3,10.5\nPipe,5,12.0\n",
            ["Report: Sales 2024", "Region: EMEA", "Product: Pump; Quantity: 3; Price: 10.5"],
        ),
        (
            "Station,Berlin,,\nLat,52.5,,\n,,,\nDate,Temp,Rain,Wind\n2024-01-01,1.0,0.0,3\n2024-01-02,2.0,1.0,4\n",
            ["Station: Berlin", "Lat: 52.5", "Date: 2024-01-01; Temp: 1.0; Rain: 0.0; Wind: 3"],
        ),
        (
            "My report\nClient:,ACME\nRef:,12\nMade:,2024\nBy:,Bo\nProduct,Color,Owner\nPump,red,Bo\nPipe,blue,Al\n",
            [
                "My report",
                "Client: ACME",
                "Ref: 12",
                "Made: 2024",
                "By: Bo",
                "Product: Pump; Color: red; Owner: Bo",
            ],
        ),
        ("Name,Color,\nPump,red,large\nPipe,blue,small\n", ["Name: Pump; Color: red; column 3: large"]),
        ("Key,Value\na,1\nb,2\n", ["Key: a; Value: 1", "Key: b; Value: 2"]),
    ],
)
def test_pairs_above_the_header_do_not_hide_it(text: str, rows: list[str]) -> None:
    """Names with their values, as programs export them, with or without the commas of empty cells."""
    assert plain_from_rows(text).text.split("\n\n")[: len(rows)] == rows


def test_pairs_above_the_header_of_a_long_file(tmp_path: Path) -> None:
    """A file that is read part by part."""
    rows = "".join(f"{n},{n + 1},{n + 2}\n" for n in range(400_000))
    (tmp_path / "a.csv").write_text(f"Account,7\nCurrency,EUR\n\nday,debit,credit\n{rows}")
    plain = read_file(tmp_path / "a.csv", "h").plain
    assert plain.stretch(0, 66) == "Account: 7\n\nCurrency: EUR\n\nday: 0; debit: 1; credit: 2\n\nday: 1; de"
    assert plain.tables[0].name == "Account: 7; Currency: EUR"


def test_lines_above_the_header_are_the_title() -> None:
    """A report's name above its table is no column."""
    plain = plain_from_rows("Report 2024\n\nname;age\nAda;36\nBob;41\n")
    assert plain.text == "Report 2024\n\nname: Ada; age: 36\n\nname: Bob; age: 41"
    assert (plain.tables[0].name, plain.text[plain.tables[0].start :][:9]) == ("Report 2024", "name: Ada")


def test_a_quotation_mark_that_is_never_closed_swallows_no_rows() -> None:
    """The rows behind it are rows, and a warning says what happened."""
    lines = [f"{number},{chr(34) if number == 3 else ''}row {number}" for number in range(40)]
    plain = plain_from_rows("id,text\n" + "\n".join(lines))
    assert 'id: 3; text: "row 3' in plain.text and "id: 39; text: row 39" in plain.text
    assert "never closed" in plain.warnings[0]


def test_a_blank_line_in_a_cell_does_not_end_the_row() -> None:
    """A row is one paragraph, so that it is one unit of chunking."""
    plain = plain_from_rows('id,note\n1,"first line\n\nsecond, line"\n2,b\n')
    assert plain.text.split("\n\n") == ["id: 1; note: first line\nsecond, line", "id: 2; note: b"]


def test_a_cell_of_any_length_is_read_and_the_limit_of_the_module_stays(tmp_path: Path) -> None:
    """The csv module refuses cells of more than 131,072 characters; its limit is the whole process's."""
    before = csv.field_size_limit()
    path = tmp_path / "long.csv"
    path.write_text('id,text\n1,"' + "word " * 40_000 + '"\n2,"Second row about zebras"\n')
    assert "id: 2; text: Second row about zebras" in read_file(path, "h").plain.text
    assert csv.field_size_limit() == before


def test_rows_are_not_cut_while_they_fit(tmp_path: Path) -> None:
    """However many fit into a chunk, each row stands whole in one of them."""
    path = tmp_path / "rows.csv"
    path.write_text("name;note\n" + "".join(f"Item {n};It costs. It works well.\n" for n in range(30)))
    chunks = SentenceChunker(tokenize=str.split, max_tokens=32).chunks(read_file(path, "h"))
    rows = [row for chunk in chunks for row in chunk.text.split("\n\n")]
    assert rows == [f"name: Item {n}; note: It costs. It works well." for n in range(30)]


def test_the_encoding_of_a_csv_is_found(tmp_path: Path) -> None:
    """Excel writes semicolons in cp1251 on a Russian machine."""
    path = tmp_path / "ru.csv"
    path.write_bytes("Товар;Цена;Срок хранения\nНасос;1 234,50;двенадцать месяцев\n".encode("cp1251"))
    plain = read_file(path, "h").plain
    assert plain.text == "Товар: Насос; Цена: 1 234,50; Срок хранения: двенадцать месяцев"
    assert "read as cp1251" in plain.warnings[0]


def test_a_tsv_that_has_no_tabs_is_read_by_what_it_has() -> None:
    """The ending is a hint, not an order."""
    assert find_dialect("a;b\n1;2\n", prefer="\t").delimiter == ";"
    assert find_dialect("a\tb\n1, 2\t3\n", prefer="\t").delimiter == "\t"
