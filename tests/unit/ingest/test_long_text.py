"""Long plain text is read part by part, and gives the chunks that it gave as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking import long_text as module
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.chunking.long_text import TextInParts, long_text
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.text import read_text
from llama_index_presets.text.languages import detect_language, detect_language_of_stretches

TEXTS = {
    "log": "".join(f"{n:05} INFO pump {n * 7919 % 1000} started\n" for n in range(3_000)),
    "paragraphs": "".join(f"Das Ventil {n} ist undicht. Es wird ersetzt.\n\n" for n in range(2_000)),
    "Windows": "".join(f"line {n}\r\n" for n in range(9_000)),
    "controls": "".join(f"\x1b[31m{n}\x1b[0m a\x07b\u200b \u200dzero\ufeff\x0b\n" for n in range(4_000)),
    "wide": "".join(f"東京 {n} приём naïve\n" for n in range(5_000)),
    "a long line among others": "one\n" * 9_000 + "word " * 20_000 + "\n" + "two\n" * 20_000,
    "no line end": "word " * 20_000,
    "old Mac": "".join(f"line {n}\r" for n in range(9_000)),
}


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a thousand bytes, so that a short text has many."""
    monkeypatch.setattr(module, "PART", 1_000)
    monkeypatch.setattr(module, "_LONG", 40_000)


def as_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceText:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_LONG", 10**9)
        return read_file(path, "hash")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_chunks_are_those_of_the_whole_text(
    tmp_path: Path, name: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same ids, texts, places, metadata and links; the language is found in the same three places."""
    path = tmp_path / "long.log"
    path.write_bytes((mark + "Title: A log\n" + TEXTS[name]).encode())
    chunker = SentenceChunker(tokenize=str.split, max_tokens=120, context="lead")
    parted, whole = read_file(path, "hash"), as_whole(path, monkeypatch)
    assert isinstance(parted.plain, TextInParts)
    assert not isinstance(whole.plain, TextInParts)
    assert parted.plain.text == whole.plain.text
    assert (parted.plain.encoding, parted.plain.warnings) == (whole.plain.encoding, whole.plain.warnings)
    assert (parted.title, parted.metadata) == (whole.title, whole.metadata)
    assert parted.metadata["title"] == "A log"
    assert [node.to_dict() for node in chunker.chunks(parted)] == [
        node.to_dict() for node in chunker.chunks(whole)
    ]


def test_stretches_are_those_of_the_text(tmp_path: Path) -> None:
    """Wherever they begin and end, in one part or in several."""
    path = tmp_path / "wide.txt"
    path.write_text(TEXTS["wide"], encoding="utf-8")
    plain = long_text(path, 0, "utf-8")
    assert plain is not None
    text = TEXTS["wide"]
    assert plain.length == len(text)
    for start in (0, 1, 499, 1_000, 31_415, len(text) - 5, len(text)):
        for size in (0, 1, 700, 5_000):
            assert plain.stretch(start, start + size) == text[start : start + size]
    assert detect_language_of_stretches(plain.length, plain.stretch) == detect_language(text)


@pytest.mark.parametrize(
    "raw",
    [
        TEXTS["wide"].encode("utf-16"),
        TEXTS["wide"].encode() + b"\xff broken",
        ("Müller\n" * 9_000).encode("cp1252"),
        b"# coding: koi8-r\n" + b"a\n" * 30_000,
        TEXTS["log"].encode() + "東京\n".encode("iso2022_jp"),
    ],
    ids=["UTF-16", "a broken place", "cp1252", "a declaration", "escape sequences at the end"],
)
def test_text_that_must_be_decoded_as_a_whole_is(
    tmp_path: Path, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoding is found by what stands anywhere in a file."""
    path = tmp_path / "long.txt"
    path.write_bytes(raw)
    plain = read_text(path)[0]
    assert not isinstance(plain, TextInParts)
    assert plain == as_whole(path, monkeypatch).plain


def test_a_long_blank_file_holds_no_text(tmp_path: Path) -> None:
    """As a short one."""
    path = tmp_path / "long.txt"
    path.write_text(" \n" * 30_000)
    with pytest.raises(IngestError, match="holds no text"):
        read_file(path, "hash")


def test_what_is_appended_meanwhile_is_not_read(tmp_path: Path) -> None:
    """A log that somebody writes to is ingested as far as it went."""
    path = tmp_path / "long.log"
    path.write_text(TEXTS["log"])
    plain = read_text(path)[0]
    with path.open("a") as file:
        file.write("later\n")
    assert plain.text == TEXTS["log"]


def test_the_whole_of_a_long_text_outlives_its_file(tmp_path: Path) -> None:
    """A copy of a remote file is removed once it is read."""
    path = tmp_path / "long.log"
    path.write_text(TEXTS["log"])
    plain = read_text(path)[0].whole()
    path.unlink()
    assert plain == PlainText(TEXTS["log"], encoding="utf-8")
