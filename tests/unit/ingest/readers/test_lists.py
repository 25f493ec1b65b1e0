"""Lists keep what a reader sees before their items: a dash, a number, a letter."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.readers.office import docx

from llama_index_presets.answer.confidence.units import split_units
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.markdown import plain_from_markdown
from llama_index_presets.ingest.readers.markup import read_org
from llama_index_presets.ingest.readers.office.list_numbers import marked_items, read_numbering
from llama_index_presets.ingest.readers.office.odf import read_odt
from llama_index_presets.ingest.readers.office.slides import read_pptx
from llama_index_presets.ingest.readers.office.word import read_docx


def test_items_of_markdown_keep_their_marks() -> None:
    """Steps keep their numbers, and what is announced keeps its items apart."""
    plain = plain_from_markdown("# Soup\n\nTake:\n\n- lentils\n* two carrots\n\n3. Chop.\n4. Fry.")
    assert plain.text.split() == ["Take:", "-", "lentils", "-", "two", "carrots", "3.", "Chop.", "4.", "Fry."]
    assert split_units(plain.text) == ["Take:", "- lentils", "- two carrots", "3. Chop.", "4. Fry."]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<ol><li>a<li>b</ol>", "1. a\n2. b"),
        ("<ol start=4><li>a<li value=9>b<li>c</ol>", "4. a\n9. b\n10. c"),
        ("<ol reversed><li>a<li>b</ol>", "2. a\n1. b"),
        ("<ol type=a><li>a<li>b</ol><ol type=A><li>c</ol>", "a. a\nb. b\n\nA. c"),
        ("<ul><li><p>a</p><p>b</p></ul>", "- a\n\nb"),
        ("<ol><li>a<ul><li>b</ul><li>c</ol>", "1. a\n\n- b\n\n2. c"),
        ("<ul><li><li> <li>a</ul>", "- a"),
        ("<ul><li><h2>Title</h2><p>a</p></ul>", "a"),
        ("<ol><li><b>a</b> b</ol>", "1. a b"),
        ("<ul><li>• a<li><i>–</i> b<li>-5 c</ul>", "• a\n– b\n- -5 c"),
        ("<ol><li>1. a<li>(b) b<li>4 c</ol>", "1. a\n(b) b\n3. 4 c"),
    ],
    ids=[
        "ol",
        "start",
        "reversed",
        "letters",
        "paragraphs",
        "nested",
        "empty",
        "heading",
        "bold",
        "own dash",
        "own number",
    ],
)
def test_items_of_pages_are_marked_as_a_browser_shows_them(page: str, text: str) -> None:
    """Each once, in front of its first word; none for an item without one, and none for a heading."""
    assert plain_from_html(page).text.strip() == text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<ol type=I start=3><li>a<li>b</ol><ol type=i><li>c</ol>", "III. a\nIV. b\n\ni. c"),
        ("<ol type=a start=26><li>a<li>b</ol><ol type=a start=0><li>c</ol>", "z. a\naa. b\n\n0. c"),
        ("<ol style='list-style-type: upper-roman' type=a><li>a<li value=4>b</ol>", "I. a\nIV. b"),
        ("<ol style='list-style: none'><li>a<li>b</ol>", "a\n\nb"),
        ("<ul style='list-style:none;margin:0'><li>a<ul><li>b</ul></ul>", "a\n\n- b"),
        ("<ul style='list-style: square inside'><li>a</ul>", "- a"),
        ("<ul style='list-style: none url(x.png)'><li>a</ul>", "- a"),
        ("<ul style='list-style-image: none'><li>a</ul>", "- a"),
        ("<ul><li style='list-style-type: decimal'>a<li>b</ul>", "1. a\n- b"),
        ("<ol><li style='list-style: none'>a<li>b</ol>", "a\n\n2. b"),
        ("<ol style='list-style-type: georgian'><li>a</ol>", "1. a"),
        ("<ol><li>ii. a</ol>", "ii. a"),
    ],
)
def test_items_have_the_marks_that_their_list_asks_for(page: str, text: str) -> None:
    """Roman figures and letters by attribute or style; none where a style takes it away, and then they stand apart."""
    assert plain_from_html(page).text.strip() == text


@pytest.mark.parametrize(
    ("sheet", "text"),
    [
        ("ul, ol {list-style: none}", "a\n\nb"),
        ("ol.law {list-style-type: lower-roman} ol, ul {list-style: none}", "i. a\nii. b"),
        (".law > li {list-style: upper-latin}", "A. a\nB. b"),
        ("ol {list-style: none} .law li::before {content: counter(n) '. '}", "1. a\n2. b"),
        ("ol {list-style: none} .law li:before {content: ''}", "a\n\nb"),
        ("@media print {ol {list-style: none}} /* ol {list-style: none} */", "1. a\n2. b"),
        ("ol {list-style: none !important} #x {list-style: lower-roman}", "a\n\nb"),
        ("ol:hover {list-style: none}", "1. a\n2. b"),
    ],
)
def test_the_sheet_of_a_page_says_which_marks_its_lists_have(sheet: str, text: str) -> None:
    """By the rule that says most, as in browsers; where it draws marks of its own, the usual ones stand for them."""
    page = f"<style>{sheet}</style><ol class=law id=x><li>a<li>b</ol>"
    assert plain_from_html(page).text.strip() == text


def test_items_in_a_cell_are_parts_of_its_line() -> None:
    """Marks would be taken for what the cell says."""
    page = "<table><tr><th>A<th>B<tr><td><ul><li>c<li>d</ul></td><td>2</table>"
    assert plain_from_html(page).text.strip() == "A: c, d; B: 2"


def test_numbered_items_of_word_keep_their_numbers(tmp_path: Path) -> None:
    """Word counts them itself: the numbers stand nowhere in its file."""

    def item(text: str, kind: int) -> str:
        properties = f'<w:numPr><w:ilvl w:val="0"/><w:numId w:val="{kind}"/></w:numPr>'
        return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"

    numbering = "".join(
        f'<w:abstractNum w:abstractNumId="{kind}"><w:lvl w:ilvl="0"><w:numFmt w:val="{name}"/></w:lvl></w:abstractNum>'
        for kind, name in enumerate(("decimal", "bullet"), 1)
    ) + "".join(f'<w:num w:numId="{kind}"><w:abstractNumId w:val="{kind}"/></w:num>' for kind in (1, 2))
    body = item("Chop.", 1) + item("Fry.", 1) + item("Salt", 2)
    docx(body, numbering=numbering)(tmp_path / "soup.docx")
    plain, _ = read_docx(tmp_path / "soup.docx")
    assert plain.text.split() == ["1.", "Chop.", "2.", "Fry.", "-", "Salt"]


def test_numbers_of_word_go_on_where_its_list_does(tmp_path: Path) -> None:
    """After a paragraph between, after a deeper level, from another start, in letters; a heading keeps its words."""

    def item(text: str, kind: int, depth: int = 0, style: str = "") -> str:
        named = f'<w:pStyle w:val="{style}"/>' if style else ""
        properties = f'{named}<w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="{kind}"/></w:numPr>'
        return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"

    numbering = (
        '<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="decimal"/></w:lvl>'
        '<w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="lowerLetter"/></w:lvl></w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="1"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="1"/>'
        '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride></w:num>'
    )
    body = (
        item("Chop.", 1)
        + item("finely", 1, 1)
        + item("or not", 1, 1)
        + item("Fry.", 1)
        + item("slowly", 1, 1)
    )
    body += "<w:p><w:r><w:t>Rest.</w:t></w:r></w:p>" + item("Serve.", 1) + item("Other", 2)
    docx(body, numbering=numbering)(tmp_path / "soup.docx")
    plain, _ = read_docx(tmp_path / "soup.docx")
    lines = [line for line in plain.text.split("\n") if line]
    assert lines == [
        "1. Chop.", "a. finely", "b. or not", "2. Fry.", "a. slowly", "Rest.", "3. Serve.", "7. Other",
    ]  # fmt: skip


STYLED = (
    '<w:abstractNum w:abstractNumId="1">'
    '<w:lvl w:ilvl="0"><w:numFmt w:val="upperRoman"/><w:pStyle w:val="Heading1"/><w:lvlText w:val="Part %1:"/></w:lvl>'
    '<w:lvl w:ilvl="1"><w:numFmt w:val="decimal"/><w:pStyle w:val="Heading2"/><w:isLgl/><w:lvlText w:val="%1.%2"/>'
    "</w:lvl>"
    '<w:lvl w:ilvl="2"><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="(%3)"/></w:lvl></w:abstractNum>'
    '<w:abstractNum w:abstractNumId="2">'
    '<w:lvl w:ilvl="0"><w:numFmt w:val="lowerRoman"/><w:lvlText w:val="%1)"/></w:lvl>'
    '<w:lvl w:ilvl="1"><w:numFmt w:val="none"/><w:lvlText w:val=""/></w:lvl>'
    '<w:lvl w:ilvl="6"><w:numFmt w:val="decimal"/><w:lvlText w:val="%7."/></w:lvl></w:abstractNum>'
    '<w:abstractNum w:abstractNumId="3"><w:numStyleLink w:val="Steps"/></w:abstractNum>'
) + "".join(f'<w:num w:numId="{n}"><w:abstractNumId w:val="{n}"/></w:num>' for n in (1, 2, 3))
"""A list whose levels are those of headings, one in Roman figures, and one that a style names."""

NUMBER = '<w:pPr><w:numPr><w:ilvl w:val="{}"/><w:numId w:val="{}"/></w:numPr></w:pPr>'
STYLES = (
    f'<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/>{NUMBER.format(0, 1)}</w:style>'
    '<w:style w:type="paragraph" w:styleId="Heading2"><w:name w:val="heading 2"/><w:basedOn w:val="Heading1"/>'
    "</w:style>"
    f'<w:style w:type="paragraph" w:styleId="Clause"><w:name w:val="Clause"/>{NUMBER.format(2, 1)}</w:style>'
    '<w:style w:type="paragraph" w:styleId="Sub"><w:name w:val="Sub"/><w:basedOn w:val="Clause"/></w:style>'
    f'<w:style w:type="numbering" w:styleId="Steps"><w:name w:val="Steps"/>{NUMBER.format(0, 2)}</w:style>'
)


def paragraph(text: str, style: str = "", number: str = "") -> str:
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    run = f"<w:r><w:t>{text}</w:t></w:r>" if text else ""
    return f"<w:p><w:pPr>{named}{number[len('<w:pPr>') : -len('</w:pPr>')]}</w:pPr>{run}</w:p>"


def test_numbers_that_styles_of_word_give_are_read(tmp_path: Path) -> None:
    """Of headings, in their form and in the path of sections; of paragraphs, which are then items."""
    body = (
        paragraph("Scope", "Heading1") + paragraph("Area", "Heading2") + paragraph("Wards.")
        + paragraph("first", "Clause") + paragraph("second", "Sub")
        + paragraph("Time", "Heading2") + paragraph("again", "Clause") + paragraph("", "Heading1")
        + paragraph("Price", "Heading1") + paragraph("Free.") + paragraph("none", "Clause", NUMBER.format(0, 0))
    )  # fmt: skip
    docx(body, styles=STYLES, numbering=STYLED)(tmp_path / "a.docx")
    plain, _ = read_docx(tmp_path / "a.docx")
    assert [line for line in plain.text.split("\n") if line] == [
        "Wards.", "(a) first", "(b) second", "(a) again", "Free.", "none",
    ]  # fmt: skip
    assert [label for _, label in plain.headings] == [
        "Part I: Scope",
        "Part I: Scope > 1.1 Area",
        "Part I: Scope > 1.2 Time",
        "Part III: Price",
    ]


def test_a_level_that_is_left_out_counts_as_begun(tmp_path: Path) -> None:
    """As Word and LibreOffice count: the second level alone is 1.1, and the next of the first is 2."""
    body = paragraph("Scope", "Heading2") + paragraph("a") + paragraph("Main", "Heading1") + paragraph("b")
    docx(body, styles=STYLES, numbering=STYLED)(tmp_path / "a.docx")
    plain, _ = read_docx(tmp_path / "a.docx")
    assert [label for _, label in plain.headings] == ["1.1 Scope", "Part II: Main"]


def test_lists_of_word_have_their_own_form_of_numbers(tmp_path: Path) -> None:
    """Roman figures of a list that a style names, a level without marks, and one deeper than HTML of it goes."""
    body = "".join(
        paragraph(text, "", NUMBER.format(depth, kind))
        for text, depth, kind in (("a", 0, 3), ("b", 0, 3), ("c", 1, 3), ("d &lt; e", 0, 2), ("f", 6, 2))
    )
    docx(body, styles=STYLES, numbering=STYLED)(tmp_path / "a.docx")
    plain, _ = read_docx(tmp_path / "a.docx")
    assert [line for line in plain.text.split("\n") if line] == ["i) a", "ii) b", "c", "iii) d < e", "1. f"]


def test_an_item_that_was_deleted_is_not_counted(tmp_path: Path) -> None:
    """A tracked deletion shows nothing; an empty item shows its number, and counts."""
    gone = paragraph("", "", NUMBER.format(0, 2)).replace("</w:pPr>", "<w:rPr><w:del/></w:rPr></w:pPr>")
    body = paragraph("a", "", NUMBER.format(0, 2)) + gone + paragraph("b", "", NUMBER.format(0, 2))
    body += paragraph("", "", NUMBER.format(0, 2)) + paragraph("c", "", NUMBER.format(0, 2))
    docx(body, styles=STYLES, numbering=STYLED)(tmp_path / "a.docx")
    assert read_docx(tmp_path / "a.docx")[0].text.split() == ["i)", "a", "ii)", "b", "iv)", "c"]


def test_numbers_of_opendocument_go_on_where_its_list_does(tmp_path: Path) -> None:
    """As a list of the same style, or of a name, or from the number of an item; in letters where the style says so."""
    level = '<text:list-style style:name="{0}"><text:list-level-style-number text:level="1" style:num-format="{1}"/>'
    styles = "".join(f"{level.format(*one)}</text:list-style>" for one in (("L1", "1"), ("L2", "a")))

    def items(attributes: str, *texts: str, start: str = "") -> str:
        inner = "".join(f"<text:list-item{start}><text:p>{text}</text:p></text:list-item>" for text in texts)
        return f"<text:list {attributes}>{inner}</text:list>"

    body = items('text:style-name="L1" xml:id="one"', "Chop.", "Fry.") + "<text:p>Rest.</text:p>"
    body += items('text:style-name="L1" text:continue-numbering="true"', "Serve.")
    body += items('text:style-name="L2"', "salt", "oil") + items('text:style-name="L1"', "New")
    body += items('text:style-name="L1" text:continue-list="one"', "After")
    body += items('text:style-name="L1"', "Ninth", start=' text:start-value="9"')
    odt(tmp_path / "soup.odt", styles, body)
    plain, _ = read_odt(tmp_path / "soup.odt")
    lines = [line for line in plain.text.split("\n") if line]
    assert lines == [
        "1. Chop.", "2. Fry.", "Rest.", "3. Serve.", "a. salt", "b. oil", "1. New", "3. After", "9. Ninth",
    ]  # fmt: skip


def odt(path: Path, styles: str, body: str, common: str = "") -> None:
    """Write a text document, with styles of its content and those that a file has beside it."""
    names = (
        'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        archive.writestr(
            "content.xml",
            f"<office:document-content {names}><office:automatic-styles>{styles}</office:automatic-styles>"
            f"<office:body><office:text>{body}</office:text></office:body></office:document-content>",
        )
        if common:
            archive.writestr(
                "styles.xml",
                f"<office:document-styles {names}><office:styles>{common}</office:styles></office:document-styles>",
            )


def odt_level(
    level: int, kind: str, form: str = "", shown: int = 1, name: str = "list-level-style-number"
) -> str:
    """A level of a list; `form` is what stands around the number, as in "(*)"."""
    before, star, after = form.partition("*")
    around = f'style:num-prefix="{before}" style:num-suffix="{after}"' if star else ""
    return f'<text:{name} text:level="{level}" style:num-format="{kind}" text:display-levels="{shown}" {around}/>'


def odt_style(name: str, *levels: str) -> str:
    return f'<text:list-style style:name="{name}">{"".join(levels)}</text:list-style>'


def odt_list(style: str, *items: str) -> str:
    named = f' text:style-name="{style}"' if style else ""
    return f"<text:list{named}>{''.join(f'<text:list-item>{item}</text:list-item>' for item in items)}</text:list>"


def test_headings_and_styles_of_opendocument_count(tmp_path: Path) -> None:
    """By the outline, which stands in the file of styles, and by lists that a paragraph's style names."""
    outline = "".join(
        odt_level(level, kind, form, shown, "outline-level-style")
        for level, kind, form, shown in ((1, "I", "Part *:", 1), (2, "1", "*", 2), (3, "", "", 1))
    )
    common = (
        f"<text:outline-style>{outline}</text:outline-style>"
        f"{odt_style('Steps', odt_level(1, 'i', '*)'))}"
        '<style:style style:name="Step" style:family="paragraph" style:list-style-name="Steps"/>'
        '<style:style style:name="P1" style:family="paragraph" style:parent-style-name="Step"/>'
        '<style:style style:name="Free" style:family="paragraph" style:list-style-name=""/>'
    )
    body = "".join(
        f'<text:h text:outline-level="{level}"{more}>{text}</text:h>'
        for level, text, more in (
            (1, "Scope", ""),
            (2, "Area", ""),
            (2, "Time", ""),
            (3, "Days", ""),
            (1, "Annex", ' text:style-name="Free"'),
            (1, "Notes", ' text:is-list-header="true"'),
            (1, "Price", ""),
        )
    ) + odt_list(
        "", '<text:p text:style-name="P1">wash</text:p>', '<text:p text:style-name="P1">dry</text:p>'
    )
    odt(tmp_path / "a.odt", "", body, common)
    plain, _ = read_odt(tmp_path / "a.odt")
    assert [label for _, label in plain.headings] == [
        "Part I: Scope", "Part I: Scope > I.1 Area", "Part I: Scope > I.2 Time", "Part I: Scope > I.2 Time > Days",
        "Annex", "Notes", "Part II: Price",
    ]  # fmt: skip
    assert plain.text.split("\n\n")[-3:] == ["i) wash", "ii) dry", ""]


def test_lists_of_opendocument_have_their_own_form_of_numbers(tmp_path: Path) -> None:
    """Numbers of several levels, brackets, Roman figures, none at all, and those that the file has written out."""
    levels = odt_level(1, "1", "*."), odt_level(2, "1", "*.", shown=2), odt_level(3, "a", "(*)")
    styles = odt_style("L1", *levels) + odt_style("L2", odt_level(1, ""))
    deep = odt_list("", "<text:p>c</text:p>", "<text:p>d</text:p>" + odt_list("", "<text:p>e</text:p>"))
    body = odt_list("L1", "<text:p>a</text:p>", "<text:p>b</text:p>" + deep, "<text:p>f</text:p>")
    body += odt_list("L2", "<text:p>g</text:p>")
    body += odt_list("L1", "<text:number>§ 7</text:number><text:p>h</text:p>")
    body += odt_list("L1", odt_list("", odt_list("", "<text:p>alone</text:p>")))
    odt(tmp_path / "a.odt", styles, body)
    plain, _ = read_odt(tmp_path / "a.odt")
    assert [line for line in plain.text.split("\n") if line] == [
        "1. a", "2. b", "2.1. c", "2.2. d", "(a) e", "3. f", "g", "§ 7 h", "(a) alone",
    ]  # fmt: skip


def test_numbered_items_of_opendocument_keep_their_numbers(tmp_path: Path) -> None:
    """Their style says that they are numbered; a list inside another has its style at the next level."""
    styles = (
        '<text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1"/>'
        '<text:list-level-style-bullet text:level="2"/></text:list-style>'
    )
    body = (
        '<text:list text:style-name="L1"><text:list-item><text:p>Chop.</text:p>'
        "<text:list><text:list-item><text:p>finely</text:p></text:list-item></text:list></text:list-item>"
        "<text:list-item><text:p>Fry.</text:p></text:list-item></text:list>"
    )
    odt(tmp_path / "soup.odt", styles, body)
    plain, _ = read_odt(tmp_path / "soup.odt")
    assert plain.text.split() == ["1.", "Chop.", "-", "finely", "2.", "Fry."]


def test_bullets_and_numbers_of_slides_are_read(tmp_path: Path) -> None:
    """Those of a paragraph, of the layout and of the master; numbers go on over deeper levels, and begin anew after
    others."""
    import pptx
    from lxml import etree
    from pptx.util import Inches

    def mark(paragraph: Any, name: str, **attributes: str) -> None:
        space = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
        etree.SubElement(paragraph._p.get_or_add_pPr(), space + name, attributes)

    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Steps"
    texts = slide.placeholders[1].text_frame
    texts.text = "as the master has it"
    rows: list[tuple[str, int, str, dict[str, str]]] = [
        ("wash", 0, "buAutoNum", {"type": "arabicPeriod"}),
        ("deeper", 1, "", {}),
        ("dry", 0, "buAutoNum", {"type": "arabicPeriod"}),
        ("", 0, "buAutoNum", {"type": "arabicPeriod"}),
        ("iron", 0, "buAutoNum", {"type": "arabicPeriod"}),
        ("a pause", 0, "buNone", {}),
        ("again", 0, "buAutoNum", {"type": "arabicPeriod"}),
        ("third", 0, "buAutoNum", {"type": "romanLcParenBoth", "startAt": "3"}),
        ("fourth\vin two lines", 0, "buAutoNum", {"type": "romanLcParenBoth", "startAt": "3"}),
        ("later", 0, "buAutoNum", {"type": "alphaUcParenR", "startAt": "27"}),
    ]
    for text, level, name, attributes in rows:
        paragraph = texts.add_paragraph()
        paragraph.text, paragraph.level = text, level
        if name:
            mark(paragraph, name, **attributes)
    box = slide.shapes.add_textbox(Inches(1), Inches(6), Inches(3), Inches(1)).text_frame
    box.text = "A box has none."
    opening = deck.slides.add_slide(deck.slide_layouts[0])
    opening.placeholders[1].text = "nor has a subtitle"
    deck.save(tmp_path / "a.pptx")
    plain, _ = read_pptx(tmp_path / "a.pptx")
    assert [line for line in plain.text.split("\n") if line] == [
        "- as the master has it", "1. wash", "- deeper", "2. dry", "3. iron", "a pause", "1. again", "(iii) third",
        "(iv) fourth", "in two lines", "AA) later", "A box has none.", "nor has a subtitle",
    ]  # fmt: skip


def test_lists_without_end_take_no_time(tmp_path: Path) -> None:
    """Styles times lists, levels times headings, and signs of Word's own making took minutes in files of kilobytes."""
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    levels = "".join(f'<w:lvl w:ilvl="{depth}"/>' for depth in range(800))
    lists = "".join(f'<w:num w:numId="{one}"><w:abstractNumId w:val="0"/></w:num>' for one in range(3_000))
    styles = "".join(f'<w:style w:styleId="s{one}" w:type="paragraph"/>' for one in range(3_000))
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("word/styles.xml", f"<w:styles {space}>{styles}</w:styles>")
        kind = f'<w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>'
        archive.writestr("word/numbering.xml", f"<w:numbering {space}>{kind}{lists}</w:numbering>")
    level = '<text:outline-level-style text:level="99999" text:display-levels="99999" style:num-format="1"/>'
    heading = '<text:h text:outline-level="99999">Use</text:h>'
    odt(tmp_path / "a.odt", f"<text:outline-style>{level}</text:outline-style>", heading * 2_000)
    begun = time.process_time()
    with zipfile.ZipFile(tmp_path / "parts.zip") as archive:
        assert len(read_numbering(archive).levels) == 9 * 3_000
    assert read_odt(tmp_path / "a.odt")[0].text.split() == ["Use"] * 2_000
    assert len(marked_items("\ue000" * 300_000)) == 300_000
    assert time.process_time() - begun < 8


def test_items_of_org_keep_their_numbers_and_its_title_is_a_heading(tmp_path: Path) -> None:
    """Numbers stand in the file; the title stands above the first heading."""
    (tmp_path / "a.org").write_text("#+TITLE: Soup\nHot.\n* Steps\n1. Chop\n2. Fry\n- salt :: a pinch\n")
    plain, _ = read_org(tmp_path / "a.org")
    assert [line for line in plain.text.split("\n") if line] == [
        "Hot.",
        "1. Chop",
        "2. Fry",
        "- salt: a pinch",
    ]
    assert [label for _, label in plain.headings] == ["Soup", "Steps"]
