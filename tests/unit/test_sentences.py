"""Sentences end as the language of a text ends them, and every character stays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets.text.sentences import split_sentences


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", ["Dr. Who came. ", "He left."]),
        ("de", ["Der Preis beträgt z. B. 5,3 Mio. Euro. ", "Dr. Müller kam am 3. Mai. ", "Gut."]),
        ("es", ["El Sr. Pérez llegó. ", "¿Qué pasa? ", "Nada."]),
        ("ru", ["Это г. Москва. ", "Он пришёл."]),
        ("hi", ["वह आया। ", "वह गया। ", "क्या?"]),
        ("ar", ["جاء الرجل. ", "هل ذهب؟ ", "نعم."]),
        ("zh", ["他来了。", "走了！"]),
        ("ja", ["来ました。", "行きました。"]),
    ],
)
def test_sentences_end_as_in_their_language(language: str, sentences: list[str]) -> None:
    """Abbreviations end no sentence, and the full stops of other scripts do."""
    assert split_sentences("".join(sentences), language) == sentences


def test_another_script_needs_no_language() -> None:
    """Where nobody says the language, the script tells which marks end a sentence."""
    assert split_sentences("他来了。走了！") == ["他来了。", "走了！"]


@settings(max_examples=60, deadline=None)
@given(
    st.text("ab Жя。！？।. \n“”'()1😀é؟", max_size=60),
    st.sampled_from(["en", "de", "ru", "hi", "ar", "zh", "ja", "th", "ko"]),
)
def test_joined_sentences_are_the_text(text: str, language: str) -> None:
    """A chunk is cited by its characters, so none may be lost or moved."""
    assert "".join(split_sentences(text, language)) == text
