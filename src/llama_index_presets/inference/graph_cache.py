"""Cache of written graphs: beside the weights, or in the user's cache folder where that cannot be written."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from llama_index_presets.files.whole_files import replace_file
from llama_index_presets.inference.graph_writer import GRAPH_VERSION, WrittenGraph
from llama_index_presets.inference.hub import cache_folder
from llama_index_presets.inference.safetensors import TensorPlace

__all__ = ["cached_graph", "graph_key"]

logger = logging.getLogger(__name__)
_DIGEST: Final = 32
_FOLDER: Final = ".onnx-graphs"


def graph_key(
    config: Mapping[str, Any], shapes: Mapping[str, Any], purpose: str, places: Mapping[str, TensorPlace]
) -> str:
    """Name of a graph: what it is written from."""
    sizes = {name: list(shape) for name, shape in shapes.items()}
    content = [
        GRAPH_VERSION,
        purpose,
        config,
        sizes,
        {name: astuple(place) for name, place in places.items()},
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]


def cached_graph(folder: Path, key: str, write: Callable[[], WrittenGraph]) -> WrittenGraph:
    """A graph from the cache; written, and kept for the next process, where it is not there or is damaged.

    Args:
        folder: Of the weights.
        key: See `graph_key`.
        write: Makes the graph.
    """
    for place in _places(folder, key):
        try:
            content = place.read_bytes()
        except OSError:
            continue
        if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
            return WrittenGraph.from_bytes(content[_DIGEST:])
        logger.warning("The cached graph '%s' is damaged; it is written anew.", place)
    graph = write()
    content = graph.to_bytes()
    for place in _places(folder, key):
        try:
            _keep(place, hashlib.sha256(content).digest() + content)
            break
        except OSError as error:  # read-only or full: the next process writes it again, some 0.1 s
            logger.debug("The graph cannot be kept at '%s' (%s).", place, error)
    return graph


def _places(folder: Path, key: str) -> Iterator[Path]:
    yield folder / _FOLDER / f"{key}.graph"
    yield cache_folder() / "graphs" / f"{key}.graph"


def _keep(place: Path, content: bytes) -> None:
    """Write in one step: a reader sees the whole file or none."""
    place.parent.mkdir(parents=True, exist_ok=True)
    replace_file(place, content, private=True)
