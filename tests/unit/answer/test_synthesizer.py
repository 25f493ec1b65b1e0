"""`CitedSynthesizer` as a synthesizer of LlamaIndex: responses, prompts, and the checks that no prompt removes."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.prompts import ChatPromptTemplate, RichPromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from tests.fakes import ScriptedLLM

from llama_index_presets.answer.context import SYSTEM_PROMPT
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.answer.synthesize import CitedSynthesizer
from llama_index_presets.errors import SettingsError, UnknownOptionError

QUESTION = "Where is the key?"
HITS = [NodeWithScore(node=TextNode(text="The key is blue. It hangs at 13 Main Road."), score=0.9)]
GERMAN = PromptTemplate("Antworte deutsch.\n{context_str}\nFrage: {query_str}")


class Fixed(BaseRetriever):
    def __init__(self, hits: list[NodeWithScore]) -> None:
        super().__init__()
        self.hits = hits

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.hits


def make(says: str = "Blue [1].", **options: Any) -> CitedSynthesizer:
    return CitedSynthesizer(llm=ScriptedLLM(says=says, prompts=[]), **options)


def prompts(synthesizer: CitedSynthesizer) -> list[str]:
    return synthesizer.llm.prompts  # type: ignore[attr-defined, no-any-return]


def test_a_stock_query_engine_answers_with_it() -> None:
    """Text, shown nodes and checked citations; an invented marker is gone."""
    synthesizer = make("Blue [1][7].")
    assert isinstance(synthesizer, BaseSynthesizer)
    response = RetrieverQueryEngine(Fixed(HITS), synthesizer).query(QUESTION)
    assert isinstance(response, Response)
    assert str(response) == "Blue [1]."
    assert response.source_nodes == HITS
    assert [(one["n"], one["valid"]) for one in response.metadata["citations"]] == [(1, True), (7, False)]
    assert response.metadata["known"]


async def test_all_four_ways_give_the_response_types_of_llama_index() -> None:
    """Whole or streaming, awaited or not; the metadata of a stream is complete in the end."""
    whole, streaming = make(), make(streaming=True)
    assert str(await whole.asynthesize(QUESTION, HITS)) == "Blue [1]."
    stream = streaming.synthesize(QUESTION, HITS)
    assert isinstance(stream, StreamingResponse)
    assert stream.metadata == {}
    assert "".join(stream.response_gen) == "Blue [1]."
    assert [one["n"] for one in stream.metadata["citations"]] == [1]
    astream = await streaming.asynthesize(QUESTION, HITS)
    assert isinstance(astream, AsyncStreamingResponse)
    assert "".join([piece async for piece in astream.async_response_gen()]) == "Blue [1]."
    assert astream.metadata["known"]


async def test_bare_texts_are_answered_from() -> None:
    """`get_response` of LlamaIndex knows no nodes and no scores, so every text counts, whatever the floor."""
    synthesizer = make(floor=0.5)
    assert synthesizer.get_response(QUESTION, ["The key is blue."]) == "Blue [1]."
    assert await synthesizer.aget_response(QUESTION, ["The key is blue."]) == "Blue [1]."
    assert "".join(make(streaming=True).get_response(QUESTION, ["Blue."])) == "Blue [1]."


def test_sources_that_the_model_is_not_shown_are_added() -> None:
    """As in every synthesizer of LlamaIndex."""
    more = [NodeWithScore(node=TextNode(text="Aside."), score=0.1)]
    assert make().synthesize(QUESTION, HITS, additional_source_nodes=more).source_nodes == HITS + more


@pytest.mark.parametrize("prompt", [None, GERMAN])
@pytest.mark.parametrize("hits", [[], [NodeWithScore(node=TextNode(text="Other."), score=0.1)]])
async def test_without_evidence_no_model_is_called(prompt: PromptTemplate | None, hits: list[Any]) -> None:
    """No prompt changes that, and no way of asking."""
    synthesizer = make(floor=0.5, text_qa_template=prompt)
    responses = [synthesizer.synthesize(QUESTION, hits), await synthesizer.asynthesize(QUESTION, hits)]
    assert [str(response) for response in responses] == ["I don't know."] * 2
    assert not responses[0].metadata["known"]
    assert prompts(synthesizer) == []


def test_the_prompts_are_those_that_the_model_reads() -> None:
    """Rules, passages and question, as `get_prompts` shows them."""
    synthesizer = make()
    shown = synthesizer.get_prompts()
    assert set(shown) == {"system_prompt", "text_qa_template"}
    synthesizer.synthesize(QUESTION, HITS)
    assert shown["system_prompt"].format() in prompts(synthesizer)[0]
    context = re.search(r"<passages (\w+)>\n.*</passages \1>", prompts(synthesizer)[0], re.DOTALL)[0]
    assert f"\n[1]\n{HITS[0].node.get_content()}\n" in context
    assert (
        shown["text_qa_template"].format(context_str=context, query_str=QUESTION) in prompts(synthesizer)[0]
    )


def test_an_own_question_prompt_keeps_rules_and_checks() -> None:
    """The model is still told to cite, an invented marker is removed, a figure that no source holds is left out."""
    synthesizer = make("Blue [1][7]. It hangs at 14 Main Road [1].", verify_numbers="remove")
    synthesizer.update_prompts({"text_qa_template": GERMAN})
    response = synthesizer.synthesize(QUESTION, HITS)
    assert str(response).startswith("Blue [1].")
    assert response.metadata["numbers"]["unsupported"][0]["numbers"] == ["14"]
    assert response.metadata["citations"][-1] == {"n": 7, "valid": False}
    assert SYSTEM_PROMPT in prompts(synthesizer)[0]
    assert re.search(r"Antworte deutsch.\n<passages \w+>\n\[1\]\nThe key", prompts(synthesizer)[0])
    assert "Copy every figure" in prompts(synthesizer)[0]


def test_own_rules_replace_the_built_in_ones() -> None:
    """What verifies figures stays, since the check does."""
    synthesizer = make(verify_numbers="mark")
    synthesizer.update_prompts({"system_prompt": PromptTemplate("Be brief.")})
    synthesizer.synthesize(QUESTION, HITS)
    assert SYSTEM_PROMPT not in prompts(synthesizer)[0]
    assert "Be brief. Copy every figure" in prompts(synthesizer)[0]


def test_an_own_system_message_follows_the_rules_in_one_message() -> None:
    """Some models take one system message only."""
    chat = ChatPromptTemplate.from_messages(
        [("system", "Speak softly."), ("user", "{context_str} {query_str}")]
    )
    synthesizer = make(text_qa_template=chat)
    _, messages = synthesizer._prepare(QUESTION, HITS)
    assert [message.role.value for message in messages] == ["system", "user"]
    assert messages[0].content == f"{SYSTEM_PROMPT}\n\nSpeak softly."


@pytest.mark.parametrize(
    "template",
    [
        PromptTemplate("{text} {q}", template_var_mappings={"context_str": "text", "query_str": "q"}),
        RichPromptTemplate("{{ context_str }} {{ query_str }}"),
        PromptTemplate("{tone} {context_str} {query_str}").partial_format(tone="Gently."),
    ],
)
def test_every_kind_of_template_is_filled(template: Any) -> None:
    """Renamed variables, Jinja, and values that were filled in before."""
    synthesizer = make(text_qa_template=template)
    synthesizer.synthesize(QUESTION, HITS)
    assert "The key is blue" in prompts(synthesizer)[0]
    assert QUESTION in prompts(synthesizer)[0]


def test_further_variables_come_with_the_call() -> None:
    """As LlamaIndex passes keywords of `synthesize` on to the prompt."""
    synthesizer = make(text_qa_template=PromptTemplate("{tone} {context_str} {query_str}"))
    synthesizer.synthesize(QUESTION, HITS, tone="Gently.")
    assert re.search(r"Gently. <passages \w+>\n\[1\]", prompts(synthesizer)[0])


def test_a_template_without_a_variable_is_refused_and_nothing_changes() -> None:
    """All prompts of a call are checked before one is replaced."""
    synthesizer = make()
    own = {"system_prompt": PromptTemplate("Brief."), "text_qa_template": PromptTemplate("Say {query_str}")}
    with pytest.raises(
        SettingsError, match=r"'text_qa_template' lacks \{context_str\}; it has \{query_str\}"
    ):
        synthesizer.update_prompts(own)
    assert synthesizer.get_prompts()["system_prompt"].format() == SYSTEM_PROMPT
    with pytest.raises(SettingsError, match=r"of type str. Give a template of LlamaIndex"):
        synthesizer.update_prompts({"text_qa_template": "{context_str} {query_str}"})  # type: ignore[dict-item]
    with pytest.raises(UnknownOptionError, match="did you mean 'text_qa_template'"):
        synthesizer.update_prompts({"text_qa_templat": GERMAN})


def test_the_extractive_model_says_that_it_reads_no_prompt(caplog: pytest.LogCaptureFixture) -> None:
    """It quotes as before, whatever the prompt says."""
    synthesizer = CitedSynthesizer(llm=ExtractiveLLM())
    with caplog.at_level(logging.WARNING):
        synthesizer.update_prompts({"text_qa_template": GERMAN})
    assert "the prompt text_qa_template is kept, and not used" in caplog.text
    assert str(synthesizer.synthesize("Which key is blue?", HITS)) == "The key is blue. [1]"
