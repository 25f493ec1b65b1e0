"""Hybrid and advanced retrieval inside an engine, on every store that is assembled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from llama_index.core import Document
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from llama_index_presets import build
from llama_index_presets.errors import RetrievalError
from llama_index_presets.retrieve.bm25.consistency import check_consistency

PARTS = [
    Document(text=f"Part {code} is a spare {thing} for the lift.", doc_id=code, metadata={"kind": thing})
    for code, thing in [("ZX-81", "valve"), ("QF-32", "door"), ("ZX-80", "rope"), ("KJ-7", "lamp")]
]


@pytest.mark.parametrize("store", ["lancedb", "duckdb", "pgvector"])
def test_hybrid_finds_a_part_number_and_keeps_its_history(tmp_path: Path, store: str) -> None:
    """Both legs are asked, filters hold on both, and a re-opened engine finds the same."""
    settings = {"pattern": "hybrid", "store": store}
    only = MetadataFilters(filters=[MetadataFilter(key="kind", value="rope")])
    for _ in range(2):
        with build("healthcare", storage=tmp_path / "s", settings=settings) as engine:
            engine.ingest(PARTS)
            response = engine.query("What is part ZX-81?")
            assert str(response).startswith("Part ZX-81 is a spare valve")
            assert list(response.source_nodes[0].stages) == ["vector", "bm25", "fusion"]
            hits = engine.with_filters(only).retriever.retrieve("What is part ZX-81?")
            assert [hit.node.ref_doc_id for hit in hits] == ["ZX-80"]


def test_the_keyword_index_follows_changes(tmp_path: Path) -> None:
    """A changed document is found by its new words, and no longer by its old ones."""
    with build("healthcare", storage=tmp_path / "s", settings={"pattern": "hybrid"}) as engine:
        engine.ingest(PARTS)
        engine.ingest(
            [Document(text="Part ZX-81 is now a bracket.", doc_id="ZX-81", metadata={"kind": "valve"})]
        )
        keyword = engine._parts.retrieval.keyword
        assert keyword is not None
        assert check_consistency(engine.vector_store, keyword).consistent
        assert len(keyword.search("bracket")) == 1
        assert len(keyword) == 4


KILLED = """
import sys
from llama_index.core import Document
from llama_index_presets import build
from llama_index_presets.errors import RetrievalError
settings = {"pattern": "hybrid", "batch_chunks": 8}
with build("healthcare", storage=sys.argv[1], settings=settings) as engine:
    engine.ingest([Document(text=f"Report {n} mentions code C{n}X. " * 12, doc_id=f"d{n}") for n in range(300)])
"""


@pytest.mark.slow("a process that loads torch and is killed: 15 s of CPU")
def test_a_kill_leaves_store_and_keyword_index_in_step(tmp_path: Path) -> None:
    """Wherever it hits, the next engine repairs what was begun, and the next ingest completes it."""
    storage = tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(storage)], env={**os.environ, "PYTHONPATH": "src"}
    )
    deadline = time.monotonic() + 200
    while not list((storage / "keywords").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with build("healthcare", storage=storage, settings={"pattern": "hybrid", "batch_chunks": 8}) as engine:
        keyword = engine._parts.retrieval.keyword
        assert keyword is not None
        assert check_consistency(engine.vector_store, keyword).consistent
        written = [Document(text=f"Report {n} mentions code C{n}X. " * 12, doc_id=f"d{n}") for n in range(40)]
        engine.ingest(written)
        assert check_consistency(engine.vector_store, keyword).consistent
        assert {"d7"} == {hit.node.ref_doc_id for hit in engine.retriever.retrieve("C7X")[:1]}


class Backwards(BaseNodePostprocessor):
    """Turns the order round, and remembers how many hits it was given."""

    given: list[int] = []

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        self.given.append(len(nodes))
        return nodes[::-1]


def test_any_postprocessor_can_be_the_reranker(tmp_path: Path) -> None:
    """It is given the wide candidates, and its order is what the answer sees."""
    reranker = Backwards(given=[])
    with build("healthcare", storage=tmp_path / "s", reranker=reranker, settings={"top_k": 2}) as engine:
        engine.ingest(PARTS)
        plain = [hit.node.ref_doc_id for hit in engine.retriever.retrieve("lift parts")]
        response = engine.query("Which spare parts are for the lift?")
        assert reranker.given == [4]
        assert len(response.source_nodes) == 2 and len(plain) == 4


def test_the_advanced_pattern_reranks_with_a_real_cross_encoder(tmp_path: Path) -> None:
    """Given the folder of one it needs no network; each hit keeps its cosine beside its probability."""
    from tests.unit.rerank.conftest import save_model

    settings = {
        "pattern": "advanced",
        "reranker": save_model(tmp_path / "model"),
        "top_k": 3,
        "candidates": 4,
        "answer_floor": -1.0,
    }
    with build("healthcare", storage=tmp_path / "s", settings=settings) as engine:
        engine.ingest(PARTS)
        response = engine.query("What is part ZX-81?")
        kinds = engine.ledger.sql("select kind from llm_calls").fetchall()
    hits = response.source_nodes
    assert len(hits) == 3 and all(0 <= hit.score <= 1 for hit in hits)
    assert [hit.stages["rerank"].rank for hit in hits] == [1, 2, 3]
    assert all(hit.stages["retrieval"].score > 0.3 for hit in hits)
    assert ("rerank",) in kinds


def test_research_papers_runs_offline_with_the_folder_of_a_cross_encoder(tmp_path: Path) -> None:
    """The row as it stands, but for its weights: MPNet's are too large for every test run (make weights)."""
    from tests.unit.rerank.conftest import save_model

    from llama_index_presets.embed.local.embedding import LocalEmbedding

    settings = {"reranker": save_model(tmp_path / "model"), "answer_floor": -1.0}
    model = LocalEmbedding("all-MiniLM-L6-v2", allow_download=False)
    with build(
        "research-papers", storage=tmp_path / "s", offline=True, embed_model=model, settings=settings
    ) as engine:
        engine.ingest(PARTS)
        response = engine.query("What is part ZX-81?")
        explained = engine.explain()
    assert explained["cells"]["pattern"] == "advanced" and explained["cells"]["monitoring"] == "metrics"
    assert len(response.source_nodes) == 4
    assert all(set(hit.stages) == {"retrieval", "rerank"} for hit in response.source_nodes)


def test_an_answer_without_one_leg_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With on_leg_error="degrade" the keyword leg's fault is named beside the answer; without, it is raised."""
    settings = {"pattern": "hybrid", "on_leg_error": "degrade", "vector_weight": 0.6, "leg_timeout_s": 20.0}
    with build("healthcare", storage=tmp_path / "s", settings=settings) as engine:
        engine.ingest(PARTS)
        assert engine.query("What is part ZX-81?").metadata["failed_legs"] == []
        keyword = engine._parts.retrieval.keyword
        monkeypatch.setattr(keyword, "find", _unreadable)
        response = engine.query("Which part is a spare valve for the lift?")
        assert response.metadata["failed_legs"] == ["bm25"]
        assert "ZX-81" in str(response)
    with build("healthcare", storage=tmp_path / "s", settings={"pattern": "hybrid"}) as engine:
        monkeypatch.setattr(engine._parts.retrieval.keyword, "find", _unreadable)
        with pytest.raises(RetrievalError, match="Leg 'bm25'"):
            engine.query("What is part ZX-81?")


def _unreadable(*_: object) -> None:
    raise OSError("the disk is gone")
