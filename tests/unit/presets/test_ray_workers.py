"""What a Ray worker opens is what the engine has, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_presets import build
from llama_index_presets.ingest.metadata.overrides import MetadataOverrides
from llama_index_presets.presets.ingestion.ray import Recorder
from llama_index_presets.presets.ingestion.ray_workers import ray_worker


def test_a_worker_shortens_vectors_as_the_engine_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that made vectors of the model's own length would refuse the index of 256 dimensions."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    settings = {"store": "lancedb", "pattern": "simple", "dimensions": 256}
    with build("knowledge-base", storage=tmp_path, settings=settings) as engine:
        worker = ray_worker(engine._parts, MetadataOverrides())
        opened = worker(Recorder())
        assert worker.fingerprint == str(engine._parts.fingerprint)
        assert opened.pipeline.embed_model.inner.dimensions == 256
