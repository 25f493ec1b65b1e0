"""A cross-encoder as this package uses it: token counts and logits of (query, text) pairs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index_presets._extras import require

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

__all__ = ["PairModel"]

# A tokenizer without a limit reports a number like 1e30.
_NO_LIMIT = 1_000_000
# Around this many tokens the matrices of a small encoder still fit into a CPU's cache.
_CPU_BATCH_TOKENS = 2_048
_GPU_BATCH_TOKENS = 65_536


class PairModel:
    """Token counts and logits of one loaded cross-encoder. Thread safe: one batch runs at a time.

    The lock is there because a Rust tokenizer raises "Already borrowed" when two threads change its
    truncation; on a CPU nothing is lost, since one batch already uses every core.

    Args:
        encoder: A single-logit cross-encoder.

    Attributes:
        max_tokens: Most tokens of a pair, special tokens included.
        batch_tokens: Tokens of a batch, padding included, that suit the device.
    """

    def __init__(self, encoder: CrossEncoder) -> None:
        self.encoder = encoder
        self.tokenizer: Any = encoder.tokenizer
        self.max_tokens = _limit(self.tokenizer.model_max_length, encoder.config)
        self.batch_tokens = _CPU_BATCH_TOKENS if encoder.device.type == "cpu" else _GPU_BATCH_TOKENS
        self._special = int(self.tokenizer.num_special_tokens_to_add(pair=True))
        self._keep_logits = require("torch", extra="local").nn.Identity()
        self._lock = threading.Lock()

    def room(self, query: str) -> int:
        """Tokens that are left for a text beside this query; at least half of what the model reads.

        A query longer than that is itself cut by the model.
        """
        taken = self._count([query])[0] + self._special
        return max(self.max_tokens - taken, self.max_tokens // 2 - self._special, 1)

    def pair_tokens(self, query: str, texts: Sequence[str]) -> list[int]:
        """Tokens of each pair before truncation, special tokens included."""
        if not texts:
            return []
        fixed, *counts = self._count([query, *texts])
        return [fixed + count + self._special for count in counts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character range of each token of a text."""
        with self._lock:
            found = self.tokenizer(
                text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
            )
        return [(int(start), int(stop)) for start, stop in found["offset_mapping"]]

    def logits(self, query: str, texts: Sequence[str]) -> list[float]:
        """The model's raw outputs for one batch, float, higher is better; one forward pass."""
        with self._lock:
            scores = self.encoder.predict(
                [(query, text) for text in texts],
                batch_size=max(1, len(texts)),
                show_progress_bar=False,
                activation_fn=self._keep_logits,
            )
        return [float(score) for score in scores]

    def _count(self, texts: Sequence[str]) -> list[int]:
        with self._lock:
            found = self.tokenizer(
                list(texts), add_special_tokens=False, truncation=False, padding=False, verbose=False
            )
        return [len(ids) for ids in found["input_ids"]]


def _limit(tokenizer_limit: int, config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    known = [int(limit) for limit in (tokenizer_limit, positions) if limit and 0 < limit < _NO_LIMIT]
    return min(known) if known else _NO_LIMIT
