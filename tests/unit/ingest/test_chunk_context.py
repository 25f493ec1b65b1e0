"""Titles and lead sentences for chunks that do not say what their document is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from llama_index.core.schema import MetadataMode

from llama_index_presets import BM25Index
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.chunking.chunk_context import (
    ChunkContext,
    document_title,
    lead_sentence,
    names_nothing,
)
from llama_index_presets.ingest.chunking.strategies import CHUNKERS
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.privacy.watch import PrivacyWatch
from llama_index_presets.ingest.read import file_hash, read_file
from llama_index_presets.ingest.sources.source import sources

REPORT = (
    "ACME HOLDINGS\nForm 10-K\n\nThe Company makes pumps for ships.\n\nIt sold nine of them. They were red."
)


def chunker(context: ChunkContext, tokens: int = 40) -> SentenceChunker:
    return SentenceChunker(tokenize=str.split, max_tokens=tokens, context=context)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "acme_2018_10K.txt"
    path.write_text(REPORT, encoding="utf-8")
    return path


def embedded(path: Path, context: ChunkContext, tokens: int = 40) -> list[str]:
    source = read_file(path, file_hash(path))
    return [node.get_content(MetadataMode.EMBED) for node in chunker(context, tokens).chunks(source)]


@pytest.mark.parametrize(
    ("text", "headings", "name", "expected"),
    [
        ("Words.", (), "acme_2018_10K.txt", "acme 2018 10K"),
        ("\n\n   On Sparse Sums\n\nWe add.", (), "scan_0001.pdf", "On Sparse Sums"),
        ("Group           J. Postel\nRFC: 768\n\n     User Datagram Protocol\n\nText.", (), "rfc768.txt",
         "rfc768: User Datagram Protocol"),
        ("On Sums\n\nWe add.", (), "on_sums.txt", "On Sums"),
        ("Dear Sir,\n\nWe regret.\n\nYours", (), "letter-to-bank.txt", "letter to bank"),
        ("UNITED STATES\nCOMMISSION\n\nWe file a report today.\n", (), "3M_2018.txt", "3M 2018"),
        ("Gout\nIt hurts.", ((0, "Gout"), (5, "Gout > Signs")), "0000054.md", "Gout"),
        ("A\nB", ((0, "Part one"), (2, "Part two")), "handbook.md", "handbook"),
        ("Words.", (), "document1.txt", "document1"),
        ("Words.", (), "document.txt", ""),
        ("Words.", (), "3f2504e04f8911d39a0c0305e82c3301.txt", ""),
        ("Words.", (), "", ""),
    ],
)  # fmt: skip
def test_a_title_is_the_heading_above_all_else_the_name_and_a_line_at_the_top(
    text: str, headings: tuple[tuple[int, str], ...], name: str, expected: str
) -> None:
    """Names of scanners and catalogues say nothing; a sentence, a table's line and a salutation are no title."""
    assert document_title(PlainText(text, headings=headings), name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is rare in children. They recover.", True),
        ("This happened in Ohio.", True),
        ("Doses are given daily; nobody knows why.", True),
        ("Ask Dr. Smith for a dose.", False),
        ("Spores of botulism grow in cans.", False),
        ("", True),
    ],
)
def test_a_chunk_names_something_by_a_name_or_by_its_title(text: str, expected: bool) -> None:
    """A beginning that points back names nothing, whatever follows."""
    assert names_nothing(text, "Infant botulism") is expected


def test_a_lead_sentence_is_the_first_whole_one() -> None:
    """Lines without a full stop are passed over."""
    assert lead_sentence(PlainText(REPORT)) == "The Company makes pumps for ships."
    assert lead_sentence(PlainText("Short. No.")) == ""


def test_without_context_a_chunk_is_embedded_as_it_is(report: Path) -> None:
    """So an index of an earlier version goes on as it began."""
    assert embedded(report, "none") == [REPORT]


def test_a_title_is_embedded_and_indexed_and_shown_to_nobody(report: Path) -> None:
    """The text, which is what is cited, stays word for word; so does the language model's prompt."""
    source = read_file(report, file_hash(report))
    (node,) = chunker("title").chunks(source)
    assert node.text == REPORT
    assert "document_title: acme 2018 10K" in node.get_content(MetadataMode.EMBED)
    assert "document_title" not in node.get_content(MetadataMode.LLM)
    assert [name for name, _ in BM25Index.from_nodes([node]).search("2018")] == [node.node_id]


def test_a_lead_sentence_goes_with_chunks_that_name_nothing(report: Path) -> None:
    """Not with the chunk that holds it, nor with one that names somebody and does not point back at its beginning."""
    report.write_text(REPORT + " It sold more of them." * 12 + " We thank Dr. Smith." * 12, encoding="utf-8")
    lead = "document_lead: The Company makes pumps for ships."
    first, *others = embedded(report, "lead", tokens=60)
    assert lead not in first
    assert [lead in text for text in others] == [
        text.split("\n\n")[-1].startswith("It sold") for text in others
    ]
    assert {lead in text for text in others} == {True, False}


def test_a_heading_that_begins_with_the_title_is_enough(tmp_path: Path) -> None:
    """Markdown with one heading above all others is embedded as before."""
    path = tmp_path / "acme_gout.md"
    path.write_text("# Gout\n\nIt hurts.\n\n## Signs\n\nA red toe, and fever.", encoding="utf-8")
    assert embedded(path, "title") == embedded(path, "none")


def test_a_title_that_a_file_states_comes_first(tmp_path: Path) -> None:
    """It was metadata for filters only; now the chunks of a plain text are found by it."""
    path = tmp_path / "x_2020.txt"
    path.write_text("Title: On Sparse Sums\n\nThey are added.", encoding="utf-8")
    assert all("document_title: On Sparse Sums" in text for text in embedded(path, "title"))


@pytest.mark.parametrize("name", [name for name in CHUNKERS if name != "semantic"])
def test_no_chunk_is_longer_than_the_model_reads(name: str, tmp_path: Path) -> None:
    """Room is kept for a title and a lead sentence of any length, by every strategy."""
    path = tmp_path / ("annual report of the pump makers " * 4 + ".txt")
    lead = "The makers of pumps for ships have sold more than ever before in this year."
    path.write_text(lead + "\n\n" + "It was so, and they knew it well. " * 60, encoding="utf-8")
    cutter = CHUNKERS[name](tokenize=str.split, max_tokens=48, context="lead")
    nodes = cutter.chunks(read_file(path, file_hash(path)))
    assert len(nodes) > 10
    assert all(cutter.length(node) <= 48 for node in nodes)


def test_personal_data_leaves_the_title_too(tmp_path: Path) -> None:
    """A title is made of a file's name and first lines, which may hold an address."""
    path = tmp_path / "note.txt"
    path.write_text("Letter to ann@example.org now\n\nIt was sent.", encoding="utf-8")
    (watched,) = PrivacyWatch("redact").over(sources(path))
    content = watched.read()
    assert isinstance(content, SourceText)
    assert content.title == "Letter to [EMAIL] now"


def test_a_document_given_as_text_has_no_name_to_take(text_of: Callable[[str], SourceText]) -> None:
    """Its id may be anything, and its metadata is embedded as its author said."""
    (node,) = chunker("title").chunks(text_of("It hurts."))
    assert node.get_content(MetadataMode.EMBED) == "It hurts."


@pytest.fixture
def text_of() -> Callable[[str], SourceText]:
    return lambda text: SourceText(doc_id="0f8a", plain=PlainText(text))
