"""Digests of texts, also with lone surrogates; ids, versions and cache keys are made of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["json_digest", "text_digest"]


def text_digest(text: str) -> str:
    """SHA-256 of a text in hex.

    Example:
        >>> text_digest("a")[:16]
        'ca978112ca1bbdca'
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def json_digest(*parts: Any) -> str:
    """SHA-256, in hex, of values as JSON: the order of keys changes nothing, and what JSON has not counts by its text.

    Example:
        >>> json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
        True
    """
    return text_digest(json.dumps(parts, sort_keys=True, default=str))
