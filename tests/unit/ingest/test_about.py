"""What files say of themselves, what whoever ingests says of them, and who wins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llama_index.core import Document
from llama_index.core.schema import TextNode
from tests.unit.ingest.test_pdf import write_report

from llama_index_presets.errors import IngestError, SettingsError
from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.chunking.cut import cut
from llama_index_presets.ingest.metadata.document_metadata import (
    about_properties,
    allowed_beside,
    plain_values,
)
from llama_index_presets.ingest.metadata.overrides import MetadataOverrides, with_overrides
from llama_index_presets.ingest.read import file_hash, read_file
from llama_index_presets.ingest.sources.files import find_files
from llama_index_presets.ingest.sources.source import sources

MARKDOWN = """---
title: On Sparse Sums
authors: [Ada Lovelace, Charles Babbage]
date: 2021-05-01
department: maths
source: /etc/passwd
nested: {a: 1}
---
# Sums

They are sparse.
"""
HTML = """<html><head><title>T</title><meta name="citation_author" content="A. Noether">
<meta name="citation_author" content="E. Artin"><meta name="citation_publication_date" content="2019/03/02"></head>
<body><p>Rings.</p></body></html>"""
LINES = "Title: Old Sums\nAuthors: A. Noether; E. Artin\nYear: 1921\n\nWe add."


@pytest.mark.parametrize(
    ("name", "content", "title", "authors", "year"),
    [
        ("a.md", MARKDOWN, "On Sparse Sums", ["Ada Lovelace", "Charles Babbage"], 2021),
        ("a.html", HTML, "T", ["A. Noether", "E. Artin"], 2019),
        ("a.txt", LINES, "Old Sums", ["A. Noether", "E. Artin"], 1921),
    ],
)
def test_a_file_names_its_work(
    tmp_path: Path, name: str, content: str, title: str, authors: list[str], year: int
) -> None:
    """Front matter, meta tags or head lines become metadata, and none of it is embedded."""
    (tmp_path / name).write_text(content)
    found = read_file(tmp_path / name, "h")
    assert (found.metadata["title"], found.metadata["authors"], found.metadata["year"]) == (
        title,
        authors,
        year,
    )
    assert {"title", "authors", "year"} <= set(found.hidden_from_embedding)
    assert found.metadata["source"] == (tmp_path / name).as_posix() and "nested" not in found.metadata


def test_a_sidecar_wins_and_counts_as_a_change(tmp_path: Path) -> None:
    """It is no document itself; its values replace the file's own; editing it makes the file a changed one."""
    path = tmp_path / "a.md"
    path.write_text(MARKDOWN)
    before = file_hash(path)
    sidecar = tmp_path / "a.md.meta.json"
    sidecar.write_text(json.dumps({"year": 2022, "groups": ["hr", "all"], "page": 7}))
    assert [entry.path for entry in find_files([tmp_path])] == [path] and file_hash(path) != before
    found = read_file(path, "h").metadata
    assert (found["year"], found["groups"], found["title"]) == (2022, ["hr", "all"], "On Sparse Sums")
    assert "page" not in found
    sidecar.write_text("[1]")
    with pytest.raises(IngestError, match="holds a list; expected a JSON object"):
        read_file(path, "h")


def test_a_sidecar_of_notepad_is_read(tmp_path: Path) -> None:
    """A byte order mark, which editors on Windows write, is no part of it."""
    path = tmp_path / "a.md"
    path.write_text("Cats purr.")
    (tmp_path / "a.md.meta.json").write_text('{"year": 2022, "allowed": ["hr"]}', encoding="utf-8-sig")
    assert read_file(path, "h").metadata["year"] == 2022
    assert allowed_beside(path) == ["hr"]


def test_front_matter_that_is_not_yaml_is_an_error(tmp_path: Path) -> None:
    """One line, for the report."""
    (tmp_path / "a.md").write_text("---\ntitle: [unclosed\n---\nText")
    with pytest.raises(IngestError, match="front matter is not YAML"):
        read_file(tmp_path / "a.md", "h")


def test_a_pdf_names_its_work(tmp_path: Path) -> None:
    """From its information; the year only from a line that dates it."""
    about = read_file(write_report(tmp_path / "r.pdf"), "h").metadata
    assert (about["title"], about["authors"], about["year"]) == ("Annual report 2024", ["Acme Corp"], 2025)


def test_a_stamp_wins_and_is_part_of_the_hash() -> None:
    """A document cannot say that it belongs to another tenant; another override makes it a changed document."""
    (source,) = sources([Document(text="Text.", doc_id="d", metadata={"tenant": "globex", "year": 2020})])
    acme, other = with_overrides(source, {"tenant": "acme"}), with_overrides(source, {"tenant": "initech"})
    found = acme.read()
    assert found.metadata == {"tenant": "acme", "year": 2020} and "tenant" in found.hidden_from_embedding
    assert len({source.content_hash, acme.content_hash, other.content_hash}) == 3
    with pytest.raises(SettingsError, match="'source' says where a passage stands"):
        with_overrides(source, {"source": "x"})


@pytest.mark.parametrize("own", ["front matter", "sidecar", "nothing"])
def test_a_file_in_the_root_has_no_tenant_whatever_it_says(tmp_path: Path, own: str) -> None:
    """With folder_key the folder alone names the tenant: a file in none is nobody's, and its hash covers that."""
    head = "---\ntenant: acme\n---\n" if own == "front matter" else ""
    (tmp_path / "acme").mkdir()
    for path in (tmp_path / "a.md", tmp_path / "acme" / "b.md"):
        path.write_text(head + "Text.")
        if own == "sidecar":
            path.with_name(path.name + ".meta.json").write_text(json.dumps({"tenant": "globex"}))
    listed = sources(tmp_path)
    root, inside = MetadataOverrides(folder_key="tenant", roots=[tmp_path.resolve()]).over(listed)
    assert "tenant" not in root.read().metadata  # type: ignore[union-attr]
    assert inside.read().metadata["tenant"] == "acme"  # type: ignore[union-attr]
    assert root.content_hash != listed[0].content_hash


def test_a_key_that_is_set_to_none_is_kept_off_nodes_and_documents() -> None:
    """Whoever ingests decides about a key, also that nothing has it."""
    given = [
        Document(text="Text.", doc_id="d", metadata={"tenant": "x"}),
        TextNode(id_="n", metadata={"tenant": "x"}),
    ]
    text, nodes = (
        source.read() for source in MetadataOverrides(metadata={"tenant": None}).over(sources(given))
    )
    assert text.metadata == {} and nodes[0].metadata == {}  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    "nobody",
    [
        "openpyxl",
        "XlsxWriter",
        "python-docx",
        "Apache POI",
        "Microsoft Office User",
        "User",
        "(anonymous)",
        "admin",
        " ",
    ],
)
def test_a_program_is_no_author(nobody: str) -> None:
    """A citation that begins with "openpyxl:" names the library that wrote the workbook."""
    assert about_properties("Prices 2026", nobody) == {"title": "Prices 2026"}


def test_people_and_firms_are_authors() -> None:
    """Names that only begin like those of programs and accounts stay."""
    for name in ("Users of Kiel", "Ada Root", "Openpyxl GmbH", "Microsoft Corporation"):
        assert about_properties("", name) == {"authors": [name]}


def test_a_workbook_of_a_library_has_no_author(tmp_path: Path) -> None:
    """The library writes its own name into the properties."""
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["Coffee", "Price"])
    book.active.append(["Espresso", 24.5])
    book.save(tmp_path / "prices.xlsx")
    assert "authors" not in read_file(tmp_path / "prices.xlsx", "h").metadata


SIDECAR = {
    "score": float("nan"),
    "address": {"city": "Rome", "zip": {"code": 185}},
    "reviewers": [{"name": "Ann", "Since": 2019}, {"name": "Bo", "tags": ["x", ["y"]]}],
    "matrix": [[1, 2], [3]],
    "notes": "long " * 1_000,
    "serial": 2**70,
    "page": 7,
    "year": "soon",
    "empty": None,
}


def test_nested_values_are_kept_under_names_with_dots(tmp_path: Path) -> None:
    """A filter finds them; lists of objects become a list for each field."""
    (tmp_path / "a.txt").write_text("Text.")
    (tmp_path / "a.txt.meta.json").write_text(json.dumps(SIDECAR))
    found = read_file(tmp_path / "a.txt", "h").metadata
    assert (found["address.city"], found["address.zip.code"]) == ("Rome", 185)
    assert found["reviewers.name"] == ["Ann", "Bo"] and found["reviewers.since"] == [2019]
    assert found["reviewers.tags"] == ["x", "y"] and found["matrix"] == [1, 2, 3]
    assert found["serial"] == str(2**70) and len(found["notes"]) == 1_000


def test_what_cannot_be_kept_is_in_the_report(tmp_path: Path) -> None:
    """NaN, long text, huge numbers, names of readers, a year that is none; a value of null is none."""
    (tmp_path / "a.md").write_text("---\nsource: https://a.b/c\nblob: !!binary aGk=\n---\nText.")
    (tmp_path / "a.md.meta.json").write_text(json.dumps(SIDECAR))
    warnings: dict[str, list[str]] = {}
    (source,) = sources(tmp_path / "a.md")
    list(cut(source, SentenceChunker(tokenize=str.split, max_tokens=50), warnings))
    (said,) = warnings.values()
    assert said == [
        "metadata 'source': 1 value is under a name that says where a passage stands, which a file cannot set; "
        "left out.",
        "metadata 'blob': 1 value is of a type that cannot be stored; left out.",
        "metadata 'score': 1 value is NaN or infinite, which no filter finds; left out.",
        "metadata 'notes': 1 value is longer than 1,000 characters; the rest was left out.",
        "metadata 'serial': 1 value is a whole number of more than 64 bits; kept as text.",
        "metadata 'page': 1 value is under a name that says where a passage stands, which a file cannot set; "
        "left out.",
        "metadata 'year': 1 value is without a year from 1500 to 2099; left out.",
    ]


def test_values_too_deep_too_many_or_given_again_are_in_the_report() -> None:
    """An object in eleven others, more characters than all chunks should carry, two spellings of a name."""
    deep: object = 1
    for _ in range(12):
        deep = {"a": deep}
    said: list[str] = []
    many = {f"k{n}": "x" * 1_000 for n in range(25)}
    found = plain_values({"deep": deep, "Due Date": 1, "due-date": 2, **many}, said)
    assert found["due_date"] == 2 and "k18" in found and "k24" not in found
    assert [line.split(":")[0] for line in said] == [
        "metadata 'deep.a.a.a.a.a.a.a.a.a.a.a'",
        "metadata 'due_date'",
        "metadata 'k19', 'k20', 'k21' …",
    ]


def test_authors_with_parts_keep_them() -> None:
    """As Pandoc, Quarto and CSL write them."""
    people = [
        {"name": "A. Noether", "affiliation": "Erlangen"},
        {"given": "Emil", "family": "Artin"},
        "C. Gauss",
    ]
    assert plain_values({"author": people}) == {
        "authors": ["A. Noether", "Emil Artin", "C. Gauss"],
        "authors.affiliation": ["Erlangen"],
    }
    assert plain_values({"author": {"name": "A. Noether", "email": "a@b.c"}}) == {
        "authors": ["A. Noether"],
        "authors.email": ["a@b.c"],
    }
