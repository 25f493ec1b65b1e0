"""OpenAI's tokenizers offline, read from the two files that llama-index-core carries."""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
from pathlib import Path
from typing import Any, Final

__all__ = ["CARRIED", "carried_encoding"]

CARRIED: Final = ("cl100k_base", "o200k_base")
"""Encodings that are there; tiktoken would download any other."""

_environment = threading.Lock()


@functools.cache
def carried_encoding(name: str) -> Any:
    """Load a bundled `tiktoken.Encoding` from disk; None where it is not bundled. Never downloads.

    Example:
        >>> len(carried_encoding("cl100k_base").encode_ordinary("Hello world")), carried_encoding("p50k_base")
        (2, None)
    """
    spec = importlib.util.find_spec("llama_index.core")
    folder = Path(spec.origin).parent / "_static" / "tiktoken_cache" if spec and spec.origin else None
    if name not in CARRIED or folder is None or not folder.is_dir():
        return None
    import tiktoken

    with _environment:
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        try:
            return tiktoken.get_encoding(name)
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before
