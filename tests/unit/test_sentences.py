"""Sentences end as the language of a text ends them, and every character stays."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets.text import sentences
from llama_index_presets.text.sentences import split_sentences


@pytest.mark.parametrize(
    ("language", "expected"),
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
def test_sentences_end_as_in_their_language(language: str, expected: list[str]) -> None:
    """Abbreviations end no sentence, and the full stops of other scripts do."""
    assert split_sentences("".join(expected), language) == expected


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


@settings(max_examples=200, deadline=None)
@given(st.text("ab.?! \n,)('\"*@[1A_é’”…", max_size=30))
def test_sentences_of_english_are_those_of_punkt(paragraph: str) -> None:
    """A text in which nothing can end a sentence is not shown to Punkt, which would leave it whole, too."""
    starts = [start for start, _ in sentences._punkt().span_tokenize(paragraph)]
    bounds = itertools.pairwise([0, *starts[1:], len(paragraph)])
    expected = [paragraph[start:end] for start, end in bounds if start < end]
    assert sentences._english_sentences(paragraph) == expected


def test_a_line_of_marks_is_one_sentence() -> None:
    """Punkt tried every division of the line for 15 s, and gave up: the document could not be ingested."""
    marks = "?" * 30_000
    assert split_sentences(f"Why {marks} Because. It is so.") == [f"Why {marks} ", "Because. ", "It is so."]
    assert split_sentences("Why??? Because.") == ["Why??? ", "Because."]
