"""Rerank stage: hits in, the same hits out in a better order, each with its own score."""

from __future__ import annotations

import importlib
from typing import Any

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


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
