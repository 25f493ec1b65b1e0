"""Model folders on this machine: our cache, the hub's cache, and downloads into the latter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from llama_index_presets.packages.extras import require

__all__ = ["cache_folder", "cached_snapshot", "download", "hub_cache_folder"]

_DESCRIPTION: Final = [
    "*.json",
    "*.txt",
    "*.model",
    "1_Pooling/*",
    "2_Dense/*",
    "2_Normalize/*",
    "3_Normalize/*",
    "0_CLIPModel/*.json",
    "0_CLIPModel/*.txt",
]
_PREFERRED: Final = (
    ("model.safetensors", "model-*.safetensors"),
    ("onnx/model.onnx", "onnx/model.onnx_data"),
    ("pytorch_model.bin",),
)
"""Weights of a repository, the first kind that it has."""


def cache_folder() -> Path:
    """Cache folder of weights: ``$LLAMA_PRESETS_CACHE``, else ``~/.cache/llama-index-presets``."""
    return Path(os.environ.get("LLAMA_PRESETS_CACHE", "~/.cache/llama-index-presets")).expanduser()


def hub_cache_folder() -> Path:
    """The hub's own cache: ``$HF_HUB_CACHE``, else below ``$HF_HOME``; the library that fills it is not imported."""
    stated = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if stated:
        return Path(stated).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME", str(cache))).expanduser() / "hub"


def cached_snapshot(name: str, *, revision: str | None = None, hub_cache: str | None = None) -> Path | None:
    """Folder of a repository in the hub's cache, as last seen, or None.

    Args:
        name: ``organisation/model``.
        revision: Branch, tag or commit; None is the main branch.
        hub_cache: The cache; None is `hub_cache_folder`.
    """
    cache = Path(hub_cache).expanduser() if hub_cache else hub_cache_folder()
    place = cache / f"models--{name.replace('/', '--')}"
    reference = place / "refs" / (revision or "main")
    try:
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    except (OSError, UnicodeDecodeError):
        return None
    folder = place / "snapshots" / commit if commit else None
    known = folder and any((folder / file).is_file() for file in ("modules.json", "config.json"))
    return folder if known else None


def download(name: str, *, revision: str | None = None, hub_cache: str | None = None) -> Path:
    """Fetch a repository's description and one kind of weights; gives the folder.

    Raises:
        Exception: Whatever the hub's library raises, which names the cause.
    """
    hub = require("huggingface_hub", extra="local")
    place = {"revision": revision, "cache_dir": hub_cache}
    folder = Path(hub.snapshot_download(name, allow_patterns=_DESCRIPTION, **place))
    for files in _PREFERRED:
        hub.snapshot_download(name, allow_patterns=[*files, *(f"*/{file}" for file in files)], **place)
        if any(True for file in files for _ in folder.rglob(file)):
            break
    return folder
