"""The matrix is data that is checked; settings and folders say what is wrong with them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, Settings
from llama_index.core.node_parser import SentenceSplitter
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import (
    FingerprintError,
    IngestError,
    SettingsError,
    StoreCorruptError,
    StoreError,
    StoreWriteError,
    UnknownPresetError,
)
from llama_index_presets.presets import matrix as matrix_module
from llama_index_presets.presets.checks.offline import is_local, refuse_remote
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.index.storage import open_storage, read_metadata
from llama_index_presets.presets.matrix import PRESETS, load_matrix, preset
from llama_index_presets.values import Fingerprint

CELLS = {
    "knowledge-base": ("text-embedding-3-small", "lancedb", "simple", "basic"),
    "customer-chatbot": ("text-embedding-3-large", "pgvector", "advanced", "full"),
    "healthcare": ("all-MiniLM-L6-v2", "lancedb", "simple", "local"),
    "financial-documents": ("text-embedding-3-small", "pgvector", "hybrid", "audit"),
    "research-papers": ("all-mpnet-base-v2", "lancedb", "advanced", "metrics"),
    "high-volume": ("text-embedding-3-small", "pinecone", "simple", "full"),
    "multi-modal": ("clip-ViT-B-32", "lancedb", "simple", "basic"),
}
MINILM = Fingerprint(model="all-MiniLM-L6-v2", dim=384, chunker="sentence-256")


def test_the_matrix_is_the_one_that_was_promised() -> None:
    """Seven rows, each with its cells."""
    assert {
        name: (row.embedding, row.store, row.pattern, row.monitoring) for name, row in PRESETS.items()
    } == CELLS


def test_offline_leaves_no_networked_cell() -> None:
    """Every row has a local counterpart for whatever it reaches over the network, and says what it swapped."""
    for row in PRESETS.values():
        local = row.offline()
        assert all(part.local for part in local.parts().values()), local.name
        assert {column for column, _ in local.swapped} == {
            column for column, part in row.parts().items() if not part.local
        }


def test_all_faults_of_a_matrix_are_reported_together() -> None:
    """One message lists every unknown name, missing column and unknown column."""
    data: dict[str, Any] = copy.deepcopy(matrix_module._read())
    data["presets"]["healthcare"]["store"] = "lancdb"
    data["presets"]["multi-modal"]["pattern"] = "magic"
    data["presets"]["high-volume"]["colour"] = "blue"
    del data["presets"]["knowledge-base"]["why"]
    with pytest.raises(SettingsError, match="4 faults") as caught:
        load_matrix(data)
    for fault in (
        "no store 'lancdb'",
        "no pattern 'magic'",
        "unknown column 'colour'",
        "knowledge-base has no 'why'",
    ):
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("helthcare", "Did you mean 'healthcare'"),
        ("Financial Documents", "Did you mean 'financial-documents'"),
        ("zzz", "Choose one of: knowledge-base"),
    ],
)
def test_an_unknown_preset_names_the_nearest(name: str, message: str) -> None:
    """Typos, spaces and capitals are understood well enough to help."""
    with pytest.raises(UnknownPresetError, match=message):
        preset(name)


def test_a_row_says_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which cell, which module, and the line that installs it."""
    monkeypatch.setattr("llama_index_presets.presets.matrix.installed", lambda module: module != "lancedb")
    (line,) = preset("healthcare").missing()
    assert line == "store 'lancedb' needs lancedb: pip install \"llama-index-presets[lancedb]\""
    assert preset("healthcare").missing(replaced=frozenset({"store"})) == []


def test_other_cells_can_be_chosen() -> None:
    """Any cell takes any entry of its table; all wrong ones are reported together."""
    assert preset("healthcare").with_cells({"store": "duckdb"}).store == "duckdb"
    with pytest.raises(SettingsError, match="no store 'x'.*no pattern 'y'"):
        preset("healthcare").with_cells({"store": "x", "pattern": "y"})


# -- storage ------------------------------------------------------------------------------------------------------


def test_a_folder_remembers_its_preset_and_model(tmp_path: Path) -> None:
    """Opening it again works; with another model or preset it is refused, and nothing is changed."""
    open_storage(tmp_path / "s", "healthcare", MINILM)
    open_storage(tmp_path / "s", "healthcare", MINILM)
    before = (tmp_path / "s" / "preset.json").read_text()
    with pytest.raises(FingerprintError, match="made with model=all-MiniLM-L6-v2.*you are using model=other"):
        open_storage(tmp_path / "s", "healthcare", Fingerprint(model="other", dim=384))
    with pytest.raises(StoreError, match="made by the preset 'healthcare', not 'multi-modal'"):
        open_storage(tmp_path / "s", "multi-modal", MINILM)
    assert (tmp_path / "s" / "preset.json").read_text() == before


@pytest.mark.parametrize("store", ["duckdb", "lancedb"])
def test_an_engine_that_never_ingests_locks_no_folder(tmp_path: Path, store: str) -> None:
    """A folder is the preset's that first has something to ingest; an engine built before is then refused."""
    settings = {"store": store, "answer_floor": -1.0}

    def built(name: str, dim: int) -> PresetEngine:
        parts = {"llm": ScriptedLLM(prompts=[]), "embed_model": WordEmbedding(dim=dim)}
        return build(name, storage=tmp_path / "s", settings=settings, **parts)

    with built("knowledge-base", 64) as early:
        with pytest.raises(IngestError, match="docz"):
            early.ingest(tmp_path / "docz")
        with built("research-papers", 32) as engine:
            assert engine.ingest([Document(text="Alpha.")]).documents == 1
        with pytest.raises(StoreError, match="made by the preset 'research-papers', not 'knowledge-base'"):
            early.ingest([Document(text="Beta.")])
    with pytest.raises(StoreError, match="made by the preset 'research-papers'"):
        built("knowledge-base", 64)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A file in the way is found before anything is embedded."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreWriteError, match="cannot be written"):
        open_storage(tmp_path / "file" / "storage", "healthcare", MINILM)


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"format": 1})])
def test_a_damaged_card_is_an_error(tmp_path: Path, content: str) -> None:
    """Nothing is overwritten when the folder cannot be understood."""
    (tmp_path / "preset.json").write_text(content)
    with pytest.raises(StoreCorruptError, match="is damaged"):
        open_storage(tmp_path, "healthcare", MINILM)


def test_a_folder_of_a_later_format_is_refused(tmp_path: Path) -> None:
    """An old release never guesses at a new layout."""
    (tmp_path / "preset.json").write_text(
        json.dumps({"format": 9, "preset": "healthcare", "fingerprint": "x"})
    )
    with pytest.raises(StoreError, match="has format 9"):
        open_storage(tmp_path, "healthcare", MINILM)


def test_a_folder_without_an_index_says_what_to_run(tmp_path: Path) -> None:
    """Asking before ingesting is a common first mistake."""
    with pytest.raises(StoreError, match="llama-presets ingest"):
        read_metadata(tmp_path)


# -- local only ---------------------------------------------------------------------------------------------------


def test_remote_parts_are_refused_and_loopback_ones_are_not() -> None:
    """A model server on this machine is local; the same class pointed elsewhere is not."""
    from llama_index.core.llms import MockLLM
    from llama_index.llms.openai import OpenAI

    assert is_local(MockLLM())
    assert is_local(OpenAI(api_key="x", api_base="http://127.0.0.1:11434/v1"))
    with pytest.raises(SettingsError, match="OpenAI would send text elsewhere"):
        refuse_remote("healthcare", [MockLLM(), OpenAI(api_key="x")])
    with pytest.raises(SettingsError, match="would send text elsewhere"):
        refuse_remote("healthcare", [OpenAI(api_key="x", api_base="http://127.0.0.1.evil.example/v1")])


def test_a_missing_key_is_said_before_anything_is_made(tmp_path: Path) -> None:
    """With the two ways out; no folder is left behind."""
    from llama_index_presets import build

    with pytest.raises(SettingsError, match=r"OPENAI_API_KEY is not set .* use offline=True"):
        build("knowledge-base", storage=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_class_of_the_application_is_taken_at_its_word_and_a_subclass_of_a_service_is_not() -> None:
    """A user's own local model works; wrapping a remote one does not make it local, nor does object storage."""
    from llama_index.core.llms import MockLLM
    from llama_index.llms.openai import OpenAI

    class Mine(MockLLM):
        pass

    class Wrapped(OpenAI):
        pass

    class Stored:
        uri = "s3://bucket/vectors"

    assert is_local(Mine())
    assert not is_local(Wrapped(api_key="x"))
    assert not is_local(Stored())


def test_the_index_of_an_engine_cuts_as_a_stock_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document given to LlamaIndex's own index goes through the transformations of its settings."""
    splitter = SentenceSplitter(chunk_size=20, chunk_overlap=0)
    monkeypatch.setattr(Settings, "_transformations", [splitter])
    with build(
        "healthcare", storage=tmp_path, settings={"store": "duckdb"}, embed_model=WordEmbedding()
    ) as engine:
        document = Document(text="Botulism is treated with an antitoxin at once. " * 6)
        engine.index.insert(document)
        texts = sorted(node.get_content() for node in engine.vector_store.get_nodes())
    stock = splitter.get_nodes_from_documents([document])
    assert texts == sorted(node.get_content() for node in stock) and len(texts) > 1
