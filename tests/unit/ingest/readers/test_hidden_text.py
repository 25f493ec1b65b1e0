"""Text that a Word document or a PDF page does not show is not read: there instructions to a model are planted."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from tests.unit.ingest.readers.test_lists import odt

from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.office.odf import read_odt
from llama_index_presets.ingest.readers.office.word import read_docx
from llama_index_presets.ingest.readers.pdf.reader import read_pdf

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/word/document.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
)
KIND = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STYLES = (
    f'<w:styles {W}><w:style w:type="character" w:styleId="Base"><w:name w:val="Base"/><w:rPr><w:vanish/></w:rPr>'
    '</w:style><w:style w:type="character" w:styleId="Ghost"><w:name w:val="Ghost"/><w:basedOn w:val="Base"/>'
    '</w:style><w:style w:type="paragraph" w:styleId="Banner"><w:name w:val="Banner"/>'
    '<w:pPr><w:shd w:val="clear" w:fill="000000"/></w:pPr></w:style></w:styles>'
)


def docx(path: Path, body: str, header: str = "") -> Path:
    """A document of a body and styles, and a letterhead where one is given."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        archive.writestr(
            "_rels/.rels",
            RELATIONS.format(
                f'<Relationship Id="r1" Type="{KIND}/officeDocument" Target="word/document.xml"/>'
            ),
        )
        archive.writestr(
            "word/_rels/document.xml.rels",
            RELATIONS.format(f'<Relationship Id="r1" Type="{KIND}/styles" Target="styles.xml"/>'),
        )
        archive.writestr("word/styles.xml", STYLES)
        archive.writestr("word/document.xml", f"<w:document {W}><w:body>{body}</w:body></w:document>")
        if header:
            archive.writestr("word/header1.xml", f"<w:hdr {W}>{header}</w:hdr>")
    return path


def paragraph(looks: str, text: str = "say it", style: str = "") -> str:
    """A visible run and one with properties of its own."""
    return (
        f"<w:p><w:pPr>{style}</w:pPr><w:r><w:t>Seen.</w:t></w:r>"
        f'<w:r><w:rPr>{looks}</w:rPr><w:t xml:space="preserve"> {text}</w:t></w:r></w:p>'
    )


WHITE = '<w:color w:val="FFFFFF"/>'


@pytest.mark.parametrize(
    "looks",
    [
        "<w:vanish/>",
        '<w:vanish w:val="1"/>',
        '<w:rStyle w:val="Ghost"/>',
        WHITE,
        '<w:color w:val="fefefe"/>',
        '<w:sz w:val="2"/>',
    ],
)
def test_hidden_letters_of_word_are_not_read(tmp_path: Path, looks: str) -> None:
    """In the body and in the letterhead, by the run's own properties or by those of its style."""
    plain, _ = read_docx(
        docx(tmp_path / "a.docx", paragraph(looks), paragraph(looks).replace("Seen", "Above"))
    )
    assert plain.text.split() == ["Above.", "Seen."]


@pytest.mark.parametrize(
    "body",
    [
        paragraph('<w:vanish w:val="0"/>'),
        paragraph('<w:rStyle w:val="Ghost"/><w:vanish w:val="false"/>'),
        paragraph("<w:webHidden/>"),
        paragraph('<w:shd w:val="clear" w:fill="000000"/>' + WHITE),
        paragraph('<w:highlight w:val="black"/>' + WHITE),
        paragraph(WHITE, style='<w:pStyle w:val="Banner"/>'),
        f"<w:tbl><w:tr><w:tc>{paragraph(WHITE)}</w:tc></w:tr></w:tbl>",
        paragraph('<w:sz w:val="20"/>'),
    ],
)
def test_letters_that_word_shows_are_read(tmp_path: Path, body: str) -> None:
    """Also white ones where something dark may be behind them."""
    plain, _ = read_docx(docx(tmp_path / "a.docx", body))
    assert "Seen. say it" in plain.text


def pdf(path: Path, *, scan: float = 0.0) -> Path:
    """A page of shown and hidden lines, with a picture over a part of its height."""
    canvas = Canvas(str(path), pagesize=(300, 300))
    if scan:
        file = io.BytesIO()
        Image.new("RGB", (30, 30), (200, 200, 200)).save(file, "PNG")
        canvas.drawImage(ImageReader(file), 0, 0, 300, 300 * scan)
    canvas.drawString(20, 250, "Plainly seen.")
    _line(canvas, 200, "Never drawn.", mode=3)
    _line(canvas, 150, "White on paper.", white=True)
    canvas.rect(10, 90, 200, 30, fill=1)
    _line(canvas, 100, "White on black.", white=True)
    canvas.drawString(900, 60, "Beside.")
    canvas.drawString(20, -60, "Below.")
    canvas.setFont("Helvetica", 0.5)
    canvas.drawString(20, 40, "Too small.")
    canvas.save()
    return path


def _line(canvas: Canvas, y: float, words: str, *, mode: int = 0, white: bool = False) -> None:
    canvas.saveState()
    canvas.setFillColorRGB(*((1, 1, 1) if white else (0, 0, 0)))
    text = canvas.beginText(20, y)
    text.setTextRenderMode(mode)
    text.textLine(words)
    canvas.drawText(text)
    canvas.restoreState()


def test_words_that_a_page_does_not_show_are_not_read(tmp_path: Path) -> None:
    """White ones stay where they stand on something dark; the page is named in a warning."""
    plain, _ = read_pdf(pdf(tmp_path / "a.pdf"))
    assert plain.text.split() == ["Plainly", "seen.", "White", "on", "black."]
    assert plain.warnings == (
        "Page 1: words that it does not show are left out "
        "(white on white, too small, beside it, or not drawn).",
    )


def test_the_text_below_a_scan_is_read(tmp_path: Path) -> None:
    """Where a picture covers the page, words that are not drawn are what it says; a small picture covers nothing."""
    assert "Never drawn." in read_pdf(pdf(tmp_path / "a.pdf", scan=1.0))[0].text
    assert "Never drawn." not in read_pdf(pdf(tmp_path / "b.pdf", scan=0.1))[0].text


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_page_hides_the_same_words(tmp_path: Path, turn: int) -> None:
    """Words are looked up in the picture where the page is drawn, whichever way it is turned."""
    import pypdfium2

    document = pypdfium2.PdfDocument(pdf(tmp_path / "a.pdf"))
    document[0].set_rotation(turn)
    document.save(tmp_path / "b.pdf")
    document.close()
    text = read_pdf(tmp_path / "b.pdf")[0].text
    assert "White on black." in text and not {"paper.", "Never", "Beside.", "Below.", "small."} & set(
        text.split()
    )


def test_a_selector_beside_others_hides_what_it_names() -> None:
    """A rule with a state among its selectors was left out as a whole; commas in brackets part nothing."""
    page = '<style>a:hover, .x, [title="a,b"] {display: none}</style><p class=x>Hidden.<p title="a,b">Too.<p>Seen.'
    assert plain_from_html(page).text.split() == ["Seen."]


def test_a_file_cannot_write_markers_of_its_own(tmp_path: Path) -> None:
    """What stands in an attribute is shown by no program; the names of those that readers set were always the same."""
    page = '<ol><li list-marker="Obey:">Seen.</ol>'
    assert plain_from_html(page).text.split() == ["1.", "Seen."]
    heading = '<text:h text:outline-level="1" label="Obey:">Use</text:h>'
    item = '<text:list-item tag="li&gt;&lt;h1&gt;Obey&lt;/h1"><text:p>Seen.</text:p></text:list-item>'
    odt(tmp_path / "a.odt", "", f"{heading}<text:list>{item}</text:list>")
    plain = read_odt(tmp_path / "a.odt")[0]
    assert plain.text.split() == ["-", "Seen."]
    assert [label for _, label in plain.headings] == ["Use"]
