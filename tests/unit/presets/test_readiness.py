"""One list of obstacles feeds `list`, `show`, `init`, `doctor` and the error of `build`."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from llama_index_presets import PRESETS, build
from llama_index_presets.diagnose.doctor import examine
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.presets.checks import readiness
from llama_index_presets.presets.checks.readiness import obstacles
from llama_index_presets.presets.matrix import preset
from llama_index_presets.presets.project.settings_sources import load_settings


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without keys, and without the weights of MPNet and of the re-ranker."""
    for name in ("OPENAI_API_KEY", "PINECONE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(readiness, "has_weights", lambda model: model.name == "all-MiniLM-L6-v2")
    monkeypatch.setattr(readiness, "find_reranker", lambda name: None)


def lines(name: str, **settings: Any) -> list[str]:
    values, _ = load_settings(settings, name)
    return [one.line for one in obstacles(preset(name).with_settings(values), values)]


def test_every_kind_of_obstacle_is_found() -> None:
    """Keys with what they are for, weights with the command that fetches them."""
    assert lines("healthcare") == []
    assert "OPENAI_API_KEY is not set (embedding 'text-embedding-3-small'" in lines("knowledge-base")[0]
    assert any("PINECONE_API_KEY is not set" in line for line in lines("high-volume"))
    research = lines("research-papers")
    assert "weights pull all-mpnet-base-v2" in research[0] and "re-ranker" in research[1]


def test_a_key_that_no_server_needs_is_no_obstacle() -> None:
    """A server on this machine, whatever protocol it speaks."""
    here = lines("knowledge-base", llm="http://127.0.0.1:1/v1#small", embedding="all-MiniLM-L6-v2")
    assert here == []


def test_list_and_show_say_the_same_as_the_list(run: Any) -> None:
    """Ready means that nothing is missing."""
    for row in json.loads(run("list", "--json")[1])["presets"]:
        assert row["missing"] == lines(row["name"]) and row["ready"] is (row["missing"] == [])
    assert json.loads(run("show", "research-papers", "--json")[1])["missing"] == lines("research-papers")


@pytest.mark.parametrize("name", PRESETS)
def test_doctor_finds_each_obstacle(name: str) -> None:
    """With the same words and the same fix."""
    values, _ = load_settings(None, name)
    found = {(finding.check, finding.message, finding.fix) for finding in examine(name)}
    for one in obstacles(preset(name).with_settings(values), values):
        assert (one.kind, one.fact, one.fix) in found


def test_build_refuses_with_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, and nothing is made; weights that could be downloaded stop a local-only preset alone."""
    with pytest.raises(SettingsError, match=r"not ready: OPENAI_API_KEY is not set \(embedding"):
        build("knowledge-base", storage=tmp_path / "k")
    monkeypatch.setattr(readiness, "has_weights", lambda model: False)
    with pytest.raises(ModelError, match="weights pull all-MiniLM-L6-v2"):
        build("healthcare", storage=tmp_path / "h")
    assert list(tmp_path.iterdir()) == []


def test_a_server_is_tried_only_when_asked() -> None:
    """A connection and no word; what listens is reached, what does not is named."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        values, _ = load_settings({"llm": f"http://127.0.0.1:{port}/v1#small"}, "healthcare")
        row = preset("healthcare").with_settings(values)
        assert obstacles(row, values, reach=True) == []
    (one,) = obstacles(row, values, reach=True)
    assert (
        one.kind == "address" and f"127.0.0.1:{port} cannot be reached (llm" in one.fact and not one.refused
    )
    assert obstacles(row, values) == []
