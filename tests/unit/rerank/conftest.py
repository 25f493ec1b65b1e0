"""Tiny real cross-encoders, saved in the standard format and loaded through the real path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import find_weights

MINILM = find_weights(embedding_model("all-MiniLM-L6-v2"))
MAX_TOKENS = 64
TOPICS = (
    "Botulism is treated with antitoxin",
    "The heart pumps blood through the body",
    "Interest rates rose twice last year",
    "Snow fell on the northern mountains",
    "A compiler turns source code into machine code",
    "Honey should not be given to infants",
    "The committee approved the annual budget",
    "Antibodies bind to a toxin and neutralise it",
    "Whales migrate along the western coast",
    "The court dismissed the appeal",
)


def save_model(folder: Path, *, labels: int = 1, head: bool = True, poison: str | None = None) -> str:
    """A BERT of 2 layers with random weights; `poison` is a word whose embedding is NaN."""
    torch = pytest.importorskip("torch", reason="the extra local-torch is not installed")
    import transformers

    torch.manual_seed(7)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM, model_max_length=MAX_TOKENS)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS,
        num_labels=labels,
        initializer_range=0.3,
    )
    kind = transformers.BertForSequenceClassification if head else transformers.BertModel
    model = kind(config)
    if poison:
        embeddings = model.get_input_embeddings().weight.data
        embeddings[tokenizer.convert_tokens_to_ids(poison)] = float("nan")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a single-logit cross-encoder that reads 64 tokens."""
    return save_model(tmp_path_factory.mktemp("cross-encoder"))


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Save a further model with other traits."""
    return lambda **traits: save_model(tmp_path_factory.mktemp("other"), **traits)


@pytest.fixture
def hits() -> list[NodeWithScore]:
    """Ten hits in retrieval order, scored 0.9, 0.85, …"""
    return [
        NodeWithScore(
            node=TextNode(id_=f"n{place}", text=text, metadata={"source": f"{place}.txt"}),
            score=0.9 - place * 0.05,
        )
        for place, text in enumerate(TOPICS)
    ]
