"""No key is in what an object shows, gives out or becomes when it is pickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import MockEmbedding
from tests.unit.test_forks import in_child

from llama_index_presets import PostgresVectorStore, build
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding
from llama_index_presets.embed.openai import BatchedOpenAIEmbedding
from llama_index_presets.errors import MonitorError, SettingsError, StoreError
from llama_index_presets.monitor.audit import AuditLog
from llama_index_presets.monitor.retry import retrying
from llama_index_presets.presets.index.storage import resolve_storage
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers.language_models import make_language_model
from llama_index_presets.providers.openai_llm import OpenAI

KEY = "sk-never-shown"
HEADERS = {"Authorization": "Bearer sk-never-shown"}
MODELS = {
    "embedding": lambda: BatchedOpenAIEmbedding(api_key=KEY, default_headers=HEADERS),
    "embedding with retries": lambda: retrying(BatchedOpenAIEmbedding(api_key=KEY, default_headers=HEADERS)),
    "LLM": lambda: OpenAI("gpt-4o-mini", api_key=KEY, default_headers=HEADERS),
    "LLM with retries": lambda: retrying(OpenAI("gpt-4o-mini", api_key=KEY, default_headers=HEADERS)),
}


def all_forms(model: Any) -> list[str]:
    """Every way in which an object can leave the process by accident."""
    return [
        repr(model),
        str(model),
        str(model.to_dict()),
        model.to_json(),
        str(model.model_dump()),
        model.model_dump_json(),
        f"{model!r:.500}",
        pickle.dumps(model).decode("latin-1"),
        str(model.__getstate__()),
    ]


@pytest.mark.parametrize("name", MODELS)
def test_no_form_of_a_model_has_its_key(name: str) -> None:
    """Shown, dumped, pickled: before the first call and after the client was made."""
    model = MODELS[name]()
    for _ in range(2):
        assert [form for form in all_forms(model) if KEY in form] == []
        assert model._get_client().api_key == KEY


@pytest.mark.parametrize("name", MODELS)
def test_a_pickled_model_takes_the_key_of_its_new_environment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one it works; without one the first call says what is missing."""
    sent = pickle.dumps(MODELS[name]())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-worker")
    assert pickle.loads(sent)._get_client().api_key == "sk-of-the-worker"
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(SettingsError, match="needs a key and none is set. Set OPENAI_API_KEY"):
        pickle.loads(sent)._get_client()


@pytest.mark.parametrize("name", MODELS)
def test_a_fork_makes_a_client_of_its_own(name: str) -> None:
    """Two processes on one connection could read each other's answers."""
    model = MODELS[name]()
    client = model._get_client()
    assert in_child(lambda: model._get_client() is client) == "returned False"
    assert model._get_client() is client


def test_an_engine_shows_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of its LLM, its embedding model, its settings and its storage."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = {"store": "duckdb", "alert_webhook": f"https://hooks.example/{KEY}", "trace_endpoint": "off"}
    with build("knowledge-base", storage=tmp_path, settings=settings) as engine:
        shown = [
            repr(engine),
            repr(engine.llm),
            str(engine.explain()),
            repr(engine.settings),
            repr(engine.index),
        ]
        shown += [
            repr(engine.retriever),
            repr(engine.vector_store),
            repr(engine._parts),
            repr(engine.ledger),
        ]
        shown += all_forms(engine.llm) + all_forms(engine._parts.embed_model)
    assert [text for text in shown if KEY in text] == []


def test_the_llm_of_a_preset_is_the_official_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the stock class still finds it."""
    from llama_index.llms.openai import OpenAI as Official

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = make_language_model("gpt-4o-mini")
    assert isinstance(made, Official) and made.class_name() == Official.class_name() and KEY not in repr(made)


def test_urls_are_shown_without_their_passwords() -> None:
    """Of a store, of a storage and of a setting."""
    url = "postgresql://ada:sk-never-shown@localhost/db"
    store, place = PostgresVectorStore.from_url(url, embed_dim=2), resolve_storage(url)
    traced = Settings(trace_endpoint="https://ada:sk-never-shown@collector.example/v1")
    shown = [
        repr(store),
        str(store.to_dict()),
        store.model_dump_json(),
        repr(store.client),
        repr(place),
        place.shown,
    ]
    assert [text for text in [*shown, str(traced.to_dict())] if KEY in text] == []
    with pytest.raises(StoreError, match="cannot be pickled"):
        pickle.dumps(store)


def test_what_cannot_do_without_its_secret_refuses_to_be_pickled(tmp_path: Path) -> None:
    """A cache with a key, a model behind it, and an audit log: a copy without the key would be another thing."""
    cache = EmbeddingCache(tmp_path, hash_key=b"sk-never-shown")
    for holder in (cache, CachedEmbedding(MockEmbedding(embed_dim=2), cache)):
        with pytest.raises(SettingsError, match="hash_key cannot be pickled"):
            pickle.dumps(holder)
    with pytest.raises(MonitorError, match="cannot be pickled: the operator's key"):
        pickle.dumps(AuditLog(tmp_path / "audit.jsonl", key=b"sk-never-shown-16-bytes"))
    assert pickle.loads(pickle.dumps(EmbeddingCache(tmp_path, max_bytes=2**21))).max_bytes == 2**21


def test_postgres_connections_of_the_parent_stay_there() -> None:
    """The pool of a fork is another one, and the parent's is not closed."""
    store = PostgresVectorStore.from_url("postgresql://ada@localhost/db", embed_dim=2)
    pool = store.client.pool
    assert in_child(lambda: store.client.pool is pool) == "returned False"
    assert store.client.pool is pool
