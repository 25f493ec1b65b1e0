"""Budgets of a built engine: set while it runs, counted by tag, refused before the model is called."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import BudgetExceededError, SettingsError
from llama_index_presets.monitor.attribution import Attribution, attributed
from llama_index_presets.monitor.budgets import Budget
from llama_index_presets.presets.engine import PresetEngine


class PaidLLM(ScriptedLLM):
    """Priced as gpt-4o-mini of OpenAI."""

    @classmethod
    def class_name(cls) -> str:
        return "openai_llm"

    @property
    def metadata(self) -> Any:
        return super().metadata.model_copy(update={"model_name": "gpt-4o-mini"})


class LocalWords(WordEmbedding):
    """Free: runs on this machine."""

    @classmethod
    def class_name(cls) -> str:
        return "HuggingFaceEmbedding"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PresetEngine]:
    llm, words = PaidLLM(), LocalWords()
    with build("knowledge-base", storage=tmp_path / "kb", embed_model=words, llm=llm) as opened:
        opened.ingest([Document(text="Cats purr all day.", id_="cats")])
        llm.prompts.clear()
        yield opened


def test_a_tag_has_a_budget_of_its_own(engine: PresetEngine) -> None:
    """A limit for one tag refuses its calls before the model hears of them, and nobody else's."""
    engine.hold_to_budgets([Budget(limit_usd=Decimal("0.0000001"), by="tag", only="key:ada")])
    with attributed(tags=["key:ada"]), pytest.raises(BudgetExceededError, match=r"tag=key:ada.*resets at"):
        engine.query("What do cats do?")
    assert engine.llm.prompts == []  # type: ignore[attr-defined]
    with attributed(tags=["key:bob"]):
        assert str(engine.query("What do cats do?")) == "Yes [1]."
    assert len(engine.llm.prompts) == 1  # type: ignore[attr-defined]


def test_a_spent_budget_is_refused_before_anything_is_done(engine: PresetEngine) -> None:
    """What a tag has spent counts from the ledger, also where the budget came later; lifting it lifts the refusal."""
    with attributed(tags=["key:ada"]):
        cost = engine.query("What do cats do?").metadata["cost_usd"]  # type: ignore[index]
    assert cost > 0
    engine.hold_to_budgets([Budget(limit_usd=Decimal(str(cost)), by="tag", only="key:ada")])
    engine.refuse_spent_budgets(tags=["key:bob"])
    with pytest.raises(BudgetExceededError, match="is spent") as refusal:
        engine.refuse_spent_budgets(tags=["key:ada"])
    assert refusal.value.resets_at is not None
    assert refusal.value.resets_at - datetime.now(UTC) <= timedelta(days=1)
    engine.hold_to_budgets([])
    engine.refuse_spent_budgets(tags=["key:ada"])


def test_a_model_without_a_price_is_refused_only_where_a_budget_applies(tmp_path: Path) -> None:
    """A budget of somebody else says nothing about a call that it does not count."""
    with build("knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), llm=ScriptedLLM()) as opened:
        opened.ingest([Document(text="Cats purr all day.", id_="cats")])
        opened.hold_to_budgets([Budget(limit_usd=Decimal(1), by="tag", only="key:ada")])
        assert str(opened.query("What do cats do?")) == "Yes [1]."
        with attributed(tags=["key:ada"]), pytest.raises(BudgetExceededError, match="No price is known"):
            opened.query("What do cats do?")


def test_a_budget_by_tag_names_the_tag() -> None:
    """A call may carry several tags, so a limit of each has no meaning."""
    with pytest.raises(SettingsError, match="by is 'tag' without only"):
        Budget(limit_usd=Decimal(1), by="tag")
    assert (
        Budget(limit_usd=Decimal(1), by="tag", only="a").key(Attribution(tags=("b",)), datetime.now(UTC))
        is None
    )
