"""Counting by words gives what counting whole texts gives, and is used only where it does."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llama_index_presets.embed.tokens import Tokenizer
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.chunking.token_counts import TokenCounter, token_counter
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.text.tiktoken_files import carried_encoding


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


_LINE_PARTS = [
    "The",
    "pump",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    "42,317",
    "'ll",
    "(a)",
    "Über",
    "東京",
    "x_1",
    "\u00a0",
    "...",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_LINE_PARTS), max_size=40).map("".join))
def test_counts_by_lines_are_those_of_the_whole_text(text: str) -> None:
    """OpenAI's tokenizer joins white space over lines, so that blank and indented lines stay with the line above."""
    encoding = carried_encoding("cl100k_base")
    assert token_counter(encoding.encode_ordinary).count(text) == len(encoding.encode_ordinary(text))


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """WordPiece as BERT's, with a vocabulary of every ASCII character and some longer pieces."""
    characters = [chr(code) for code in range(33, 127)]
    pieces = ["pump", "ing", "10", "2026", "re", "quest"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *pieces]
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"##{one}" for one in [*characters, *pieces])]))
    return Tokenizer(folder)


@example(text="R\x1fE")  # the tokenizer drops the separator, and has one word
@settings(max_examples=300, deadline=None)
@given(
    text=st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=80) | st.text(max_size=40)
)
def test_words_counted_by_the_model_alone_are_those_of_the_tokenizer(
    word_piece: Tokenizer, text: str
) -> None:
    """Of a word, only its pieces are asked for, and not its positions."""
    assert token_counter(word_piece.tokenize).by_words
    assert token_counter(word_piece.tokenize).count(text) == len(word_piece.tokenize(text))


def test_a_line_is_counted_once(word_piece: Tokenizer) -> None:
    """A splitter counts it alone and as part of a chunk."""
    asked: list[str] = []

    def tokenize(text: str) -> list[int]:
        asked.append(text)
        return word_piece.tokenize(text)

    counter = TokenCounter(tokenize)
    asked.clear()
    lines = [f"Zürich {n}\n" for n in range(3)]
    assert [counter.count(line) for line in lines] == [len(word_piece.tokenize(line)) for line in lines]
    assert counter.count("".join(lines)) == len(word_piece.tokenize("".join(lines)))
    assert asked == [line.rstrip() for line in lines]  # the end of a line is no token to this tokenizer


def test_a_line_that_is_asked_for_now_and_then_is_kept(word_piece: Tokenizer) -> None:
    """Thousands of other lines push out those that nobody asked for since."""
    asked: list[str] = []

    def tokenize(text: str) -> list[int]:
        asked.append(text)
        return word_piece.tokenize(text)

    counter = TokenCounter(tokenize)
    for number in range(20_000):
        counter.count(f"Straße {number}")
        counter.count("Zürich")
    counter.count("Straße 0")
    assert asked.count("Zürich") == 1
    assert asked.count("Straße 0") == 2
