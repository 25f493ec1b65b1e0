"""Follow-up questions without a language model: what they retrieve, and what is left alone."""

from __future__ import annotations

import pytest
from llama_index.core.schema import TextNode

from llama_index_presets import BM25Index
from llama_index_presets.answer.follow_up import make_whole

PAGES = {
    "botulism-treatment": "Botulism is treated with an antitoxin as soon as it is suspected. A ventilator may help.",
    "botulism-children": "Children and infants with botulism are treated with a special antitoxin from human blood.",
    "botulism-spread": "Botulism is spread by food: spores grow in home-canned vegetables. It is not contagious.",
    "botulism-symptoms": "Symptoms of botulism are double vision, slurred speech and weak muscles.",
    "measles-treatment": "Measles has no cure; it is treated with rest and vitamin A.",
    "measles-children": "Children with measles are kept at home for four days and given vitamin A.",
    "measles-spread": "Measles is spread through the air by coughing; it is the most contagious disease.",
    "measles-vaccine": "A vaccine against measles is given twice. Side effects of the measles vaccine are mild.",
    "leave-employees": "Employees have 28 days of vacation a year.",
    "leave-managers": "Managers have 30 days of vacation a year and may carry over five.",
    "revenue-acme-2021": "Acme Corporation had a revenue of 7 million in 2021.",
    "revenue-acme-2022": "Acme Corporation had a revenue of 9 million in 2022.",
    "revenue-zenith-2021": "Zenith Corporation had a revenue of 3 million in 2021.",
    "flu-children": "For children the flu is dangerous, and in infants it is spread by coughing. Children rest.",
    "flu-symptoms": "The symptoms of flu are fever and cough. What are symptoms of flu in infants? Fever.",
    "flu-spread": "Flu is contagious; it is spread through the air. How is flu spread? By coughing.",
    "flu-vaccine": "There is a vaccine against flu; the vaccine does have side effects.",
    "managers-pay": "Managers are paid monthly. For managers, and what managers earn, see the table.",
    "revenue-atlas-2022": "In 2022 the revenue of Atlas was 5 million; in 2022 it grew.",
    "zenith-history": "Zenith was founded in Zurich. Zenith makes watches.",
    "parking": "Visitors park behind the office; the gate opens at eight.",
}
BOTULISM, MEASLES = "How is botulism treated?", "How is measles treated?"
VACATION, REVENUE = "How many vacation days do employees have?", "What was the revenue of Acme in 2021?"

FOLLOW_UPS = [
    ("and for children?", BOTULISM, "Botulism", "botulism-children"),
    ("And in infants?", BOTULISM, "", "botulism-children"),
    ("What about children?", MEASLES, "Measles", "measles-children"),
    ("And measles?", BOTULISM, "Botulism", "measles-treatment"),
    ("How about measles?", "How is botulism spread?", "Botulism", "measles-spread"),
    ("how is it spread?", BOTULISM, "Botulism", "botulism-spread"),
    ("How is it spread?", MEASLES, "Measles", "measles-spread"),
    ("Is it contagious?", BOTULISM, "Botulism", "botulism-spread"),
    ("What are the symptoms?", BOTULISM, "Botulism", "botulism-symptoms"),
    ("And the symptoms?", BOTULISM, "Botulism", "botulism-symptoms"),
    ("Is there a vaccine?", MEASLES, "Measles", "measles-vaccine"),
    (
        "Does the vaccine have side effects?",
        "Is there a vaccine against measles?",
        "Measles",
        "measles-vaccine",
    ),
    ("and managers?", VACATION, "", "leave-managers"),
    ("What about managers?", VACATION, "Handbook", "leave-managers"),
    ("And in 2022?", REVENUE, "", "revenue-acme-2022"),
    ("And Zenith?", REVENUE, "", "revenue-zenith-2021"),
    ("What about Zenith?", REVENUE, "Acme", "revenue-zenith-2021"),
    ("But for managers?", VACATION, "", "leave-managers"),
]
ALONE = [
    ("What causes measles?", BOTULISM),
    ("Where can visitors park?", VACATION),
    ("How many days of vacation do managers have?", VACATION),
    ("Who discovered penicillin?", BOTULISM),
    ("What is measles?", BOTULISM),
    ("Is there evidence that vitamin A helps with measles?", BOTULISM),
]


@pytest.fixture(scope="module")
def pages() -> BM25Index:
    """The pages, in memory."""
    index = BM25Index()
    index.add([TextNode(id_=name, text=text) for name, text in PAGES.items()])
    return index


def first(pages: BM25Index, question: str) -> str:
    hits = pages.as_retriever(top_k=1).retrieve(question)
    return hits[0].node.node_id if hits else ""


def test_follow_ups_retrieve_what_they_mean(pages: BM25Index) -> None:
    """At least 85 of 100 made whole find their page first; as they are said, fewer than six do."""
    whole = [
        first(pages, make_whole(said, before, topic=topic)) == page
        for said, before, topic, page in FOLLOW_UPS
    ]
    bare = [first(pages, said) == page for said, _, _, page in FOLLOW_UPS]
    wrong = [FOLLOW_UPS[place][0] for place, right in enumerate(whole) if not right]
    assert sum(whole) >= 0.85 * len(FOLLOW_UPS), wrong
    assert sum(bare) < 0.6 * len(FOLLOW_UPS)


@pytest.mark.parametrize(("message", "before"), ALONE)
def test_a_question_that_stands_alone_is_left_as_it_is(message: str, before: str) -> None:
    """Words of the question before would only draw it away from its own topic."""
    assert make_whole(message, before) == message


def test_the_first_message_has_nothing_to_lean_on() -> None:
    """Without a question before there is nothing to carry over."""
    assert make_whole("And for children?", "") == "And for children?"


def test_what_a_message_refers_to_may_stand_in_its_own_first_part() -> None:
    """In "What is croup and how is it treated?" it is croup, whatever was spoken of before."""
    message = "What is croup and how is it treated?"
    assert make_whole(message, "How is botulism treated?", topic="Botulism") == message


def test_what_was_answered_is_no_part_of_the_next_question() -> None:
    """Joined to a question with a mark of its own, the one before would be answered again."""
    whole = make_whole("How long does it take?", "how is glazing done?")
    assert whole == "how is glazing done: How long does it take?"
