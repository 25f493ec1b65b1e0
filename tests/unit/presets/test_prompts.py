"""Prompts and derived engines: what is set holds there, and what is set there holds nowhere else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, PromptTemplate
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.answer.context import SYSTEM_PROMPT
from llama_index_presets.errors import SettingsError, UnknownOptionError
from llama_index_presets.presets.components.answering import system_prompt
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.settings import Settings

KEY = "response_synthesizer:text_qa_template"
QUESTION = "Where does the red fish live?"
ONLY_RED = MetadataFilters(filters=[MetadataFilter(key="colour", value="red")])
OWN = PromptTemplate("As a pirate.\n{context_str}\n{query_str}")


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    settings = {"store": "duckdb", "embedding_cache": "off", "answer_floor": -1.0}
    llm = ScriptedLLM(prompts=[])
    with build(
        "knowledge-base",
        storage=tmp_path / "s",
        embed_model=WordEmbedding(),
        llm=llm,
        offline=True,
        settings=settings,
    ) as engine:
        engine.for_tenant("acme").ingest(
            [Document(text="The red fish lives here.", metadata={"colour": "red"})]
        )
        yield engine


def asked(engine: PresetEngine) -> str:
    return engine.llm.prompts[-1]  # type: ignore[attr-defined, no-any-return]


def test_an_engine_shows_its_prompts_and_takes_others(engine: PresetEngine) -> None:
    """Under the keys that a query engine of LlamaIndex has."""
    assert set(engine.get_prompts()) == {KEY, "response_synthesizer:system_prompt"}
    engine.update_prompts({KEY: OWN})
    response = engine.query(QUESTION)
    assert "As a pirate." in asked(engine)
    assert [one["n"] for one in response.metadata["citations"]] == [1]  # type: ignore[index, union-attr]


def test_the_settings_give_the_rules_and_the_language() -> None:
    """Own rules replace ours; the language follows either."""
    assert system_prompt(Settings()) == SYSTEM_PROMPT
    assert system_prompt(Settings(system_prompt="Be brief.")) == "Be brief."
    assert system_prompt(Settings(answer_language="German")) == f"{SYSTEM_PROMPT} Answer in German."
    both = Settings(system_prompt="Be brief.", answer_language="German")
    assert system_prompt(both) == "Be brief. Answer in German."


def test_the_rules_of_the_settings_reach_the_model(tmp_path: Path) -> None:
    """As its system message."""
    settings = {
        "store": "duckdb",
        "embedding_cache": "off",
        "answer_floor": -1.0,
        "system_prompt": "Be brief.",
        "answer_language": "German",
    }
    parts = {"embed_model": WordEmbedding(), "llm": ScriptedLLM(prompts=[]), "offline": True}
    with build("knowledge-base", storage=tmp_path / "s", settings=settings, **parts) as engine:
        engine.ingest([Document(text="The red fish lives here.")])
        engine.query(QUESTION)
        assert "Be brief. Answer in German." in asked(engine)


def test_a_prompt_holds_on_every_way_to_ask(engine: PresetEngine) -> None:
    """Streams, awaited questions and chats, filtered, for a tenant or for a user."""
    engine.update_prompts({KEY: OWN})
    ways = {
        "stream": lambda: list(engine.stream(QUESTION).response_gen),
        "aquery": lambda: asyncio.run(engine.aquery(QUESTION)),
        "chat": lambda: engine.as_chat_engine().chat(QUESTION),
        "with_filters": lambda: engine.with_filters(ONLY_RED).query(QUESTION),
        "for_tenant": lambda: engine.for_tenant("acme").as_chat_engine().chat(QUESTION),
        "for_user": lambda: engine.for_user("ann").query(QUESTION),
    }
    for name, ask in ways.items():
        engine.llm.prompts.clear()  # type: ignore[attr-defined]
        ask()
        assert "As a pirate." in asked(engine), name


def test_a_tenants_prompt_reaches_no_other_engine(engine: PresetEngine) -> None:
    """A derived engine takes the prompts along; later changes are its own."""
    acme = engine.for_tenant("acme")
    acme.update_prompts({KEY: OWN})
    acme.query(QUESTION)
    assert "As a pirate." in asked(engine)
    for other in (engine, engine.for_tenant("acme"), engine.with_filters(ONLY_RED)):
        other.query(QUESTION)
        assert "As a pirate." not in asked(engine)


def test_a_wrong_key_or_template_is_refused(engine: PresetEngine) -> None:
    """LlamaIndex would take both without a word."""
    with pytest.raises(UnknownOptionError, match=f"did you mean '{KEY}'"):
        engine.update_prompts({"response_synthesizer:text_qa_templat": OWN})
    with pytest.raises(SettingsError, match=r"lacks \{context_str\}"):
        engine.update_prompts({KEY: PromptTemplate("{query_str}")})
    engine.query(QUESTION)
    assert "Context:" in asked(engine)


def test_a_chat_condenses_with_a_prompt_of_its_own(engine: PresetEngine) -> None:
    """It has the history and the message; without them it is refused."""
    chat = engine.as_chat_engine(
        condense_question_prompt=PromptTemplate("Rewrite: {question} after {chat_history}")
    )
    chat.chat(QUESTION)
    chat.chat("And the blue one?")
    assert any("Rewrite: And the blue one? after" in prompt for prompt in engine.llm.prompts)  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match=r"lacks \{chat_history\}"):
        engine.as_chat_engine(condense_question_prompt=PromptTemplate("{question}"))
