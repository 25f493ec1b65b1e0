"""Counting by words gives what counting whole texts gives, and is used only where it does."""

from __future__ import annotations

import re

import pytest

from llama_index_presets.ingest.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.token_counts import TokenCounter


def by_pieces(text: str) -> list[str]:
    """A tokenizer as BERT's: words and punctuation apart, words in pieces of three."""
    words = re.findall(r"\w+|[^\w\s]", text.replace("_", " _ "))
    return [word[at : at + 3] for word in words for at in range(0, len(word), 3)]


@pytest.mark.parametrize(
    "text", ["", "Hello, world!", "id=4821_x 10:22:33,123", "a\n\nb" * 50, "größer als früher"]
)
def test_counts_by_words_are_exact(text: str) -> None:
    """Text beyond ASCII is counted whole."""
    counter = TokenCounter(by_pieces)
    assert counter.by_words
    assert counter.count(text) == len(by_pieces(text))


def test_a_tokenizer_that_joins_words_is_asked_for_whole_texts() -> None:
    """White space alone separates here, so that punctuation belongs to its word."""
    counter = TokenCounter(str.split)
    assert not counter.by_words
    assert counter.count("a, b.") == 2


def test_a_log_is_cut_between_its_lines() -> None:
    """It has no sentences, and its lines stand for themselves; nothing is lost."""
    lines = [f"10:00:{n % 60:02d} INFO request {n} done" for n in range(3_000)]
    source = SourceText(doc_id="log", plain=PlainText("\n".join(lines)))
    chunks = SentenceChunker(tokenize=by_pieces, max_tokens=64).chunks(source)
    assert [line for chunk in chunks for line in chunk.text.split("\n")] == lines
    assert all(len(by_pieces(chunk.text)) <= 64 for chunk in chunks)


def test_a_stream_of_chunks_is_that_of_the_list() -> None:
    """Only ids and links are missing."""
    source = SourceText(doc_id="d", plain=PlainText("One two three. " * 100))
    chunker = SentenceChunker(tokenize=by_pieces, max_tokens=32)
    assert [node.text for node in chunker.stream(source)] == [node.text for node in chunker.chunks(source)]
