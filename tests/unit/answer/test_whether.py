"""A question for yes or no is answered by a sentence that speaks of all it asks, or not at all."""

from __future__ import annotations

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_presets.answer.confidence.calibration import Calibration
from llama_index_presets.answer.confidence.evidence import Passage, read_passages
from llama_index_presets.answer.confidence.whether import asks_whether
from llama_index_presets.answer.context import DONT_KNOW, number_blocks, render_prompt
from llama_index_presets.answer.extractive import ExtractiveLLM

SHOP = "We ship to Norway. Gift cards are not refundable. Keep the receipt."


def decided(question: str, text: str, *, heading: str = "", place: int = 0) -> float:
    reading = read_passages(question, [Passage(1, heading, text)])
    return reading.decides(reading.units[place])


def answer(question: str, text: str) -> str:
    hits = [NodeWithScore(node=TextNode(text=text), score=0.9)]
    llm = ExtractiveLLM(calibration=Calibration(intercept=0.0, coverage=1.0, floor=0.5))
    return llm.answer(render_prompt(number_blocks(hits), question))


@pytest.mark.parametrize(
    ("question", "asks"),
    [
        ("Is the sauna included?", True),
        ("Don't you ship to Norway?", True),
        ("May I keep a dog when I move in?", True),
        ("Can you tell me when the sauna opens?", False),
        ("Is there a way to cancel early?", False),
        ("Is the office open on Friday or on Saturday?", False),
        ("Which court is open?", False),
        ("Island names of Greece?", False),
    ],
)
def test_an_auxiliary_asks_for_yes_or_no(question: str, asks: bool) -> None:
    """Unless it asks politely for something else, or for one of two."""
    assert asks_whether(question) is asks


@pytest.mark.parametrize(
    ("question", "text", "share"),
    [
        ("Are gift cards refundable?", SHOP, 3 / 3),
        ("Do gift cards expire?", SHOP, 2 / 3),
        ("When do gift cards expire?", SHOP, 1),  # no question for yes or no
        ("Are gift cards allowed?", SHOP, 2 / 2),  # permission is said in many ways
        ("Does the warranty cover water damage?", "Water damage is excluded from the warranty.", 3 / 3),
        ("Is gout curable?", "Gout has no cure.", 2 / 2),
        ("Is a blood transfusion safe?", "Blood transfusions are safe.", 3 / 3),  # the article is no word
    ],
)
def test_a_sentence_decides_by_the_words_that_it_speaks_of(question: str, text: str, share: float) -> None:
    """Those around it count, too."""
    assert decided(question, text, place=min(1, text.count(". "))) == pytest.approx(share)


def test_a_name_may_stand_elsewhere_in_the_passage_and_not_outside_it() -> None:
    """What is said of one product is not said of another."""
    text = "The Aqualux was made in 2020. It has two racks. It weighs 30 kg. The guarantee covers limescale."
    assert decided("Does the guarantee of the Aqualux cover limescale?", text, place=3) == 4 / 4
    assert decided("Does the guarantee of the Vestra cover limescale?", text, place=3) == 1 / 2


def test_a_heading_of_what_is_asked_says_it_in_other_words() -> None:
    """A diagnosis is a test; the rest of the question must still be there."""
    heading, text = "Croup > How is croup diagnosed?", "A doctor listens to the cough."
    assert decided("Is there a test for croup?", text, heading=heading) == 1
    assert decided("Is there a test for croup in a pharmacy?", text, heading=heading) == 2 / 3


def test_what_a_question_for_yes_or_no_leaves_open_is_not_answered() -> None:
    """The sentence about the same thing is no answer."""
    assert answer("Are gift cards refundable?", SHOP) == "Gift cards are not refundable. [1]"
    assert answer("Do gift cards expire?", SHOP) == DONT_KNOW
