"""What is quoted of minutes, data sheets and letterheads: a label, and behind a colon its value."""

from __future__ import annotations

import pytest

from llama_index_presets.answer.confidence.question import Question, typed
from llama_index_presets.answer.confidence.units import label_of, split_units
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.ranking.bm25 import Analyzer

MINUTES = (
    "Minutes of the product meeting, 12 March 2026\nPresent: Ana Ruiz (chair), Ben Okafor. Absent: Deepak Shah.\n"
    "Next meeting: 26 March, 14:00, room Elm.\nHiring: two engineers, one designer. Budget: $410,000."
)
ROUTER = (
    "Lights: solid green means online. Solid red means no signal.\n"
    "Power: 12 V, 2 A.\nWarranty: 2 years from purchase."
)


def _quoted(question: str, text: str) -> str:
    passages = f"Context:\n\n[1]\n{text}\n\nQuestion: {question}\nAnswer:"
    return ExtractiveLLM(min_coverage=0).answer(passages).replace(" [1]", "")


def test_a_line_that_begins_with_a_label_is_a_unit() -> None:
    """The title over it and the label above are not quoted with it."""
    assert split_units(MINUTES)[:3] == [
        "Minutes of the product meeting, 12 March 2026",
        "Present: Ana Ruiz (chair), Ben Okafor.",
        "Absent: Deepak Shah.",
    ]


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("- Delivery time (days): 3", "Delivery time (days)"),
        ("2. Owner: the team lead", "Owner"),
        ("See https://example.org", ""),
        ("At 14:00 we meet", ""),
        ("Of all the people who came to see it: three", ""),
        ("Causes:", ""),
    ],
)
def test_what_a_label_is(line: str, label: str) -> None:
    """Up to four words, and something behind the colon; no time, no address, no clause."""
    assert label_of(line) == label


@pytest.mark.parametrize(
    ("question", "text", "quoted"),
    [
        ("Who was absent at the product meeting?", MINUTES, "Absent: Deepak Shah."),
        ("What power does it need?", ROUTER, "Power: 12 V, 2 A."),
        ("What is the hiring budget?", MINUTES, "Hiring: two engineers, one designer. Budget: $410,000."),
        ("What do the lights mean when solid red?", ROUTER, "Solid red means no signal."),
    ],
)
def test_the_value_of_the_label_that_is_asked_for_is_quoted(question: str, text: str, quoted: str) -> None:
    """Without values of other labels, however short it is; sentences behind it may answer, too."""
    assert quoted in _quoted(question, text)
    assert "Next meeting" not in _quoted(question, text)


RECIPE = (
    "Serves 4. Takes 45 minutes.\n\nIngredients\n\n- 250 g red lentils\n- two carrots\n\n"
    "Method\n\n1. Chop the carrots.\n2. Fry them."
)
CONTRACT = (
    "The Contractor keeps an insurance. This agreement is made between Northwind Ltd and Brightside GmbH "
    "(“the Contractor”) on 3 February. The Contractor cleans the offices."
)


def test_a_line_that_names_a_list_is_quoted_with_its_items() -> None:
    """Where it is what was asked for; the next list is another."""
    assert _quoted("What are the ingredients?", RECIPE) == "Ingredients - 250 g red lentils - two carrots"


def test_an_item_that_is_quoted_by_itself_has_no_dash() -> None:
    """It is no list; a number stays, for it says which step it is."""
    assert _quoted("How much of the lentils?", RECIPE) == "250 g red lentils"
    assert _quoted("What is chopped?", RECIPE).startswith("1. Chop the carrots.")


@pytest.mark.parametrize(
    ("text", "holds"),
    [("2. Add cumin.", 0.0), ("2.1 The fee is due.", 0.0), ("2. Add 3 g.", 1.0), ("2.5 g", 1.0)],
)
def test_the_number_of_an_item_is_no_number_of_its_matter(text: str, holds: float) -> None:
    """A question for an amount is not answered by the place of a step."""
    analyzer = Analyzer()
    assert typed(Question.of("How much is needed?", analyzer), text, analyzer) == holds


def test_the_sentence_that_introduces_a_term_says_who_it_is() -> None:
    """Contracts introduce their parties in brackets and speak of them in every clause."""
    assert "Brightside" in _quoted("Who is the Contractor?", CONTRACT)
    assert _quoted("What does the Contractor clean?", CONTRACT) == "The Contractor cleans the offices."
