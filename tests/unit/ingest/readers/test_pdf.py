"""PDF: reading order, tables, running heads, hyphens, headings, rectangles, and true reasons of failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image
from pypdf import PdfReader, PdfWriter
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.pdf.reader import read_pdf

HEIGHT = A4[1]
LEFT = [
    "The committee reviewed the annual report",
    "and found that the reserve for storms was",
    "too small for a storm of the size that hit",
    "the coast in the spring of the last year.",
]
RIGHT = [
    "Vaccines were stored below eight degrees",
    "and every shipment was logged by a nurse",
    "who signed the sheet twice before the box",
    "was opened in the ward at the far end.",
]
LEFT_TEXT, RIGHT_TEXT = " ".join(LEFT), " ".join(RIGHT)


def pdf(path: Path, draw: Callable[[Canvas], None], **options: object) -> Path:
    canvas = Canvas(str(path), pagesize=A4, **options)
    draw(canvas)
    canvas.save()
    return path


def column(
    canvas: Canvas, lines: Sequence[str], x: float, top: float, size: float = 10, step: float = 14
) -> None:
    canvas.setFont("Helvetica", size)
    for place, line in enumerate(lines):
        canvas.drawString(x, HEIGHT - top - place * step, line)


def row(canvas: Canvas, cells: Sequence[str], xs: Sequence[float], top: float) -> None:
    for x, cell in zip(xs, cells, strict=True):
        canvas.drawString(x, HEIGHT - top, cell)


def read(path: Path) -> PlainText:
    return read_pdf(path)[0]


def flat(plain: PlainText) -> str:
    return " ".join(plain.text.split())


def test_columns_are_read_one_after_the_other(tmp_path: Path) -> None:
    """Below a title that spans both, in whatever order the file draws them."""

    def draw(canvas: Canvas) -> None:
        for left, right in zip(LEFT, RIGHT, strict=True):
            canvas.drawString(60, HEIGHT - 120 - 14 * LEFT.index(left), left)
            canvas.drawString(320, HEIGHT - 120 - 14 * RIGHT.index(right), right)
        canvas.setFont("Helvetica", 18)
        canvas.drawString(60, HEIGHT - 80, "A title over both of the columns")

    assert (
        flat(read(pdf(tmp_path / "a.pdf", draw)))
        == f"A title over both of the columns {LEFT_TEXT} {RIGHT_TEXT}"
    )


def test_columns_with_unequal_lines_are_read_one_after_the_other(tmp_path: Path) -> None:
    """The lines of the right column stand between those of the left one."""

    def draw(canvas: Canvas) -> None:
        column(canvas, LEFT * 2, 60, 100)
        column(canvas, RIGHT * 2, 320, 106)

    assert flat(read(pdf(tmp_path / "a.pdf", draw))) == " ".join([LEFT_TEXT] * 2 + [RIGHT_TEXT] * 2)


def test_three_columns_are_read_from_left_to_right(tmp_path: Path) -> None:
    """Narrow columns are columns as long as they hold prose."""
    texts = [[f"{word} line {n} has some words" for n in range(6)] for word in ("First", "Second", "Third")]

    def draw(canvas: Canvas) -> None:
        for lines, x in zip(texts, (50, 230, 410), strict=True):
            column(canvas, lines, x, 100)

    assert flat(read(pdf(tmp_path / "a.pdf", draw))) == " ".join(line for lines in texts for line in lines)


def test_a_page_may_change_between_one_and_two_columns(tmp_path: Path) -> None:
    """A paragraph over the whole width ends the columns above it."""
    wide = "This sentence spans the whole width of the page and stands between the two pairs of columns here."

    def draw(canvas: Canvas) -> None:
        column(canvas, LEFT, 60, 100)
        column(canvas, RIGHT, 320, 100)
        column(canvas, [wide], 60, 180)
        column(canvas, [f"Below, {line}" for line in LEFT], 60, 220)
        column(canvas, [f"Beside, {line}" for line in RIGHT], 320, 220)

    below = " ".join(f"Below, {line}" for line in LEFT)
    beside = " ".join(f"Beside, {line}" for line in RIGHT)
    assert flat(read(pdf(tmp_path / "a.pdf", draw))) == f"{LEFT_TEXT} {RIGHT_TEXT} {wide} {below} {beside}"


def test_a_small_table_in_a_column_stays_in_it(tmp_path: Path) -> None:
    """Its rows are not mixed with the prose beside them."""

    def draw(canvas: Canvas) -> None:
        column(canvas, LEFT, 60, 100)
        for place, cells in enumerate(
            [("Site", "2023", "2024"), ("North", "120", "135"), ("South", "98", "101")]
        ):
            row(canvas, cells, (60, 160, 210), 170 + 14 * place)
        column(canvas, RIGHT * 2, 320, 100)

    text = flat(read(pdf(tmp_path / "a.pdf", draw)))
    assert (
        text
        == f"{LEFT_TEXT} Site: North; 2023: 120; 2024: 135 Site: South; 2023: 98; 2024: 101 {RIGHT_TEXT} {RIGHT_TEXT}"
    )


def test_a_table_below_two_columns_is_read_across(tmp_path: Path) -> None:
    """Even where one of its own gaps continues the gutter."""

    def draw(canvas: Canvas) -> None:
        column(canvas, LEFT, 60, 100)
        column(canvas, RIGHT, 320, 100)
        for place, cells in enumerate(
            [("Site", "2022", "2023", "2024"), *[(f"S{n}", "1", "2", "3") for n in range(4)]]
        ):
            row(canvas, cells, (60, 180, 340, 460), 200 + 14 * place)

    text = flat(read(pdf(tmp_path / "a.pdf", draw)))
    rows = " ".join(f"Site: S{n}; 2022: 1; 2023: 2; 2024: 3" for n in range(4))
    assert text == f"{LEFT_TEXT} {RIGHT_TEXT} {rows}"


@pytest.mark.parametrize("grid", [False, True])
def test_each_cell_of_a_table_stands_with_its_column(tmp_path: Path, grid: bool) -> None:
    """With and without drawn lines; a gap in a row shifts nothing."""
    rows = [("Product", "Price", "Stock"), ("Pump", "12.50", "3"), ("Valve", "", "7"), ("Hose", "4.00", "0")]

    def draw(canvas: Canvas) -> None:
        for place, cells in enumerate(rows):
            row(canvas, cells, (70, 200, 300), 110 + 20 * place)
        if grid:
            canvas.grid([60, 190, 290, 390], [HEIGHT - 96 - 20 * n for n in range(5)])

    plain = read(pdf(tmp_path / "a.pdf", draw))
    assert plain.text.strip().split("\n\n") == [
        "Product: Pump; Price: 12.50; Stock: 3",
        "Product: Valve; Stock: 7",
        "Product: Hose; Price: 4.00; Stock: 0",
    ]
    assert [plain.text[table.start : table.end] for table in plain.tables] == [plain.text.strip()]


def test_a_cell_of_several_lines_is_one_cell_in_a_grid(tmp_path: Path) -> None:
    """The lines say where a cell ends."""

    def draw(canvas: Canvas) -> None:
        row(canvas, ("Name", "Note"), (70, 200), 110)
        row(canvas, ("Pump", "Runs at night, and is"), (70, 200), 130)
        row(canvas, ("checked each morning.",), (200,), 142)
        row(canvas, ("Valve", "Closed."), (70, 200), 160)
        canvas.grid([60, 190, 390], [HEIGHT - y for y in (96, 116, 148, 168)])

    assert (
        read(pdf(tmp_path / "a.pdf", draw)).text.strip().split("\n\n")
        == [
            "Name: Pump; Note: Runs at night, and is checked each morning.",
            "Name: Valve; Note: Closed.",
        ]
        or "Pump: Runs at night, and is checked each morning." in read(tmp_path / "a.pdf").text
    )


def test_keys_stand_with_their_values(tmp_path: Path) -> None:
    """A form is read across, not down."""
    pairs = [("Invoice number:", "INV-1047"), ("Customer:", "Acme Corp"), ("Total due:", "821.14")]

    def draw(canvas: Canvas) -> None:
        for place, pair in enumerate(pairs):
            row(canvas, pair, (60, 220), 100 + 18 * place)

    assert read(pdf(tmp_path / "a.pdf", draw)).text.strip().split("\n\n") == [
        f"{key} {value}" for key, value in pairs
    ]


def test_heads_feet_and_page_numbers_that_repeat_are_left_out(tmp_path: Path) -> None:
    """What stands once on a page stays, also at its edge."""

    def draw(canvas: Canvas) -> None:
        for page in range(1, 5):
            canvas.drawString(60, HEIGHT - 30, "Acme Corp – Annual report 2024")
            canvas.drawString(280, 25, f"Page {page} of 4")
            canvas.drawString(
                60, HEIGHT - 100, f"Paragraph number {['one', 'two', 'three', 'four'][page - 1]} is here."
            )
            if page == 2:
                canvas.drawString(60, 50, "A footnote on the second page only.")
            canvas.showPage()

    plain = read(pdf(tmp_path / "a.pdf", draw))
    assert flat(plain) == (
        "Paragraph number one is here. Paragraph number two is here. A footnote on the second page only. "
        "Paragraph number three is here. Paragraph number four is here."
    )
    assert [plain.page(plain.text.index(word)) for word in ("one", "two", "four")] == ["1", "2", "4"]


def test_bare_page_numbers_are_left_out_and_other_numbers_stay(tmp_path: Path) -> None:
    """A number counts as a page's when it grows with the pages."""

    def draw(canvas: Canvas) -> None:
        for page in range(3):
            canvas.drawString(290, 25, str(page + 7))
            canvas.drawString(60, HEIGHT - 30, str((page * 37) % 50 + 100))
            canvas.drawString(60, HEIGHT - 200, "Some words stand here.")
            canvas.showPage()

    assert flat(read(pdf(tmp_path / "a.pdf", draw))) == (
        "100 Some words stand here. 137 Some words stand here. 124 Some words stand here."
    )


def test_hyphens_at_line_ends_are_joined_and_real_ones_kept(tmp_path: Path) -> None:
    """The document itself shows which words have a hyphen."""
    lines = [
        "A well-known way to measure the temper-",
        "ature of a decision-making body is a sur-",
        "vey among the members of the same deci-",
        "sion-making body, as it is a well-",
        "known and state-of-the-",
        "art instrument of 2019-",
        "2020 in many Franco-",
        "German boards of today.",
    ]
    text = flat(read(pdf(tmp_path / "a.pdf", lambda canvas: column(canvas, lines, 60, 100))))
    for whole in (
        "the temperature of",
        "a survey among",
        "same decision-making body",
        "a well-known and",
        "state-of-the-art instrument",
        "2019-2020 in",
        "Franco-German boards",
    ):
        assert whole in text


def test_a_sentence_that_runs_over_a_page_is_whole_and_belongs_to_its_first_page(tmp_path: Path) -> None:
    """So does a word that is cut there."""

    def draw(canvas: Canvas) -> None:
        canvas.drawString(60, 60, "The board approved the long-awaited restruc-")
        canvas.showPage()
        canvas.drawString(60, HEIGHT - 60, "turing in March. Nothing else was decided.")

    plain = read(pdf(tmp_path / "a.pdf", draw))
    assert "the long-awaited restructuring in March. Nothing else" in flat(plain)
    assert (plain.page(plain.text.index("turing")), plain.page(plain.text.index("Nothing"))) == ("1", "2")


def test_the_rectangle_of_each_line_is_kept(tmp_path: Path) -> None:
    """Within 2 points of where it was drawn: from the baseline up by the height of the letters."""
    lines = [(72.0, 700.0, "A first line of words."), (300.0, 400.0, "Another one elsewhere.")]

    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 10)
        for x, y, text in lines:
            canvas.drawString(x, y, text)

    plain = read(pdf(tmp_path / "a.pdf", draw))
    for (x, y, text), line in zip(lines, plain.lines, strict=True):
        assert plain.text[line.start : line.end] == text
        expected = (x, HEIGHT - y - 0.8 * 10, x + stringWidth(text, "Helvetica", 10), HEIGHT - y + 0.15 * 10)
        assert line.box == pytest.approx(expected, abs=2.0)
        assert line.page == "1"


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rectangles_are_those_of_the_page_as_it_is_shown(tmp_path: Path, turn: int) -> None:
    """A page that is turned by its own entry, with the text turned back, is upright."""

    def draw(canvas: Canvas) -> None:
        canvas.setPageRotation(turn)
        canvas.translate(300, 400)
        canvas.rotate(turn)
        canvas.setFont("Helvetica", 10)
        canvas.drawString(0, 0, "Upright words on a turned page")
        canvas.drawString(0, -14, "and a second line below them.")

    plain = read(pdf(tmp_path / "a.pdf", draw))
    assert flat(plain) == "Upright words on a turned page and a second line below them."
    first, second = (line.box for line in plain.lines)
    width = stringWidth("Upright words on a turned page", "Helvetica", 10)
    assert first[2] - first[0] == pytest.approx(width, abs=2) and first[3] - first[1] == pytest.approx(
        10, abs=2
    )
    assert second[1] - first[1] == pytest.approx(14, abs=0.2) and second[0] == pytest.approx(
        first[0], abs=0.2
    )
    shown = {90: (400.0, 300.0), 180: (A4[0] - 300, 400.0), 270: (A4[0] - 400, HEIGHT - 300)}[turn]
    assert (first[0], (first[1] + first[3]) / 2) == pytest.approx((shown[0], shown[1] - 3.5), abs=2)


def test_larger_and_bolder_lines_are_headings(tmp_path: Path) -> None:
    """By size first; a bold line of the text's size is below them."""

    def draw(canvas: Canvas) -> None:
        top = 80
        for font, size, line in [
            ("Helvetica-Bold", 18, "Storage of vaccines"),
            ("Helvetica", 10, LEFT[0]),
            ("Helvetica-Bold", 14, "Cold chain"),
            ("Helvetica", 10, RIGHT[0]),
            ("Helvetica-Bold", 10, "Logging"),
            ("Helvetica", 10, RIGHT[1]),
            ("Helvetica-Bold", 14, "Transport"),
            ("Helvetica", 10, RIGHT[2]),
        ]:
            canvas.setFont(font, size)
            canvas.drawString(60, HEIGHT - top, line)
            top += 40

    plain = read(pdf(tmp_path / "a.pdf", draw))
    sections = {section.heading: section.text for section in plain.sections()}
    assert list(sections) == [
        "Storage of vaccines",
        "Storage of vaccines > Cold chain",
        "Storage of vaccines > Cold chain > Logging",
        "Storage of vaccines > Transport",
    ]
    assert RIGHT[1] in sections["Storage of vaccines > Cold chain > Logging"]


def test_the_outline_gives_the_headings(tmp_path: Path) -> None:
    """Where a file has one, the look of the lines does not matter."""

    def draw(canvas: Canvas) -> None:
        for page, name in enumerate(["Introduction to sums", "Proof of the theorem"]):
            canvas.bookmarkPage(name)
            canvas.addOutlineEntry(name, name, level=page)
            canvas.drawString(60, HEIGHT - 80, name)
            canvas.drawString(60, HEIGHT - 100, LEFT[page])
            canvas.showPage()

    plain = read(pdf(tmp_path / "a.pdf", draw))
    assert [label for _, label in plain.headings] == [
        "Introduction to sums",
        "Introduction to sums > Proof of the theorem",
    ]


def test_a_list_keeps_its_items(tmp_path: Path) -> None:
    """A bullet belongs to its line, each item is a paragraph."""
    lines = ["•", "•", "•"], ["Wash your hands.", "Dry them.", "Put on gloves."]

    def draw(canvas: Canvas) -> None:
        column(canvas, lines[0], 60, 100)
        column(canvas, lines[1], 78, 100)

    assert read(pdf(tmp_path / "a.pdf", draw)).text.strip().split("\n\n") == [
        f"• {line}" for line in lines[1]
    ]


def test_text_that_stands_sideways_comes_last(tmp_path: Path) -> None:
    """A stamp in the margin is no line of the text."""

    def draw(canvas: Canvas) -> None:
        column(canvas, LEFT, 120, 100)
        canvas.rotate(90)
        canvas.drawString(300, -40, "arXiv:2004.04906v3 [cs.CL]")

    assert flat(read(pdf(tmp_path / "a.pdf", draw))) == f"{LEFT_TEXT} arXiv:2004.04906v3 [cs.CL]"


def test_a_password_is_the_reason_that_is_given(tmp_path: Path) -> None:
    """A file that only its owner may change is read."""
    plain = pdf(tmp_path / "plain.pdf", lambda canvas: column(canvas, LEFT, 60, 100))
    for name, user in (("locked", "secret"), ("owner", "")):
        writer = PdfWriter(clone_from=PdfReader(plain))
        writer.encrypt(user_password=user, owner_password="owner")
        writer.write(tmp_path / f"{name}.pdf")
    with pytest.raises(IngestError, match="locked by a password"):
        read_pdf(tmp_path / "locked.pdf")
    assert flat(read(tmp_path / "owner.pdf")) == LEFT_TEXT


def scan(canvas: Canvas) -> None:
    canvas.drawImage(ImageReader(Image.new("L", (600, 800), 200)), 0, 0, width=A4[0], height=HEIGHT)


def test_a_scan_names_the_extra_that_would_read_it(tmp_path: Path) -> None:
    """Pages of images alone are no text; beside pages of text they are a warning with their numbers."""
    with pytest.raises(
        IngestError, match=r"1 of 1 page is images \(a scan\)\. Set ocr .*llama-index-presets\[ocr\]"
    ):
        read_pdf(pdf(tmp_path / "scan.pdf", scan))

    def mixed(canvas: Canvas) -> None:
        column(canvas, LEFT, 60, 100)
        canvas.showPage()
        scan(canvas)
        canvas.showPage()
        canvas.showPage()

    plain = read(pdf(tmp_path / "mixed.pdf", mixed))
    assert flat(plain) == LEFT_TEXT
    assert [warning.split(":")[0] for warning in plain.warnings] == ["Page 2", "Page 3"]
    assert "a scan" in plain.warnings[0] and "no text" in plain.warnings[1]


@pytest.mark.parametrize(
    "content", [b"%PDF-1.7 not really", b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF"]
)
def test_a_damaged_file_says_so(tmp_path: Path, content: bytes) -> None:
    """Not a word of a library's internals is needed to see why."""
    path = tmp_path / "a.pdf"
    path.write_bytes(content)
    with pytest.raises(IngestError, match="cannot be read: it is no PDF or is damaged"):
        read_pdf(path)


def form(canvas: Canvas) -> None:
    column(canvas, ["Name:", "City:", "Paid:", "Open:", "Pin:"], 60, 100, step=40)
    fields = canvas.acroForm
    fields.textfield(name="name", x=120, y=HEIGHT - 105, width=200, height=20, value="Ada Lovelace")
    fields.choice(
        name="city", x=120, y=HEIGHT - 145, width=90, height=20, value="Ulm", options=["Ulm", "Bern"]
    )
    for name, top, checked in (("paid", 185, True), ("open", 225, False)):
        fields.checkbox(name=name, x=120, y=HEIGHT - top, size=16, checked=checked)
    fields.textfield(
        name="pin", x=120, y=HEIGHT - 265, width=90, height=20, value="4711", fieldFlags="password"
    )


def test_what_was_filled_into_a_form_stands_beside_its_label(tmp_path: Path) -> None:
    """It is no part of the page's own content; a password is shown by no viewer, and not read."""
    text = flat(read(pdf(tmp_path / "form.pdf", form)))
    assert text == "Name: Ada Lovelace City: Ulm Paid: ☒ Open: Pin:"


@pytest.mark.parametrize("angle", [45, -30, 60])
def test_slanted_words_stay_whole_and_stand_behind_the_text(tmp_path: Path, angle: int) -> None:
    """A watermark across a page neither falls into letters nor cuts the sentences that it crosses."""

    def draw(canvas: Canvas) -> None:
        canvas.saveState()
        canvas.translate(150, HEIGHT - 130)
        canvas.rotate(angle)
        canvas.setFont("Helvetica", 30)
        canvas.drawString(0, 0, "DRAFT COPY")
        canvas.restoreState()
        column(canvas, LEFT, 60, 100)

    assert flat(read(pdf(tmp_path / "draft.pdf", draw))) == f"{LEFT_TEXT} DRAFT COPY"


def test_lines_at_the_edge_whose_numbers_count_nothing_are_text(tmp_path: Path) -> None:
    """They differ by a number, as feet do, which is neither that of the page nor the same on another one."""

    def draw(canvas: Canvas) -> None:
        for page, number in enumerate((17, 52, 60)):
            column(canvas, [f"Item {number} was sold at noon.", *LEFT], 60, 60)
            column(canvas, [f"Annual report 2024, page {page + 3}"], 60, HEIGHT - 30)
            canvas.showPage()

    text = flat(read(pdf(tmp_path / "items.pdf", draw)))
    assert [f"Item {number} was sold at noon." in text for number in (17, 52, 60)] == [True] * 3
    assert "Annual report" not in text


SECTIONS = {
    "Premises": "The landlord lets the ground floor, with a shop of 65 square metres and a yard.",
    "Term": "The lease begins on 1 October 2021 and runs for ten years, once extended by five.",
    "Rent": "The monthly rent is 6,840 EUR plus service charges, payable on the third working day.",
    "Deposit": "The tenant provides a bank guarantee over three monthly rents with their charges.",
    "Repairs": "The roof, the facade and the load-bearing structure are the landlord's matter.",
    "Subletting": "Subletting needs the written consent of the landlord, who may refuse it for cause.",
}


def headings_of(path: Path, lines: Sequence[tuple[int, str]]) -> list[str]:
    """Headings of a page with these lines, each with its size."""
    canvas = Canvas(str(path), pagesize=(595, 842))
    for place, (size, line) in enumerate(lines):
        canvas.setFont("Helvetica", size)
        canvas.drawString(60, 790 - 30 * place, line)
    canvas.save()
    return [heading for _, heading in read_file(path, "h").plain.headings]


def test_a_short_document_of_many_sections_keeps_its_headings(tmp_path: Path) -> None:
    """A contract has a heading every second line: many lines, and few of its words."""
    lines = [line for heading, text in SECTIONS.items() for line in ((14, heading), (10, text))]
    assert headings_of(tmp_path / "lease.pdf", lines) == list(SECTIONS)


def test_a_list_in_large_letters_is_no_list_of_headings(tmp_path: Path) -> None:
    """Lines with nothing below them head nothing."""
    lines = [*((14, heading) for heading in SECTIONS), *((10, text) for text in SECTIONS.values())]
    assert headings_of(tmp_path / "flyer.pdf", lines) == []
