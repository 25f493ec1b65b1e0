"""Tables of plain text in columns of fixed width: each cell with its names; prose, code and drawings as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.text import with_tables

FILING = """\
The following table sets forth certain items. Amounts are in thousands.

Table 3: Operations

<TABLE>
<CAPTION>
                                    1999         1998
                                 ----------   ---------
<S>                              <C>          <C>
Net sales ..................     $  182,441   $ 171,003
Cost of sales ..............        120,114     115,442
                                 ----------   ---------
Operating expenses:
  Research .................         10,441       9,120
  Administrative ...........          8,997      (7,903)
                                 ==========   =========
</TABLE>

Net sales increased 6.7% in 1999.
"""

KEPT = {
    "prose": "In 1999  we sold 12  pumps and 13 valves.\nIn 1998  we sold 10  pumps and 11 valves.\n" * 3,
    "code": "int  a   =  1;   2;\nint  b   =  22;  3;\nint  c   =  333; 4;\nint  d   =  1;   5;\n",
    "drawing": "  /\\_/\\    1   2   3\n ( o.o )   4   5   6\n  > ^ <    7   8   9\n   | |     1   2   3\n",
    "log": "2024-01-01  10:00:01  200   12\n2024-01-01  10:00:02  404   15\n2024-01-01  10:00:03  200   11\n",
    "no names": "Pumps   12.5  10.1\nValves  13.0  11.0\nSeals   14.2  12.0\n",
    "numbered list": "1.  First  is 10   of 20\n2.  Second is 11   of 21\n3.  Third  is 12   of 22\n",
    "a matrix": "1.0  2.0  3.0\n4.0  5.0  6.0\n7.0  8.0  9.0\n1.0  2.0  3.0\n",
    "a session": ">>> df  a  b  c\nx       1  2  3\ny       4  5  6\nz       7  8  9\n",
    "two rows": "Item    High  Low\nPumps   12.5  10.1\nValves  13.0  11.0\n",
}


def test_a_filing_names_line_and_column_of_each_amount(tmp_path: Path) -> None:
    """Rules, leader dots and the filing's tags go; groups of lines, signs and brackets stay, prose stays as it is."""
    (tmp_path / "a.txt").write_text(FILING, encoding="utf-8")
    plain = read_file(tmp_path / "a.txt", "h").plain
    assert [line for line in plain.text.split("\n") if line] == [
        "The following table sets forth certain items. Amounts are in thousands.",
        "Table 3: Operations",
        "Net sales; 1999: $182,441; 1998: $171,003",
        "Cost of sales; 1999: 120,114; 1998: 115,442",
        "Operating expenses:",
        "Research; 1999: 10,441; 1998: 9,120",
        "Administrative; 1999: 8,997; 1998: (7,903)",
        "Net sales increased 6.7% in 1999.",
    ]
    (table,) = plain.tables
    assert table.name == "Table 3: Operations"
    rows = plain.text[table.start : table.end]
    assert rows.startswith("Net sales; 1999") and rows.endswith("1998: (7,903)")


def test_two_tables_stand_where_they_stood() -> None:
    """Offsets count the text as it is written."""
    one = "Item     High   Low\nPumps    12.5   10.1\nValves   13.0   11.0\nSeals    14.2   12.0\n"
    plain = with_tables(f"Before.\n\n{one}\nBetween, some words.\n" + "More words.\n" * 9 + f"\n{one}After.")
    assert [plain.text[table.start : table.end].split("\n\n")[1] for table in plain.tables] == [
        "Item: Valves; High: 13.0; Low: 11.0"
    ] * 2
    assert plain.text.startswith("Before.") and plain.text.endswith("\n\nAfter.")
    assert [table.name for table in plain.tables] == ["Table 1", "Table 2"]


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_no_certain_table_stays_as_it_is(kind: str) -> None:
    """Columns without names say no more in another form, and a wrong name is worse than none."""
    assert with_tables(KEPT[kind]).text == KEPT[kind]


@pytest.mark.parametrize(
    "table",
    [
        "+----+-------+-------+\n| id | high  | low   |\n+----+-------+-------+\n|  1 | 12.50 |  0.31 |\n"
        "|  2 | 13.75 |  0.34 |\n|  3 | 14.10 |  0.35 |\n+----+-------+-------+\n",
        " id | high  | low\n----+-------+------\n  1 | 12.50 | 0.31\n  2 | 13.75 | 0.34\n  3 | 14.10 | 0.35\n",
        "id | high | low\n---|-----:|----\n1 | 12.50 | 0.31\n2 | 13.75 | 0.34\n3 | 14.10 | 0.35\n",
    ],
    ids=["mysql", "psql", "pipes"],
)
def test_a_table_between_bars_is_one(table: str) -> None:
    """As database programs print the result of a query."""
    rows = with_tables(table).text.strip().split("\n\n")
    assert rows == [
        "id: 1; high: 12.50; low: 0.31",
        "id: 2; high: 13.75; low: 0.34",
        "id: 3; high: 14.10; low: 0.35",
    ]


def test_bars_outside_of_a_table_stay() -> None:
    """The same sign separates other things."""
    text = "a | b || c\nls | wc -l | 3 | 4\n"
    assert with_tables(text).text == text


@pytest.mark.parametrize("above", ["", "------------------\n"])
def test_a_text_may_be_a_table_between_rules_alone(above: str) -> None:
    """The first line has none before it: the rule at the end is not taken for it."""
    table = (
        "Item    High   Low\nPumps   12.5  10.1\nValves  13.0  11.0\nSeals   14.2  12.0\n------------------"
    )
    assert with_tables(above + table).text.strip().split("\n\n") == [
        "Item: Pumps; High: 12.5; Low: 10.1",
        "Item: Valves; High: 13.0; Low: 11.0",
        "Item: Seals; High: 14.2; Low: 12.0",
    ]


def test_a_megabyte_of_white_space_is_text() -> None:
    """Each division of it was tried: minutes for a file of 300 KB."""
    for space in (" ", "\t"):
        text = f"Word.{space * 1_000_000}end"
        assert with_tables(text).text == text
