"""Numbers quoted from the sources or not at all, whole and while it streams."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import NodeWithScore, TextNode
from tests.fakes import ScriptedLLM

from llama_index_presets.answer.cited.verify_numbers import NumberVerifier, statements
from llama_index_presets.answer.cited_answer import CitedAnswer
from llama_index_presets.answer.synthesize import CitedSynthesizer

PASSAGES = ["Results 2024\nRevenue was $7.2 million.", "Results 2024\nThe margin rose to 12.5%."]
HITS = [NodeWithScore(node=TextNode(text=text.split("\n")[1], metadata={"heading": "Results 2024"}), score=0.9)
        for text in PASSAGES]  # fmt: skip


def answer(says: str, mode: str = "remove") -> CitedAnswer:
    return synthesizer(says, mode).answer("How did it go?", HITS)


def synthesizer(says: str, mode: str = "remove") -> CitedSynthesizer:
    llm = ScriptedLLM(says=says, prompts=[])
    return CitedSynthesizer(
        llm=llm, floor=None, context_tokens=500, count_tokens=lambda text: len(text.split()), verify_numbers=mode,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    "says",
    [
        "Revenue was $7.2 million [1]. The margin rose to 12.5% [2].",
        "In 2024 revenue was 7.2 million dollars. [1] The margin was 12.5 percent. [2]",
        "Revenue was 7.2 million and the margin 12.5% [1][2].",
        "Revenue was $7.2 million. That is a good result [1].",
        "It grew [1].",
        "1. Revenue: $7.2 million [1]\n2. Margin: 12.5% [2]\n",
        "I don't know.",
    ],
)
def test_what_the_sources_say_is_left_alone(says: str) -> None:
    """Figures in the cited passage or its heading pass, wherever the marker stands."""
    found = answer(says)
    assert found.text == says.strip()
    assert found.numbers is not None and found.numbers.unsupported == []


def test_an_invented_figure_takes_its_sentence_along() -> None:
    """The others stay, the answer says that something is missing, the metadata says what."""
    found = answer("Revenue was $7.2 million [1]. The margin rose to 13% [2]. It was a good year [1].")
    assert found.text.startswith("Revenue was $7.2 million [1]. It was a good year [1].")
    assert found.text.endswith("(A statement was left out: not all figures are in the cited sources.)")
    assert found.numbers is not None
    assert found.numbers.report() == {
        "checked": 2,
        "unsupported": [{"statement": "The margin rose to 13%.", "numbers": ["13%"]}],
    }
    assert [citation["n"] for citation in found.citations()] == [1] and found.known


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("Revenue was $7.2 billion [1].", "another scale"),
        ("The margin rose to 12.5% [1].", "it stands in a passage that is not the one cited"),
        ("Revenue was $7.2 million.", "nothing is cited"),
        ("Revenue was $7.2 million [9].", "the passage does not exist"),
        ("Revenue rose to seventy million [1].", "a number in words is a number"),
    ],
)
def test_nothing_left_is_an_i_dont_know(says: str, why: str) -> None:
    """An answer whose every statement falls is none, and cites nothing."""
    found = answer(says)
    assert found.text.startswith("I don't know. (A statement was left out"), why
    assert not found.known and [c for c in found.citations() if c["valid"]] == []


def test_marking_keeps_the_sentence() -> None:
    """With its figures named, and its citation."""
    found = answer("The margin rose to 13% [2]. It grew [1].", "mark")
    assert found.text == "The margin rose to 13% [2]. [not in the sources: 13%] It grew [1]."
    assert [citation["n"] for citation in found.citations()] == [2, 1]


def test_off_means_off() -> None:
    """No gate, no word about figures in the prompt; with it, the model is told to copy them."""
    plain, strict = synthesizer("13% [1].", "off"), synthesizer("13% [1].")
    assert plain.answer("?", HITS).text == "13% [1]."
    strict.answer("?", HITS)
    assert "Copy every figure" in strict.llm.prompts[0] and "Copy every figure" not in plain.llm.prompts[0]  # type: ignore[attr-defined]


def test_a_stream_never_shows_an_invented_figure() -> None:
    """Sentences come when they have been judged; the pieces together are the answer."""
    says = "Revenue was $7.2 million [1]. The margin rose to 13% [2]. It was a good year [1]."
    found, pieces = synthesizer(says).stream("How did it go?", HITS)
    seen = list(pieces)
    assert "13" not in "".join(seen) and len(seen) >= 2
    assert "".join(seen) == found.text and found.text.endswith("cited sources.)")

    async def astreamed() -> str:
        _, pieces = await synthesizer(says).astream("How did it go?", HITS)
        return "".join([piece async for piece in pieces])

    assert asyncio.run(astreamed()) == found.text


TEXTS = st.lists(
    st.sampled_from(
        ["Revenue was $7.2 million", "The margin rose to 12.5%", "It was 13%", "It grew", " [1]", " [2]", ". ", ".\n",
         "\n\n", " [9]", "- "]
    ), max_size=14,
).map("".join)  # fmt: skip


@settings(max_examples=60)
@given(TEXTS, st.integers(1, 9), st.sampled_from(["remove", "mark"]))
def test_the_size_of_the_pieces_does_not_matter(text: str, size: int, mode: str) -> None:
    """A stream in pieces of any size gives what the whole text gives; statements joined again are the text."""
    whole = NumberVerifier(PASSAGES, mode)  # type: ignore[arg-type]
    expected = whole.feed(text) + whole.end()
    gate = NumberVerifier(PASSAGES, mode)  # type: ignore[arg-type]
    given_ = "".join(gate.feed(text[at : at + size]) for at in range(0, len(text), size)) + gate.end()
    assert given_ == expected
    assert "".join(statements(text)) == text
    if mode == "remove":
        assert "13%" not in expected
