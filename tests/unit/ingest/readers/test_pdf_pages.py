"""Pages of a PDF that repeat, are written downwards, or cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pypdfium2
import pypdfium2.raw
import pytest
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.pdfmetrics import registerFont
from reportlab.pdfgen.canvas import Canvas

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.readers.pdf.characters import Characters
from llama_index_presets.ingest.readers.pdf.reader import read_pdf
from llama_index_presets.ingest.readers.pdf.vertical import vertical_words
from llama_index_presets.ingest.readers.pdf.word import Word

HEIGHT = A4[1]


def read(path: Path, draw: Callable[[Canvas], None]) -> tuple[str, tuple[str, ...]]:
    canvas = Canvas(str(path), pagesize=A4)
    draw(canvas)
    canvas.save()
    plain = read_pdf(path)[0]
    return " ".join(plain.text.split()), tuple(plain.warnings)


def test_a_page_that_occurs_twice_keeps_what_stands_at_its_edges(tmp_path: Path) -> None:
    """A letter scanned or printed twice would lose its date and its salutation."""

    def draw(canvas: Canvas) -> None:
        for _ in range(2):
            canvas.drawString(60, HEIGHT - 60, "4 May 2023, to all members")
            canvas.drawString(60, HEIGHT - 300, "The pump was replaced in spring.")
            canvas.drawString(60, 40, "With regards, the board")
            canvas.showPage()

    once = "4 May 2023, to all members The pump was replaced in spring. With regards, the board"
    assert read(tmp_path / "a.pdf", draw)[0] == f"{once} {once}"


def test_heads_of_other_pages_are_left_out_beside_repeated_pages(tmp_path: Path) -> None:
    """A page that occurs twice counts once, and the head goes from all of them."""

    def draw(canvas: Canvas) -> None:
        for text in ("Pumps are listed.", "Valves are listed.", "Valves are listed.", "Pipes are listed."):
            canvas.drawString(60, HEIGHT - 40, "Plant report of the north")
            canvas.drawString(60, HEIGHT - 300, text)
            canvas.showPage()

    text, _ = read(tmp_path / "a.pdf", draw)
    assert text == "Pumps are listed. Valves are listed. Valves are listed. Pipes are listed."


def test_pages_with_nothing_but_the_same_line_are_not_empty(tmp_path: Path) -> None:
    """What repeats at the edge is all that they say."""

    def draw(canvas: Canvas) -> None:
        for page in range(3):
            canvas.drawString(60, HEIGHT - 40, "This page is left blank on purpose")
            canvas.drawString(60, 40, f"Page {page + 1}")
            canvas.showPage()

    assert read(tmp_path / "a.pdf", draw)[0].count("left blank on purpose") == 3


def vertical_font() -> str:
    font = UnicodeCIDFont("HeiseiMin-W3", isVertical=True)
    registerFont(font)
    return str(font.fontName)


def test_vertical_lines_are_read_downwards_and_from_right_to_left(tmp_path: Path) -> None:
    """Japanese and Chinese books are printed so; read across, no word of them would be whole."""
    lines = ["水道のポンプは春に交換された。", "弁は一九年から漏れている。", "検査は毎月行う。"]

    def draw(canvas: Canvas) -> None:
        canvas.setFont(vertical_font(), 12)
        for number, line in enumerate(lines):
            canvas.drawString(500 - 24 * number, 600, line)

    text, _ = read(tmp_path / "a.pdf", draw)
    assert [line in text for line in lines] == [True, True, True]
    assert text.index(lines[0]) < text.index(lines[1]) < text.index(lines[2])


def test_a_vertical_line_has_its_rectangle(tmp_path: Path) -> None:
    """As narrow as a character, and as high as the line."""
    canvas = Canvas(str(tmp_path / "a.pdf"), pagesize=A4)
    canvas.setFont(vertical_font(), 12)
    canvas.drawString(500, 600, "弁は一九年から漏れている。")
    canvas.save()
    (line,) = read_pdf(tmp_path / "a.pdf")[0].lines
    assert line.box == pytest.approx((494, HEIGHT - 600, 506, HEIGHT - 600 + 13 * 12), abs=2)


def place(text: str, x: float, baseline: float, em: float = 10) -> Word:
    return Word(text, x, x + em, baseline, em)


def test_a_number_may_stand_upright_in_a_vertical_line() -> None:
    """Two or three figures take the place of a character; a line of Latin letters is none."""
    words = [
        place(char, 300, 100 + 11 * n)
        for n, char in enumerate(["令", "和", "12", "年", "春", "に", "交", "換"])
    ]
    latin = [place(char, 100, 100 + 11 * n) for n, char in enumerate("ABCDEFGH")]
    rest, lines = vertical_words([*words, *latin], 400)
    assert [word.text for word in lines] == ["令和12年春に交換"]
    assert [word.text for word in rest] == list("ABCDEFGH")
    assert (lines[0].x0, lines[0].x1) == (100 - 8.5, 100 + 7 * 11 + 1.5)
    assert lines[0].baseline == 400 - 300 - 1.5


def test_a_column_of_single_letters_is_not_a_line(tmp_path: Path) -> None:
    """Only East Asian characters are written downwards; cells of a table stand further apart, too."""
    registerFont(UnicodeCIDFont("HeiseiMin-W3"))

    def draw(canvas: Canvas) -> None:
        canvas.setFont("HeiseiMin-W3", 12)
        for place, (name, state) in enumerate(zip("ABCDE", "有無有無有", strict=True)):
            canvas.drawString(60, HEIGHT - 120 - 30 * place, name)
            canvas.drawString(120, HEIGHT - 120 - 30 * place, state)

    text, _ = read(tmp_path / "a.pdf", draw)
    assert "有無" not in text and "AB" not in text


def two_pages(canvas: Canvas) -> None:
    canvas.drawString(60, HEIGHT - 300, "The first page is whole.")
    canvas.showPage()
    canvas.drawString(60, HEIGHT - 300, "Xyz")
    canvas.showPage()


def test_codes_that_are_no_characters_are_counted_as_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken fonts map letters to numbers beyond Unicode; they end neither the page nor the document."""
    codes_of = Characters._codes

    def broken(self: Characters, count: int) -> object:
        codes, text = codes_of(self, count)
        for char in "Xyz":
            codes[codes == ord(char)] = 2**32 - 9
        return codes, text

    monkeypatch.setattr(Characters, "_codes", broken)
    text, warnings = read(tmp_path / "a.pdf", two_pages)
    assert text == "The first page is whole. \ufffd\ufffd\ufffd"
    assert warnings == ("Page 2: its fonts do not say which characters they draw.",)


def test_a_page_that_cannot_be_read_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named in a warning; a document of such pages alone is refused with their reason."""
    runs_of = Characters.runs

    def broken(self: Characters) -> object:
        if "X" in self.text:
            raise OverflowError("too large")
        return runs_of(self)

    monkeypatch.setattr(Characters, "runs", broken)
    text, warnings = read(tmp_path / "a.pdf", two_pages)
    assert text == "The first page is whole."
    assert warnings == ("Page 2: it is damaged (too large).",)
    with pytest.raises(IngestError, match=r"holds no text: Page 1: it is damaged .too large"):
        read(tmp_path / "b.pdf", lambda canvas: canvas.drawString(60, 300, "Xyz"))


def test_characters_are_those_that_the_library_gives_one_by_one(tmp_path: Path) -> None:
    """Their codes and boxes, asked for at once, with white space, hyphens and letters beyond ASCII among them."""
    canvas = Canvas(str(tmp_path / "a.pdf"), pagesize=A4)
    for number, line in enumerate(
        ["The pump is inspec-", "ted \u00e9very month, fi \u2013 12 %.", "", "  \u2022 dry"]
    ):
        canvas.drawString(60, HEIGHT - 100 - 14 * number, line)
    canvas.save()
    raw, rect = pypdfium2.raw, pypdfium2.raw.FS_RECTF()
    document = pypdfium2.PdfDocument(tmp_path / "a.pdf")
    page = document[0].get_textpage()
    characters = Characters(raw, page)
    assert len(characters) == page.count_chars() > 50
    for place in range(len(characters)):
        assert characters.codes[place] == raw.FPDFText_GetUnicode(page.raw, place)
        raw.FPDFText_GetLooseCharBox(page.raw, place, rect)
        assert characters.box(place) == (rect.left, rect.bottom, rect.right, rect.top)
    words = [characters.text[run.start : run.end] for run in characters.runs()]
    assert [word for word in words if word.isascii() and word.isprintable()] == [
        "The", "pump", "is", "month,", "fi", "12", "%.", "dry",
    ]  # fmt: skip
