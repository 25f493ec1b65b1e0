"""What cannot be read says why, and what to do; what is uncertain is reported with the ingest."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from tests.fixtures.readers import office

from llama_index_presets import build
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.office.odf import read_odt
from llama_index_presets.ingest.readers.registry import READERS

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
LOCKED = OLE + "EncryptedPackage".encode("utf-16-le")


@pytest.mark.parametrize("entry", sorted(set(READERS.values()), key=lambda entry: entry.function))
def test_every_reader_of_the_table_is_there(entry: object) -> None:
    """A name in the table that is no function would be found by the first user of that format."""
    assert callable(entry.load())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.docx", LOCKED, "has a password"),
        ("a.xlsx", LOCKED, "has a password"),
        ("a.pptx", OLE, "PowerPoint before 2007. Convert it .soffice --headless --convert-to pptx"),
        ("a.doc", OLE, r"kind .doc are not read. Convert it .soffice --headless --convert-to docx"),
        ("a.docm", OLE, "of a Word before 2007. Convert it .soffice --headless --convert-to docx FILE"),
        ("a.hwp", OLE, r"kind .hwp are not read. Convert it"),
        ("a.pages", OLE, r"kind .pages are not read. Export it .File, Export To, Word."),
        ("a.numbers", OLE, r"Export To, Excel"),
        ("a.docx", b"words", "no Word file, or damaged"),
        ("a.epub", b"PK\x03\x04 not a zip", "no EPUB file, or damaged"),
        ("a.xml", b"no markup", "no XML, or damaged from the beginning"),
        ("a.ipynb", b"{}", "cannot be read"),
        ("a.html", b"<html><body><img src=a.png></body></html>", "holds pictures and markup only"),
    ],
)
def test_a_refusal_says_the_reason(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """One line with the fact and the next step."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(IngestError, match=message) as caught:
        read_file(path, "h")
    assert "\n" not in str(caught.value)


def test_a_panic_of_a_library_in_rust_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no `Exception`: a damaged workbook would end the ingest of a folder."""

    class PanicException(BaseException):
        """As pyo3 makes it."""

    def panic(*_: object) -> None:
        raise PanicException("range end index 64 out of range")

    (tmp_path / "a.xlsb").write_bytes(b"PK\x03\x04")
    monkeypatch.setattr("llama_index_presets.ingest.readers.office.sheets.read_xlsb", panic)
    with pytest.raises(
        IngestError, match=r"its library stopped at what it holds .range end index 64 out of range.. Save it"
    ):
        read_file(tmp_path / "a.xlsb", "h")
    (tmp_path / "a.txt").write_text("A text.")
    monkeypatch.setattr(
        "llama_index_presets.ingest.readers.text.read_text",
        lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        read_file(tmp_path / "a.txt", "h")


def test_a_presentation_of_keynote_is_known_by_what_it_holds(tmp_path: Path) -> None:
    """Its ending is that of private keys, too, which are text."""
    with zipfile.ZipFile(tmp_path / "talk.key", "w") as archive:
        archive.writestr("Index/Document.iwa", b"\0")
    with pytest.raises(IngestError, match="kind .key are not read. Export it .File, Export To, PowerPoint."):
        read_file(tmp_path / "talk.key", "h")
    (tmp_path / "server.key").write_text("A key is a text.")
    assert read_file(tmp_path / "server.key", "h").plain.text == "A key is a text."


def test_empty_sheets_and_pictures_in_a_document_are_told_apart(tmp_path: Path) -> None:
    """Each has another next step."""
    from openpyxl import Workbook

    Workbook().save(tmp_path / "empty.xlsx")
    with pytest.raises(IngestError, match="no text .its sheets are empty"):
        read_file(tmp_path / "empty.xlsx", "h")
    with zipfile.ZipFile(tmp_path / "scan.docx", "w") as archive:
        archive.writestr(
            "word/document.xml",
            '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body/></w:document>',
        )
        archive.writestr("word/media/image1.png", b"x")
        archive.writestr("docProps/thumbnail.jpeg", b"x")
    with pytest.raises(IngestError, match="1 pictures, whose text is not read"):
        read_file(tmp_path / "scan.docx", "h")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.xls", b"<html><body><table><tr><th>a<th>b<tr><td>1<td>2</table></body></html>", "a: 1; b: 2"),
        ("a.xls", b"a\tb\tc\n1\t2\t3\n4\t5\t6\n", "a: 1; b: 2; c: 3"),
        ("a.doc", b"{\\rtf1 Words.}", "Words."),
        ("a", b"<!DOCTYPE html><title>t</title><nav>menu</nav><p>Words.</p>", "Words."),
        ("a.txt", b"<html> is the root of a page.", "<html> is the root of a page."),
    ],
)
def test_a_wrong_suffix_is_seen_by_the_first_bytes(
    tmp_path: Path, name: str, content: bytes, text: str
) -> None:
    """Programs export pages and tables as .xls, and rich text as .doc; a text file is text whatever it begins with."""
    (tmp_path / name).write_bytes(content)
    assert read_file(tmp_path / name, "h").plain.text.strip().split("\n")[0] == text


def test_formulas_without_a_result_are_counted(tmp_path: Path) -> None:
    """A file that a program wrote has none until a spreadsheet program computes them."""
    from openpyxl import Workbook

    book = Workbook()
    for row in (["Item", "Net", "Gross"], ["Pump", 100, "=B2*1.19"], ["Seal", 10, "=B3*1.19"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    plain = read_file(tmp_path / "a.xlsx", "h").plain
    assert "Item: Pump; Net: 100" in plain.text
    assert [warning[:35] for warning in plain.warnings] == ["2 cells hold formulas without a res"]


def test_a_locked_book_is_refused(tmp_path: Path) -> None:
    """Text of a book with DRM is noise."""
    from tests.fixtures.readers.pages import epub

    epub(tmp_path / "a.epub")
    with zipfile.ZipFile(tmp_path / "a.epub", "a") as book:
        book.writestr(
            "META-INF/encryption.xml",
            '<e><EncryptedData><CipherReference URI="OPS/z.xhtml"/></EncryptedData></e>',
        )
    with pytest.raises(IngestError, match="locked .DRM."):
        read_file(tmp_path / "a.epub", "h")


def test_warnings_of_a_reader_stand_in_the_report(tmp_path: Path) -> None:
    """A file that is read with doubts is ingested, and the report says which."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.json").write_text('[{"text": "The first is whole."}, {"te')
    (tmp_path / "in" / "whole.json").write_text('{"text": "All is well."}')
    with build("knowledge-base", storage=tmp_path / "index", offline=True) as engine:
        report = engine.ingest(tmp_path / "in")
    assert (report.documents, report.failed) == (2, [])
    assert [(Path(name).name, len(warnings)) for name, warnings in report.warnings.items()] == [
        ("cut.json", 1)
    ]
    assert "no complete JSON" in report.to_dict()["warnings"][(tmp_path / "in" / "cut.json").as_posix()][0]


def test_a_cell_in_the_last_row_of_a_sheet_is_read_with_the_first_ones(tmp_path: Path) -> None:
    """The million of rows between them, some of which have a colour, are none."""
    from openpyxl import Workbook
    from openpyxl.styles import PatternFill

    book = Workbook()
    for place, value in (
        ("A1", "Part"),
        ("B1", "Shelf"),
        ("C1", "Count"),
        ("A2", "Seal"),
        ("B2", "B7"),
        ("C2", 12),
    ):
        book.active[place] = value
    book.active["C500000"].fill = PatternFill("solid", "FFFF00")
    book.active["XFD700000"].fill = PatternFill("solid", "FFFF00")
    book.active["A1048576"] = "The end."
    book.save(tmp_path / "sparse.xlsx")
    text = read_file(tmp_path / "sparse.xlsx", "h").plain.text
    assert text.split("\n\n")[:2] == ["Part: Seal; Shelf: B7; Count: 12", "The end."]


def test_a_strict_workbook_is_read_with_a_warning(tmp_path: Path) -> None:
    """Its names of elements are others; one reader finds no sheet in it, and another one the values."""
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["Seat", "Ulm"])
    book.save(tmp_path / "usual.xlsx")
    with (
        zipfile.ZipFile(tmp_path / "usual.xlsx") as usual,
        zipfile.ZipFile(tmp_path / "a.xlsx", "w") as strict,
    ):
        for name in usual.namelist():
            text = usual.read(name).decode()
            for old, new in (
                ("officeDocument/2006/relationships", "relationships"),
                ("spreadsheetml/2006/main", "spreadsheetml/main"),
            ):
                text = text.replace(
                    f"http://schemas.openxmlformats.org/{old}",
                    f"http://purl.oclc.org/ooxml/{'officeDocument/' if 'rel' in old else ''}{new}",
                )
            strict.writestr(name, text)
    plain = read_file(tmp_path / "a.xlsx", "h").plain
    assert plain.text.strip() == "Seat: Ulm"
    assert any("as stored, not as shown" in warning for warning in plain.warnings)


def test_an_embedded_object_is_read_once(tmp_path: Path) -> None:
    """However often a file names it: 4 KB that named a chart of a megabyte 50 times took 950 MB."""
    path = tmp_path / "often.odt"
    names = '<text:p><draw:frame><draw:object xlink:href="./Object 1"/></draw:frame></text:p>'
    office.odt_with_objects(path)
    once = read_odt(path)[0].text
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["content.xml"] = members["content.xml"].replace(
        b"</office:text>", (names * 50 + "</office:text>").encode()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    text = read_odt(path)[0].text
    assert (once.count("E = m cdot c^2"), text.count("E = m cdot c^2")) == (1, 1)
