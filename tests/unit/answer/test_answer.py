"""Answers are cited, checked, within budget, and honest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.prompts.default_prompts import DEFAULT_TEXT_QA_PROMPT
from llama_index.core.schema import NodeWithScore, TextNode
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets.answer.citations import MarkerFilter
from llama_index_presets.answer.context import DONT_KNOW, fit, number_blocks, parse_prompt, render_prompt
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.answer.synthesize import CitedSynthesizer
from llama_index_presets.errors import AnswerError
from llama_index_presets.provenance import RankedNode, StageRank
from llama_index_presets.text.sentences import split_sentences


def hit(text: str, score: float = 0.9, **metadata: Any) -> NodeWithScore:
    return NodeWithScore(node=TextNode(text=text, metadata=metadata), score=score)


def synthesizer(llm: Any, **options: Any) -> CitedSynthesizer:
    settings = {
        "floor": 0.3,
        "context_tokens": 1000,
        "count_tokens": lambda text: len(text.split()),
        **options,
    }
    return CitedSynthesizer(llm=llm, **settings)


# -- citations ----------------------------------------------------------------------------------------------------


def check_citations(text: str, blocks: int) -> tuple[str, list[int], list[int]]:
    """The text that a reader sees, the numbers cited and the invented ones."""
    marker_filter = MarkerFilter(blocks)
    return "".join(marker_filter.stream([text])), marker_filter.cited, marker_filter.invented


@pytest.mark.parametrize(
    ("text", "clean", "cited", "invented"),
    [
        ("Plain.", "Plain.", [], []),
        ("A [2]. B [1][2].", "A [2]. B [1][2].", [2, 1], []),
        ("A [7].", "A.", [], [7]),
        ("A [1, 9; 2].", "A [1][2].", [1, 2], [9]),
        ("A [0] b [99].", "A b.", [], [0, 99]),
        ("A [12345].", "A.", [], [12345]),
        ("A [-1] b [0].", "A b.", [], [-1, 0]),
        ("A [1-2]. B [2–4].", "A [1][2]. B [2].", [1, 2], [4]),
        ("A [^1]. B [^2^].", "A [1]. B [2].", [1, 2], []),
        ("A 【1†source】. B ［2］ [１].", "A [1]. B [2] [1].", [1, 2], []),
        ("list[3] and [x] and [12 apples]", "list and [x] and [12 apples]", [], [3]),
    ],
)
def test_invented_markers_are_removed_and_reported(
    text: str, clean: str, cited: list[int], invented: list[int]
) -> None:
    """Every marker that is left resolves to one of two passages."""
    assert check_citations(text, blocks=2) == (clean, cited, invented)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("A [1](http://evil.example/?q=secret).", "A [1]."),
        ('A [1](<http://evil.example/a b> "title").', "A [1]."),
        ("A [1](http://evil.example/a_(b)).", "A [1]."),
        ("A [[1]](http://evil.example).", "A [1]."),
        ("A ![1](http://evil.example/pixel.png).", "A ![1]."),
        ("A [9](http://evil.example).", "A."),
        ('A <a href="http://evil.example">[1]</a>.', "A [1]."),
        ('A <sup><a href="http://evil.example">1</a></sup>.', "A <sup>[1]</sup>."),
        ("A [1][ref].\n[ref]: http://evil.example", "A [1] [ref].\n[ref]: http://evil.example"),
        ("A [1].\n[1]: http://evil.example", "A [1].\n[1] : http://evil.example"),
        ("A [1](http://evil.example/" + "x" * 4_000 + ")", "A [1] (http://evil.example/" + "x" * 4_000 + ")"),
        ("A [1](see page 3). [2]: yes", "A [1] (see page 3). [2]: yes"),
        ('A <b>[1]</b> <a href="x">home</a>', 'A <b>[1]</b> <a href="x">home</a>'),
    ],
)
def test_a_marker_is_no_link(text: str, clean: str) -> None:
    """Where a marker leads is decided by the passages, never by the model; other text is left as it is."""
    assert check_citations(text, blocks=2)[0] == clean


def test_a_long_link_costs_no_quadratic_time() -> None:
    """What is held back stays short, however long a link or a run of blanks is."""
    marker_filter = MarkerFilter(2)
    for piece in ["A [1](http://evil.example/", *["x"] * 5_000]:
        marker_filter.feed(piece)
        assert len(marker_filter._held) <= 2_100


@given(
    st.lists(
        st.sampled_from(
            [
                "[",
                "]",
                "(http://e.x)",
                "(",
                ")",
                ": http://e.x",
                "【",
                "†s】",
                '<a href="e">',
                "</a>",
                "^",
                "-",
                "1",
                "9",
                "12",
                ", ",
                "; ",
                " ",
                "word",
                ". ",
                "[1]",
                "[7]",
            ]
        )
    ),
    st.data(),
)
def test_streaming_checks_markers_like_the_whole_text(parts: list[str], data: st.DataObject) -> None:
    """Wherever the stream is cut, the reader sees what he would have seen at once."""
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    marker_filter = MarkerFilter(3)
    assert (
        "".join(marker_filter.stream(pieces)),
        marker_filter.cited,
        marker_filter.invented,
    ) == check_citations(text, 3)


# -- budget -------------------------------------------------------------------------------------------------------


def words(text: str) -> int:
    return len(text.split())


@given(st.lists(st.integers(1, 30), max_size=8), st.integers(1, 60))
def test_the_budget_is_never_exceeded_and_the_best_go_first(lengths: list[int], budget: int) -> None:
    """What is kept is the longest run of best passages that fits."""
    texts = [" ".join(["w" * 3] * (length - 1) + ["end."]) for length in lengths]
    try:
        kept = fit(texts, budget, count=words, sentences=split_sentences)
    except AnswerError:
        assert words(texts[0]) > budget
        return
    assert sum(map(words, kept)) <= budget
    assert kept == texts[: len(kept)]
    assert len(kept) == len(texts) or sum(map(words, texts[: len(kept) + 1])) > budget


def test_a_single_passage_over_the_budget_ends_at_a_sentence() -> None:
    """Never cut in the middle of a sentence."""
    assert fit(["One two three. Four five six. Seven."], 6, count=words, sentences=split_sentences) == [
        "One two three. Four five six."
    ]
    with pytest.raises(AnswerError, match="budget of 2 does not hold one sentence"):
        fit(["One two three."], 2, count=words, sentences=split_sentences)


# -- context ------------------------------------------------------------------------------------------------------


def test_a_text_that_was_found_twice_is_shown_once() -> None:
    """Duplicates waste the budget and the numbers."""
    blocks = number_blocks([hit("Same  text."), hit("Other."), hit("Same text.")])
    assert [(block.number, block.text) for block in blocks] == [(1, "Same  text."), (2, "Other.")]


def test_the_prompt_can_be_read_back() -> None:
    """The extractive model sees exactly the passages that a language model would see."""
    blocks = number_blocks([hit("First.\n\nStill [9] first.", heading="A > B"), hit("Second.")])
    passages, question = parse_prompt(render_prompt(blocks, "Why?\nReally?"))
    assert question == "Why?\nReally?"
    assert passages == [(1, "A > B", "First.\n\nStill [9] first."), (2, "", "Second.")]


# -- extractive ---------------------------------------------------------------------------------------------------

PASSAGES = [
    hit("Cats purr when they are content. A cat sleeps most of the day."),
    hit("Dogs bark at strangers. They guard the house."),
]


def ask(question: str, hits: list[NodeWithScore] = PASSAGES) -> str:
    return ExtractiveLLM().answer(render_prompt(number_blocks(hits), question))


def test_the_best_sentence_is_quoted_with_its_number() -> None:
    """Every sentence of an answer stands verbatim in the passage that it cites."""
    assert ask("Why do dogs bark?") == "Dogs bark at strangers. [2] They guard the house. [2]"


LIMITS = [
    hit(
        "You can set a maximum of failed logins. The default is 3 for users. Locked users write to us. All is quiet.",
        heading="Users",
    ),
    hit("Metrics can be made available. To turn them on, edit system.xml. It is a file.", heading="Metrics"),
    hit("We work in cycles of six weeks. The rhythm keeps projects small. Lunch is at noon."),
    hit("Steps:\n- open the lid\n- pour the water\n- press start"),
]
LOGINS = "You can set a maximum of failed logins. [1] The default is 3 for users. [1]"
METRICS = "Metrics can be made available. [2] To turn them on, edit system.xml. [2]"
CYCLES = "We work in cycles of six weeks. [3] The rhythm keeps projects small. [3]"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How many failed logins are the maximum?", LOGINS),
        ("How do I make metrics available?", METRICS),
        ("How are metrics made available?", "Metrics can be made available. [2]"),
        ("Why do we work in cycles of six weeks?", CYCLES),
        ("How long is the cycle of work, six weeks?", CYCLES),
        ("What is the default for users?", "The default is 3 for users. [1]"),
        ("How do I pour the water?", "pour the water [4]"),
    ],
)
def test_a_sentence_that_may_only_lead_to_the_answer_brings_the_next_one(question: str, answer: str) -> None:
    """For steps and reasons, and where a number is asked for and missing; an item, or a whole answer, stands alone."""
    assert ask(question, LIMITS) == answer


def test_it_does_not_know_what_the_passages_do_not_say() -> None:
    """An honest refusal instead of the least bad sentence."""
    assert ask("Who won the football match?") == DONT_KNOW
    assert ask("How do elephants bark?") == DONT_KNOW
    assert ExtractiveLLM().answer("Write me a poem.") == DONT_KNOW


def test_the_heading_counts_as_context() -> None:
    """'Give it at once' answers a question about treatment when it stands under Treatment."""
    hits = [hit("Wash your hands."), hit("Give antitoxin at once.", heading="Botulism > Treatment")]
    assert ask("What is the treatment of botulism?", hits) == "Give antitoxin at once. [2]"


CROUP = [
    hit("Croup is a swelling of the windpipe.", title="Croup", heading="What is croup?"),
    hit("It is treated with cool night air. Wait for the morning.", title="Croup", heading="Treatment"),
    hit("Measles spreads by coughs.", title="Measles", heading="Spread"),
]


@pytest.mark.parametrize(
    "question",
    [
        "What is croup and how is it treated?",
        "What is croup? How is it treated?",
        "What is croup, and how is it treated?",
    ],
)
def test_a_question_of_two_parts_is_answered_part_by_part(question: str) -> None:
    """Each part has its own passage, and "it" is what the first part was answered from."""
    assert ask(question, CROUP) == (
        "Croup is a swelling of the windpipe. [1] It is treated with cool night air. [2] Wait for the morning. [2]"
    )


def test_the_part_that_has_no_answer_is_named() -> None:
    """Half an answer says which half it is, and the note is no statement that a passage would have to support."""
    made = synthesizer(ExtractiveLLM()).answer("What is croup and who won the football match?", CROUP)
    assert made.text == (
        "Croup is a swelling of the windpipe. [1]\n\n(Nothing was found for the second part of the question.)"
    )
    assert made.known
    assert [one.supported for one in made.check()] == [True, None]


def test_a_part_needs_sentences_of_its_own() -> None:
    """Where "it" has no name, both parts are asked together, and what answers the first does not answer both."""
    hits = [hit("Shingles is caused by a virus. It hurts.")]
    assert ask("What causes shingles and how can it be prevented?", hits).endswith(
        "(Nothing was found for the second part of the question.)"
    )


def test_no_part_is_answered_of_a_question_that_is_none_of_the_passages() -> None:
    """Two parts are no easier to answer than one."""
    assert ask("Who won the football match and how many goals were shot?", CROUP) == DONT_KNOW


def test_few_sentences_are_compared_in_meaning() -> None:
    """Of many sentences with the question's words four are embedded, and the headings that stand above them alone."""
    model = WordEmbedding(embedded=[])
    sentences = " ".join(f"The valve of pump {number} leaks." for number in range(9))
    hits = [hit(sentences, heading="Pumps > Valves"), hit("A boiler burns gas.", heading="Boilers > Gas")]
    ExtractiveLLM(embed_model=model).complete(render_prompt(number_blocks(hits), "Which valve leaks?"))
    assert [text for text in model.embedded if text.startswith("The valve")] == [
        f"The valve of pump {number} leaks." for number in range(4)
    ]
    assert [text for text in model.embedded if ">" in text] == ["Pumps > Valves"]


def test_it_answers_in_stock_engines_too() -> None:
    """LlamaIndex's own question-answering prompt is understood."""
    prompt = DEFAULT_TEXT_QA_PROMPT.format(
        context_str="Cats purr.\n\nDogs bark.", query_str="What do dogs do?"
    )
    assert str(ExtractiveLLM().complete(prompt)) == "Dogs bark. [2]"


def test_all_eight_ways_to_call_it_agree() -> None:
    """Sync, async, chat, complete, streamed or not: one answer."""
    from llama_index.core.base.llms.types import ChatMessage

    llm, prompt = ExtractiveLLM(), render_prompt(number_blocks(PASSAGES), "Why do dogs bark?")
    messages = [ChatMessage(role="system", content="x"), ChatMessage(role="user", content=prompt)]

    async def awaited() -> list[str]:
        stream = "".join([piece.delta or "" async for piece in await llm.astream_chat(messages)])
        complete = "".join([piece.delta or "" async for piece in await llm.astream_complete(prompt)])
        return [
            (await llm.achat(messages)).message.content or "",
            (await llm.acomplete(prompt)).text,
            stream,
            complete,
        ]

    answers = {
        llm.chat(messages).message.content,
        llm.complete(prompt).text,
        "".join(piece.delta or "" for piece in llm.stream_chat(messages)),
        "".join(piece.delta or "" for piece in llm.stream_complete(prompt)),
        *asyncio.run(awaited()),
    }
    assert answers == {"Dogs bark at strangers. [2] They guard the house. [2]"}


# -- synthesis ----------------------------------------------------------------------------------------------------


def test_without_evidence_the_model_is_not_called() -> None:
    """Below the floor the answer is "I don't know", for free."""
    llm = ScriptedLLM(prompts=[])
    answer = synthesizer(llm).answer("q", [hit("Unrelated.", score=0.1)])
    assert (answer.text, answer.known, answer.source_nodes, llm.prompts) == (DONT_KNOW, False, [], [])


def test_the_floor_looks_at_the_cosine_and_not_at_a_later_score() -> None:
    """A fused or re-ranked score lives on another scale."""
    fused = RankedNode(node=TextNode(text="A."), score=0.02, stages={"vector": StageRank(1, 0.8)})
    assert synthesizer(ScriptedLLM(prompts=[])).answer("q", [fused]).known


def test_the_model_sees_rules_numbers_and_the_question() -> None:
    """The prompt holds what the answer is checked against, and no metadata that was not asked for."""
    llm = ScriptedLLM(prompts=[])
    synthesizer(llm).answer("Why?", [hit("First.", secret="hidden"), hit("Second.", heading="Head")])
    (prompt,) = llm.prompts
    for part in ("cite", "I don't know", "[1]\nFirst.", "[2] Head\nSecond.", "Question: Why?"):
        assert part in prompt
    assert "hidden" not in prompt


def test_citations_resolve_and_inventions_are_flagged() -> None:
    """What a user interface needs to link a marker: source, page, score, text."""
    answer = synthesizer(ScriptedLLM(says="Yes [2][7].")).answer(
        "q", [hit("One."), hit("Two.", source="f.pdf", page="3")]
    )
    assert answer.text == "Yes [2]."
    valid, invented = answer.citations()
    assert (valid["n"], valid["source"], valid["page"], valid["score"], valid["text"]) == (
        2,
        "f.pdf",
        "3",
        0.9,
        "Two.",
    )
    assert invented == {"n": 7, "valid": False}


def test_the_least_relevant_passages_are_dropped_first() -> None:
    """The prompt stays within its budget, and the sources are what the model saw."""
    hits = [hit(f"Passage number {number} has some words.") for number in range(9)]
    answer = synthesizer(ScriptedLLM(), context_tokens=21).answer("q", hits)
    assert answer.source_nodes == hits[:3]


def test_the_budget_leaves_room_for_the_answer_in_a_small_window() -> None:
    """The context window of the model is respected too."""
    hits = [
        hit("Ten words make one passage of the small context window." + "!" * number) for number in range(9)
    ]
    answer = synthesizer(ScriptedLLM(window=64 + 22)).answer("q", hits)
    assert len(answer.source_nodes) == 2


def test_streamed_and_awaited_answers_are_the_same() -> None:
    """All four ways give the same checked text and citations."""
    made = synthesizer(ScriptedLLM(says="Well, yes [1] and [8] no [2]."))
    hits = [hit("One."), hit("Two.")]

    async def awaited() -> list[tuple[str, list[int]]]:
        whole = await made.aanswer("q", hits)
        answer, pieces = await made.astream("q", hits)
        text = "".join([piece async for piece in pieces])
        return [(whole.text, whole.markers.cited), (text, answer.markers.cited)]

    answer, pieces = made.stream("q", hits)
    streamed = "".join(pieces)
    whole = made.answer("q", hits)
    results = [(whole.text, whole.markers.cited), (streamed, answer.markers.cited), *asyncio.run(awaited())]
    assert results == [("Well, yes [1] and no [2].", [1, 2])] * 4


def test_the_hits_are_left_as_they_were() -> None:
    """Answering never changes a caller's nodes."""
    hits = [hit("One.", heading="H"), hit("Two.")]
    before = [one.model_dump_json() for one in hits]
    synthesizer(ScriptedLLM()).answer("q", hits)
    assert [one.model_dump_json() for one in hits] == before
