"""Embedding models and rerankers by name: spellings, real clients against servers on loopback, what stays here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.schema import NodeWithScore, TextNode
from tests.fakes import WordEmbedding
from tests.servers.chat_protocols import ChatServer
from tests.servers.openai import OpenAIServer

from llama_index_presets import build
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.provenance import RERANK, RETRIEVAL, RankedNode
from llama_index_presets.providers.embedding_models import (
    CATALOGUE,
    EMBEDDING_PROVIDERS,
    embeds_on_this_machine,
    make_embedding_model,
    read_embedding_name,
)
from llama_index_presets.providers.rerankers import make_reranker, read_reranker_name, reranks_on_this_machine

FISH = [Document(text=f"The {word} fish lives in lake {word}.", doc_id=word) for word in ("red", "blue")]
PLAIN = {"store": "duckdb", "embedding_cache": "off", "answer_floor": -1.0, "llm": "extractive"}


class OwnEmbedding(WordEmbedding):
    """An application's own class, for ``module:Class``."""


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of every provider, and no address of the machine that the tests run on."""
    for provider in EMBEDDING_PROVIDERS.values():
        for variable in (*provider.keys, *provider.endpoints):
            monkeypatch.delenv(variable, raising=False)
        for variable in provider.keys[:1]:
            monkeypatch.setenv(variable, "sk-secret")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")


@pytest.fixture
def openai() -> Iterator[OpenAIServer]:
    with OpenAIServer() as listening:
        yield listening


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer() as listening:
        yield listening


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("text-embedding-3-small", CATALOGUE, "text-embedding-3-small"),
        ("openai/text-embedding-3-small", CATALOGUE, "text-embedding-3-small"),
        ("local/all-MiniLM-L6-v2", CATALOGUE, "all-MiniLM-L6-v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", CATALOGUE, "all-MiniLM-L6-v2"),
        ("ollama/all-MiniLM-L6-v2", "ollama", "all-MiniLM-L6-v2"),
        ("azure/text-embedding-3-small", "azure", "text-embedding-3-small"),
        ("openai/of-next-year", "openai", "of-next-year"),
        ("gemini-embedding-001", "gemini", "gemini-embedding-001"),
        ("http://localhost:8080/v1#bge-m3", "http", "bge-m3"),
        ("./models/mine", "local", "./models/mine"),
        ("my_app.models:Mine?dim=3", "class", "my_app.models:Mine"),
    ],
)
def test_each_spelling_names_a_provider_and_a_model(name: str, provider: str, model: str) -> None:
    """A provider in front goes before the catalogue, but for those whose models the catalogue has."""
    read = read_embedding_name(name)
    assert (read.provider, read.model) == (provider, model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("olama/nomic", "no provider 'olama' of embedding models. Did you mean 'ollama/nomic'"),
        ("all-MiniLM-L6", "no embedding model 'all-MiniLM-L6'. Did you mean 'all-MiniLM-L6-v2'"),
        ("http://localhost:8080/v1", "names no model"),
        ("http://me:secret@localhost/v1#m", r"Name its variable: \[embedding\] key"),
    ],
)
def test_a_name_that_says_nothing_is_refused_with_the_way_out(
    tmp_path: Path, name: str, message: str
) -> None:
    """Where it is read, and where it is a setting."""
    with pytest.raises(SettingsError, match=message):
        read_embedding_name(name)
    with pytest.raises(SettingsError, match=message):
        build("knowledge-base", storage=tmp_path, settings={"embedding": name})


@pytest.mark.parametrize(
    ("name", "server", "variable"),
    [
        ("openai/of-next-year", "openai", "OPENAI_BASE_URL"),
        ("text-embedding-3-small", "openai", "OPENAI_API_BASE"),
        ("azure/my-embedding", "openai", "AZURE_OPENAI_ENDPOINT"),
        ("{server}#bge-m3", "openai", ""),
        ("ollama/nomic-embed-text", "chat", "OLLAMA_HOST"),
        ("gemini/gemini-embedding-001", "chat", "GOOGLE_GEMINI_BASE_URL"),
        ("mistral/mistral-embed", "openai", "MISTRAL_ENDPOINT"),
        (f"{__name__}:OwnEmbedding?dim=32", "", ""),
    ],
)
def test_a_named_model_embeds_an_index_and_its_questions(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    openai: OpenAIServer,
    chat: ChatServer,
    name: str,
    server: str,
    variable: str,
) -> None:
    """Through its real client, asked and awaited; the key is shown nowhere."""
    url = {"openai": openai.url, "chat": chat.url, "": ""}[server]
    if variable:
        monkeypatch.setenv(variable, url.removesuffix("/v1") if variable[:2] in ("AZ", "MI") else url)
    settings = PLAIN | {"embedding": name.format(server=url)}
    with build("knowledge-base", storage=tmp_path, settings=settings) as engine:
        report = engine.ingest(FISH)
        answers = [
            engine.query("Where does the red fish live?"),
            asyncio.run(engine.aquery("And the blue fish?")),
        ]
        rows = engine.ledger.sql(
            "select model, prompt_tokens > 0 from llm_calls where kind = 'embedding' and model <> 'unknown'"
        ).fetchall()
        shown = (
            repr(engine._parts.embed_model) + str(engine.explain()) + str(engine._parts.embed_model.to_dict())
        )
    assert report.chunks == 2 and all(answer.metadata["known"] for answer in answers)
    assert "sk-secret" not in shown
    if server:
        served = {one.model.removeprefix("models/") for one in (openai.served + chat.served)}
        assert len(served) == 1
        assert rows and {row[1] for row in rows} == {True}


def test_a_table_holds_name_and_options_and_no_key_goes_to_another_vendor(tmp_path: Path) -> None:
    """What belongs to one model is dropped where a layer above names another."""
    file = tmp_path / "settings.toml"
    file.write_text(
        '[embedding]\nname = "http://localhost:1/v1#m"\nkey = "MY_KEY"\nbatch_size = 8\nheaders = { X = "secret" }\n'
        '[healthcare]\nembedding = "all-MiniLM-L6-v2"\n[reranker]\nname = "cohere/rerank-v3.5"\nkey = "CO_KEY"\n'
    )
    values, _ = load_settings(file, "knowledge-base")
    assert values.embedding == "http://localhost:1/v1#m" and values.reranker == "cohere/rerank-v3.5"
    assert values.reranker_options == {"key": "CO_KEY"}
    assert "secret" not in repr(values) + str(values.to_dict())
    assert load_settings(file, "healthcare")[0].embedding_options == {"batch_size": 8}
    with pytest.raises(SettingsError, match="no option 'temperature' of an embedding model"):
        load_settings({"embedding": {"name": "ollama/x", "temperature": 1}})


@pytest.mark.parametrize(
    "name", ["text-embedding-3-small", "ollama/x", "http://10.0.0.7/v1#m", "cohere/embed-v4.0"]
)
def test_a_model_elsewhere_is_refused_where_nothing_may_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By its address; offline, the local model takes its place."""
    monkeypatch.setenv("OLLAMA_HOST", "10.0.0.7:11434")
    with pytest.raises(SettingsError, match="embedding '.*' would send text elsewhere"):
        build("healthcare", storage=tmp_path, settings=PLAIN | {"embedding": name})
    with build("healthcare", storage=tmp_path, offline=True, settings=PLAIN | {"embedding": name}) as engine:
        assert engine.explain()["swapped_for_offline"]["embedding"] == name


def test_an_address_on_this_machine_is_taken_whoever_speaks() -> None:
    """An option, too, decides where the texts go."""
    options = {"endpoint": "http://127.0.0.1:1/v1"}
    for name in ("openai/of-next-year", "text-embedding-3-small", "http://localhost:1/v1#m", "ollama/x"):
        assert embeds_on_this_machine(read_embedding_name(name), options)
    assert not embeds_on_this_machine(read_embedding_name("openai/of-next-year"), {})


def test_an_option_that_a_class_does_not_take_is_said() -> None:
    """And one for a model in this process."""
    with pytest.raises(SettingsError, match="Mistral takes no timeout_s. Leave embedding.timeout_s out"):
        make_embedding_model(read_embedding_name("mistral/mistral-embed"), {"timeout_s": 3})
    with pytest.raises(SettingsError, match="takes no dimensions"):
        make_embedding_model(read_embedding_name("ollama/x"), {}, dimensions=3)


# -- rerankers ---------------------------------------------------------------------------------------------------------


def test_a_name_on_the_hub_stays_a_cross_encoder() -> None:
    """Only providers of the table, servers and classes are read otherwise."""
    names = ["cross-encoder/ms-marco-MiniLM-L6-v2", "./mine", "cohere/rerank-v3.5", "http://localhost:1#bge"]
    read = [read_reranker_name(name) for name in names]
    assert [one.provider for one in read] == ["cross-encoder", "cross-encoder", "cohere", "http"]
    assert [reranks_on_this_machine(one, {}) for one in read] == [True, True, False, True]


@pytest.mark.parametrize("name", ["cohere/rerank-v3.5", "{server}#bge-reranker"])
def test_a_named_reranker_orders_the_hits_and_keeps_their_retrieval_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat: ChatServer, name: str
) -> None:
    """Through Cohere's client; the server takes the last hit for the best."""
    monkeypatch.setenv("CO_API_URL", chat.url)
    settings = PLAIN | {"pattern": "advanced", "reranker": name.format(server=chat.url), "top_k": 2}
    with build("knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), settings=settings) as engine:
        engine.ingest(FISH)
        hits = engine.query("Where does the red fish live?").source_nodes
    assert [hit.node.ref_doc_id for hit in hits] == ["blue", "red"]
    assert all(isinstance(hit, RankedNode) for hit in hits)
    ranks: list[Any] = [hit.stages for hit in hits]  # type: ignore[attr-defined]
    assert [(one[RETRIEVAL].rank, one[RERANK].rank) for one in ranks] == [(2, 1), (1, 2)]


def test_a_reranker_elsewhere_is_refused_where_nothing_may_leave(tmp_path: Path) -> None:
    """As a model is; offline, passages keep the order of the search, and that is said."""
    settings = PLAIN | {"pattern": "advanced", "reranker": "cohere/rerank-v3.5"}
    with pytest.raises(SettingsError, match="reranker 'cohere/rerank-v3.5' would send text elsewhere"):
        build("healthcare", storage=tmp_path, settings=settings)
    with build("healthcare", storage=tmp_path, offline=True, settings=settings) as engine:
        assert "'cohere/rerank-v3.5' is a service" in engine.explain()["notices"][0]


def test_a_class_of_the_application_reranks() -> None:
    """It gets hits of its own, since many write their score into those that they are given."""
    name = read_reranker_name("llama_index.core.postprocessor:SimilarityPostprocessor?similarity_cutoff=0.5")
    hits = [NodeWithScore(node=TextNode(text=text), score=score) for text, score in (("a", 0.4), ("b", 0.9))]
    kept = make_reranker(name, {}, top_n=2).postprocess_nodes(hits)
    assert [hit.text for hit in kept] == ["b"]


def test_options_of_the_settings_are_not_dropped_for_an_own_class() -> None:
    """A class takes its arguments in its name, as a language model's does; the settings' are refused, not ignored."""
    own = read_embedding_name(f"{__name__}:OwnEmbedding?dim=32")
    with pytest.raises(SettingsError, match="takes no batch_size from the settings"):
        make_embedding_model(own, {"batch_size": 3})
