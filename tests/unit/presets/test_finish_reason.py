"""A model that writes nothing, or stops in mid-sentence: the reader learns it, however he asks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen
from llama_index.core.llms.callbacks import llm_completion_callback
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.cli.commands.ask import _warn_when_cut
from llama_index_presets.presets.engine import PresetEngine

QUESTION = "When are parcels returned?"


class StoppingLLM(ScriptedLLM):
    """Says why it stopped, as OpenAI does: in the raw response, of a stream in its last piece."""

    reason: str = "length"

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self.says, raw=self._raw())

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        pieces = [CompletionResponse(text="", delta=word) for word in self.says.split(" ") if word]
        last = CompletionResponse(text=self.says, raw=self._raw())
        return (piece for piece in [*pieces, last])

    def _raw(self) -> dict[str, Any]:
        return {"choices": [{"finish_reason": self.reason}]}


def make(storage: Path, llm: ScriptedLLM) -> PresetEngine:
    settings = {"store": "duckdb", "answer_floor": -1.0}
    engine = build("knowledge-base", storage=storage, llm=llm, embed_model=WordEmbedding(), settings=settings)
    engine.ingest([Document(text="Parcels are returned within 30 days.", doc_id="returns")])
    return engine


def every_way(engine: PresetEngine) -> list[tuple[str, dict[str, Any]]]:
    """Text and metadata of each way to ask."""

    async def awaited() -> list[tuple[str, dict[str, Any]]]:
        plain, stream = await engine.aquery(QUESTION), await engine.astream(QUESTION)
        text = "".join([piece async for piece in stream.async_response_gen()])
        chat = await engine.as_chat_engine().astream_chat(QUESTION)
        said = "".join([piece async for piece in chat.async_response_gen()])
        achat = await engine.as_chat_engine().achat(QUESTION)
        return [
            (str(plain), plain.metadata or {}),
            (text, stream.metadata or {}),
            (said, chat.metadata),
            (str(achat), achat.metadata or {}),
        ]

    plain, stream, chat = (
        engine.query(QUESTION),
        engine.stream(QUESTION),
        engine.as_chat_engine().chat(QUESTION),
    )
    streamed = "".join(stream.response_gen)
    streaming_chat = engine.as_chat_engine().stream_chat(QUESTION)
    said = "".join(streaming_chat.response_gen)
    return [
        (str(plain), plain.metadata or {}),
        (streamed, stream.metadata or {}),
        (str(chat), chat.metadata or {}),
        (said, streaming_chat.metadata),
        *asyncio.run(awaited()),
    ]


@pytest.mark.parametrize("reason", ["length", "content_filter", "stop"])
@pytest.mark.parametrize("says", ["", " \n"])
def test_no_text_is_an_i_do_not_know_with_its_reason(tmp_path: Path, says: str, reason: str) -> None:
    """Never the word None; not known, nothing cited, and the reason stands in text and metadata."""
    with make(tmp_path / "s", StoppingLLM(says=says, reason=reason)) as engine:
        answers = every_way(engine)
    assert len(answers) == 8
    for text, metadata in answers:
        assert text.strip().startswith("I don't know. (The language model wrote no answer")
        assert f"finish_reason '{reason}'" in text and "None" not in text
        assert (metadata["known"], metadata["citations"], metadata["finish_reason"]) == (False, [], reason)


def test_a_cut_answer_is_marked(tmp_path: Path) -> None:
    """Its text stays as it is; the metadata says that the output limit ended it."""
    with make(tmp_path / "s", StoppingLLM(says="Within-30 [1]")) as engine:
        answers = every_way(engine)
    for text, metadata in answers:
        assert text.startswith("Within-30")
        assert metadata["known"] and metadata["finish_reason"] == "length"


def test_a_model_that_does_not_say_leaves_none(tmp_path: Path) -> None:
    """No reason is made up."""
    with make(tmp_path / "s", ScriptedLLM(says="Within 30 days [1].")) as engine:
        assert {metadata["finish_reason"] for _, metadata in every_way(engine)} == {None}


def test_the_command_line_says_that_an_answer_was_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, and only for an answer that is one."""
    _warn_when_cut({"known": True, "finish_reason": "length"})
    assert "cut off (finish_reason 'length')" in capsys.readouterr().err
    for whole in ({"known": True, "finish_reason": "stop"}, {"known": False, "finish_reason": "length"}, {}):
        _warn_when_cut(whole)
    assert capsys.readouterr().err == ""
