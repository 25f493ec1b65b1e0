"""A preset embeds no text twice, also when the index is made anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from llama_index.core import Document

from llama_index_presets import build
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.checks.offline import refuse_remote
from llama_index_presets.presets.estimates.ingestion import estimate_preset

TEXTS = ["A pen may be kept for 28 days.", "Insulin lies in the refrigerator.", "Falls are reported."]
DOCUMENTS = [Document(text=text, doc_id=str(number)) for number, text in enumerate(TEXTS)]


def test_a_new_index_over_the_same_texts_computes_nothing(tmp_path: Path) -> None:
    """Only the cache of the first storage is kept; the second ingest is all hits, and the ledger says so."""
    with build("healthcare", storage=tmp_path / "one", offline=True) as engine:
        assert engine.ingest(DOCUMENTS).embedded == 3
    shutil.move(tmp_path / "one" / "embeddings", tmp_path / "shared")
    settings = {"embedding_cache": str(tmp_path / "shared")}
    with build("healthcare", storage=tmp_path / "two", offline=True, settings=settings) as engine:
        engine.ingest(DOCUMENTS)
        rows = engine.ledger.sql(
            "select cache_hit, prompt_tokens, cost_usd from llm_calls where kind = 'embedding'"
        ).fetchall()
        assert str(engine.query("How long may a pen be kept?")).startswith(TEXTS[0])
    assert rows == [(True, 0, 0)]


def test_a_local_preset_writes_no_question_down(tmp_path: Path) -> None:
    """Passages are cached, questions are not: three vectors, however often is asked."""
    with build("healthcare", storage=tmp_path, offline=True) as engine:
        engine.ingest(DOCUMENTS)
        engine.query("Is Mrs Miller's pen too old?")
    assert len(EmbeddingCache(tmp_path / "embeddings")) == 3


def test_the_cache_can_be_switched_off(tmp_path: Path) -> None:
    """With `off` nothing is written."""
    with build("healthcare", storage=tmp_path, offline=True, settings={"embedding_cache": "off"}) as engine:
        engine.ingest(DOCUMENTS[:1])
    assert not (tmp_path / "embeddings").exists()


def test_a_cache_does_not_hide_a_remote_model(tmp_path: Path) -> None:
    """A local preset looks behind the cache."""
    from llama_index.embeddings.openai import OpenAIEmbedding

    hidden = CachedEmbedding(OpenAIEmbedding(api_key="sk-x"), EmbeddingCache(tmp_path))
    with pytest.raises(SettingsError, match="CachedEmbedding would send text elsewhere"):
        refuse_remote("healthcare", [hidden])


def test_dimensions_are_part_of_an_estimate() -> None:
    """Shorter vectors take less disk, before anything is sent."""
    whole, short = (
        estimate_preset("knowledge-base", DOCUMENTS, settings=settings).disk_bytes
        for settings in ({}, {"dimensions": 256})
    )
    assert short < whole
