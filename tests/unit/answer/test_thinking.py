"""Thinking of reasoning models: neither shown nor cited, however it is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import NodeWithScore, TextNode
from tests.fakes import ScriptedLLM

from llama_index_presets.answer.synthesize import CitedSynthesizer
from llama_index_presets.answer.thinking import ThinkingFilter, without_thinking

HITS = [NodeWithScore(node=TextNode(text=f"Passage {n}."), score=0.9) for n in (1, 2)]

SAID = [
    ("<think>Is it [2]?</think>\n\nRed. [1]", "Red. [1]"),
    ("  <THINKING>a < b</THINKING> Red. [1]", "  Red. [1]"),
    ("<think>a</think><think>b</think>Red. [1]", "Red. [1]"),
    ("Red. [1]<think>never closed [2]", "Red. [1]"),
    ("<think>only this [2]", ""),
    ("1 < 2, <b>bold</b> and <thin> are no tags", "1 < 2, <b>bold</b> and <thin> are no tags"),
    ("ends with <thi", "ends with <thi"),
]


@pytest.mark.parametrize(("raw", "shown"), SAID)
def test_what_stands_between_the_tags_is_removed(raw: str, shown: str) -> None:
    """In one piece, and in pieces of one character."""
    pieces = ThinkingFilter()
    assert without_thinking(raw) == shown
    assert "".join(map(pieces.feed, raw)) + pieces.end() == shown


@given(st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", "a", " ", "\n", "<", ">"])))
def test_the_cuts_between_pieces_change_nothing(pieces: list[str]) -> None:
    """A law: the same text in other pieces gives the same answer."""
    whole, cut = ThinkingFilter(), ThinkingFilter()
    expected = whole.feed("".join(pieces)) + whole.end()
    assert "".join(map(cut.feed, pieces)) + cut.end() == expected


def test_a_lone_closing_tag_ends_thinking_that_the_chat_template_began() -> None:
    """Servers of open models send it so; a stream can only drop the tag."""
    assert without_thinking("Perhaps [2]. </think> Red. [1]") == "Red. [1]"


@pytest.mark.parametrize(
    ("raw", "known"), [("<think>Is it [2]?</think>Red. [1]", True), ("<think>Cut o", False)]
)
def test_an_answer_neither_shows_nor_cites_thinking(raw: str, known: bool) -> None:
    """Whole and streamed alike; thinking without an answer is an "I don't know"."""
    synthesizer = CitedSynthesizer(llm=ScriptedLLM(says=raw, prompts=[]))
    whole = synthesizer.answer("Which colour?", HITS)
    streamed, pieces = synthesizer.stream("Which colour?", HITS)
    assert "".join(pieces) == streamed.text == whole.text
    assert (whole.known, "think" in whole.text) == (known, False)
    assert [one["n"] for one in whole.citations()] == ([1] if known else [])
