"""Language models by name: spellings, options, keys, endpoints, and what stays on this machine."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.llms import MockLLM
from tests.fakes import WordEmbedding
from tests.servers.chat_protocols import ANSWER_TOKENS, PROMPT_TOKENS, ChatServer
from tests.servers.openai import OpenAIServer

from llama_index_presets import build
from llama_index_presets._addresses import is_loopback
from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.prices import FREE_PROVIDER, Pricer
from llama_index_presets.presets.models import make_embedding
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.providers.language_models import (
    endpoint_of,
    is_on_this_machine,
    language_model_rates,
    make_language_model,
    read_name,
)
from llama_index_presets.providers.language_providers import PROVIDERS
from llama_index_presets.providers.options import check_options

FISH = [Document(text=f"The {word} fish lives in lake {word}.", doc_id=word) for word in ("red", "blue")]
PLAIN = {"store": "duckdb", "embedding_cache": "off", "answer_floor": -1.0}


class OwnModel(MockLLM):
    """An application's own class, for ``module:Class``."""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key or endpoint of the machine that the tests run on."""
    for provider in PROVIDERS.values():
        for variable in (*provider.keys, *provider.endpoints):
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as listening:
        yield listening


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    with ChatServer() as listening:
        yield listening


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("extractive", "extractive", "extractive"),
        ("gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("openai/o4-mini", "openai", "o4-mini"),
        ("claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("gemini-2.5-flash", "gemini", "gemini-2.5-flash"),
        ("bedrock/anthropic.claude-3-haiku:0", "bedrock", "anthropic.claude-3-haiku:0"),
        ("ollama/hf.co/qwen/qwen3:8b", "ollama", "hf.co/qwen/qwen3:8b"),
        ("llamacpp:/models/x.gguf", "llamacpp", "/models/x.gguf"),
        ("http://localhost:8080/v1#qwen/qwen3", "http", "qwen/qwen3"),
        ("my_app.models:Mine?temperature=0", "class", "my_app.models:Mine"),
    ],
)
def test_each_spelling_names_a_provider_and_a_model(name: str, provider: str, model: str) -> None:
    """A name is read without importing anything."""
    read = read_name(name)
    assert (read.provider, read.model) == (provider, model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("olama/llama3.2", "no provider 'olama' .* Did you mean 'ollama/llama3.2'"),
        ("extractiv", "no language model 'extractiv'. Did you mean 'extractive'"),
        ("llama3.2", "no language model 'llama3.2'. Write PROVIDER/MODEL"),
        ("openai/", "'openai/' names no model. Write openai/MODEL"),
        ("http://localhost:8080/v1", "names no model. Write http://HOST:PORT/v1#MODEL"),
        ("http://me:secret@localhost/v1#m", "A key has no place in the address"),
        ("my app:Mine", "is no class. Write module:Class"),
    ],
)
def test_a_name_that_says_nothing_is_refused_with_the_way_out(name: str, message: str) -> None:
    """And the secret of an address is not repeated."""
    with pytest.raises(SettingsError, match=message) as caught:
        read_name(name)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("provider", sorted(name for name, one in PROVIDERS.items() if one.keys))
def test_a_missing_key_is_said_by_its_variable(provider: str) -> None:
    """Or, where the package is missing as well, by its install line."""
    expected = (
        f"{PROVIDERS[provider].keys[0]}.* is not set|llama-index-presets\\[{PROVIDERS[provider].extra}\\]"
    )
    with pytest.raises(Exception, match=expected):
        make_language_model(f"{provider}/some-model")


def test_options_are_checked_by_name_and_type() -> None:
    """A typo names the nearest; a value of another type says what is expected."""
    with pytest.raises(
        SettingsError, match="no option 'temprature' of a language model. Did you mean 'temperature'"
    ):
        check_options({"temprature": 0})
    with pytest.raises(SettingsError, match="llm.max_tokens is '9'; expected int"):
        check_options({"max_tokens": "9"})


def test_a_settings_file_names_the_model_and_its_options(tmp_path: Path) -> None:
    """The table [llm], at the top and below a preset; a plain string still works."""
    file = tmp_path / "settings.toml"
    file.write_text(
        '[llm]\nname = "ollama/llama3.2"\ntemperature = 0.5\n[healthcare.llm]\nname = "extractive"\n'
    )
    values, origins = load_settings(file, "knowledge-base")
    assert (values.llm, values.llm_options) == ("ollama/llama3.2", {"temperature": 0.5})
    assert origins["llm"] == str(file)
    assert load_settings(file, "healthcare")[0].llm == "extractive"
    file.write_text('llm = "gpt-4o-mini"\n')
    assert load_settings(file, "knowledge-base")[0].llm == "gpt-4o-mini"


def test_headers_are_not_shown() -> None:
    """A header may be a key."""
    values, _ = load_settings(
        {"llm": {"name": "gpt-4o-mini", "headers": {"X-Key": "secret"}}}, "knowledge-base"
    )
    assert "secret" not in repr(values) + str(values.to_dict())


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        ("openai/gpt-4o-mini", "OPENAI_API_KEY"),
        ("gpt-5-mini", "OPENAI_API_KEY"),
        ("openai/of-next-year", "OPENAI_API_KEY"),
        ("groq/llama-3.3-70b-versatile", "GROQ_API_KEY"),
        ("deepseek/deepseek-chat", "DEEPSEEK_API_KEY"),
        ("{url}#qwen", ""),
    ],
)
def test_a_named_model_answers_and_is_billed_as_the_server_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openai_server: OpenAIServer, spelling: str, key: str
) -> None:
    """One row a call, with the server's own counts: asked, awaited and streamed."""
    if key:
        monkeypatch.setenv(key, "sk-secret")
    name = spelling.format(url=openai_server.url)
    options = {} if "#" in name else {"endpoint": openai_server.url}
    settings = PLAIN | {"llm": {"name": name, **options}}
    with build("knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), settings=settings) as engine:
        engine.ingest(FISH)
        engine.query("Where does the red fish live?")
        asyncio.run(engine.aquery("Where does the blue fish live?"))
        "".join(engine.stream("Where does the red fish live?").response_gen)
        rows = engine.ledger.sql(
            "select prompt_tokens, completion_tokens, usage_source from llm_calls where kind = 'llm'"
        ).fetchall()
        assert "sk-secret" not in repr(engine.synthesizer.llm) + str(engine.explain())
    assert rows == [(1000, 100, "reported")] * len(openai_server.served) and len(rows) == 3


def test_a_key_is_not_sent_to_a_server_that_only_speaks_the_protocol(
    monkeypatch: pytest.MonkeyPatch, chat_server: ChatServer
) -> None:
    """``OPENAI_API_KEY`` belongs to OpenAI; another server gets the key that the settings name, or none."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("MY_KEY", "sk-of-mine")
    for options, expected in (({}, "Bearer none"), ({"key": "MY_KEY"}, "Bearer sk-of-mine")):
        model: Any = make_language_model(f"{chat_server.url}/v1#m", options)
        assert f"Bearer {model.api_key}" == expected


def test_ollama_answers_and_is_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat_server: ChatServer
) -> None:
    """Under a preset that keeps everything on the machine, at the address of OLLAMA_HOST."""
    monkeypatch.setenv("OLLAMA_HOST", chat_server.url.removeprefix("http://"))
    with build(
        "healthcare", storage=tmp_path, embed_model=WordEmbedding(), llm="ollama/llama3.2", settings=PLAIN
    ) as engine:
        engine.ingest(FISH)
        response = engine.query("Where does the red fish live?")
        streamed = "".join(engine.stream("Where does the red fish live?").response_gen)
        rows = engine.ledger.sql(
            "select provider, model, prompt_tokens, completion_tokens, usage_source from llm_calls where kind = 'llm'"
        ).fetchall()
    assert str(response) == streamed == "Red fish live there. [1]"
    assert rows == [("local", "llama3.2", PROMPT_TOKENS, ANSWER_TOKENS, "reported")] * 2


def test_anthropic_answers_and_is_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat_server: ChatServer
) -> None:
    """Through the vendor's own SDK, priced by its own price."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", chat_server.url)
    with build(
        "knowledge-base",
        storage=tmp_path,
        embed_model=WordEmbedding(),
        llm="claude-sonnet-4-5",
        settings=PLAIN,
    ) as engine:
        engine.ingest(FISH)
        assert str(engine.query("Where does the red fish live?")) == "Red fish live there. [1]"
        rows = engine.ledger.sql(
            "select provider, prompt_tokens, completion_tokens, cost_usd > 0 from llm_calls where kind = 'llm'"
        ).fetchall()
        assert "sk-secret" not in repr(engine.synthesizer.llm) + str(engine.explain())
    assert rows == [("anthropic", PROMPT_TOKENS, ANSWER_TOKENS, True)]


def test_a_class_of_the_application_is_made_with_its_arguments() -> None:
    """And one that is no LLM is refused."""
    model: Any = make_language_model(f"{__name__}:OwnModel?max_tokens=7")
    assert isinstance(model, OwnModel) and model.max_tokens == 7
    with pytest.raises(SettingsError, match="'json:loads' is no LLM of LlamaIndex"):
        make_language_model("json:loads")
    with pytest.raises(SettingsError, match="'no_such_module:Mine' cannot be imported"):
        make_language_model("no_such_module:Mine")


@pytest.mark.parametrize(
    "name", ["gpt-4o-mini", "ollama/llama3.2", "http://10.0.0.7:8080/v1#m", "anthropic/claude-sonnet-4-5"]
)
def test_a_model_elsewhere_is_refused_where_nothing_may_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Decided by the address that would be asked: an Ollama on another host is elsewhere."""
    monkeypatch.setenv("OLLAMA_HOST", "10.0.0.7:11434")
    with pytest.raises(
        SettingsError, match="keeps everything on this machine; llm '.*' would send text elsewhere"
    ):
        build("healthcare", storage=tmp_path, embed_model=WordEmbedding(), llm=name, settings=PLAIN)


def test_an_address_is_judged_by_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address elsewhere is enough; a name that cannot be resolved is elsewhere, too."""
    known = {"inside": ["127.0.0.1", "::1"], "half": ["127.0.0.1", "192.0.2.1"]}

    def resolve(host: str, *_: Any) -> list[Any]:
        if host not in known:
            raise OSError
        return [(0, 0, 0, "", (address, 0)) for address in known[host]]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    assert [
        is_loopback(f"http://{host}:80/v1") for host in ("inside", "half", "nowhere", "localhost.evil")
    ] == [
        True,
        False,
        False,
        False,
    ]


def test_the_variable_that_won_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that OpenAI's SDKs read, the newer name goes first."""
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:1/v1")
    assert endpoint_of(read_name("gpt-4o-mini"), {}) == ("http://127.0.0.1:1/v1", "OPENAI_API_BASE")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:2/v1")
    assert endpoint_of(read_name("gpt-4o-mini"), {}) == ("http://127.0.0.1:2/v1", "OPENAI_BASE_URL")
    assert is_on_this_machine(read_name("gpt-4o-mini"), {})


def test_the_embedding_goes_to_the_same_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of OpenAI's own SDK holds for texts as for questions."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:2/v1")
    embedding: Any = make_embedding("text-embedding-3-small", local=False)
    model: Any = make_language_model("gpt-4o-mini")
    assert embedding.api_base == model.api_base == "http://127.0.0.1:2/v1"


@pytest.mark.parametrize("name", ["groq/llama-3.3", "http://localhost:1/v1#m", "ollama/x", "gpt-4o-mini"])
def test_a_named_model_is_pickled_without_its_key(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """And copied as it is."""
    for variable in ("GROQ_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, "sk-secret")
    model = make_language_model(name)
    data = pickle.dumps(model)
    assert b"sk-secret" not in data
    assert type(pickle.loads(data)).__name__ == type(model).__name__ == type(copy.deepcopy(model)).__name__


def test_who_is_billed_for_a_model() -> None:
    """A class of one's own has no price that anybody knows, and is free only where it asks nobody."""
    own = read_name("my_app.models:Mine")
    assert language_model_rates(own, Pricer(), local=False) == ("", None)
    provider, rates = language_model_rates(own, Pricer(), local=True)
    assert provider == FREE_PROVIDER and rates is not None and rates.output == 0
    extractive, free = language_model_rates(read_name("extractive"), Pricer(), local=False)
    assert extractive == FREE_PROVIDER and free is not None and free.output == 0


def test_both_models_of_a_preset_are_made_in_one_place() -> None:
    """Applications and checks import the two from there."""
    from llama_index_presets.presets.models import make_embedding, make_llm

    assert make_llm("extractive").class_name() == "ExtractiveLLM"
    assert make_embedding("all-MiniLM-L6-v2", local=True).model_name.endswith("all-MiniLM-L6-v2")
