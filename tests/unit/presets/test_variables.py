"""Keys and endpoints: from the environment, the .env beside the settings file, and the keyring; never shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from tests.fakes import WordEmbedding
from tests.servers.openai import OpenAIServer

from llama_index_presets import build
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.providers.language_models import endpoint_of, make_language_model, read_name
from llama_index_presets.providers.variables import KEYRING_SERVICE, find_variable, use_env_file

NAMES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE")


class Memory(KeyringBackend):
    """A keyring in memory; broken where `broken` is set."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.broken = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.broken:
            raise RuntimeError("locked: sk-secret")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password


@pytest.fixture
def memory() -> Iterator[Memory]:
    before, backend = keyring.get_keyring(), Memory()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    yield
    use_env_file(None)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A settings file with a .env beside it."""
    (tmp_path / ".env").write_text('# mine\nexport OPENAI_API_KEY="sk-of-file"\nOPENAI_BASE_URL=\n')
    file = tmp_path / "settings.toml"
    file.write_text('llm = "gpt-4.1-mini"\n')
    return file


def test_the_environment_goes_before_the_file_and_the_file_before_the_keyring(
    settings: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is said, the value is in no repr, and the environment stays as it was."""
    memory.set_password(KEYRING_SERVICE, "OPENAI_API_KEY", "sk-of-keyring")
    seen = []
    for set_up in (
        lambda: None,
        lambda: load_settings(settings),
        lambda: monkeypatch.setenv("OPENAI_API_KEY", "sk-env"),
    ):
        set_up()
        found = find_variable("OPENAI_API_KEY", secret=True)
        assert found is not None and "sk-" not in repr(found)
        seen.append((found.value, found.source))
    file = str(settings.with_name(".env"))
    assert seen == [("sk-of-keyring", "keyring"), ("sk-of-file", file), ("sk-env", "environment")]
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "OPENAI_API_KEY" not in os.environ


def test_the_keyring_is_asked_for_keys_alone(memory: Memory) -> None:
    """An address there would decide where texts go without anybody seeing it."""
    memory.set_password(KEYRING_SERVICE, "OPENAI_BASE_URL", "http://10.0.0.7/v1")
    assert endpoint_of(read_name("gpt-4.1-mini"), {}) == ("", "")


def test_a_broken_keyring_is_no_key(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    """The message is that of a missing key; what the keyring said is not repeated."""
    memory.broken = True
    with pytest.raises(SettingsError, match="OPENAI_API_KEY is not set") as caught:
        make_language_model("gpt-4.1-mini")
    assert "RuntimeError" in caplog.text and "sk-secret" not in caplog.text + str(caught.value)


def test_the_next_settings_end_the_use_of_the_file(settings: Path) -> None:
    """One engine's keys are not another's."""
    load_settings(settings)
    load_settings({"top_k": 3})
    assert find_variable("OPENAI_API_KEY") is None


def test_a_file_that_is_no_text_is_said(settings: Path) -> None:
    """Without its content."""
    settings.with_name(".env").write_bytes(b"OPENAI_API_KEY=\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env' cannot be read \(it is not UTF-8\)"):
        load_settings(settings)


def test_a_key_beside_the_settings_answers_and_is_nowhere_shown(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the model, the explanation, or an error of the server."""
    with OpenAIServer() as server:
        settings.write_text(f'[llm]\nname = "gpt-4.1-mini"\nendpoint = "{server.url}"\n')
        options: dict[str, Any] = {"embed_model": WordEmbedding(), "settings": settings}
        monkeypatch.setenv("LLAMA_PRESETS_STORE", "duckdb")
        with build("knowledge-base", storage=tmp_path / "s", **options) as engine:
            shown = repr(engine.llm) + str(engine.explain()) + str(engine.llm.to_dict())
            assert engine.llm.complete("x").text == "The answer is 42."
    assert "sk-of-file" not in shown
