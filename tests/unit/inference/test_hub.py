"""Models of the hub: what is missing on the way to one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_presets import CrossEncoderRerank
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import find_hub_model, find_weights
from llama_index_presets.errors import MissingExtraError

HITS = [NodeWithScore(node=TextNode(text="The pump leaks."), score=1.0)]


@pytest.mark.parametrize(
    "use",
    [
        lambda: CrossEncoderRerank("house/no-such-ranker").postprocess_nodes(HITS, query_str="pump"),
        lambda: find_hub_model("house/no-such-encoder", allow_download=True),
        lambda: find_weights(embedding_model("all-mpnet-base-v2")),
    ],
    ids=["re-ranker", "embedding by name", "embedding of the catalogue"],
)
def test_without_what_downloads_a_model_the_extra_is_named(
    use: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The install line, and not that the hub could not be reached."""
    for name in ("huggingface_hub", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(MissingExtraError, match=r"huggingface_hub is not installed.*\[local\]"):
        use()
