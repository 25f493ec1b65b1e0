"""A small bounded memory of logits."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

__all__ = ["ScoreCache"]


class ScoreCache:
    """Logits by (model, query, text), the least recently used dropped first. Thread safe.

    Queries and texts are kept as SHA-256 digests only.

    Args:
        size: Most entries; 0 keeps nothing.

    Example:
        >>> cache = ScoreCache(1)
        >>> cache.put("m", "q", "a", 1.5)
        >>> cache.put("m", "q", "b", 2.5)
        >>> cache.get("m", "q", "a"), cache.get("m", "q", "b"), len(cache)
        (None, 2.5, 1)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._entries: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, model: str, query: str, text: str) -> float | None:
        """The logit of a pair, or None when it is not held."""
        if not self.size:
            return None
        key = _key(model, query, text)
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, model: str, query: str, text: str, logit: float) -> None:
        """Remember the logit of a pair."""
        if not self.size:
            return
        key = _key(model, query, text)
        with self._lock:
            self._entries[key] = logit
            self._entries.move_to_end(key)
            while len(self._entries) > self.size:
                self._entries.popitem(last=False)


def _key(*parts: str) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()
