"""The floor of evidence is the same for every model and pattern: words, meaning and codes, never a rank alone."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core import MockEmbedding
from llama_index.core.schema import NodeWithScore, TextNode
from tests.fakes import ScriptedLLM

from llama_index_presets.answer.confidence.calibration import FEATURES, Calibration, calibration_of
from llama_index_presets.answer.confidence.evidence import Passage, read_passages
from llama_index_presets.answer.confidence.floor import EvidenceFloor, cosine_of, passages_of
from llama_index_presets.answer.confidence.question import Question
from llama_index_presets.answer.confidence.units import split_units
from llama_index_presets.answer.context import DONT_KNOW, number_blocks
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.answer.synthesize import CitedSynthesizer
from llama_index_presets.errors import SettingsError
from llama_index_presets.provenance import RankedNode, StageRank
from llama_index_presets.ranking.bm25 import Analyzer

CALIBRATION = Calibration(intercept=-6.0, coverage=5.0, similarity=6.0, floor=0.5)


def found(
    text: str, *, cosine: float | None = None, keyword: int | None = None, **metadata: Any
) -> RankedNode:
    stages = {} if cosine is None else {"vector": StageRank(1, cosine)}
    stages |= {} if keyword is None else {"bm25": StageRank(keyword, 9.0)}
    return RankedNode(
        node=TextNode(text=text, metadata=metadata), score=0.5, stages={**stages, "fusion": StageRank(1, 0.5)}
    )


@pytest.mark.parametrize("floor", [EvidenceFloor(floor=0.3), EvidenceFloor(calibration=CALIBRATION)])
def test_a_keyword_hit_is_no_evidence_because_it_came_first(floor: EvidenceFloor) -> None:
    """The best hit of the keyword leg shares one common word with the question."""
    judged = floor.judge(
        "Who won the football match in Lisbon?", [found("A match lights the stove.", cosine=0.1, keyword=1)]
    )
    assert judged.hits == []
    assert judged.confidence is not None and judged.confidence < 0.5


@pytest.mark.parametrize("floor", [EvidenceFloor(floor=0.3), EvidenceFloor(calibration=CALIBRATION)])
def test_a_keyword_hit_is_evidence_when_it_holds_the_code(floor: EvidenceFloor) -> None:
    """An embedding model says little of a code: the words decide."""
    hit = found("Error E-1042 means that the valve is stuck.", cosine=0.05, keyword=3)
    assert floor.judge("What does error E-1042 mean?", [hit]).hits == [hit]
    assert floor.judge("What does error E-2077 mean?", [hit]).hits == []


def test_confidence_grows_with_words_and_meaning() -> None:
    """Both raise the probability; a name that no passage holds lowers it."""
    analyzer = Analyzer()

    def confidence(question: str, cosine: float) -> float:
        reading = read_passages(
            question, [Passage(1, "", "Botulism is treated with an antitoxin.", cosine)], analyzer
        )
        return Calibration(intercept=-6, coverage=5, similarity=5, names=1).probability(reading.features(0))

    assert confidence("How is Botulism treated?", 0.8) > confidence("How is Botulism treated?", 0.3)
    assert confidence("How is Botulism treated?", 0.5) > confidence("How is Babesiosis treated?", 0.5)


def test_the_date_that_is_asked_for_is_evidence() -> None:
    """A sentence without a date is less evidence for "when"; a question that wants none loses nothing."""

    def confidence(question: str, text: str) -> float:
        reading = read_passages(question, [Passage(1, "", text, 0.5)], Analyzer())
        return Calibration(intercept=-1, typed=2).probability(reading.features(0))

    assert confidence("When was the bridge opened?", "The bridge opened in May 1932.") > 0.7
    assert confidence("When was the bridge opened?", "The bridge opened with a parade.") < 0.3
    assert confidence("Why was the bridge opened?", "The bridge opened with a parade.") > 0.7


def names(question: str, text: str, heading: str = "") -> float:
    return read_passages(question, [Passage(1, heading, text, 0.5)], Analyzer()).names[0]


def test_another_name_that_begins_alike_is_not_the_name() -> None:
    """Five letters are not enough: two diseases share them."""
    assert names("How is Bronchiectasis treated?", "Bronchitis is treated with rest.") == 0.0
    assert names("How is Bronchiectasis treated?", "It is treated.", "Bronchiectasis > Treatment") == 1.0
    assert names("What do Vaccinations cost?", "A vaccinated child pays nothing.") > 0


def test_words_of_a_name_count_in_full_where_they_stand_together() -> None:
    """A passage about the heart that also blocks something is not about Heart Block."""
    question = "What does Heart Block feel like?"
    assert names(question, "With heart block you feel faint.") == 1.0
    assert names(question, "The heart hurts. Plaque can block an artery.") == 0.5


@pytest.mark.parametrize(
    "question",
    [
        "How many days of leave do I get?",
        "how many days of leave can i take",
        "I'm new: how many days of leave?",
        "What happens to the leave that I’ve not taken?",
    ],
)
def test_who_asks_is_no_part_of_the_question(question: str) -> None:
    """No document names the speaker, so "I" is neither a name nor a word that an answer must hold."""
    asked = Question.of(question, Analyzer())
    assert (asked.names, "i" in asked.words) == (frozenset(), False)


@pytest.mark.parametrize(
    "question",
    [
        "When did World War I begin?",
        "How is type I diabetes treated?",
        "Who followed Elizabeth I?",
        "What did I. Newton find?",
        "What is I/O?",
    ],
)
def test_a_numeral_is_a_part_of_its_name(question: str) -> None:
    """Behind a noun, or as an initial, "I" says which one is meant."""
    assert "i" in Question.of(question, Analyzer()).names


def test_a_question_of_the_reader_s_own_is_evidence_as_any_other() -> None:
    """The same question, asked of oneself and of everybody, is covered by the same sentence."""
    passages = [Passage(1, "", "Employees get 28 days of paid leave a year.", 0.7)]
    own, of_all = (
        read_passages(question, passages, Analyzer()).features(0)
        for question in ("How many days of leave do I get?", "How many days of leave do they get?")
    )
    assert own == of_all


def test_a_section_about_something_else_lowers_the_evidence() -> None:
    """Only a heading that is about the matter counts; a bare title and an empty heading say nothing."""
    passages = [Passage(1, heading, "Angina is a sign.", 0.6) for heading in ("Heart > Signs", "Heart", "")]
    reading = read_passages("Who gets Angina?", passages, Analyzer())
    assert reading.features(0, heading=0.5)[-2] == pytest.approx(0.5 - 0.6)
    assert reading.features(0, heading=0.2)[-2] == 0.0
    assert [reading.features(place, heading=0.5)[-2] for place in (1, 2)] == [0.0, 0.0]


def test_the_title_of_the_document_is_evidence_beside_the_heading() -> None:
    """The floor reads what the prompt shows: title and headings."""
    hit = found("It sold tape.", cosine=0.5, title="Contoso 2018", heading="Sales")
    assert passages_of([hit])[0].heading == "Contoso 2018 > Sales"


def test_below_the_calibrated_floor_no_model_is_called() -> None:
    """The answer says how improbable it was."""
    llm = ScriptedLLM(prompts=[])
    made = CitedSynthesizer(llm=llm, calibration=CALIBRATION)
    answer = made.answer("Who won the cup?", [found("Cats purr.", cosine=0.1)])
    assert (answer.text, llm.prompts) == (DONT_KNOW, [])
    assert 0 < answer.metadata()["confidence"] < 0.5


def test_what_is_quoted_is_chosen_among_all_hits() -> None:
    """A hit that is no evidence tells which words are rare; a language model would be paid for reading it."""
    hits = [found("Cats purr when they are content.", cosine=0.8), found("Ships sail.", cosine=0.05)]
    quoting = CitedSynthesizer(llm=ExtractiveLLM(), calibration=CALIBRATION)
    writing = CitedSynthesizer(llm=ScriptedLLM(says="Yes. [1]"), calibration=CALIBRATION)
    assert len(quoting.blocks("When do cats purr?", hits)) == 2
    assert len(writing.blocks("When do cats purr?", hits)) == 1
    assert quoting.blocks("Who won the cup?", hits) == []


def test_the_extractive_model_says_how_sure_it_is() -> None:
    """The confidence of its own calibration reaches the metadata, streamed or not."""
    llm = ExtractiveLLM(calibration=Calibration(intercept=-1.0, coverage=3.0, floor=0.5))
    made = CitedSynthesizer(llm=llm)
    hits = [found("Cats purr.", cosine=0.9)]
    whole = made.answer("What do cats do?", hits)
    streamed, pieces = made.stream("What do cats do?", hits)
    assert "".join(pieces) == whole.text == "Cats purr. [1]"
    assert (
        streamed.confidence
        == whole.confidence
        == pytest.approx(1 / (1 + 2.718281828 ** -(3.0 * 1 - 1)), abs=1e-3)
    )


def test_a_cosine_is_not_guessed_for_a_keyword_hit() -> None:
    """The score of a fusion is no cosine, and neither is that of a keyword leg."""
    assert cosine_of(found("a", keyword=1)) is None
    assert cosine_of(found("a", cosine=0.4, keyword=1)) == 0.4
    assert cosine_of(NodeWithScore(node=TextNode(text="a"), score=0.7)) == 0.7


def test_the_margin_counts_hits_that_are_no_evidence() -> None:
    """A hit far behind is dropped, and that it was far behind stays known: it speaks for the best one."""
    floor = EvidenceFloor(calibration=Calibration(intercept=-10.0, similarity=20.0, floor=0.5))
    near = NodeWithScore(node=TextNode(id_="a", text="Cats purr at night."), score=0.9)
    behind = NodeWithScore(node=TextNode(id_="b", text="Dogs bark by day."), score=0.2)
    judged = floor.judge("When do cats purr?", [near, behind])
    assert [hit.node.node_id for hit in judged.hits] == ["a"]
    assert judged.margin == 0.15


def test_a_calibration_with_an_unknown_key_is_refused() -> None:
    """A mistyped weight would be a silent 0."""
    with pytest.raises(SettingsError, match=r"floor between 0 and 1; found \{'intercept': 1, 'covrage': 2\}"):
        calibration_of({"intercept": 1, "covrage": 2})


def test_list_items_and_rows_are_units() -> None:
    """No full stop ends them, and each can be an answer."""
    items = split_units("Do this:\n - wash hands\n - wear gloves\n\nAlways.")
    assert items == ["Do this:", "- wash hands", "- wear gloves", "Always."]
    rows = split_units("Years ended:\nNet sales $ 32,765 $ 31,657\nNet loss (12) (7)")
    assert rows == ["Years ended:", "Net sales $ 32,765 $ 31,657", "Net loss (12) (7)"]
    assert split_units("Year | Sales\n2018 | 32.8") == ["Year | Sales", "2018 | 32.8"]
    assert split_units("One line\nwrapped. Two.") == ["One line wrapped.", "Two."]


def ask(question: str, *texts: str, **metadata: Any) -> str:
    hits = [NodeWithScore(node=TextNode(text=text, metadata=metadata), score=0.9) for text in texts]
    return CitedSynthesizer(llm=ExtractiveLLM()).answer(question, hits).text


def test_a_line_with_a_colon_brings_its_items() -> None:
    """The items are the answer; what follows the list is not."""
    text = "To prevent scurvy do the following:\n - eat citrus fruit\n - eat cabbage\n\nSailors told stories."
    answer = ask("How do I prevent scurvy?", text)
    assert "- eat citrus fruit [1]" in answer
    assert "Sailors" not in answer


def test_a_letterhead_is_not_quoted_as_a_sentence() -> None:
    """An address holds the name that is asked for, and says nothing of it."""
    letterhead = "Contoso Corporation, 12 Contoso Center, St. Paul, Minnesota 55144"
    answer = ask(
        "What did Contoso Corporation sell in 2018?",
        f"{letterhead}\n\nIn 2018 Contoso Corporation sold tape.",
    )
    assert answer == "In 2018 Contoso Corporation sold tape. [1]"


# -- neighbours ---------------------------------------------------------------------------------------------------


def chunk(text: str, start: int, doc: str = "d", heading: str = "H", score: float = 0.9) -> NodeWithScore:
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo

    node = TextNode(
        text=text, metadata={"heading": heading, "char_start": start, "char_end": start + len(text)}
    )
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=doc)
    return NodeWithScore(node=node, score=score)


def test_neighbours_of_one_section_are_one_passage_in_reading_order() -> None:
    """The better hit gives the place and the citation; the text is that of the document."""
    second, other, first = chunk("Two.", 6), chunk("Far.", 90), chunk("One.", 0)
    blocks = number_blocks([second, other, first])
    assert [(block.number, block.text) for block in blocks] == [(1, "One.\n\nTwo."), (2, "Far.")]
    assert (blocks[0].hit, blocks[0].merged) == (second, (first,))


def test_chunks_of_another_section_or_document_stay_apart() -> None:
    """A passage never runs over a heading."""
    blocks = number_blocks([chunk("One.", 0), chunk("Two.", 5, heading="I"), chunk("Three.", 5, doc="e")])
    assert [block.text for block in blocks] == ["One.", "Two.", "Three."]


def test_a_hit_between_two_joins_them() -> None:
    """Three chunks in a row are one passage, whatever their order as hits."""
    (block,) = number_blocks([chunk("One.", 0), chunk("Three.", 10), chunk("Two.", 5)])
    assert block.text == "One. Two. Three."


def test_the_title_of_the_document_stands_before_the_heading() -> None:
    """A chunk alone does not say which company it speaks of."""
    hits = [
        NodeWithScore(node=TextNode(text="It fell.", metadata={"title": "Contoso 10-K", "heading": "Sales"}))
    ]
    (block,) = number_blocks(hits)
    assert block.render() == "[1] Contoso 10-K > Sales\nIt fell."


def test_the_stable_part_of_the_prompt_comes_first() -> None:
    """Two questions share the rules as a prefix, which providers cache."""
    llm = ScriptedLLM(prompts=[])
    made = CitedSynthesizer(llm=llm)
    for question in ("Why?", "Who?"):
        made.answer(question, [NodeWithScore(node=TextNode(text=f"About {question}"), score=0.9)])
    first, second = llm.prompts
    rules = first[: first.index("Context:")]
    assert "Answer in the language of the question." in rules
    assert second.startswith(rules)


def lead(*texts: str, heading: str = "", question: str = "Who opened the bridge?") -> float:
    """How much further than usual the best sentence is ahead, for a model to which everything means the same."""
    passages = [Passage(number, heading, text, 0.5) for number, text in enumerate(texts, 1)]
    features = ExtractiveLLM(embed_model=MockEmbedding(embed_dim=2)).evidence(question, passages)
    assert features is not None
    return dict(zip(FEATURES, features, strict=True))["lead"]


def test_one_sentence_that_stands_out_is_evidence() -> None:
    """A fact stands in one sentence; where several are as good, none of them may have it."""
    fact = "The mayor opened the bridge in May."
    assert lead(f"{fact} It rained all day.") == pytest.approx(0.35)
    assert lead(f"{fact} The bridge was opened by ferry men twice.") < 0.1
    assert lead("The bridge opened late. The bridge opened early.") == pytest.approx(-0.15, abs=0.02)


def test_the_same_sentence_in_two_passages_is_no_rival() -> None:
    """Passages of one document overlap."""
    fact = "The mayor opened the bridge in May."
    assert lead(fact, fact) == lead(fact)


def test_below_the_heading_of_a_section_no_sentence_has_to_stand_out() -> None:
    """All that stands there is about what the heading announces."""
    text = "The bridge opened late. The bridge opened early."
    assert lead(text, heading="Harbour > Opening of the bridge") == 0.0
    assert lead(text, heading="Harbour") < 0
