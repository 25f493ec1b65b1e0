"""Preview shows what ingest would read, and its page is harmless whatever a document holds."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from reportlab.pdfgen.canvas import Canvas
from typer.testing import CliRunner

from llama_index_presets.cli import app
from llama_index_presets.ingest.previews.page import preview_page
from llama_index_presets.ingest.previews.preview import FilePreview, preview

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"' & </pre></section>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several kinds, one of them empty."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "pump.md").write_text(
        "# Pump\n\nIt is inspected every month, and it must be dry.\n\n## Parts\n\nA seal."
    )
    (docs / "prices.csv").write_bytes(
        "Preis;Menge;Name\n1,5;2;Dübel für die Wand\n2,5;3;Größe\n".encode("cp1252")
    )
    (docs / "empty.txt").write_text("")
    canvas = Canvas(str(docs / "plan.pdf"), pagesize=(300, 200))
    canvas.drawString(40, 150, "The valve is shut in winter.")
    canvas.showPage()
    canvas.drawString(40, 150, "It is opened in spring.")
    canvas.save()
    return docs


def by_name(folder: Path) -> dict[str, FilePreview]:
    return {Path(one.source).name: one for one in preview([folder])}


def test_headings_pages_tables_encoding_and_language_are_shown(folder: Path) -> None:
    """Each format tells what it has."""
    found = by_name(folder)
    assert found["pump.md"].headings == ["Pump", "Pump > Parts"] and found["pump.md"].language == "en"
    assert found["plan.pdf"].pages == ["1", "2"] and found["plan.pdf"].encoding is None
    assert found["prices.csv"].encoding not in (None, "utf-8") and "Dübel" in found["prices.csv"].text
    assert found["empty.txt"].error == "The file is empty (0 bytes)."


def test_chunks_are_those_of_their_places(folder: Path) -> None:
    """A chunk is the stretch of the text that it names."""
    for one in by_name(folder).values():
        assert [one.text[chunk.start : chunk.end] for chunk in one.chunks] == [c.text for c in one.chunks]


def test_shorter_chunks_are_more(folder: Path) -> None:
    """The length is that of the option."""
    (folder / "long.txt").write_text("This sentence has exactly seven words here. " * 60)
    few, many = (preview([folder / "long.txt"], chunk_tokens=tokens)[0] for tokens in (256, 32))
    assert len(few.chunks) < len(many.chunks)
    assert all(chunk.tokens <= 32 for chunk in many.chunks)


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_a_hostile_document_is_text_on_the_page(tmp_path: Path) -> None:
    """Name, headings, metadata, warnings and text are escaped; there is no script, no handler and no request."""
    (tmp_path / "<img src=x onerror=alert(1)>.md").write_text(
        f"---\ntitle: '{HOSTILE.replace(chr(39), '')}'\n---\n# {HOSTILE}\n\nText: {HOSTILE}"
    )
    found = preview([tmp_path])
    page = preview_page([*found, FilePreview(source=HOSTILE, error=HOSTILE)])
    tags = _Tags()
    tags.feed(page)
    assert not {"script", "iframe", "object", "img", "link", "form", "a", "base"} & tags.tags
    assert not {name for name in tags.attributes if name.startswith("on")} | (
        {"src", "href"} & tags.attributes
    )
    assert "default-src 'none'" in page and page.count("</section>") == 2


def test_the_pages_of_a_pdf_stand_beside_their_text(folder: Path) -> None:
    """Drawn into the file itself: two pages in the shape of the paper, with ink on them."""
    page = preview_page(preview([folder / "plan.pdf"]))
    images = re.findall(r"data:image/png;base64,([^\"]+)", page)
    sizes = [Image.open(io.BytesIO(base64.b64decode(image))) for image in images]
    assert [round(image.width / image.height, 2) for image in sizes] == [1.5, 1.5]
    assert all(image.convert("L").getextrema()[0] < 100 for image in sizes)
    assert "The valve is shut in winter." in page


def test_the_command_prints_json_and_writes_the_page(folder: Path, tmp_path: Path) -> None:
    """One object on standard output; a file that would be left out gives the exit code 1."""
    ran = CliRunner().invoke(app, ["preview", str(folder), "--json", "--html", str(tmp_path / "page.html")])
    documents = {Path(one["source"]).name: one for one in json.loads(ran.stdout)["documents"]}
    assert ran.exit_code == 1
    assert documents["empty.txt"]["error"] == "The file is empty (0 bytes)."
    assert documents["pump.md"]["headings"] == ["Pump", "Pump > Parts"]
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_document_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences are no text."""
    (tmp_path / "a.md").write_text("# Title \x1b[31mred\n\nThe text is \x1b]0;owned\x07 here.")
    ran = CliRunner().invoke(app, ["preview", str(tmp_path)])
    assert ran.exit_code == 0 and "\x1b" not in ran.output and "\x07" not in ran.output


def test_a_table_without_a_name_is_called_so(tmp_path: Path) -> None:
    """A CSV file has one table, whose line was empty."""
    (tmp_path / "a.csv").write_text("name;city\nAda;Kiel\nBob;Ulm\n")
    ran = CliRunner().invoke(app, ["preview", str(tmp_path)])
    assert "  table: without a name\n" in ran.output
