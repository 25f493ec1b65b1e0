"""Workbooks that hide shapes, refer to one part many times, or have links where no cell is."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import pytest
import xlsxwriter
from openpyxl import Workbook

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.office.sheet_drawings import links_without_result

DRAWING = "xl/drawings/drawing1.xml"
ODF = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in ("office", "table", "text", "draw")
)


def workbook(path: Path, name: str = "", old: bytes = b"", new: bytes = b"") -> str:
    """Text of a workbook with a chart and two boxes, in one of whose parts bytes are replaced."""
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        sheet.write(0, 0, "Cell")
        sheet.insert_textbox(3, 0, "Seen")
        sheet.insert_textbox(9, 0, "Draft")
        chart = book.add_chart({"type": "column"})
        chart.add_series({"values": "=Sheet1!$A$1:$A$1"})
        chart.set_title({"name": "Revenue"})
        sheet.insert_chart("D2", chart)
    with zipfile.ZipFile(path) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    if name:
        assert old in members[name]
        members[name] = members[name].replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return read_file(path, "h").plain.text


def test_a_box_that_a_workbook_hides_is_not_read(tmp_path: Path) -> None:
    """As hidden sheets and hidden text are not."""
    name = b'name="TextBox 3"'
    assert "Draft" in workbook(tmp_path / "a.xlsx")
    text = workbook(tmp_path / "b.xlsx", DRAWING, name, name + b' hidden="1"')
    assert "Seen" in text
    assert "Draft" not in text


def test_a_chart_and_a_drawing_are_read_once(tmp_path: Path) -> None:
    """However often a small file names them."""
    begin, end = b"<c:chart ", b"/>"
    with zipfile.ZipFile(_made(tmp_path / "a.xlsx")) as archive:
        raw = archive.read(DRAWING)
    place = raw.index(begin)
    chart = raw[place : raw.index(end, place) + len(end)]
    assert workbook(tmp_path / "b.xlsx", DRAWING, chart, chart * 50).count("Chart: Revenue") == 1
    one = b'<Relationship Id="rId1"'
    again = one + b' Type="http://x/drawing" Target="../drawings/drawing1.xml"/><Relationship Id="rId9"'
    assert (
        workbook(tmp_path / "c.xlsx", "xl/worksheets/_rels/sheet1.xml.rels", one, again).count(
            "Chart: Revenue"
        )
        == 1
    )


def _made(path: Path) -> Path:
    workbook(path)
    return path


def test_a_link_below_a_merged_cell_or_to_no_cell_is_left(tmp_path: Path) -> None:
    """The workbook is read; such a link stays a formula without a result."""
    book = Workbook()
    sheet = book.active
    sheet["A1"], sheet["A2"] = "Parts", '=HYPERLINK("#x",XFD9999999)'
    sheet["A3"] = '=HYPERLINK("#x",B0)'
    book.save(tmp_path / "a.xlsx")
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    part = "xl/worksheets/sheet1.xml"
    merged = b'</sheetData><mergeCells count="1"><mergeCell ref="A1:B1"/></mergeCells>'
    covered = b'<c r="B1"><f>HYPERLINK("https://a.b","Text")</f><v/></c></row><row r="2">'
    members[part] = members[part].replace(b"</sheetData>", merged).replace(b'</row><row r="2">', covered)
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    plain = read_file(tmp_path / "a.xlsx", "h").plain
    assert plain.text.strip() == "Parts"
    assert plain.warnings[0].startswith("3 cells hold formulas")


@pytest.mark.parametrize("part", [b"<c ", b'<c r="A1"', b'<c r="A1"><f', b"<f", b'<c r="A1"><f>'])
def test_links_are_looked_for_in_a_time_that_grows_with_the_sheet(part: bytes) -> None:
    """Not with its square, which for a megabyte in a comment was an hour."""
    began = time.process_time()
    links_without_result(b"HYPERLINK(" + part * (600_000 // len(part)))
    assert time.process_time() - began < 5


def opendocument(path: Path, content: str) -> str:
    """A spreadsheet."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr(
            "content.xml",
            f"<office:document-content {ODF}><office:body><office:spreadsheet>{content}"
            "</office:spreadsheet></office:body></office:document-content>",
        )
    return read_file(path, "h", SizeLimit(1)).plain.text


def test_repeated_cells_of_opendocument_come_to_the_limit(tmp_path: Path) -> None:
    """A few bytes say a row of 16,384 numbers, and that it comes a thousand times."""
    row = (
        '<table:table-row table:number-rows-repeated="1000"><table:table-cell office:value-type="float" '
        'table:number-columns-repeated="16384"><text:p>1</text:p></table:table-cell></table:table-row>'
    )
    with pytest.raises(IngestError, match="more than 1 MB"):
        opendocument(tmp_path / "a.ods", f'<table:table table:name="A">{row * 1000}</table:table>')


def test_a_shape_of_opendocument_that_is_not_on_the_screen_is_not_read(tmp_path: Path) -> None:
    """LibreOffice hides shapes so."""
    box = "<draw:frame{}><draw:text-box><text:p>{}</text:p></draw:text-box></draw:frame>"
    boxes = box.format("", "Seen") + box.format(' draw:display="none"', "Draft")
    text = opendocument(
        tmp_path / "a.ods", f'<table:table table:name="A"><table:shapes>{boxes}</table:shapes></table:table>'
    )
    assert text.strip() == "Seen"
