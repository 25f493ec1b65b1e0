"""Counting tokens where the provider did not say: exact for OpenAI's embeddings, an estimate elsewhere."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from llama_index_presets._tiktoken import carried_encoding

__all__ = ["CHARACTERS_PER_TOKEN", "count_embedding", "estimate_chat", "estimate_text", "most_tokens"]

CHARACTERS_PER_TOKEN: Final = 4
"""Characters of a token, for models whose tokenizer is not at hand."""

_MESSAGE_OVERHEAD: Final = 4  # role and separators of one chat message, in tokens
_log = logging.getLogger(__name__)


def count_embedding(provider: str, model: str, texts: Sequence[str]) -> tuple[int, str]:
    """Count the tokens of texts to embed.

    Returns:
        The tokens, and ``"counted"`` for OpenAI's models (exact) or ``"estimated"`` for others: by OpenAI's tokenizer
        of embeddings under another name at OpenAI or Azure, such as that of a deployment, else by four characters a
        token, which is a tenth more than that tokenizer in English prose.

    Example:
        >>> count_embedding("openai", "text-embedding-3-small", ["Hello world"])
        (2, 'counted')
    """
    encoding = _encoding("cl100k_base") if provider in ("openai", "azure") else None
    if encoding is None:
        return estimate_text(provider, model, texts), "estimated"
    tokens = sum(len(one) for one in encoding.encode_ordinary_batch(list(texts), num_threads=1))
    return tokens, "counted" if model.startswith("text-embedding-") else "estimated"


def estimate_text(provider: str, model: str, texts: Iterable[str]) -> int:
    """Estimate the tokens of plain texts."""
    encoding = _encoding(_chat_encoding(model)) if provider in ("openai", "azure") else None
    if encoding is None:
        return sum(-(-len(text) // CHARACTERS_PER_TOKEN) for text in texts)
    return sum(len(encoding.encode_ordinary(text)) for text in texts)


def estimate_chat(provider: str, model: str, texts: Sequence[str]) -> int:
    """Estimate the tokens of chat messages: their texts and the overhead of each."""
    return estimate_text(provider, model, texts) + _MESSAGE_OVERHEAD * len(texts) + 3


def most_tokens(provider: str, model: str, texts: Sequence[str]) -> int:
    """Estimate the tokens of texts from above, for budgets: a twentieth more, or a token for two bytes."""
    if provider in ("openai", "azure"):
        return int(estimate_chat(provider, model, texts) * 1.05) + 10
    return sum(len(text.encode("utf-8", "replace")) // 2 + _MESSAGE_OVERHEAD for text in texts) + 10


def _chat_encoding(model: str) -> str:
    old = model.startswith(("gpt-4-", "gpt-3.5", "text-embedding")) or model == "gpt-4"
    return "cl100k_base" if old else "o200k_base"


@functools.cache
def _encoding(name: str) -> Any:
    """Load a tokenizer; None, said once, where it is not at hand."""
    encoding = carried_encoding(name)
    if encoding is None:
        _log.warning("No tokenizer '%s' is at hand: tokens are estimated from characters.", name)
    return encoding
