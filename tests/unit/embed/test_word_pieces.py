"""Lengths of words are those that the library gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import WordPiece

from llama_index_presets.embed.tokens import WordPieces

TOKENS = [
    "[UNK]", "[CLS]", "a", "b", "c", "ab", "abc", "1", "12", "pump", "##a", "##b", "##ab", "##bca", "##1", "##23", "é",
    "##é", "-", "##s",
]  # fmt: skip
VOCABULARY = {token: number for number, token in enumerate(TOKENS)}
MODEL = WordPiece(VOCABULARY, unk_token="[UNK]", max_input_chars_per_word=12)
PIECES = WordPieces(MODEL, VOCABULARY)


@settings(max_examples=400, deadline=None)
@given(st.text("abc123pums", min_size=1, max_size=14))
def test_a_word_has_as_many_tokens_as_the_library_makes(word: str) -> None:
    """Known and unknown words, and those that are too long; a dead end makes the whole word unknown."""
    assert PIECES.length(word) == len(MODEL.tokenize(word))


@pytest.mark.parametrize(
    ("word", "tokens"),
    [
        ("pumps", 2),
        ("abca", 2),
        ("abcc", 1),
        ("pumppump", 1),
        ("a" * 12, 12),
        ("a" * 13, 1),
        ("123", 1),
        ("", 0),
    ],
)
def test_the_longest_piece_is_taken_first(word: str, tokens: int) -> None:
    """As WordPiece does, without going back."""
    assert PIECES.length(word) == tokens
