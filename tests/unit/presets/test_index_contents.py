"""What an index holds: listed as a caller sees it, removed, described for an agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Document
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.presets.engine import PresetEngine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PresetEngine]:
    with build("healthcare", storage=tmp_path / "clinic", embed_model=WordEmbedding()) as opened:
        opened.for_tenant("acme").ingest([Document(text="Acme sells anvils.", id_="anvils.txt")])
        opened.for_tenant("globex").ingest([Document(text="Globex sells globes.", id_="globes.txt")])
        opened.ingest([Document(text="Cats purr.", id_="cats.txt")])
        yield opened


def test_the_shared_engine_lists_every_document(engine: PresetEngine) -> None:
    """Ids in order, with their chunks and the time in UTC."""
    found = engine.documents()
    assert [(one.id, one.chunks) for one in found] == [("anvils.txt", 1), ("cats.txt", 1), ("globes.txt", 1)]
    assert all(one.ingested_at.endswith("Z") and "T" in one.ingested_at for one in found)


def test_a_tenant_lists_its_own_documents_only(engine: PresetEngine) -> None:
    """Neither another tenant's nor the shared ones."""
    assert [one.id for one in engine.for_tenant("acme").documents()] == ["anvils.txt"]


def test_a_tenant_deletes_its_own_documents_only(engine: PresetEngine) -> None:
    """Ids of others are left alone and not counted; the own one is found no more."""
    acme = engine.for_tenant("acme")
    assert acme.delete(["globes.txt", "cats.txt", "unknown.txt"]) == 0
    assert acme.delete(["anvils.txt"]) == 1
    assert [one.id for one in engine.documents()] == ["cats.txt", "globes.txt"]
    assert "anvils" not in str(engine.query("What does Acme sell?"))


def test_the_tool_is_described_by_the_index(engine: PresetEngine) -> None:
    """An agent reads what the tool knows; a tenant's tool names no other tenant's document."""
    tool = engine.for_tenant("acme").as_tool(name="anvils")
    assert tool.metadata.name == "anvils"
    assert "1 document (anvils.txt)" in (tool.metadata.description or "")
    assert "anvils" in str(tool.call("What does Acme sell?"))
    assert (
        engine.as_tool().metadata.name,
        "3 documents" in (engine.as_tool().metadata.description or ""),
    ) == (
        "healthcare",
        True,
    )
