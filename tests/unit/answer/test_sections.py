"""Sections that are headed by what a question wants to know."""

from __future__ import annotations

import pytest

from llama_index_presets.answer.confidence.evidence import Passage, read_passages
from llama_index_presets.answer.confidence.sections import section_fit
from llama_index_presets.answer.extractive import ExtractiveLLM


@pytest.mark.parametrize(
    ("question", "section", "fit"),
    [
        ("What helps against croup?", "Treatment", 1),
        ("What helps against croup?", "What causes croup?", -1),
        ("How do you cure croup?", "How is croup treated?", 1),
        ("Why do children get croup?", "Causes", 1),
        ("How would I notice croup?", "Signs and symptoms", 1),
        ("What is croup?", "What is croup?", 1),
        ("What is croup?", "Prevention", -1),
        ("How much does the permit cost?", "Fees", 1),
        ("How old is the harbour?", "Treatment", 0),
        ("What helps against croup?", "History", 0),
    ],
)
def test_a_section_fits_that_is_headed_by_what_is_asked(question: str, section: str, fit: int) -> None:
    """Other words for the same aspect fit, a section on another aspect does not, and the rest says nothing."""
    assert section_fit(question, f"Croup > {section}") == fit


def test_a_title_is_no_section() -> None:
    """A document that is called "Prevention" is not read as its section."""
    assert section_fit("How can I avoid croup?", "Prevention") == 0


def test_the_answer_is_taken_from_the_section_on_what_is_asked() -> None:
    """Two sections name the disease and the medicine; the one on treatment answers."""
    passages = (
        "[1] Croup > Causes\nCroup often follows a cold and a course of medicine against it.\n\n"
        "[2] Croup > Treatment\nSteam and a single dose of a steroid open the airways."
    )
    answer = ExtractiveLLM(min_coverage=0).answer(
        f"Context:\n\n{passages}\n\nQuestion: Which medicine is given for croup?\nAnswer:"
    )
    assert answer == "Steam and a single dose of a steroid open the airways. [2]"


def test_where_all_hits_are_of_one_document_the_best_stands_above_the_last() -> None:
    """Five sections of one document are no rivals; how far they are apart says whether one of them was meant."""
    hits = [
        Passage(place, "", "A sentence.", cosine, "a")
        for place, cosine in enumerate((0.7, 0.65, 0.6), start=1)
    ]
    assert read_passages("What?", hits).margin == pytest.approx(0.7 - 0.6)


def test_a_large_margin_counts_up_to_a_bound() -> None:
    """Above 0.15 the right document was found, which says nothing of the answer in it."""
    hits = [Passage(1, "", "A sentence.", 0.8, "a"), Passage(2, "", "Another.", 0.3, "b")]
    assert read_passages("What?", hits).margin == 0.15
