"""Storage folders written by an earlier release (commit f7e21b1) open unchanged: index, ledger and audit log."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document

from llama_index_presets import build
from llama_index_presets.monitor.audit import verify

ARCHIVE = Path(__file__).with_name("storage_f7e21b1.tar.xz")
DOCUMENTS = [
    Document(
        text="Botulism is treated with an antitoxin.", doc_id="botulism", metadata={"source": "botulism.md"}
    ),
    Document(
        text="A pen in use may be kept below 30 degrees for 28 days.",
        doc_id="pens",
        metadata={"source": "pens.md"},
    ),
    Document(
        text="The pump alarm is reset with the blue key.", doc_id="pump", metadata={"source": "pump.md"}
    ),
]
PLAIN = {"embedding_cache": "off", "encryption": "off", "pii": "off"}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders as that release left them, with the audit key beside them."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "preset", "settings"),
    [
        ("lancedb-local", "healthcare", {}),
        ("duckdb-hybrid-audit", "financial-documents", {"store": "duckdb"}),
    ],
)
def test_an_old_storage_answers_and_takes_nothing_twice(
    old: Path, name: str, preset: str, settings: Mapping[str, Any]
) -> None:
    """The index answers, the same documents are unchanged, and the ledger goes on from its three rows."""
    with build(preset, storage=old / name, offline=True, settings=PLAIN | settings) as engine:
        assert engine.ledger.get_usage_stats(days=36500).total_calls >= 3
        report = engine.ingest(DOCUMENTS)
        assert (report.unchanged, report.chunks) == (3, 0)
        response = engine.query("How is botulism treated?")
        assert str(response) == "Botulism is treated with an antitoxin. [1]"
        assert response.source_nodes[0].node.ref_doc_id == "botulism"


def test_an_old_audit_log_verifies_and_goes_on(old: Path) -> None:
    """Its chain holds before and after another question is recorded."""
    folder = old / "duckdb-hybrid-audit"
    key = old / "config" / "llama-index-presets" / "audit.key"
    before = verify(folder / "audit.jsonl", key=key)
    with build(
        "financial-documents", storage=folder, offline=True, settings=PLAIN | {"store": "duckdb"}
    ) as engine:
        engine.query("How is the pump alarm reset?")
    assert verify(folder / "audit.jsonl", key=key).entries == before.entries + 1
