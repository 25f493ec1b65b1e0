"""Names of a question as the passages write them."""

import pytest

from llama_index_presets.answer.confidence.evidence import Passage, read_passages
from llama_index_presets.answer.confidence.spelling import slips, spelled_out


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        ("Where did the UMC meet?", "The United Methodist Church met.", "Where did the United Methodist Church meet?"),
        ("Is MIPS cheap?", "A million of instructions per second.", "Is million of instructions per second cheap?"),
        ("Who is the FDA?", "The Food and Drug Administration.", "Who is the Food and Drug Administration?"),
        ("Who runs the FDA?", "Some food may drug animals.", "Who runs the FDA?"),
        ("WHERE DID THE UMC MEET?", "The United Methodist Church met.", "WHERE DID THE UMC MEET?"),
    ],
)  # fmt: skip
def test_an_abbreviation_that_no_passage_has_is_written_out(question, text, expected):
    """Three letters need words with capitals, four do not; a question in capitals has no abbreviations."""
    assert spelled_out(question, [text]) == expected


@pytest.mark.parametrize(
    ("name", "held", "expected"),
    [
        ("bedigo", "bendigo", "bendigo"),  # one letter too few
        ("ctenophhor", "ctenophor", "ctenophor"),  # one too many
        ("zeria", "zeira", "zeira"),  # two swapped
        ("arteriti", "arthriti", None),  # another letter is another word
        ("hypothyroid", "hyperthyroid", None),
        ("marin", "martin", None),  # short names are not guessed at
        ("iran", "iarn", None),
        ("2019", "2109", None),
        ("cat", "cta", None),
    ],
)
def test_a_slip_is_a_letter_more_or_less_or_two_swapped(name, held, expected):
    """A letter in place of another makes another word, in medicine most of all."""
    assert slips([name], [held, "otherwise"]) == ({} if expected is None else {name: expected})


def test_a_name_that_two_words_are_like_stays_as_it_is():
    """Which of them is meant is not to be guessed."""
    assert slips(["bendgo"], ["bendigo", "bendego"]) == {}


def test_a_misspelt_name_counts_as_the_name():
    """The question is embedded as it was asked; its words, names and pairs are those of the passage."""
    passage = Passage(1, "", "Galor and Zeira showed it in 1993.")
    reading = read_passages("When did Galor and Zeria show it?", [passage])
    assert reading.names == read_passages("When did Galor and Zeira show it?", [passage]).names == [1.0]
    assert reading.question.text == "When did Galor and Zeria show it?"


def test_another_drug_is_not_taken_for_a_slip():
    """Prednisolone is a drug of its own, two letters longer."""
    reading = read_passages(
        "What does Mary take Prednisolone for?", [Passage(1, "", "Mary takes prednisone.")]
    )
    assert "prednisolon" in reading.question.words
