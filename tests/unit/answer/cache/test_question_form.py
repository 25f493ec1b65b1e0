"""The form of a question: equal only where the answer must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.question_pairs import different_pairs, same_pairs

from llama_index_presets.answer.cache.question_form import normalised, question_form


def test_no_pair_of_different_questions_has_one_form() -> None:
    """Numbers, units, negations, names, order, tense, case and quantifiers tell questions apart: 0 of 600 and more."""
    pairs = different_pairs()
    assert len(pairs) >= 600
    assert [pair for pair in pairs if question_form(pair[0]) == question_form(pair[1])] == []


def test_other_forms_of_a_question_have_its_form() -> None:
    """Blanks, Unicode, politeness and the order of an indirect question do not count: 90 and more."""
    pairs = same_pairs()
    assert len(pairs) >= 90
    assert [pair for pair in pairs if question_form(pair[0]) != question_form(pair[1])] == []


@pytest.mark.parametrize("prefix", ["Please, ", "Hi, ", "Tell me ", "Could you please tell me "])
def test_politeness_keeps_different_questions_apart(prefix: str) -> None:
    """What is taken away in front of a question takes nothing of the question away."""
    pairs = [
        (a[0].lower() + a[1:], b[0].lower() + b[1:]) for a, b in different_pairs() if a[:1] == b[:1] == "W"
    ]
    equal = [
        p for p in pairs if p[0] != p[1] and question_form(prefix + p[0]) == question_form(prefix + p[1])
    ]
    assert equal == []


@given(st.text(max_size=60))
def test_the_form_of_a_normalised_question_is_its_form(text: str) -> None:
    """Blanks and spellings are settled before anything else is looked at."""
    assert question_form(normalised(text)) == question_form(text)
    assert normalised(normalised(text)) == normalised(text)
