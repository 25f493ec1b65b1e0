"""A small file that stands for a very large text is refused while it is read, never unpacked whole."""

from __future__ import annotations

import base64
import itertools
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import pytest
from llama_index.core.schema import TextNode
from PIL import Image
from selectolax.lexbor import LexborHTMLParser as HTMLParser
from tests.unit.ingest.test_read import write_pdf

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.chunking.cut import cut
from llama_index_presets.ingest.images import read_picture
from llama_index_presets.ingest.limits import SizeLimit, warn_of_many_chunks
from llama_index_presets.ingest.metadata.document_metadata import (
    about_front_matter,
    about_head_lines,
    plain_values,
)
from llama_index_presets.ingest.plain_text import is_table_caption
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.html.visibility import hidden_by_sheet
from llama_index_presets.ingest.readers.markdown import plain_from_markdown
from llama_index_presets.ingest.sources.source import sources

ONE = SizeLimit(1)
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def write_docx(path: Path, text: str) -> Path:
    body = (
        f'<w:document xmlns:w="{WORD}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", body)
    return path


def test_a_docx_that_expands_too_far_is_refused(tmp_path: Path) -> None:
    """3 MB of one letter fit into some kilobytes; below the limit it is read."""
    path = write_docx(tmp_path / "a.docx", "a" * 3_000_000)
    assert path.stat().st_size < 10_000
    with pytest.raises(IngestError, match="expands to more than 1 MB. Split it, or raise max_document_mb"):
        read_file(path, "h", ONE)
    assert len(read_file(path, "h", SizeLimit(4)).plain.text) >= 3_000_000


def test_the_size_that_an_archive_declares_is_not_trusted(tmp_path: Path) -> None:
    """A member of 3 MB that says 10 bytes is measured, not believed."""
    path = write_docx(tmp_path / "a.docx", "a" * 3_000_000)
    raw = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = raw.index(signature)
        struct.pack_into("<I", raw, place + at, 10)
    path.write_bytes(raw)
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].file_size == 10
    with pytest.raises(IngestError, match="expands to more than 1 MB"):
        ONE.check_archive(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_no_document_uses_are_refused(tmp_path: Path, method: int) -> None:
    """Both unpack a few bytes to gigabytes in one step."""
    with zipfile.ZipFile(tmp_path / "a.epub", "w", method) as archive:
        archive.writestr("a", "a" * 1000)
    with pytest.raises(IngestError, match=f"method {method}"):
        ONE.check_archive(tmp_path / "a.epub")


def test_media_that_is_packed_already_does_not_count_against_the_limit(tmp_path: Path) -> None:
    """A presentation of many pictures takes what it takes, but does not expand."""
    with zipfile.ZipFile(tmp_path / "a.pptx", "w") as archive:
        archive.writestr("ppt/media/image1.png", bytes(3_000_000))
    ONE.check_archive(tmp_path / "a.pptx")


def test_a_large_text_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A log of gigabytes does not fill the memory."""
    with (tmp_path / "a.log").open("wb") as file:
        file.truncate(2_000_000)
    with pytest.raises(IngestError, match=r"has 2.0 MB"):
        read_file(tmp_path / "a.log", "h", ONE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.csv", "n" * 90_000 + ",b\n" + "1,2\n" * 50),
        (
            "names.html",
            "<table><tr><th>" + "n" * 3_000 + "<th>b" + "<tr><td>1<td>2" * 400 + "</table>",
        ),
        ("title.html", ("<h1>" + "t" * 400 + "</h1>") + "<h2>s</h2><p>x</p>" * 9),
    ],
)
def test_names_that_repeat_in_every_row_are_counted(tmp_path: Path, name: str, content: str) -> None:
    """A long column name stands in each row: 50 of 90,000 characters are more than a megabyte, as are 400 of 3,000."""
    (tmp_path / name).write_text(content)
    if name == "title.html":
        headings = read_file(tmp_path / name, "h", ONE).plain.headings
        assert max(len(label) for _, label in headings) <= 400 + len(" > s")
        return
    with pytest.raises(IngestError, match="more than 1 MB of text"):
        read_file(tmp_path / name, "h", ONE)


def test_the_pages_of_a_pdf_are_counted_as_they_are_read(tmp_path: Path) -> None:
    """Reading ends at the page that is too much."""
    path = write_pdf(tmp_path / "a.pdf", ["word " * 40] * 3)
    pages = SizeLimit.texts(ONE, ("x" * 600_000 for _ in range(3)))
    with pytest.raises(IngestError, match="more than 1 MB of text"):
        list(pages)
    assert "word" in read_file(path, "h", ONE).plain.text


def test_a_picture_has_at_most_as_many_millions_of_pixels(tmp_path: Path) -> None:
    """1,100 x 1,000 pixels are more than a million."""
    Image.new("1", (1_100, 1_000)).save(tmp_path / "a.png")
    with pytest.raises(IngestError, match=r"1,100 . 1,000 pixels"):
        read_picture(tmp_path / "a.png", "h", ONE)


def test_aliases_in_front_matter_are_refused(tmp_path: Path) -> None:
    """Ten lines of aliases of aliases are 10^9 values."""
    names = "abcdefghij"
    lines = [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in itertools.pairwise(names)]
    (tmp_path / "bomb.md").write_text("---\na: &a [x]\n" + "\n".join(lines) + "\n---\nText.")
    with pytest.raises(IngestError, match="aliases, such as .name, are not read"):
        read_file(tmp_path / "bomb.md", "h")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("a: " + "x" * 20_001, "has 20,004 characters; at most 20,000"),
        ("a: " + "[" * 5_000, "front matter is not YAML"),
        ("a: " + "9" * 5_000, "front matter is not YAML"),
        ("date: 2021-13-45", "front matter is not YAML"),
    ],
)
def test_front_matter_that_is_too_much_is_one_clear_error(block: str, message: str) -> None:
    """Too long, too deep, a number of thousands of digits, a date that does not exist."""
    with pytest.raises(IngestError, match=message):
        about_front_matter(f"---\n{block}\n---\nText.")


def test_what_a_file_says_of_itself_is_bounded() -> None:
    """Each chunk carries it, so a million authors would be stored a million times."""
    found = plain_values(
        {"authors": ["A. Noether"] * 10**5, "huge": 10**40, "nan": float("nan"), "after": "kept?"}
    )
    assert found == {"authors": ["A. Noether"] * ((20_000 - len("authors")) // len("A. Noether"))}


def test_white_space_between_authors_takes_no_time() -> None:
    """A pattern that tries every beginning in a run of spaces took minutes for this line."""
    assert about_head_lines("Authors: A" + " " * 15_000 + "B")["authors"] == ["A B"]
    assert not is_table_caption("Table 1" + "a" * 1_000_000 + "!")


@pytest.mark.parametrize("opening", ["<!--", "<![CDATA[", "<a ", "<a b='", "</", "<?"])
def test_html_that_is_never_closed_is_read(opening: str) -> None:
    """Python's parser searches to the end of the file for each opening: minutes for these 200 to 450 kB."""
    assert plain_from_html("<p>Text.</p>" + opening * 50_000).text.startswith("Text.")


@pytest.mark.parametrize("sheet", ["x", "/* ", "@media ", "@media{", "a{", "<style>"])
def test_a_style_sheet_that_never_ends_is_looked_through_once(sheet: str) -> None:
    """A page that was cut off in its style sheet has no end of it, and a megabyte without a brace is no rule."""
    assert (
        hidden_by_sheet(HTMLParser(f"<p>Cats purr.</p><style>{sheet * (1_000_000 // len(sheet))}")) == set()
    )


@pytest.mark.parametrize(
    ("name", "gap"), [("a.txt", " "), ("a.txt", "\t"), ("a.txt", " | "), ("a.csv", " "), ("a.tsv", " ")]
)
def test_a_long_gap_in_a_line_is_looked_through_once(tmp_path: Path, name: str, gap: str) -> None:
    """Records of a fixed length are filled up with blanks."""
    path = tmp_path / name
    path.write_text(f"Pump{gap * (200_000 // len(gap))}closed\nValve,open\nSeal,tight\nSump,dry\n")
    text = read_file(path, "h", ONE).plain.text
    assert all(word in text for word in ("Pump", "closed", "Valve", "dry"))


def test_html_that_nests_deeper_than_python_recurses_is_read() -> None:
    """Pages of old have thousands of tags that nothing closes; a table in a table is read once."""
    assert plain_from_html("<p>word " * 3_000).text.split() == ["word"] * 3_000
    assert plain_from_html("<table><tr><td>word " * 300).text.split() == ["word"] * 300
    assert plain_from_html("<h1>word " * 1_000).text.split().count("word") <= 1_000


def test_an_address_that_many_links_use_is_written_once() -> None:
    """A reference of 100 kB and 2,000 links to it would be 200 MB of HTML."""
    text = "[a]: http://x/" + "y" * 100_000 + "\n\n" + "[a] " * 2_000
    assert plain_from_markdown(text).text.split() == ["a"] * 2_000


def test_entities_in_a_docx_do_not_multiply(tmp_path: Path) -> None:
    """The parser stops at an amplification that no document has."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "x" * 10}">' for n in range(10))
    body = f'<!DOCTYPE d [{entities}]><w:document xmlns:w="{WORD}"><w:t>&e9;</w:t></w:document>'
    with zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", body)
    with pytest.raises(IngestError, match="cannot be read"):
        read_file(tmp_path / "a.docx", "h")


def test_a_damaged_member_is_the_readers_to_name(tmp_path: Path) -> None:
    """Measuring does not hide what is wrong with a file."""
    path = write_docx(tmp_path / "a.docx", "a" * 1000)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(raw[60:70], b"\xff" * 10, 1))
    with pytest.raises(IngestError, match="cannot be read"):
        read_file(path, "h", ONE)


def _packed_pdf(path: Path, content: bytes, filters: str = "/FlateDecode", listed: int = 1) -> Path:
    """A page whose content is a packed stream, named several times where `listed` is."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents["
        + b"4 0 R " * listed
        + b"]/Resources<</Font<</F 5 0 R>>>>>>",
        f"<</Filter[{filters}]/Length {len(content)}>>stream\n".encode() + content + b"\nendstream",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    path.write_bytes(
        b"%PDF-1.5\n"
        + b"".join(b"%d 0 obj\n%b\nendobj\n" % (number, one) for number, one in enumerate(objects, start=1))
        + b"trailer\n<</Size 6/Root 1 0 R>>\n%%EOF"
    )
    return path


def _content(spaces: int) -> bytes:
    return zlib.compress(b"BT /F 12 Tf 50 700 Td (Words that stay.) Tj ET\n" + b" " * spaces, 9)


@pytest.mark.parametrize(
    ("content", "filters"),
    [
        (_content(3_000_000), "/FlateDecode"),
        (zlib.compress(_content(3_000_000)), "/FlateDecode/FlateDecode"),
        (base64.a85encode(_content(3_000_000)) + b"~>", "/ASCII85Decode/FlateDecode"),
        (_content(3_000_000).hex().encode() + b">", "/ASCIIHexDecode/FlateDecode"),
        (_content(3_000_000).hex().encode()[:-1] + b"\n>", "/ASCIIHexDecode/FlateDecode"),
    ],
    ids=["flate", "twice", "ascii85", "hex", "odd hex"],
)
def test_a_pdf_whose_content_expands_too_far_is_refused(tmp_path: Path, content: bytes, filters: str) -> None:
    """pdfium would unpack up to a gigabyte of it, and hold it twice; below the limit it is read."""
    path = _packed_pdf(tmp_path / "a.pdf", content, filters)
    assert path.stat().st_size < 10_000
    with pytest.raises(IngestError, match=r"expands to more than 1 MB\. Split it, or raise max_document_mb"):
        read_file(path, "h", ONE)
    assert read_file(path, "h", SizeLimit(4)).plain.text.strip() == "Words that stay."


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_a_stream_begins_behind_its_line_end(tmp_path: Path, end: bytes) -> None:
    """As programs on Windows and old ones write it; a byte too early it would look like no packed stream."""
    path = _packed_pdf(tmp_path / "a.pdf", _content(3_000_000))
    path.write_bytes(path.read_bytes().replace(b">>stream\n", b">>stream" + end))
    with pytest.raises(IngestError, match="expands to more than 1 MB"):
        read_file(path, "h", ONE)


def test_content_that_a_pdf_names_again_counts_again(tmp_path: Path) -> None:
    """Ten times 400 kB on one page are 4 MB."""
    path = _packed_pdf(tmp_path / "a.pdf", _content(400_000), listed=10)
    with pytest.raises(IngestError, match="expands to more than 1 MB"):
        read_file(path, "h", ONE)
    assert read_file(_packed_pdf(path, _content(400_000)), "h", ONE).plain.text.strip() == "Words that stay."


def test_a_string_that_looks_like_a_stream_hides_none(tmp_path: Path) -> None:
    """What a string says ends nothing: the stream behind it is measured, whatever number it seems to have."""
    path = _packed_pdf(tmp_path / "a.pdf", _content(3_000_000))
    for hiding in (b"(stream\n)", b"(9 0 obj)", b"(obj)"):
        path.write_bytes(path.read_bytes().replace(b"<</Filter", b"<</A" + hiding + b"/Filter"))
        with pytest.raises(IngestError, match="expands to more than 1 MB"):
            read_file(path, "h", ONE)


@pytest.mark.parametrize(
    "filler",
    [
        b"1 0 obj<<>>stream\nx\nendstream endobj " * 20_000,
        b"0" * 1_000_000 + b"stream\n",
        b"(stream) " * 200_000,
        b"/Contents [" + b"1" * 1_000_000,
    ],
    ids=["many streams", "digits", "words", "contents"],
)
def test_streams_are_found_in_one_pass(tmp_path: Path, filler: bytes) -> None:
    """A megabyte of many small streams, or of what begins like one, does not take minutes to look through."""
    path = _packed_pdf(tmp_path / "a.pdf", _content(3_000_000))
    path.write_bytes(b"%PDF-1.5\n" + filler + b"\n" + path.read_bytes())
    with pytest.raises(IngestError, match="expands to more than 1 MB"):
        read_file(path, "h", ONE)


def test_a_document_of_many_chunks_says_what_it_takes_before_it_is_cut() -> None:
    """A thousand chunks of 500 characters are enough to tell that 50 million characters make 100,000."""
    chunks = [
        TextNode(text="a" * 500, start_char_idx=at, end_char_idx=at + 500) for at in range(0, 600_000, 500)
    ]
    taken = iter(chunks)
    with pytest.warns(UserWarning, match=r"makes some 100,000 chunks.* about 4 GB of memory.*Split the file"):
        warn_of_many_chunks("log.txt", 50_000_000, taken)
    assert len(list(taken)) == len(chunks) - 1_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_many_chunks("log.txt", 20_000_000, iter(chunks))


def test_an_ingest_says_what_a_long_document_takes(tmp_path: Path) -> None:
    """Before its first chunk is made for good."""
    (tmp_path / "log.txt").write_text("a word of a log, and more\n" * 400_000, encoding="utf-8")
    chunker = _Stopping(tokenize=str.split, max_tokens=30)
    with pytest.warns(UserWarning, match=r"log\.txt' makes some"), pytest.raises(StopAsyncIteration):
        cut(sources(str(tmp_path))[0], chunker)


class _Stopping(SentenceChunker):
    """Cuts nothing for good."""

    def chunks(self, source: SourceText) -> list[TextNode]:
        raise StopAsyncIteration
