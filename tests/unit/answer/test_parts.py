"""Questions of several parts are cut between the parts, and nowhere else."""

from __future__ import annotations

import pytest

from llama_index_presets.answer.confidence.parts import parts_of


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("What is croup and how is it treated?", ["What is croup?", "how is it treated?"]),
        (
            "What causes shingles? How can it be prevented?",
            ["What causes shingles?", "How can it be prevented?"],
        ),
        ("Is asthma hereditary, and can it be cured?", ["Is asthma hereditary?", "can it be cured?"]),
        (
            "How long does firing take and at what temperature is it done?",
            ["How long does firing take?", "at what temperature is it done?"],
        ),
        (
            "Explain what a stoma is and how to care for it.",
            ["Explain what a stoma is?", "how to care for it."],
        ),
        (
            "What is rabies? Who gets it? And is it deadly? And how is it treated?",
            ["What is rabies?", "Who gets it?", "is it deadly? And how is it treated?"],
        ),
    ],
)
def test_a_question_is_cut_between_its_parts(question: str, parts: list[str]) -> None:
    """Before a question word or an inverted verb, into three parts at most."""
    assert parts_of(question) == parts


@pytest.mark.parametrize(
    "question",
    [
        "What are the signs and symptoms of croup?",
        "When and where was she born?",
        "Who founded Acme and when?",
        "Which drug helps and is the cheapest?",
        "What did Smith and Jones find?",
        "How is botulism treated? And for children?",
        "Acme and what it sells",
        "croup and how it is treated",
        "",
    ],
)
def test_a_question_for_one_thing_is_left_whole(question: str) -> None:
    """Nouns and verbs beside a conjunction are no questions, and a condition belongs to what it limits."""
    assert parts_of(question) == [question]
