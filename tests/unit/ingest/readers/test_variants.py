"""Files of a known format that are written in a way their libraries do not take."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import xlrd
import xlsxwriter
from openpyxl import Workbook
from pptx import Presentation

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.encoding import decode
from llama_index_presets.ingest.readers.office.sheets import _xls_value

OPEN, MICROSOFT = (
    "application/vnd.openxmlformats-officedocument.presentationml.",
    "application/vnd.ms-powerpoint.",
)


def rewrite(path: Path, name: str, old: bytes, new: bytes) -> None:
    """Replace bytes in a member of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    assert old in members[name]
    members[name] = members[name].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("ppsx", f"{OPEN}slideshow.main+xml"),
        ("potx", f"{OPEN}template.main+xml"),
        ("pptm", f"{MICROSOFT}presentation.macroEnabled.main+xml"),
        ("ppsm", f"{MICROSOFT}slideshow.macroEnabled.main+xml"),
        ("potm", f"{MICROSOFT}template.macroEnabled.main+xml"),
    ],
)
def test_shows_and_templates_are_read_as_presentations(tmp_path: Path, suffix: str, kind: str) -> None:
    """python-pptx refuses them for their type alone."""
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[0])
    slide.shapes.title.text = "The pump is dry"
    path = tmp_path / f"a.{suffix}"
    deck.save(str(path))
    rewrite(path, "[Content_Types].xml", f"{OPEN}presentation.main+xml".encode(), kind.encode())
    assert "The pump is dry" in read_file(path, "h").plain.text


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"


def test_styles_of_word_without_a_type_or_a_name_are_read(tmp_path: Path) -> None:
    """Both have defaults, which mammoth does not know; headings stay what they are."""
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{PACKAGE}content-types"><Default Extension="xml" ContentType="application/xml"/></Types>',
        )
        for name, kind, target in (
            ("_rels/.rels", "officeDocument", "word/document.xml"),
            ("word/_rels/document.xml.rels", "styles", "styles.xml"),
        ):
            archive.writestr(
                name,
                f'<Relationships xmlns="{PACKAGE}relationships"><Relationship Id="r1" Type="{OFFICE}{kind}" '
                f'Target="{target}"/></Relationships>',
            )
        archive.writestr(
            "word/styles.xml",
            f'<w:styles xmlns:w="{WORD}"><w:style w:styleId="H1"><w:name w:val="heading 1"/></w:style>'
            '<w:style w:type="paragraph"><w:name w:val="Aside"/></w:style></w:styles>',
        )
        archive.writestr(
            "word/document.xml",
            f'<w:document xmlns:w="{WORD}"><w:body><w:p><w:pPr><w:pStyle w:val="H1"/></w:pPr>'
            "<w:r><w:t>Pumps</w:t></w:r></w:p><w:p><w:r><w:t>The pump is dry.</w:t></w:r></w:p></w:body></w:document>",
        )
    plain = read_file(path, "h").plain
    assert "The pump is dry." in plain.text
    assert [label for _, label in plain.headings if label] == ["Pumps"]


def test_cells_that_share_a_long_text_come_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workbook of kilobytes could hold gigabytes of text; it is refused before they are written."""
    monkeypatch.setattr(
        SizeLimit, "check_archive", lambda *_: None
    )  # openpyxl writes the text into each cell
    book = Workbook()
    for row in range(1, 41):
        book.active.cell(row, 1, ("word " * 6_000).strip())
    path = tmp_path / "a.xlsx"
    book.save(path)
    with pytest.raises(IngestError, match="comes to more than 1 MB of text"):
        read_file(path, "h", SizeLimit(1))


def test_a_date_of_an_old_workbook_without_a_format_is_shown() -> None:
    """Its format may be named and have no text."""
    cell = SimpleNamespace(ctype=xlrd.XL_CELL_DATE, value=45_000.0, xf_index=0)
    book = SimpleNamespace(
        xf_list=[SimpleNamespace(format_key=7)], format_map={7: SimpleNamespace(format_str=None)}, datemode=0
    )
    sheet = SimpleNamespace(cell=lambda *_: cell)
    assert _xls_value(xlrd, book, sheet, 0, 0) == ("2023-03-15", True)


@pytest.mark.parametrize("suffix", ["dot", "doc", "ppt"])
def test_a_text_under_the_ending_of_an_old_office_file_is_read(tmp_path: Path, suffix: str) -> None:
    """Graphs of Graphviz end in .dot, and notes of before 1990 in .doc."""
    path = tmp_path / f"a.{suffix}"
    path.write_text('digraph { pump -> valve [label="feeds"]; }')
    assert read_file(path, "h").plain.text == 'digraph { pump -> valve [label="feeds"]; }'


def test_ascii_with_control_characters_is_not_read_as_chinese() -> None:
    """In pairs, its bytes are characters of UTF-16; records of libraries are written so."""
    record = b"".join(
        b"\x1e%03d10\x1fa Pumps and valves of the north\x1fb Ada Lovelace\x1d" % n for n in range(40)
    )
    record = record.replace(b" ", b"\x1f")
    with pytest.raises(IngestError, match="binary, not text"):
        decode(record)


def test_binary_bytes_of_many_scripts_are_not_read_as_wide_characters() -> None:
    """Nearly every pair of bytes is some character; a text has few blocks of them."""
    raw = b"".join(bytes([n * 7 % 96 + 32, n * 13 % 150 + 6]) for n in range(1, 2_000))
    with pytest.raises(IngestError, match="binary, not text|no text in any known encoding"):
        decode(raw.replace(b"\xd8", b"\x20") + b"\0\0")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text",
    [
        "ポンプは毎月検査される。\n" * 9,
        "水泵每月检查一次。" * 9,
        "Насос проверен, 12 раз.\n" * 9,
        "ねじなしのこえだ、あめ\n" * 9,
    ],
)
def test_wide_characters_without_a_mark_are_still_read(encoding: str, text: str) -> None:
    """Half of the bytes of such a text may be printable ASCII."""
    assert decode(text.encode(encoding)).text == text


def test_names_that_come_again_below_the_names_of_groups_name_their_columns(tmp_path: Path) -> None:
    """As halves of a year below "Plan" and "Actual", each a merged cell."""
    book = Workbook()
    sheet = book.active
    for row in (
        ["", "Plan", "", "Actual", ""],
        ["", "H1", "H2", "H1", "H2"],
        ["Travel", 1, 2, 3, 4],
        ["Staff", 5, 6, 7, 8],
    ):
        sheet.append(row)
    sheet.merge_cells("B1:C1")
    sheet.merge_cells("D1:E1")
    book.save(tmp_path / "a.xlsx")
    text = read_file(tmp_path / "a.xlsx", "h").plain.text
    assert text.strip().split("\n\n") == [
        "Travel; Plan H1: 1; Plan H2: 2; Actual H1: 3; Actual H2: 4",
        "Staff; Plan H1: 5; Plan H2: 6; Actual H1: 7; Actual H2: 8",
    ]


def test_a_drawing_is_its_words(tmp_path: Path) -> None:
    """Title, description and labels of an SVG file, not its lines."""
    (tmp_path / "a.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg"><title>Flow</title><style>.a{fill:red}</style>'
        '<g><text x="1">Start <tspan>here</tspan></text><path d="M0 0L1 1"/></g></svg>'
    )
    assert read_file(tmp_path / "a.svg", "h").plain.text.split("\n\n") == ["Flow", "Start here", ""]


def test_an_empty_element_within_prose_of_xml_ends_a_word(tmp_path: Path) -> None:
    """As the ends of lines in TEI and JATS."""
    (tmp_path / "a.xml").write_text("<text><p>Dear <name>Bo</name>,<lb/>come<pb n='2'/>soon.</p></text>")
    assert read_file(tmp_path / "a.xml", "h").plain.text.strip() == "Dear Bo, come soon."


def test_names_of_which_some_are_merged_are_names(tmp_path: Path) -> None:
    """A merged cell of the second row stands below two names of groups, and is one name."""
    book = Workbook()
    sheet = book.active
    rows = (
        ["Part", "Balance", "Sold", ""],
        ["", "Ending", "", "Debit"],
        ["Pump", 800, "", 200],
        ["Seal", 400, "", 100],
    )
    for row in rows:
        sheet.append(row)
    sheet.merge_cells("C1:D1")
    sheet.merge_cells("B2:C2")
    book.save(tmp_path / "a.xlsx")
    text = read_file(tmp_path / "a.xlsx", "h").plain.text
    assert "Sold Debit: 200" in text and "Balance Ending: 800" in text


def test_pairs_right_above_a_table_do_not_hide_its_names(tmp_path: Path) -> None:
    """A head of names and values, without a blank row before the table."""
    book = Workbook()
    rows = [
        ("Report", "Sales"), ("Region", "EMEA"), ("Product", "Pieces", "Price"), ("Pump", 3, 10.5), ("Pipe", 5, 12)
    ]  # fmt: skip
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    plain = read_file(tmp_path / "a.xlsx", "h").plain
    assert plain.text.split("\n\n")[:4] == [
        "Report: Sales",
        "Region: EMEA",
        "Product: Pump; Pieces: 3; Price: 10.5",
        "Product: Pipe; Pieces: 5; Price: 12",
    ]


def test_charts_and_boxes_of_a_sheet_are_read(tmp_path: Path) -> None:
    """Titles of charts and axes, a sheet that is a chart, the text of a box, in their order."""
    with xlsxwriter.Workbook(str(tmp_path / "a.xlsx")) as book:
        sheet = book.add_worksheet("Sales")
        sheet.write_row(0, 0, ["Month", "Revenue"])
        sheet.write_row(1, 0, ["January", 10])
        sheet.insert_textbox(30, 0, "Figures are\npreliminary.")
        chart, large = book.add_chart({"type": "column"}), book.add_chart({"type": "line"})
        for one in (chart, large):
            one.add_series({"values": "=Sales!$B$2:$B$2", "name": "=Sales!$B$1"})
        chart.set_title({"name": "Revenue by month"})
        chart.set_y_axis({"name": "USD thousands"})
        large.set_title({"name": "=Sales!$B$1", "data": ["Revenue"]})
        sheet.insert_chart("D2", chart)
        book.add_chartsheet("Large").set_chart(large)
    plain = read_file(tmp_path / "a.xlsx", "h").plain
    assert plain.text.split("\n\n")[2:5] == [
        "Chart: Revenue by month; USD thousands",
        "Figures are preliminary.",
        "Chart: Revenue",
    ]
    assert [label for _, label in plain.pages] == ["Sales", "Large"]


def test_a_link_that_was_never_computed_is_its_text(tmp_path: Path) -> None:
    """Text, address or the cell with the text; other formulas without a result are counted."""
    book = Workbook()
    for at, text in enumerate(
        [
            '=HYPERLINK("https://a.b/m","Manual ""A"" & more")',
            '=HYPERLINK("https://a.b/c")',
            '=HYPERLINK("#x",$B$1)',
        ],
        1,
    ):
        book.active.cell(at, 1, text)
    book.active["B1"], book.active["B2"] = "Parts", "=SUM(C1:C2)"
    book.save(tmp_path / "a.xlsx")
    plain = read_file(tmp_path / "a.xlsx", "h").plain
    assert plain.text.split("\n\n")[:3] == ['Manual "A" & more: Parts', "https://a.b/c", "Parts"]
    assert plain.warnings == (
        "1 cell holds formulas without a result. Open the file in a spreadsheet program and save it.",
    )


_NAMES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in ("office", "table", "text", "draw", "chart")
)


def test_comments_charts_and_boxes_of_opendocument_sheets_are_read(tmp_path: Path) -> None:
    """And a table of years below pairs, whose figures tell its names."""

    def cell(value: object, note: str = "") -> str:
        kind = "string" if isinstance(value, str) else "float"
        said = f"<office:annotation><text:p>{note}</text:p></office:annotation>" if note else ""
        return (
            f'<table:table-cell office:value-type="{kind}">{said}<text:p>{value}</text:p></table:table-cell>'
        )

    rows = "".join(
        f"<table:table-row>{''.join(row)}</table:table-row>"
        for row in (
            [cell("Client"), cell("ACME")],
            [cell("Item"), cell(2023), cell(2024)],
            [cell("Revenue"), cell(5, "Not audited"), cell(7)],
        )
    )
    drawn = (
        "<table:shapes><draw:frame><draw:text-box><text:p>In thousands.</text:p></draw:text-box></draw:frame>"
        '<draw:frame><draw:object xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="./Object 1"/></draw:frame>'
        "</table:shapes>"
    )
    title = "<chart:title><text:p>Revenue by year</text:p></chart:title>"
    with zipfile.ZipFile(tmp_path / "a.ods", "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr(
            "content.xml",
            f"<office:document-content {_NAMES}><office:body><office:spreadsheet>"
            f'<table:table table:name="Sales">{drawn}{rows}</table:table>'
            "</office:spreadsheet></office:body></office:document-content>",
        )
        archive.writestr("Object 1/content.xml", f"<office:chart {_NAMES}>{title}</office:chart>")
    assert read_file(tmp_path / "a.ods", "h").plain.text.split("\n\n")[:5] == [
        "Client: ACME",
        "Item: Revenue; 2023: 5; 2024: 7",
        "Comment on B3: Not audited",
        "In thousands.",
        "Chart: Revenue by year",
    ]
