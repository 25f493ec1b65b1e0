"""Time of a cross-encoder on this machine, in the estimate of an answer."""

from __future__ import annotations

from llama_index.core import Document

from llama_index_presets.presets.estimates.ingestion import estimate_preset


def test_an_estimate_times_the_reranker_of_this_machine(model: str) -> None:
    """It was left out, and is most of an answer's time without a language model; a hosted one is not asked."""
    text = [Document(text="The pump of ward seven is checked by a nurse on Monday. " * 40, doc_id="a")]
    settings = {"pattern": "advanced", "reranker": model, "candidates": 30}
    found = estimate_preset("healthcare", text, settings=settings).answer
    assert found is not None and found.reranking is not None
    assert (found.reranking.pairs, found.reranking.usd, found.usd) == (30, 0, 0)
    assert found.reranking.ms is not None and found.reranking.ms > 0
    hosted = {**settings, "reranker": "cohere/rerank-v3.5"}
    asked = estimate_preset("knowledge-base", text, settings=hosted).answer
    assert asked is not None and asked.reranking is not None and asked.reranking.ms is None
