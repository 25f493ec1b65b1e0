"""Weaviate as the cell of a preset: the alternative managed store, by URL, against a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Document
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from tests.fakes import WordEmbedding
from tests.servers.weaviate import WeaviateServer, weaviate_server

from llama_index_presets import build
from llama_index_presets.errors import FingerprintError, SettingsError
from llama_index_presets.presets.engine import PresetEngine

DOCUMENTS = [
    Document(text="Pumps of type A are greased every month.", doc_id="a", metadata={"plant": "north"}),
    Document(text="Valves of type B are greased every year.", doc_id="b", metadata={"plant": "south"}),
]
SETTINGS = {"store": "weaviate", "llm": "extractive", "monitoring": "basic", "answer_floor": 0.1}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeaviateServer]:
    monkeypatch.setenv("LLAMA_PRESETS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("WEAVIATE_API_KEY", "wv-secret")
    with weaviate_server() as server:
        yield server


def open_engine(storage: str, **settings: object) -> PresetEngine:
    return build(
        "high-volume", storage=storage, embed_model=WordEmbedding(), settings={**SETTINGS, **settings}
    )


def test_the_high_volume_preset_runs_on_weaviate(server: WeaviateServer) -> None:
    """Ingest, ask with a filter, change a document, close, open again, ask again; the key shows nowhere."""
    storage = server.url("Manuals")
    south = MetadataFilters(filters=[MetadataFilter(key="plant", value="south")])
    with open_engine(storage) as engine:
        assert engine.ingest(DOCUMENTS).documents == 2
        assert "every month" in str(engine.query("How often are pumps of type A greased?"))
        assert "every year" in str(
            engine.with_filters(south).query("How often are valves of type B greased?")
        )
        changed = Document(text="Pumps of type A are greased every week.", doc_id="a")
        engine.ingest([changed])
        assert "wv-secret" not in repr(engine) + json.dumps(engine.explain())
    with open_engine(storage) as engine:
        assert engine.explain()["cells"]["store"] == "weaviate"
        assert "every week" in str(engine.query("How often are pumps of type A greased?"))
    assert len(server.objects["Manuals"]) == 2


def test_another_model_is_refused_by_the_collection_itself(server: WeaviateServer, tmp_path: Path) -> None:
    """Another machine has no card of the collection, and still cannot mix two ways of cutting."""
    with open_engine(server.url("Manuals")) as engine:
        engine.ingest(DOCUMENTS)
    with pytest.raises(FingerprintError, match="Vectors of|made|holds vectors"):
        open_engine(server.url("Manuals"), state=str(tmp_path / "other"), chunk_tokens=32).query("Pumps?")


def test_a_folder_cannot_hold_it(tmp_path: Path) -> None:
    """The error says what to give instead."""
    with pytest.raises(SettingsError, match=r"Give storage='weaviate://HOST/COLLECTION'"):
        open_engine(str(tmp_path))
