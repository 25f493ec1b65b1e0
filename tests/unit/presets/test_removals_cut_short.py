"""Removals whose process died, or whose store failed: the next opening or removal finishes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.store.duckdb.store import DuckDBVectorStore

TEXTS = {"cats": "Cats purr.", "dogs": "Dogs bark."}
STORES = ["duckdb", "lancedb"]


def opened(folder: Path, store: str = "duckdb", **settings: Any) -> PresetEngine:
    return build(
        "healthcare",
        storage=folder / "s",
        embed_model=WordEmbedding(),
        settings={"store": store, "pattern": "hybrid", **settings},
    )


def fill(engine: PresetEngine) -> None:
    engine.ingest([Document(text=text, id_=name) for name, text in TEXTS.items()], show_progress=False)


def found(engine: PresetEngine) -> set[str]:
    return {str(hit.node.ref_doc_id) for hit in engine.retrieve("Cats purr and dogs bark.")}


def cut_short(engine: PresetEngine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin to remove a document, and die before the store is changed."""

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(engine.vector_store), "replace_documents", die)
        engine.delete([name])


@pytest.mark.parametrize("store", STORES)
def test_the_next_opening_finishes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    """The document was in no list, and was found by every question until something was ingested."""
    with opened(tmp_path, store) as engine:
        fill(engine)
        cut_short(engine, "cats", monkeypatch)
        assert [one.id for one in engine.documents()] == ["dogs"]
    with opened(tmp_path, store) as engine:
        assert found(engine) == {"dogs"}
        assert not engine.vector_store.get_nodes(["cats"])


@pytest.mark.parametrize("store", STORES)
def test_a_second_removal_finishes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    """It said that there is no such document."""
    with opened(tmp_path, store) as engine:
        fill(engine)
        cut_short(engine, "cats", monkeypatch)
        assert engine.delete(["cats"]) == 1
        assert found(engine) == {"dogs"}
        assert engine.delete(["cats"]) == 0


def test_a_removal_of_another_document_finishes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And counts only what was asked for."""
    with opened(tmp_path) as engine:
        fill(engine)
        cut_short(engine, "cats", monkeypatch)
        assert engine.delete(["dogs"]) == 1
        assert not engine.vector_store.get_nodes()


def test_a_tenant_finishes_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut short has no record of its owner any more; the store knows, and no other tenant hears of it."""
    with opened(tmp_path) as engine:
        acme, globex = engine.for_tenant("acme"), engine.for_tenant("globex")
        fill(acme)
        cut_short(acme, "cats", monkeypatch)
        assert globex.delete(["cats"]) == 0
        assert found(acme) == {"dogs"}


def test_an_ingest_cut_short_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its passages were found, and nobody could remove them by the id of their document."""
    with opened(tmp_path) as engine:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Manifest, "record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            fill(engine)
        assert engine.delete(["cats"]) == 1
        assert found(engine) == {"dogs"}
    with opened(
        tmp_path
    ) as engine:  # nobody asked to remove it: the next ingest writes it again, or takes it out
        assert found(engine) == {"dogs"}


def test_an_opening_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the storage finishes it."""
    with opened(tmp_path) as engine:
        fill(engine)
        cut_short(engine, "cats", monkeypatch)
    with ingest_lock(tmp_path / "s" / "ingest.lock"), opened(tmp_path) as engine:
        assert found(engine) == {"cats", "dogs"}
    with opened(tmp_path) as engine:
        assert found(engine) == {"dogs"}


def test_a_store_that_cannot_be_changed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine opens; the log has what may still be found."""
    from llama_index_presets.errors import StoreWriteError

    with opened(tmp_path) as engine:
        fill(engine)
        cut_short(engine, "cats", monkeypatch)

    def full(*_: Any) -> None:
        raise StoreWriteError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBVectorStore, "replace_documents", full)
        opened(tmp_path).close()
    assert "not finished: 1 document may still be found (The disk is full.)" in caplog.text
