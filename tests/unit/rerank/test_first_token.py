"""The short last layer gives the logits of the whole one, or is not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import (
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import find_weights
from llama_index_presets.rerank.model import read_first_token_only

PAIRS = [("toxin", "antitoxin treats botulism " * count) for count in (1, 3, 9)]


def logits(encoder: CrossEncoder) -> list[float]:
    return encoder.predict(PAIRS, activation_fn=torch.nn.Identity()).tolist()


def saved(folder: Path, model: Any) -> CrossEncoder:
    model.save_pretrained(folder)
    weights = find_weights(embedding_model("all-MiniLM-L6-v2"))
    AutoTokenizer.from_pretrained(weights, model_max_length=60).save_pretrained(folder)
    return CrossEncoder(str(folder), device="cpu")


def test_bert_gives_the_same_logits(model: str) -> None:
    """Padded pairs of three lengths, to rounding."""
    encoder = CrossEncoder(model, device="cpu")
    expected = logits(encoder)
    assert len(read_first_token_only(encoder)) == 4
    assert logits(encoder) == pytest.approx(expected, abs=1e-5)


def test_roberta_gives_the_same_logits(tmp_path: Path) -> None:
    """The family of the BGE rerankers; it has no pooler."""
    torch.manual_seed(1)
    config = RobertaConfig(
        vocab_size=30_522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=1,
        initializer_range=0.3,
        type_vocab_size=2,
        pad_token_id=0,
    )
    encoder = saved(tmp_path, RobertaForSequenceClassification(config))
    expected = logits(encoder)
    assert len(read_first_token_only(encoder)) == 3
    assert logits(encoder) == pytest.approx(expected, abs=1e-5)


def test_another_family_is_run_in_full(tmp_path: Path) -> None:
    """DistilBERT's layers have other parts."""
    config = DistilBertConfig(vocab_size=30_522, dim=32, n_layers=2, n_heads=2, hidden_dim=64, num_labels=1)
    encoder = saved(tmp_path, DistilBertForSequenceClassification(config))
    expected = logits(encoder)
    assert read_first_token_only(encoder) == []
    assert logits(encoder) == expected


def test_a_layer_that_is_built_otherwise_is_run_in_full(model: str) -> None:
    """An activation that mixes tokens gives other logits for one token: the probe notices."""

    class Mixing(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return self.inner(states - states.mean(dim=1, keepdim=True))

    encoder = CrossEncoder(model, device="cpu")
    layer = encoder.model.bert.encoder.layer[-1]
    layer.intermediate = Mixing(layer.intermediate)
    expected = logits(encoder)
    assert read_first_token_only(encoder) == []
    assert logits(encoder) == expected
