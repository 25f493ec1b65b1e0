"""`CrossEncoderRerank` called as `SentenceTransformerRerank` is."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from llama_index_presets import CrossEncoderRerank
from llama_index_presets.errors import SettingsError, UnknownOptionError

QUERY = QueryBundle("red fish")


def test_the_retrieval_score_is_kept_in_metadata_of_a_copy(model: str, hits: list[NodeWithScore]) -> None:
    """Under the official key; the node that came in, prompts and embeddings do not see it."""
    rerank = CrossEncoderRerank(model=model, keep_retrieval_score=True, top_n=len(hits))
    reranked = rerank.postprocess_nodes(hits, QUERY)
    before = {hit.node.node_id: hit.score for hit in hits}
    assert {hit.node.node_id: hit.node.metadata["retrieval_score"] for hit in reranked} == before
    assert all("retrieval_score" not in hit.node.metadata for hit in hits)
    for mode in (MetadataMode.EMBED, MetadataMode.LLM):
        assert all("retrieval_score" not in hit.node.get_content(mode) for hit in reranked)


def test_metadata_is_left_alone_by_default(model: str, hits: list[NodeWithScore]) -> None:
    """As in the official class."""
    reranked = CrossEncoderRerank(model=model).postprocess_nodes(hits, QUERY)
    assert all("retrieval_score" not in hit.node.metadata for hit in reranked)


def test_keywords_of_the_cross_encoder_are_settings() -> None:
    """Each under the name that it has here."""
    given = {"max_length": 64, "device": "cpu", "local_files_only": True, "num_labels": 1, "revision": None}
    rerank = CrossEncoderRerank("folder", cross_encoder_kwargs=given)
    assert (rerank.max_length, rerank.device, rerank.local_files_only) == (64, "cpu", True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"activation_fn": object()}, "probabilities"),
        ({"num_labels": 3}, "one score"),
        ({"token": "hf_x"}, "HF_TOKEN"),
        ({"device": "cpu", "model_kwargs": {"dtype": "float16"}}, "precision= and device="),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_way_to_get_it(
    given: dict[str, Any], message: str
) -> None:
    """Nothing is swallowed, and no secret is in the message."""
    with pytest.raises(SettingsError, match=message) as refused:
        CrossEncoderRerank("folder", cross_encoder_kwargs=given)
    assert "hf_x" not in str(refused.value)


def test_an_unknown_keyword_of_the_cross_encoder_is_refused() -> None:
    """With the nearest name."""
    with pytest.raises(UnknownOptionError, match="did you mean 'max_length'"):
        CrossEncoderRerank("folder", cross_encoder_kwargs={"max_lenght": 64})


def test_two_values_of_one_setting_are_refused() -> None:
    """max_length here and there."""
    with pytest.raises(SettingsError, match="both mean the same"):
        CrossEncoderRerank("folder", max_length=32, cross_encoder_kwargs={"max_length": 64})


def test_a_number_in_the_place_of_the_model_is_refused() -> None:
    """The official class takes top_n first."""
    with pytest.raises(SettingsError, match="write top_n= and model="):
        CrossEncoderRerank(3)  # type: ignore[arg-type]
