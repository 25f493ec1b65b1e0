"""`build` of a hybrid preset: a damaged keyword index, or one that lacks nodes, is said with its remedy."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import StoreCorruptError, StoreLockedError
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.manifest import Manifest, ManifestEntry
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.index.storage import resolve_storage
from llama_index_presets.presets.index.stores import refuse_lost_vectors

SETTINGS = {"pattern": "hybrid", "store": "duckdb"}
TEXTS = ["Alpha beta gamma.", "Valve AB-17 leaks.", "The pump runs dry."]


def opened(place: Path, **options: Any) -> PresetEngine:
    return build(
        "knowledge-base",
        storage=place,
        offline=True,
        settings=SETTINGS,
        embed_model=WordEmbedding(),
        **options,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A storage with three documents."""
    with opened(tmp_path / "s") as engine:
        engine.ingest([Document(id_=text[:5], text=text) for text in TEXTS])
    return tmp_path / "s"


def keyword_hits(engine: PresetEngine, words: str) -> list[str]:
    keyword = engine._parts.retrieval.keyword
    assert keyword is not None
    return [hit.node.get_content() for hit in keyword.as_retriever().retrieve(words)]


@pytest.mark.parametrize(
    "name", ["MANIFEST.json", "journal-*.log", "snapshot-*/words.json", "snapshot-*/rows.npy"]
)
def test_an_emptied_file_is_said_with_the_command_and_the_command_rebuilds(place: Path, name: str) -> None:
    """Nothing is touched before; afterwards the words are found again."""
    next((place / "keywords").glob(name)).write_bytes(b"")
    command = f"llama-presets doctor knowledge-base --storage {place} --repair"
    with pytest.raises(StoreCorruptError, match=f"The keyword index cannot be read.*{command}"):
        opened(place)
    with opened(place, repair=True) as engine:
        assert keyword_hits(engine, "AB-17") == ["Valve AB-17 leaks."]
    with opened(place) as engine:
        assert keyword_hits(engine, "pumps") == ["The pump runs dry."]


def test_an_index_that_lacks_nodes_of_the_store_is_said(place: Path) -> None:
    """A lost folder is no empty index: half of the search would answer from nothing."""
    shutil.rmtree(place / "keywords")
    with pytest.raises(
        StoreCorruptError, match=r"holds 0 nodes and the vector store 3: .*doctor knowledge-base"
    ):
        opened(place)
    with opened(place, repair=True) as engine:
        assert keyword_hits(engine, "alpha") == ["Alpha beta gamma."]


def test_more_in_the_index_than_in_the_store_is_a_warning(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever deletes in the store by hand loses no passage: hits that the store lacks are left out anyway."""
    with opened(place) as engine:
        engine.vector_store.delete("Valve")
    with caplog.at_level(logging.WARNING), opened(place):
        assert "holds 3 nodes and the vector store 2. Rebuild it" in caplog.text


def test_a_store_given_by_hand_may_hold_more(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Others write to it, so it is only a warning."""
    from llama_index_presets.store.duckdb.store import DuckDBVectorStore

    shutil.rmtree(place / "keywords")
    with (
        DuckDBVectorStore(place / "vectors.duckdb") as store,
        caplog.at_level(logging.WARNING),
        opened(place, vector_store=store),
    ):
        assert "holds 0 nodes and the vector store 3. Rebuild it" in caplog.text


def test_a_repair_does_not_run_beside_an_ingest(place: Path) -> None:
    """It would take what is just being written for what is too much."""
    with (
        ingest_lock(place / "ingest.lock"),
        pytest.raises(StoreLockedError, match="ingests into"),
    ):
        opened(place, repair=True)


@pytest.mark.parametrize("store", ["duckdb", "lancedb"])
def test_a_store_that_lost_everything_is_no_empty_store(tmp_path: Path, store: str) -> None:
    """Ingest would call every document unchanged, and every question would be answered with "I don't know"."""
    options: dict[str, Any] = {"storage": tmp_path / "s", "settings": {"store": store}}
    with build("healthcare", embed_model=WordEmbedding(), **options) as engine:
        engine.ingest([Document(id_=text[:5], text=text) for text in TEXTS])
    if store == "duckdb":
        (tmp_path / "s" / "vectors.duckdb").write_bytes(b"")
    else:
        shutil.rmtree(tmp_path / "s" / "vectors")
    with pytest.raises(
        StoreCorruptError, match="is empty, and its manifest lists 3 documents .*: the vectors were lost"
    ):
        build("healthcare", embed_model=WordEmbedding(), **options)
    (tmp_path / "s" / "documents.sqlite").unlink()
    with build("healthcare", embed_model=WordEmbedding(), **options) as engine:
        assert engine.ingest([Document(id_=text[:5], text=text) for text in TEXTS]).documents == 3


class CountedMeanwhile:
    """Store that another process changes while it is counted."""

    def __init__(self, *steps: Callable[[], int]) -> None:
        self.steps = list(steps)

    def node_count(self) -> int:
        return self.steps.pop(0)()


def test_a_store_that_another_process_empties_lost_nothing(tmp_path: Path) -> None:
    """What is counted while the manifest changes is counted again; documents that are being replaced do not count."""
    place = resolve_storage(tmp_path / "s")
    place.folder.mkdir()
    entry = ManifestEntry("a.txt", "hash", 2, 9)

    def check(manifest: Manifest, *steps: Callable[[], int]) -> CountedMeanwhile:
        store: Any = CountedMeanwhile(*steps)
        refuse_lost_vectors(store, manifest, place)
        return store

    other, manifest = Manifest(place.manifest), Manifest(place.manifest)

    def removed() -> int:
        other.begin_removal(["a.txt"])
        return 0

    def filled() -> int:
        other.forget(["a.txt"])
        other.record([entry])
        return 0

    assert check(manifest).steps == []  # an empty index is not counted
    other.record([entry])
    assert check(manifest, removed).steps == []
    filled()
    assert check(manifest, filled, lambda: 2).steps == []
    other.begin(["a.txt"])
    assert check(manifest).steps == []
    other.record([entry])
    with pytest.raises(StoreCorruptError, match="lists 1 document with 2 chunks: the vectors were lost"):
        check(manifest, filled, lambda: 0)
    manifest.close()
    other.close()
