"""Index terms of metadata: equality, membership and emptiness as questions about a set of texts.

A database that indexes a list of texts can so answer these filters exactly, whatever the keys and types are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["label", "labels_of"]

LABEL_CHARACTERS = 200
"""Longer labels are stored as their BLAKE2b-128 digest, so that a long value costs 33 bytes."""


def labels_of(metadata: Mapping[str, Any]) -> list[str]:
    """Labels of one node's metadata: its keys, its values, and what its lists and mappings hold.

    Example:
        >>> labels_of({"lang": "en", "tags": ["a", 1.0], "none": None})
        ['["lang"]', '["lang","en"]', '["tags"]', '["tags",["a",1]]', '["tags",0,"a"]', '["tags",0,1]']
    """
    found: dict[str, None] = {}
    for key, value in metadata.items():
        if value is None:
            continue
        found[label(key)] = None
        found[label(key, value)] = None
        if isinstance(value, (list, Mapping)):
            found |= dict.fromkeys(label(key, 0, item) for item in value)
    return list(found)


def label(key: str, *parts: Any) -> str:
    """Write one label: of a key, of a key with its value, or of a key, 0 and something that its value holds.

    Example:
        >>> label("page", 3.0)
        '["page",3]'
    """
    text = json.dumps(
        [key, *map(_canonical, parts)], ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    if len(text) <= LABEL_CHARACTERS:
        return text
    return "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _canonical(value: Any) -> Any:
    """One spelling for values that Python calls equal: 1, 1.0 and True."""
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, (bool, float)) and math.isfinite(value) and value == int(value):
        return int(value)
    return value
