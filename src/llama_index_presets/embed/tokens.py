"""Tokens of a text, as the model that will read it counts them; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index_presets._extras import require
from llama_index_presets.errors import ModelError

__all__ = ["Tokenizer"]


class Tokenizer:
    """The tokenizer of a local model folder, never truncating; safe to share between threads.

    Args:
        folder: Model folder that holds ``tokenizer.json``.

    Raises:
        ModelError: The folder has no such file.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "tokenizer.json").is_file():
            raise ModelError(f"'{folder}' has no tokenizer.json. Save the model with its fast tokenizer.")
        # A copy of our own: the library's tokenizer is switched to truncation while it embeds.
        self._tokenizer: Any = require("tokenizers", extra="local").Tokenizer.from_file(
            str(folder / "tokenizer.json")
        )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens, special tokens included."""
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts))]
