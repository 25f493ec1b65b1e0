"""Chunks end at sentences, fit the model, and know their place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import MetadataMode, NodeRelationship

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.clean import plain_from_pages
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.markdown import plain_from_markdown

WORDS = SentenceChunker(tokenize=str.split, max_tokens=24)


def source(text: str, **more: object) -> SourceText:
    return SourceText(doc_id="doc", plain=PlainText(text), **more)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(20, 60))
def test_no_chunk_exceeds_what_the_model_reads(lengths: list[int], limit: int) -> None:
    """Whatever the sentences' lengths, a chunk with its metadata and special tokens fits."""
    text = " ".join("Word " + "word " * (length - 1) + "end." for length in lengths)
    chunker = SentenceChunker(tokenize=str.split, max_tokens=limit)
    chunks = chunker.chunks(source(text, metadata={"title": "A title"}))
    assert all(chunker.length(chunk) <= limit for chunk in chunks)
    assert " ".join(chunk.text for chunk in chunks).split() == text.split()


def test_a_sentence_that_fits_is_never_cut() -> None:
    """Every chunk boundary is a sentence boundary."""
    text = " ".join(f"Sentence number {number} has exactly seven words." for number in range(20))
    assert all(chunk.text.endswith("words.") for chunk in WORDS.chunks(source(text)))


def test_the_span_in_the_metadata_is_the_text() -> None:
    """A citation can be shown in its document: char_start and char_end cut out exactly the chunk."""
    text = "Same words here. " * 30
    for chunk in WORDS.chunks(source(text)):
        assert text[chunk.metadata["char_start"] : chunk.metadata["char_end"]] == chunk.text
    starts = [chunk.metadata["char_start"] for chunk in WORDS.chunks(source(text))]
    assert starts == sorted(set(starts))


def test_heading_is_embedded_and_place_is_not() -> None:
    """The model sees which section a chunk belongs to, and never file paths or offsets."""
    plain = plain_from_markdown("# Insulin\n\n## Storage\n\nKeep it cold.")
    chunk = WORDS.chunks(SourceText(doc_id="d", plain=plain, metadata={"source": "/secret/path.md"}))[0]
    embedded = chunk.get_content(MetadataMode.EMBED)
    assert "Insulin > Storage" in embedded
    assert "/secret" not in embedded and "char_start" not in embedded


def test_a_byline_joins_the_section_below_it() -> None:
    """A title with one short line under it must not be the nearest neighbour of every question about the title."""
    plain = plain_from_markdown(
        "# Botulism\n\nSource: CDC\n\n## Treatment\n\nGive antitoxin.\n\n# Other\n\nShort."
    )
    headings = [chunk.metadata["heading"] for chunk in WORDS.chunks(SourceText(doc_id="d", plain=plain))]
    assert headings == ["Botulism > Treatment", "Other"]


def test_a_sentence_under_a_heading_of_its_own_stays_there() -> None:
    """What a short section says is not cited as the section below it."""
    plain = plain_from_markdown(
        "# Handbook\n\n## Leave\n\nIt is 28 days.\n\n### Parental leave\n\nIt is 36 months."
    )
    headings = [chunk.metadata["heading"] for chunk in WORDS.chunks(SourceText(doc_id="d", plain=plain))]
    assert headings == ["Handbook > Leave", "Handbook > Leave > Parental leave"]


def test_a_long_heading_is_shortened_from_its_front() -> None:
    """Headings take at most a quarter of a chunk, and the nearest one is what stays."""
    plain = plain_from_markdown("# one two three four five six\n\n## near heading\n\nText.")
    chunk = WORDS.chunks(SourceText(doc_id="d", plain=plain))[0]
    assert chunk.metadata["heading"] == "near heading"


def test_pages_come_from_where_a_chunk_begins() -> None:
    """A chunk never holds two pages, but a sentence that runs over the break is not torn."""
    plain = plain_from_pages(
        [("7", "It begins here and"), ("8", "ends there. The next page."), ("9", "Last page.")]
    )
    chunks = WORDS.chunks(SourceText(doc_id="d", plain=plain))
    assert [(chunk.metadata["page"], " ".join(chunk.text.split())) for chunk in chunks] == [
        ("7", "It begins here and ends there."),
        ("8", "The next page."),
        ("9", "Last page."),
    ]


def test_ids_are_stable_and_unique() -> None:
    """The same document gives the same ids on every machine, so re-ingesting replaces and never doubles."""
    ids = [[chunk.node_id for chunk in WORDS.chunks(source("Again and again. " * 40))] for _ in range(2)]
    assert ids[0] == ids[1] and len(set(ids[0])) == len(ids[0])


def test_chunks_know_their_document_and_neighbours() -> None:
    """LlamaIndex's relationships work: source, previous, next."""
    chunks = WORDS.chunks(source("One two three four five six seven. " * 12))
    assert {chunk.ref_doc_id for chunk in chunks} == {"doc"}
    assert chunks[0].relationships[NodeRelationship.NEXT].node_id == chunks[1].node_id
    assert chunks[1].relationships[NodeRelationship.PREVIOUS].node_id == chunks[0].node_id


def test_metadata_that_leaves_no_room_for_text_is_an_error() -> None:
    """Never a silent chunk of three words: the error says which document and what to do."""
    with pytest.raises(IngestError, match="metadata of 'doc' takes .* excluded_embed_metadata_keys"):
        WORDS.chunks(source("Text.", metadata={"abstract": "long " * 30}))


def test_hidden_metadata_takes_no_room() -> None:
    """Keys that the user excluded from embedding do not count."""
    chunks = WORDS.chunks(
        source("Text.", metadata={"abstract": "long " * 30}, hidden_from_embedding=["abstract"])
    )
    assert chunks[0].metadata["abstract"].startswith("long")


def test_a_word_without_end_is_cut_by_its_length() -> None:
    """To some tokenizers two megabytes of base64 are one unknown word; as one passage they would fill a prompt."""
    chunks = WORDS.chunks(source("QUJD" * 5_000))
    assert max(len(chunk.text) for chunk in chunks) <= 24 * 16
    assert "".join(chunk.text for chunk in chunks) == "QUJD" * 5_000


RETURNS = (
    "# Returns\n\nA bicycle may be sent back within 30 days.\n\n## Refunds\n\nThey are paid to the card."
)


@pytest.mark.parametrize("max_tokens", [100, 24])
def test_what_stands_under_a_title_is_not_told_as_the_section_below_it(max_tokens: int) -> None:
    """A chunk of both says, but not to models, where its heading begins; one of the title's text alone is under it."""
    plain = plain_from_markdown(RETURNS)
    chunker = SentenceChunker(tokenize=str.split, max_tokens=max_tokens)
    chunks = chunker.chunks(SourceText(doc_id="d", plain=plain))
    told = [(chunk.metadata["heading"], chunk.metadata.get("heading_start")) for chunk in chunks]
    refunds = plain.text.index("They are paid")
    assert (
        told
        == {
            100: [("Returns > Refunds", refunds)],
            24: [("Returns", None), ("Returns > Refunds", None)],
        }[max_tokens]
    )
    read = (MetadataMode.EMBED, MetadataMode.LLM)
    assert all("heading_start" not in chunk.get_content(mode) for chunk in chunks for mode in read)
