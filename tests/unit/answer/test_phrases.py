"""A sentence about another kind of what is asked is no answer, and other words for the same kind are."""

from __future__ import annotations

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_presets.answer.confidence.evidence import Passage, read_passages
from llama_index_presets.answer.context import DONT_KNOW, number_blocks, render_prompt
from llama_index_presets.answer.extractive import ExtractiveLLM


def of_another_kind(question: str, sentence: str, *, rest: str = "") -> bool:
    reading = read_passages(question, [Passage(1, "", f"{sentence} {rest}")])
    return reading.is_of_another_kind(reading.units[0])


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("How long does bisque firing take?", "Glaze firing takes nine hours."),
        ("When is the electric kiln fired?", "The large kiln is fired on Fridays."),
        ("What were the product sales in 2019?", "Net sales were 412 million in 2019."),
        ("Who may use the staff entrance?", "Visitors use the north entrance."),
        ("By how much did export sales fall?", "Domestic sales fell by 3 %."),
        ("What hedges the price of oil?", "The price of copper is hedged by forward contracts."),
        ("What hedges the oil price?", "The price of copper is hedged by forward contracts."),
    ],
)
def test_a_noun_with_another_modifier_is_another_thing(question: str, sentence: str) -> None:
    """Also where the modifier stands behind its noun."""
    assert of_another_kind(question, sentence)


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("How long does glaze firing take?", "Glaze firing takes nine hours."),
        ("When is the kiln fired?", "The large kiln is fired on Fridays."),
        ("Who was the last minister?", "The final minister was Brandt."),
        ("How many five-day courses are there?", "The spring course has ten places."),
        ("What causes child labor?", "Child labour is caused by poverty."),
        ("Which company agreed to sell?", "Acme agreed to sell its kilns."),
        ("How long does bisque firing take?", "It takes nine hours."),
        ("Within how many days does the shop take parcels back?", "Acme takes parcels back within 30 days."),
        ("Where do customers pay?", "Visitors pay at the desk."),
        ("When can the guests use the pool?", "You may use the pool until ten."),
        ("How did they take control?", "The army took control at night."),
    ],
)
def test_other_words_are_not_another_thing(question: str, sentence: str) -> None:
    """Without another modifier nothing is denied; verbs, numerals and words such as "last" are none."""
    assert not of_another_kind(question, sentence)


def test_a_kind_that_the_passage_speaks_of_is_not_another() -> None:
    """The sentence may leave out what the next one says."""
    rest = "Bisque firing comes first."
    assert not of_another_kind(
        "How long does bisque firing take?", "Glaze firing takes nine hours.", rest=rest
    )


def test_another_kind_is_not_quoted() -> None:
    """A sentence with all the words but one is no answer where that one is exchanged."""
    hits = [
        NodeWithScore(node=TextNode(text="Glaze firing of pots takes nine hours in the kiln."), score=0.9)
    ]

    def ask(question: str) -> str:
        return ExtractiveLLM().answer(render_prompt(number_blocks(hits), question))

    assert ask("How long does glaze firing of pots take in the kiln?").startswith("Glaze firing")
    assert ask("How long does bisque firing of pots take in the kiln?") == DONT_KNOW
