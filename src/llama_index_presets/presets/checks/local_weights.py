"""Weights of re-rankers on this machine; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from llama_index_presets.inference.hub import cache_folder, cached_snapshot

__all__ = ["find_reranker"]

_WEIGHTS = ("model.safetensors", "onnx/model.onnx", "pytorch_model.bin")


def find_reranker(name: str) -> str | None:
    """Cross-encoder on this machine: its folder, or its name where the hub's cache holds it; None otherwise.

    Args:
        name: A folder, or a name on the hub; of the latter, a folder ``models/NAME`` in our cache goes first.
    """
    if Path(name).expanduser().is_dir():
        return name
    folder = cache_folder() / "models" / name.rsplit("/", 1)[-1]
    if (folder / "config.json").is_file():
        return str(folder)
    snapshot = cached_snapshot(name)
    return name if snapshot and any((snapshot / file).is_file() for file in _WEIGHTS) else None
