"""Offline on a machine without the weights: an explicit stand-in, never a silent one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from llama_index.core import Document
from tests.unit.rerank.conftest import save_model

from llama_index_presets import build
from llama_index_presets.errors import FingerprintError, ModelError
from llama_index_presets.presets.checks.local_weights import find_reranker
from llama_index_presets.presets.checks.offline import go_offline
from llama_index_presets.presets.index.storage import open_storage
from llama_index_presets.presets.matrix import preset
from llama_index_presets.presets.settings import Settings
from llama_index_presets.values import Fingerprint

PAPER = Document(text="Sparse attention halves the memory that a long context needs.", doc_id="p1")
MPNET = Fingerprint(model="all-mpnet-base-v2", dim=768, chunker="sentence-384")


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing in it."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def test_research_papers_answers_and_says_what_it_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both swaps are in explain, with their remedy, and in one warning each."""
    with caplog.at_level(logging.WARNING, "llama_index_presets"):
        engine = build("research-papers", storage=tmp_path / "s", offline=True)
    with engine:
        engine.ingest([PAPER])
        response = engine.query("What does sparse attention halve?")
        explained = engine.explain()
    assert "halves the memory" in str(response) and response.metadata["citations"]
    assert explained["swapped_for_offline"] == {"embedding": "all-mpnet-base-v2", "pattern": "advanced"}
    assert explained["cells"]["embedding"] == "all-MiniLM-L6-v2" and explained["cells"]["pattern"] == "simple"
    assert [record.message for record in caplog.records] == explained["notices"]
    assert "llama-presets weights pull all-mpnet-base-v2" in explained["notices"][0]
    assert "Re-ranking is off" in explained["notices"][1] and "hf download" in explained["notices"][1]


def put_mpnet(cache: Path) -> None:
    """As if the weights had arrived: looking for them does not load them."""
    folder = cache / "models" / "all-mpnet-base-v2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def test_an_index_stays_with_the_model_that_made_it(tmp_path: Path, bare_machine: Path) -> None:
    """The stand-in's index keeps the stand-in when the weights arrive; MPNet's never gets the stand-in."""
    row, settings = preset("research-papers"), Settings()
    made_by_stand_in = Fingerprint(model="all-MiniLM-L6-v2", dim=384, chunker="sentence-256")
    open_storage(tmp_path / "a", "research-papers", made_by_stand_in)
    open_storage(tmp_path / "b", "research-papers", MPNET)
    assert go_offline(row, tmp_path / "b", settings, ()).row.embedding == "all-mpnet-base-v2"
    with (
        build("research-papers", storage=tmp_path / "b", offline=True) as engine,
        pytest.raises(ModelError, match="all-mpnet-base-v2' are not on this machine"),
    ):
        engine.ingest([PAPER])
    put_mpnet(bare_machine)
    kept = go_offline(row, tmp_path / "a", settings, ())
    assert kept.row.embedding == "all-MiniLM-L6-v2" and "this index was made with" in kept.notices[0]
    assert go_offline(row, tmp_path / "new", settings, ()).row.embedding == "all-mpnet-base-v2"


def test_the_fingerprint_guards_an_index_of_mpnet(tmp_path: Path) -> None:
    """Opened with MiniLM by hand it is refused."""
    open_storage(tmp_path / "s", "research-papers", MPNET)
    with pytest.raises(FingerprintError, match="cannot be mixed"):
        build(
            "research-papers",
            storage=tmp_path / "s",
            offline=True,
            settings={"embedding": "all-MiniLM-L6-v2"},
        )


def test_a_cross_encoder_on_the_machine_is_used(tmp_path: Path, bare_machine: Path) -> None:
    """From our cache, under its short name, without a setting."""
    name = "cross-encoder/ms-marco-MiniLM-L6-v2"
    assert find_reranker(name) is None
    folder = bare_machine / "models" / "ms-marco-MiniLM-L6-v2"
    save_model(folder)
    assert find_reranker(name) == str(folder)
    settings = {"answer_floor": -1.0}
    with build("research-papers", storage=tmp_path / "s", offline=True, settings=settings) as engine:
        engine.ingest([PAPER])
        hits = engine.query("What does sparse attention halve?").source_nodes
        assert engine.explain()["cells"]["pattern"] == "advanced"
    assert set(hits[0].stages) == {"retrieval", "rerank"}


def test_a_named_reranker_is_never_swapped(tmp_path: Path) -> None:
    """It was asked for by name, so it loads or fails."""
    settings = {"reranker": str(tmp_path / "none")}
    with build("research-papers", storage=tmp_path / "s", offline=True, settings=settings) as engine:
        engine.ingest([PAPER])
        with pytest.raises(ModelError, match="There is no folder"):
            engine.query("What does sparse attention halve?")
