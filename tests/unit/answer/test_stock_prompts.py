"""The extractive model inside LlamaIndex's own query and chat engines: it reads what they send."""

from __future__ import annotations

import time

import pytest
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
)
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index_presets import ExtractiveLLM
from llama_index_presets.answer.stock_prompts import (
    chat_prompt,
    follow_up,
    passages_of,
    question_prompt,
    refinement,
)

LEASES = {
    "one": "Lease one ends in 2003.\n\nThe fee of lease one is 30 euros.",
    "two": "Lease two ends in 2004.\n\nThe fee of lease two is 40 euros.",
}
CHATS = {
    "context": ContextChatEngine.from_defaults,
    "condense_plus_context": CondensePlusContextChatEngine.from_defaults,
}


class Leases(BaseRetriever):
    """Every lease, the second one first where it is asked for; keeps what it was asked."""

    def __init__(self, **metadata: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.metadata = metadata

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.asked.append(query_bundle.query_str)
        names = sorted(LEASES, key=lambda name: name not in query_bundle.query_str)
        return [NodeWithScore(node=TextNode(text=LEASES[name], metadata=self.metadata)) for name in names]


@pytest.mark.parametrize("mode", CHATS)
def test_a_chat_engine_gets_answers_from_the_passages_of_its_system_message(mode: str) -> None:
    """It said that it does not know, since the last message holds no passage."""
    chat = CHATS[mode](retriever=Leases(), llm=ExtractiveLLM())
    assert str(chat.chat("What is the fee of lease one?")).startswith("The fee of lease one is 30 euros.")
    streamed = "".join(chat.stream_chat("When does lease two end?").response_gen)
    assert streamed.startswith("Lease two ends in 2004.")


@pytest.mark.parametrize("mode", ["condense_plus_context", "condense_question"])
def test_a_conversation_is_made_one_question(mode: str) -> None:
    """The engine searched for the words "I don't know."."""
    retriever, llm = Leases(), ExtractiveLLM()
    if mode == "condense_question":
        chat = CondenseQuestionChatEngine.from_defaults(
            RetrieverQueryEngine.from_args(retriever, llm=llm), llm=llm
        )
    else:
        chat = CondensePlusContextChatEngine.from_defaults(retriever=retriever, llm=llm)
    chat.chat("What is the fee of lease one?")
    chat.chat("When does lease two end?")
    chat.chat("And what about its fee?")
    assert retriever.asked[-2] == "When does lease two end?"
    assert "two" in retriever.asked[-1] and "fee" in retriever.asked[-1]


def test_refine_keeps_the_answer_that_there_is_and_looks_on_where_there_is_none() -> None:
    """The answer of the first passage was lost at the second, which has none."""
    engine = RetrieverQueryEngine.from_args(Leases(), llm=ExtractiveLLM(), response_mode="refine")
    for question in ("What is the fee of lease one?", "What is the fee of lease two?"):
        assert str(engine.query(question)).startswith(question.replace("What is t", "T")[:-1])
    prompt = "New Context: Owls hoot.\nQuery: What do owls do?\nOriginal Answer: I don't know.\nNew Answer: "
    assert ExtractiveLLM().answer(prompt) == "Owls hoot. [1]"


def test_markers_number_nodes_not_paragraphs_where_nodes_have_metadata() -> None:
    """The metadata of a node and each of its paragraphs were counted as passages: [2] was the first node."""
    engine = RetrieverQueryEngine.from_args(Leases(file_name="leases.txt", page="1"), llm=ExtractiveLLM())
    assert str(engine.query("What is the fee of lease two?")) == "The fee of lease two is 40 euros. [1]"


def test_paragraphs_of_nodes_without_metadata_are_passages() -> None:
    """Nothing marks where a node begins; a text that looks like metadata by itself is a text."""
    assert passages_of(question_prompt("Cats purr.\n\nOwls hoot.", "Why?"))[0] == ["Cats purr.", "Owls hoot."]
    assert passages_of(question_prompt("fee: 30 euros", "Why?"))[0] == ["fee: 30 euros"]


def test_what_is_no_prompt_of_a_chat_engine_is_left_as_it_is() -> None:
    """A system message without passages changes nothing, and no user's message is no question."""
    assert chat_prompt([("system", "Be kind."), ("user", "Hello")]) == "Hello"
    assert chat_prompt([("system", "Be kind.")]) == ""
    assert follow_up("Standalone question:") is None
    assert follow_up("Chat History:\n\nFollow Up Input: Why?\nStandalone question:") == ("", "Why?")


@pytest.mark.parametrize(
    ("hostile", "end"),
    [
        ("New Context: a\nQuery: b\nOriginal Answer: c\n", ""),
        ("New Context: a\nQuery: b\nOriginal Answer: c\nNew Answer:\n", "x"),
        ("-----\nQuery: a\nAnswer:\n", "x"),
        ("-----\n", "\nAnswer:"),
        ("Chat History:\n\nFollow Up Input: a\nStandalone question:\n", "x"),
        ("<Chat History>\n\n<Follow Up Message>\na\n<Standalone question>\n", "x"),
        ("Here are the relevant documents for the context:\n\n\n", ""),
    ],
)
def test_documents_that_repeat_the_words_of_a_prompt_are_read_in_linear_time(hostile: str, end: str) -> None:
    prompt = hostile * 2_000 + end
    began = time.thread_time()
    (
        refinement(prompt),
        follow_up(prompt),
        passages_of(prompt),
        chat_prompt([("system", prompt), ("user", "Who?")]),
    )
    assert time.thread_time() - began < 2
