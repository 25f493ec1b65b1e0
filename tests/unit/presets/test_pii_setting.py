"""The setting `pii` in an engine: what reaches the index, the report, and the terminal."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.ingestion import run as ingestion

CLEAN, HELD = "# Ward\n\nVisits end at 18:00.", "# Ward\n\nCall 212-555-0187 for Mrs Doe, MRN: 00123."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One document with personal data, one without."""
    made = tmp_path / "docs"
    made.mkdir()
    (made / "clean.md").write_text(CLEAN)
    (made / "held.md").write_text(HELD)
    return made


def open_engine(storage: Path, preset: str = "healthcare", **settings: Any) -> PresetEngine:
    return build(preset, storage=storage, embed_model=WordEmbedding(), settings=settings, offline=True)


def texts(engine: PresetEngine) -> list[str]:
    return sorted(node.get_content() for node in engine.vector_store.get_nodes())


def test_healthcare_reports_by_default(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts by document and kind; and that the storage is not encrypted, as one warning for each storage."""
    monkeypatch.setattr(ingestion, "_warned", set())
    with open_engine(tmp_path / "s") as engine, caplog.at_level(logging.WARNING):
        report = engine.ingest(folder)
        assert report.personal_data == {str(folder / "held.md"): {"phone": 1, "record_number": 1}}
        assert report.to_dict()["personal_data"] == report.personal_data
        assert any("00123" in text for text in texts(engine))
        engine.delete(engine.documents())
        engine.ingest(folder)
    said = "1 document with personal data went into a storage that is not encrypted"
    assert caplog.text.count(said) == 1
    with open_engine(tmp_path / "t") as engine, caplog.at_level(logging.WARNING):
        engine.ingest(folder)
    assert caplog.text.count(said) == 2
    assert "555-0187" not in caplog.text and "00123" not in caplog.text


def test_elsewhere_it_is_off(folder: Path, tmp_path: Path) -> None:
    """Nobody pays for a scan that was not asked for."""
    with open_engine(tmp_path / "s", "knowledge-base") as engine:
        assert engine.ingest(folder).personal_data == {}


def test_a_stricter_rule_reaches_what_was_ingested_before(folder: Path, tmp_path: Path) -> None:
    """Redacting or refusing later changes the documents that are there, though their files did not."""
    with open_engine(tmp_path / "s", pii="off") as engine:
        engine.ingest(folder)
    with open_engine(tmp_path / "s", pii="redact") as engine:
        assert engine.ingest(folder).documents == 2
        assert texts(engine) == ["Call [PHONE] for Mrs Doe, MRN: [RECORD NUMBER].", "Visits end at 18:00."]
        assert engine.ingest(folder).unchanged == 2
    with open_engine(tmp_path / "s", pii="refuse") as engine:
        report = engine.ingest(folder)
        assert [failure.source for failure in report.failed] == [str(folder / "held.md")]
        assert "1 x phone, 1 x record_number" in report.failed[0].error
        assert (report.documents, report.removed) == (1, 1)
        assert texts(engine) == ["Visits end at 18:00."]
