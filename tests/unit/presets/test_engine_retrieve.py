"""A preset engine finds passages for whatever LlamaIndex's own query engines take."""

from __future__ import annotations

import asyncio
from pathlib import Path

from llama_index.core import Document
from llama_index.core.schema import QueryBundle
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build


def test_a_question_may_be_a_string(tmp_path: Path) -> None:
    """As for `RetrieverQueryEngine`, whose retriever makes a bundle of it."""
    settings = {"store": "duckdb", "answer_floor": -1.0}
    with build(
        "knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding(), settings=settings
    ) as engine:
        engine.ingest([Document(text="Parcels are returned within 30 days.", doc_id="returns")])
        found = [
            engine.retrieve("When are parcels returned?"),
            engine.retrieve(QueryBundle("When are parcels returned?")),
            asyncio.run(engine.aretrieve("When are parcels returned?")),
        ]
    assert [[hit.node.ref_doc_id for hit in hits] for hits in found] == [["returns"]] * 3
