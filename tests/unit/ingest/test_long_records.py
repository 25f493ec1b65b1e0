"""Long JSON Lines, delimited rows and plain lines are read part by part, and give the chunks of the whole file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking import chunk, long_text
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.chunking.long_text import TextInParts
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers import csv as rows

CHAT = [
    {
        "id": n,
        "messages": [{"role": "user", "text": f"Is pump {n} dry?"}, {"role": "plant", "text": "It is."}],
    }
    for n in range(400)
]
FLAT = [
    {"pump": f"P{n}", "state": "läuft", "pressure": n / 7, "note": "東京 " * (n % 50)} for n in range(900)
]
MIXED = [
    CHAT[n] if n % 3 else {"site": f"S{n}", "plan": {"by": {"whom": ["a", {"b": "x" * 300}]}}}
    for n in range(300)
]
NESTED = [json.dumps({"plant": {"pump": one, "more": "y" * 300}}) for one in FLAT[:300]]
LINES = [json.dumps(one, ensure_ascii=False) for one in FLAT]
CELLS = [f"{n};Pump {n};1.234,{n % 100:02};läuft" for n in range(2_000)]
QUOTED = [f'{n},"It is ""{n}"",\n\nand runs, still.",{n * 7}' for n in range(1_500)]
FILES = {
    "flat.jsonl": "\n".join(LINES) + "\n",
    "chat.jsonl": "\n".join(map(json.dumps, CHAT)),
    "mixed.jsonl": "\r\n".join(map(json.dumps, MIXED)),
    "blank lines.jsonl": "\n" * 3_000 + "\n\n".join(LINES) + "\n" * 3_000,
    "broken.ndjson": "\n".join([*LINES[:7], "{not json", *LINES[7:], '"an end', "}"]),
    "old Mac.jsonl": "\r".join(LINES),
    "one long line.jsonl": "\n".join([*LINES, json.dumps({"text": "word " * 9_000}), *LINES]),
    "nested below one name.jsonl": "\n".join(NESTED),
    "semicolons.csv": "no;name;price;state\n" + "\n".join(CELLS),
    "titles.csv": "Pumps of 2024\n\nno;name;price;state\r\n" + "\r\n".join(CELLS) + "\r\n",
    "stated.csv": "sep=;\nno;name;price;state\n" + "\n".join(CELLS),
    "no header.csv": "\n".join(CELLS),
    "cells of several lines.csv": "no,text,sum\n" + "\n".join(QUOTED),
    "tabs.tsv": "no\tname\n" + "\n".join(f"{n}\tPump, {n}" for n in range(3_000)),
    "old Mac.csv": "no;name;price;state\r" + "\r".join(CELLS),
    "blank rows.csv": "no;name;price;state\n" + "\n;;;\n\n".join(CELLS) + "\n;;;" * 2_000,
    "never closed.csv": 'no,name\n1,"Pump\n' + "\n".join(f"{n},Pump {n}" for n in range(4_000)),
    "controls.csv": "no;na\x1bme;price;state\n" + "\n".join(cell.replace("Pump", "Pu\x07mp\u200b") for cell in CELLS),
    "one column.csv": "name\n" + "\n".join(f"Pump {n} of the plant" for n in range(3_000)),
    "plain.log": "".join(f"{n:05} INFO pump {n * 7919 % 1000} started\n" for n in range(3_000)),
    "wide rows.csv": "a,b\n" + "\n".join(f"{n},{'wide ' * 300}" for n in range(60)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a thousand bytes, so that a short file has many."""
    monkeypatch.setattr(long_text, "PART", 1_000)
    monkeypatch.setattr(rows, "PART", 1_000)
    monkeypatch.setattr(long_text, "_LONG", 10_000)


def as_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceText:
    with monkeypatch.context() as patch:
        patch.setattr(long_text, "_LONG", 10**9)
        return read_file(path, "hash")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_chunks_are_those_of_the_whole_file(
    tmp_path: Path, name: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same ids, texts, headings, tables, places, metadata and warnings."""
    path = tmp_path / name
    path.write_bytes((mark + FILES[name]).encode())
    parted, whole = read_file(path, "hash"), as_whole(path, monkeypatch)
    assert isinstance(parted.plain, TextInParts)
    assert not isinstance(whole.plain, TextInParts)
    kept, plain = parted.plain.whole(), whole.plain
    assert (kept.text, list(kept.headings), tuple(kept.tables)) == (
        plain.text, list(plain.headings), tuple(plain.tables),
    )  # fmt: skip
    assert (list(kept.warnings), kept.encoding) == (list(plain.warnings), plain.encoding)
    assert list(parted.plain.headings) == list(plain.headings)
    assert (parted.title, parted.metadata) == (whole.title, whole.metadata)
    chunker = SentenceChunker(tokenize=str.split, max_tokens=90, context="lead")
    assert [node.to_dict() for node in chunker.chunks(parted)] == [
        node.to_dict() for node in chunker.chunks(whole)
    ]
    for start in (0, 1, 999, plain.length // 2, plain.length - 3):
        assert parted.plain.stretch(start, start + 700) == plain.text[start : start + 700]


def test_broken_lines_are_named(tmp_path: Path) -> None:
    """By their numbers in the file, the first five of them; their text is read all the same."""
    path = tmp_path / "a.jsonl"
    lines = [line if n % 100 else "{broken" for n, line in enumerate(LINES)]
    path.write_text("\n".join(["{broken", "", *lines]), encoding="utf-8")
    plain = read_file(path, "hash").plain
    assert isinstance(plain, TextInParts)
    assert list(plain.warnings) == [
        "10 lines are no JSON (lines 1, 3, 103, 203, 303 and 5 more); they were read as text."
    ]
    assert plain.text.count("{broken") == 10


def test_one_broken_line_of_a_short_file_is_named(tmp_path: Path) -> None:
    """As in a long one."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\r\n\r\n{"a": \r\n{"a": 2}', encoding="utf-8")
    plain = read_file(path, "hash").plain
    assert list(plain.warnings) == ["Line 3 is no JSON; it was read as text."]


def test_a_line_that_nests_too_deep_is_named(tmp_path: Path) -> None:
    """The file is refused, as a JSON document of such depth is."""
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*LINES, "[" * 500_000]), encoding="utf-8")
    with pytest.raises(IngestError, match="Line 901 of the file nests too deep"):
        read_file(path, "hash")


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.csv", FILES["semicolons.csv"].encode("cp1252")),
        ("a.csv", FILES["semicolons.csv"].encode("utf-16")),
        ("a.jsonl", FILES["flat.jsonl"].encode() + b"\n\xff"),
        ("a.jsonl", "\n".join(map(json.dumps, CHAT)).encode() + '\n{"a": "東京"}'.encode("iso2022_jp")),
    ],
    ids=["cp1252", "UTF-16", "a broken place", "escape sequences at the end"],
)
def test_files_that_are_decoded_as_a_whole(tmp_path: Path, name: str, raw: bytes) -> None:
    """An encoding is found by what stands anywhere in a file."""
    path = tmp_path / name
    path.write_bytes(raw)
    plain = read_file(path, "hash").plain
    assert not isinstance(plain, TextInParts)
    assert plain.warnings or plain.encoding in ("utf-16", "iso2022_jp_2")


def test_no_more_is_written_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of columns stand beside every cell, so that a text is longer than its file."""
    path = tmp_path / "a.csv"
    path.write_text(FILES["semicolons.csv"], encoding="utf-8")
    monkeypatch.setattr(SizeLimit, "units", path.stat().st_size)
    with pytest.raises(IngestError, match="comes to more than"):
        read_file(path, "hash")


@pytest.mark.parametrize("name", ["chat.jsonl", "cells of several lines.csv", "plain.log"])
def test_a_long_file_is_never_held_as_a_whole(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chunks come while parts are read."""
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8")
    source = read_file(path, "hash")
    for kept in ("text", "headings"):
        monkeypatch.setattr(TextInParts, kept, property(lambda self: pytest.fail("All of it was asked for.")))
    found = SentenceChunker(tokenize=str.split, max_tokens=60).stream(source)
    assert len({node.text for node in found}) > 100


def test_behind_a_long_line_the_text_is_cut_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a file of megabytes with one such line would be held and counted as a whole; parts change nothing."""
    monkeypatch.setattr(chunk, "_LONG_REST", 60_000)
    text = "one\n" * 9_000 + "word " * 20_000 + "\n" + "two three\n" * 30_000
    blocks = list(chunk._blocks([text]))
    assert "".join(blocks) == text
    assert 100_000 < max(map(len, blocks)) < 100_001 + 16_384
    for size in (10, 1_000, 70_000):
        lines = text.splitlines(keepends=True)
        parts = ["".join(lines[at : at + size]) for at in range(0, len(lines), size)]
        assert list(chunk._blocks(parts)) == blocks


@pytest.mark.parametrize("name", ["flat.jsonl", "semicolons.csv", "plain.log"])
@pytest.mark.parametrize("change", [lambda text: text.replace("7", "8"), lambda text: text[:-20]])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, name: str, change: Callable[[str], str]
) -> None:
    """Its chunks would be of two documents; nothing of it is stored."""
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8")
    source = read_file(path, "hash")
    path.write_text(change(FILES[name]), encoding="utf-8")
    with pytest.raises(IngestError, match="changed while it was read"):
        SentenceChunker(tokenize=str.split, max_tokens=60).chunks(source)
