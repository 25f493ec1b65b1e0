"""Sections that are headed by what a question wants to know."""

from __future__ import annotations

import pytest
from tests.fakes import WordEmbedding

from llama_index_presets.answer.confidence.calibration import FEATURES
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
        f"Context:\n\n{passages}\n\nQuestion: Which medicine is recommended for croup?\nAnswer:"
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


def test_the_name_of_a_document_is_no_aspect_of_it() -> None:
    """Risk factors and a broken heart are names here, neither what is asked nor what the section is about."""
    assert section_fit("Can you explain Broken Heart Syndrome?", "Broken Heart Syndrome > What is it?") == 1
    heading = "Heart Risk Factors > What are Heart Risk Factors?"
    assert section_fit("What are Heart Risk Factors?", heading) == 1
    assert section_fit("How are Heart Risk Factors treated?", heading) == -1


def test_a_sentence_below_a_heading_of_something_else_is_less_sure() -> None:
    """What croup is says little of who gets it, however close the words; below "Facts" the sentence counts whole."""

    def confidence(section: str) -> float:
        passage = f"[1] Croup > {section}\nCroup gets its name from a cough."
        prompt = f"Context:\n\n{passage}\n\nQuestion: Who gets croup?\nAnswer:"
        return ExtractiveLLM().answer_with_confidence(prompt)[1]

    assert confidence("What is croup?") == pytest.approx(0.6 * confidence("Facts"))
    assert confidence("Who is at risk?") == pytest.approx(confidence("Facts"))


def test_a_section_that_is_named_after_the_matter_speaks_for_no_sentence_in_it() -> None:
    """Its heading is close to every question about the matter; one of what is asked says more."""

    def features(question: str, section: str) -> dict[str, float]:
        passage = Passage(1, f"Harbour > {section}", "Lockers are emptied every night.", 0.6)
        found = ExtractiveLLM(embed_model=WordEmbedding()).evidence(question, [passage])
        assert found is not None
        return dict(zip(FEATURES, found, strict=True))

    owner = features("Who owns the harbour gym?", "The harbour gym")
    assert owner["heading"] == 0 and owner["similarity"] < 0.4
    fee = features("What does the harbour gym cost?", "What the harbour gym does cost")
    assert fee["heading"] > 0 and fee["similarity"] > 0.6


def test_of_two_sections_on_the_aspect_the_one_that_names_the_matter_answers() -> None:
    """Two diseases have a section on signs, and the sentences are alike; the heading says which disease is meant."""
    passages = (
        "[1] Bronchitis > Signs\nSigns of heart failure and of bronchitis are tiredness and cough.\n\n"
        "[2] Heart failure > Signs\nSigns of heart failure are tiredness and swollen ankles."
    )
    answer = ExtractiveLLM().answer(
        f"Context:\n\n{passages}\n\nQuestion: What are signs of heart failure?\nAnswer:"
    )
    assert answer.endswith("ankles. [2]")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who founded Acme?", "Henrik Olsen founded it in Aarhus. [1]"),
        (
            "What is Acme?",
            "Acme makes pumps. [1] Water is moved by them. [1] Henrik Olsen founded it in Aarhus. [1]",
        ),
    ],
)
def test_a_title_answers_what_its_matter_is_and_no_more(question: str, answer: str) -> None:
    """The title is closer to both questions than any sentence; who founded it stands further down."""

    class TitleFirst(WordEmbedding):
        """The question and the title are alike, and every sentence is unlike them."""

        def _vector(self, text: str) -> list[float]:
            return [1.0, 0.0] if text in (question, "Acme") else [0.0, 1.0]

    llm = ExtractiveLLM(min_coverage=0, embed_model=TitleFirst())
    text = "[1] Acme\nAcme makes pumps. Water is moved by them. Henrik Olsen founded it in Aarhus."
    assert llm.answer(f"Context:\n\n{text}\n\nQuestion: {question}\nAnswer:") == answer


def test_what_a_section_is_named_after_is_explained_by_its_first_sentences() -> None:
    """A sentence further down that names it more often does not stand for them."""
    passages = (
        "[1] Manual > 4.3 Leak sensor\nIt closes the valve when the floor is wet. A red lamp is lit. "
        "The leak sensor of a leak sensor kit is sold apart."
    )
    answer = ExtractiveLLM(min_coverage=0, max_sentences=2).answer(
        f"Context:\n\n{passages}\n\nQuestion: What is the leak sensor?\nAnswer:"
    )
    assert answer == "It closes the valve when the floor is wet. [1] A red lamp is lit. [1]"
