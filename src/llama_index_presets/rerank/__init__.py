"""Rerank stage: hits in, the same hits out in a better order, each with its own score."""

from __future__ import annotations

from llama_index_presets.packages.lazy_names import lazy_names

# Loaded on use: the pure parts must not pay for LlamaIndex, nor anything here for torch.
_PUBLIC = {
    "CrossEncoderRerank": "cross_encoder",
    "RerankReport": "cross_encoder",
    "RerankedNodes": "cross_encoder",
    "JudgedQuery": "blend_report",
    "judge": "blend_report",
    "ndcg_by_blend": "blend_report",
    "TrainingList": "training",
    "mine_hard_negatives": "training",
    "group_pairs": "training",
    "HeldOutQuery": "training",
    "TrainingSettings": "training",
    "fine_tune": "training",
}

__all__ = [*_PUBLIC]
__getattr__ = lazy_names(__name__, _PUBLIC)
