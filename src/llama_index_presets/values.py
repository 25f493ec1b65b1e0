"""Frozen values that cross stages. Imports no LlamaIndex, DuckDB or torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["PARENT_KEYS", "PERMISSION_ORIGINS", "PROJECT_FILE", "WINDOW_KEY", "Fingerprint", "map_leaves"]

WINDOW_KEY = "window"
"""Metadata of a sentence: the sentence with its neighbours, which is what an answer is shown."""

PARENT_KEYS = ("parent_id", "parent_text", "parent_leaves")
"""Metadata of a part: id and text of its chunk, and into how many parts that was cut."""

PERMISSION_ORIGINS = ("sidecar", "source", "front-matter")
"""Whose word counts beside that of the ingest's caller: the file ``NAME.meta.json``; the source, that is the metadata
of a `Document`, a node or a row, and what a connected source says; what the file says of itself."""

PROJECT_FILE = "llama-presets.toml"
"""Name of a folder's project file, which is no document of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Fingerprint: what made the vectors of an index. Indexes with equal fingerprints can be mixed.

    Attributes:
        model: Name of the embedding model, with its organisation where it has one.
        dim: Length of its vectors.
        normalized: Whether the vectors have unit length.
        chunker: Name and size of the splitter, such as ``"sentence-254"``; empty when unknown.
        encryption: Method, name of the key and searchable metadata; empty, and not written, for an index in clear.

    Example:
        >>> str(Fingerprint(model="all-MiniLM-L6-v2", dim=384, chunker="sentence-254"))
        'model=all-MiniLM-L6-v2;dim=384;normalized=True;chunker=sentence-254'
    """

    model: str
    dim: int
    normalized: bool = True
    chunker: str = ""
    encryption: str = ""

    def __str__(self) -> str:
        parts = asdict(self)
        if not self.encryption:
            del parts["encryption"]
        return ";".join(f"{name}={value}" for name, value in parts.items())


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """A JSON value with what is no list and no object changed, at any depth; keys stay as they are.

    Example:
        >>> map_leaves({"a": [1, {"b": 2}]}, lambda leaf: leaf * 10)
        {'a': [10, {'b': 20}]}
    """
    if isinstance(value, list):
        return [map_leaves(item, change) for item in value]
    if isinstance(value, Mapping):
        return {key: map_leaves(item, change) for key, item in value.items()}
    return change(value)
