"""ONNX graphs in the making, and as they are written; needs neither torch nor onnx.

A graph holds no weights: it names their places in the ``.safetensors`` files, which the runtime maps, or placeholders
that the session fills; so a model is on the disk once and a graph is some ten kilobytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from llama_index_presets.errors import ModelError
from llama_index_presets.inference import onnx_file
from llama_index_presets.inference.safetensors import TensorPlace

__all__ = ["CODES", "GRAPH_VERSION", "INT8_BLOCK", "SCALES", "GraphWriter", "WrittenGraph", "int8_weight"]

GRAPH_VERSION: Final = 1
"""Raised when graphs are written otherwise, so that cached ones are made anew."""

_CONTRIB: Final = "com.microsoft"
INT8_BLOCK: Final = 32
"""Numbers that share a scale, in weights and in what they are multiplied with; more are faster and less exact."""

CODES: Final = ".int8"
SCALES: Final = ".scales"
"""Endings of the names of placeholders that hold a weight in int8."""

_WEIGHTS_FILE: Final = "model.safetensors"


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """A graph without its weights.

    Attributes:
        onnx: Content of an ONNX file.
        weights: Names of its placeholders, for which a session is given the numbers.
    """

    onnx: bytes
    weights: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """Content of a cache file: the names on a line, then the graph."""
        return json.dumps(self.weights).encode() + b"\n" + self.onnx

    @classmethod
    def from_bytes(cls, content: bytes) -> WrittenGraph:
        """Read what `to_bytes` gave."""
        names, _, graph = content.partition(b"\n")
        return cls(graph, tuple(json.loads(names)))


def int8_weight(name: str, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Value of an int8 placeholder: codes of 0 to 255 around 128, or the scales of their blocks.

    Args:
        name: Of the placeholder, ending in `CODES` or `SCALES`.
        weights: Of the file.
    """
    matrix = weights[name.removesuffix(CODES).removesuffix(SCALES)]
    blocks = matrix.reshape(len(matrix), -1, INT8_BLOCK)
    scales = np.abs(blocks).max(axis=2, keepdims=True) / 127
    scales[scales == 0] = 1
    if name.endswith(SCALES):
        return np.asarray(scales.reshape(-1), dtype=np.float32)
    return np.asarray(np.rint(blocks / scales) + 128, dtype=np.uint8)


class GraphWriter:
    """Nodes and placeholders of a graph in the making.

    Args:
        shapes: Shape of each weight of the file, by name.
        int8: Whether dense layers compute in int8, with a scale for each block of `INT8_BLOCK` numbers.
        places: Of weights that the runtime is to map from their files; the others are placeholders.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        int8: bool = False,
        places: Mapping[str, TensorPlace] | None = None,
    ) -> None:
        self._int8 = int8
        self._places = places or {}
        self._shapes = shapes
        self._nodes: list[bytes] = []
        self._placed: dict[str, bytes] = {}
        self._outside: set[str] = set()

    def weight(self, name: str) -> str:
        """The placeholder of a weight."""
        if name not in self._shapes:
            raise ModelError(
                f"The weights have no '{name}', which this architecture needs. Download the model again."
            )
        if name not in self._placed:
            place = self._places.get(name)
            if place is None:
                self._place(name, self._shapes[name], onnx_file.FLOAT)
            else:
                entry: dict[str, str | int] = {
                    "location": place.file,
                    "offset": place.offset,
                    "length": place.length,
                }
                self._placed[name] = onnx_file.outside_tensor(
                    name, self._shapes[name], onnx_file.FLOAT, entry
                )
        return name

    def _place(self, name: str, dims: Sequence[int], kind: int) -> None:
        self._placed[name] = onnx_file.outside_tensor(name, dims, kind, {"location": _WEIGHTS_FILE})
        self._outside.add(name)

    def constant(self, name: str, values: np.ndarray) -> str:
        """A small array that is part of the graph."""
        self._placed[name] = onnx_file.array_tensor(name, values)
        return name

    def node(self, operator: str, inputs: Sequence[str], *, contrib: bool = False, **attributes: Any) -> str:
        """Add an operation; gives the name of its output."""
        name = attributes.pop("output", f"t{len(self._nodes)}")
        domain = _CONTRIB if contrib else ""
        self._nodes.append(onnx_file.node(operator, inputs, [name], domain=domain, attributes=attributes))
        return str(name)

    def linear(self, x: str, name: str, *, bias: bool = True) -> str:
        """A dense layer; its weight is used as it lies in the file, ``(out, in)``."""
        product = self._product(x, f"{name}.weight")
        return self.node("Add", [product, self.weight(f"{name}.bias")]) if bias else product

    def _product(self, x: str, name: str) -> str:
        self.weight(name)
        outputs, inputs = self._shapes[name]
        if not self._int8 or inputs % INT8_BLOCK:
            return self.node("FusedMatMul", [x, name], contrib=True, transB=1)
        del self._placed[name]
        self._outside.discard(name)
        blocks = inputs // INT8_BLOCK
        self._place(name + CODES, [outputs, blocks, INT8_BLOCK], onnx_file.UINT8)
        self._place(name + SCALES, [outputs * blocks], onnx_file.FLOAT)
        sizes = {"K": inputs, "N": outputs, "bits": 8, "block_size": INT8_BLOCK, "accuracy_level": 4}
        return self.node("MatMulNBits", [x, name + CODES, name + SCALES], contrib=True, **sizes)

    def activation(self, kind: str, x: str) -> str:
        """An activation, by the name of its operator."""
        return self.node(kind, [x], contrib=kind in ("Gelu", "FastGelu"))

    def norm(self, x: str, name: str, epsilon: float) -> str:
        """A layer normalisation."""
        parts = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.node("LayerNormalization", parts, axis=-1, epsilon=epsilon)

    def skip_norm(self, x: str, skip: str, name: str, epsilon: float, *, bias: str) -> str:
        """``norm(x + bias + skip)`` in one operation."""
        parts = [x, skip, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), self.weight(bias)]
        return self.node("SkipLayerNormalization", parts, contrib=True, epsilon=epsilon)

    def first(self, x: str) -> str:
        """The first token of each text, still of shape (texts, 1, dim)."""
        for name, place in (("zero", 0), ("one", 1)):
            self.constant(name, np.array([place], dtype=np.int64))
        return self.node("Slice", [x, "zero", "one", "one"])

    def finish(self, inputs: Mapping[str, tuple[Any, int]], output: str) -> WrittenGraph:
        """The finished graph.

        Args:
            inputs: Number type and rank of each.
            output: Name of the result.
        """
        content = onnx_file.graph_file(
            self._nodes,
            self._placed.values(),
            [
                onnx_file.value(name, kind, [f"{name}_{axis}" for axis in range(rank)])
                for name, (kind, rank) in inputs.items()
            ],
            [onnx_file.value(output, np.float32, None)],
            name="llama-index-presets",
            operators={"": 17, _CONTRIB: 1},
        )
        return WrittenGraph(content, tuple(name for name in self._placed if name in self._outside))

    def unread(self, unused: Iterable[str]) -> list[str]:
        """Weights of the file that the graph does not use and that are not known to be of no use."""
        read = {name.removesuffix(CODES) for name in self._placed}
        return [
            name for name in self._shapes if name not in read and not any(part in name for part in unused)
        ]
