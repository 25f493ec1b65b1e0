"""Files in, plain text out; a bad file is one clear error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.read import file_hash, read_file
from llama_index_presets.ingest.sources.files import find_files


def write_pdf(path: Path, pages: list[str]) -> Path:
    canvas = Canvas(str(path), pagesize=A4)
    for text in pages:
        canvas.drawString(72, 720, text)
        canvas.showPage()
    canvas.save()
    return path


def read(path: Path) -> str:
    return read_file(path, file_hash(path)).plain.text


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "Plain words.", "Plain words."),
        ("a.md", "# T\n\nMarked *words*.", "Marked words."),
        ("a.html", "<p>Tagged words.</p>", "Tagged words."),
        ("a.csv", "k,v\nx,1\n", "k: x; v: 1"),
        ("a.tsv", "k\tv\nx\t1\n", "k: x; v: 1"),
        ("a.log", "Unknown endings are read as text.", "Unknown endings are read as text."),
    ],
)
def test_each_kind_of_text_file_is_read(tmp_path: Path, name: str, content: str, expected: str) -> None:
    """The ending chooses the parser; what comes out is plain text."""
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read(path).strip() == expected


def test_a_pdf_keeps_its_page_numbers(tmp_path: Path) -> None:
    """Citations of filings need pages."""
    path = write_pdf(tmp_path / "report.pdf", ["Revenue rose.", "Costs fell."])
    plain = read_file(path, "").plain
    assert [plain.page(plain.text.index(word)) for word in ("Revenue", "Costs")] == ["1", "2"]


def test_a_word_document_is_read(tmp_path: Path) -> None:
    """The body alone is enough, without the parts that Word adds."""
    import zipfile

    path = tmp_path / "note.docx"
    body = "<w:p><w:r><w:t>Minutes of the meeting.</w:t></w:r></w:p>"
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", f"<w:document {space}><w:body>{body}</w:body></w:document>")
    assert "Minutes of the meeting." in read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "empty"),
        ("image.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "binary"),
        ("broken.pdf", b"%PDF-1.7 not really", "cannot be read"),
        ("broken.docx", b"PK\x03\x04 not a zip", "cannot be read"),
        ("blank.txt", b" \n\n ", "holds no text"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """Empty, binary, damaged and blank files each say what they are."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(IngestError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_old_western_encodings_and_utf16_are_understood(tmp_path: Path) -> None:
    """Files of Windows programs are read right, not with question marks."""
    for encoding in ("cp1252", "utf-16", "utf-8-sig"):
        path = tmp_path / f"{encoding}.txt"
        path.write_bytes("Café – 5 €".encode(encoding))
        assert read(path) == "Café – 5 €"


def test_hidden_files_are_left_out_and_the_order_is_stable(tmp_path: Path) -> None:
    """.git and .DS_Store are not documents."""
    for name in ("b.txt", "a.txt", ".hidden", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [entry.path.name for entry in find_files([tmp_path])] == ["a.txt", "b.txt"]


def test_a_missing_path_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    """Ingesting nothing is never a success."""
    with pytest.raises(IngestError, match="There is no .*nowhere"):
        find_files([tmp_path / "nowhere"])
    with pytest.raises(IngestError, match="no file to ingest"):
        find_files([tmp_path])


def test_reading_a_pdf_leaves_logging_alone(tmp_path: Path) -> None:
    """A reader package sets up the root logger when it is imported; the application's set-up stands."""
    path = write_pdf(tmp_path / "a.pdf", ["Text."])
    code = (
        "import logging, pathlib; from llama_index_presets.ingest.read import read_file; "
        f"read_file(pathlib.Path({str(path)!r}), ''); print(logging.getLogger().handlers, logging.getLogger().level)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "30"]
