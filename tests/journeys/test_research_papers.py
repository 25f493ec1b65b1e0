"""Papers: by year and author, cited by their work, re-ranked; all of the row is local."""

from __future__ import annotations

from pathlib import Path

from tests.journeys.rows import ask_every_way, only_sees
from tests.unit.rerank.conftest import save_model

from llama_index_presets import build
from llama_index_presets.embed.local.embedding import LocalEmbedding

DOCUMENTS = Path(__file__).parents[2] / "recipes" / "research-papers" / "documents"
QUESTION = "How much less memory does sparse attention need than full attention?"


def test_offline_by_year_and_author(tmp_path: Path) -> None:
    """Near-identical abstracts are told apart by their metadata, and the citation names the paper."""
    for _ in range(2):
        with build("research-papers", storage=tmp_path / "s", offline=True) as engine:
            engine.ingest(DOCUMENTS)
            only_sees(engine, QUESTION, "year>=2023", "year", 2023)
            only_sees(
                engine, "abstracts that differ in one sentence", "authors contains Priya Raman", "year", 2020
            )
            cited = ask_every_way(engine, QUESTION)[0]["citations"][0]
    assert (
        cited["authors"] and cited["year"] in (2021, 2023) and cited["title"].startswith("Sparse attention")
    )


def test_with_a_cross_encoder(tmp_path: Path) -> None:
    """A real, tiny one; MiniLM stands in for MPNet's weights, which are too large for every run."""
    settings = {"reranker": save_model(tmp_path / "model"), "answer_floor": -1.0}
    model = LocalEmbedding("all-MiniLM-L6-v2", allow_download=False)
    with build("research-papers", storage=tmp_path / "s", embed_model=model, settings=settings) as engine:
        engine.ingest(DOCUMENTS)
        hits = engine.query(QUESTION).source_nodes
        assert engine.explain()["settings"]["context_tokens"]["value"] == 6_000
    assert all(set(hit.stages) == {"retrieval", "rerank"} for hit in hits)
