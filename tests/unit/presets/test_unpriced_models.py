"""Models without a known price: named beside every cost that is null, and priced by the setting `prices`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding
from tests.servers.openai import OpenAIServer

from llama_index_presets import Ledger, build
from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.ledger.report import costs_json
from llama_index_presets.presets.estimates.ingestion import estimate_preset

FISH = [Document(text="The red fish lives in lake red.", doc_id="red")]
QUESTION = "Where does the red fish live?"
PLAIN = {"store": "duckdb", "answer_floor": -1.0, "embedding_cache": "off", "llm": "openai/of-next-year"}
PLAIN |= {"llm_options": {"context_window": 8_000}}
BOOK = '[models."openai/of-next-year"]\ninput = 1\noutput = 10\n'


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with OpenAIServer() as running:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        yield


def ask(storage: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """An answer, and the costs of its ledger, as JSON values."""
    with build(
        "knowledge-base",
        storage=storage,
        embed_model=MockEmbedding(embed_dim=8),
        settings={**PLAIN, **settings},
    ) as engine:
        engine.ingest(FISH)
        return engine.query(QUESTION).to_dict(), costs_json(engine.ledger)


def test_an_answer_and_the_costs_name_the_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They said null, and a number of unpriced calls, without a word of which or why."""
    answer, costs = ask(tmp_path)
    assert (answer["cost_usd"], answer["unpriced_models"]) == (None, ["openai/of-next-year"])
    assert (costs["unpriced_calls"], costs["unpriced_models"]) == (1, ["openai/of-next-year"])
    assert '[models."openai/of-next-year"] into a price book' in caplog.text


def test_a_price_book_of_a_preset_prices_it(tmp_path: Path) -> None:
    """A preset had no way to give a price: the advice could not be followed."""
    (tmp_path / "prices.toml").write_text(BOOK)
    answer, costs = ask(tmp_path / "storage", prices=str(tmp_path / "prices.toml"))
    assert answer["cost_usd"] == pytest.approx((1000 * 1 + 100 * 10) / 1e6)
    assert "unpriced_models" not in answer and "unpriced_models" not in costs
    settings = {**PLAIN, "prices": str(tmp_path / "prices.toml")}
    estimate = estimate_preset("knowledge-base", FISH, settings=settings).to_dict()
    assert estimate["answer"]["usd"] > 0 and "unpriced_models" not in estimate


def test_an_estimate_says_what_the_ledger_will_say(tmp_path: Path) -> None:
    """A vendor's model behind an address on this machine was free in the estimate and unpriced in the ledger."""
    estimate = estimate_preset("knowledge-base", FISH, settings=PLAIN).to_dict()
    assert (estimate["answer"]["usd"], estimate["unpriced_models"]) == (None, ["openai/of-next-year"])


@pytest.mark.parametrize(
    ("reranker", "book", "usd", "unpriced"),
    [
        ("cohere/rerank-v3.5", '[models."cohere/rerank-v3.5"]\nsearches = 2\n', 2 * 2 / 1000, []),
        ("cohere/rerank-v3.5", "", None, ["cohere/rerank-v3.5"]),
        ("voyage/ours", '[models."voyageai/ours"]\ninput = 0.05\n', 100 * (20 + 512) * 0.05e-6, []),
        ("http://127.0.0.1:9#ours", "", 0.0, []),
        ("https://example.org#ours", "", None, ["ours"]),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", "", 0.0, []),
    ],
)
def test_an_estimated_answer_has_the_price_of_reranking(
    reranker: str, book: str, usd: float | None, unpriced: list[str], tmp_path: Path
) -> None:
    """It was left out, and can be more than the language model; 100 pairs of 532 tokens are 2 searches."""
    (tmp_path / "prices.toml").write_text(BOOK + book)
    settings = {**PLAIN, "pattern": "advanced", "reranker": reranker, "candidates": 100}
    priced = {"prices": str(tmp_path / "prices.toml")}
    found = estimate_preset("knowledge-base", FISH, settings={**settings, **priced}).to_dict()
    plain = estimate_preset("knowledge-base", FISH, settings={**PLAIN, **priced}).to_dict()
    assert plain["answer"]["reranking"] is None and plain["answer"]["usd"] > 0
    reranking = found["answer"]["reranking"]
    assert (reranking["model"], reranking["pairs"], reranking["usd"]) == (
        reranker,
        100,
        pytest.approx(usd) if usd is not None else None,
    )
    assert found.get("unpriced_models", []) == unpriced
    whole = None if usd is None else pytest.approx(plain["answer"]["usd"] + usd)
    assert found["answer"]["usd"] == whole


def test_a_price_book_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    """Before anything is opened or sent."""
    with pytest.raises(SettingsError, match=r"Price book '.*none.toml' cannot be read"):
        ask(tmp_path, prices=str(tmp_path / "none.toml"))


def test_models_are_named_once_and_by_tenant(tmp_path: Path) -> None:
    """Free and priced ones are not among them."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        for tenant, provider, model in (
            ("a", "cohere", "rerank-v9"),
            ("a", "cohere", "rerank-v9"),
            ("b", "", "qwen9"),
            ("b", "local", "any"),
            ("b", "openai", "gpt-4o-mini"),
        ):
            ledger.record(kind="llm", provider=provider, model=model, prompt_tokens=1, tenant=tenant)
        assert ledger.unpriced_models() == ["qwen9", "cohere/rerank-v9"]
        assert ledger.unpriced_models(days=1, tenant="a") == ["cohere/rerank-v9"]
