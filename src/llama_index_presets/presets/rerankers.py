"""Which cross-encoder re-ranks, and where it lies on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llama_index_presets._extras import require
from llama_index_presets.embed.weights import cache_folder

__all__ = ["DEFAULT_RERANKER", "find_reranker"]

DEFAULT_RERANKER: Final = "cross-encoder/ms-marco-MiniLM-L6-v2"
"""What the advanced pattern re-ranks with where the settings name nothing else."""

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def find_reranker(name: str) -> str | None:
    """A cross-encoder on this machine: its folder, or its name where the hub's cache holds it; None where neither is.

    Args:
        name: A folder, or a name on the hub; of the latter, a folder ``models/NAME`` in our cache goes first.
    """
    if Path(name).expanduser().is_dir():
        return name
    folder = cache_folder() / "models" / name.rsplit("/", 1)[-1]
    if (folder / "config.json").is_file():
        return str(folder)
    hub = require("huggingface_hub", extra="local")

    def cached(file: str) -> bool:
        return isinstance(hub.try_to_load_from_cache(name, file), str)

    return name if cached("config.json") and any(map(cached, _WEIGHTS)) else None
