"""ONNX files, written: the part of the format that a graph of an encoder needs. Pure.

The format is Protocol Buffers, whose encoding is a list of numbered fields; the numbers are those of `onnx.proto`,
where they never change. The package `onnx` would do the same and bring another (ADR 0189); tests read with it what is
written here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

__all__ = ["FLOAT", "UINT8", "array_tensor", "graph_file", "node", "outside_tensor", "value"]

FLOAT: Final = 1
"""Number type of float32."""
UINT8: Final = 2
"""Number type of bytes."""

_KINDS: Final = {
    "float32": FLOAT,
    "uint8": UINT8,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
}
_VARINT, _BYTES, _FOUR_BYTES = 0, 2, 5
_OUTSIDE: Final = 1


def node(
    operator: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    domain: str,
    attributes: Mapping[str, Any],
) -> bytes:
    """A ``NodeProto``.

    Args:
        operator: Its name.
        inputs: Names of its arguments; an empty one is left out.
        outputs: Names of its results.
        domain: Of the operator; empty is ONNX's own.
        attributes: Integers, floats, texts, or lists of one of the first two, by name; sorted in the file.
    """
    return b"".join(
        [
            *(_text(1, name) for name in inputs),
            *(_text(2, name) for name in outputs),
            _text(4, operator),
            *(_bytes(5, _attribute(name, attributes[name])) for name in sorted(attributes)),
            _text(7, domain) if domain else b"",
        ]
    )


def array_tensor(name: str, values: np.ndarray) -> bytes:
    """A ``TensorProto`` with its numbers."""
    raw = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    return _tensor(values.shape, _KINDS[values.dtype.name], name) + _bytes(9, raw)


def outside_tensor(name: str, shape: Sequence[int], kind: int, place: Mapping[str, str | int]) -> bytes:
    """A ``TensorProto`` whose numbers come from elsewhere.

    Args:
        name: Of the tensor.
        shape: Its shape.
        kind: Number type, `FLOAT` or `UINT8`.
        place: ``location``, the name of a file, with ``offset`` and ``length`` in bytes; a location alone is one that
            the session is given the numbers for.
    """
    entries = (_text(1, key) + _text(2, str(given)) for key, given in place.items())
    return _tensor(shape, kind, name) + b"".join(_bytes(13, one) for one in entries) + _number(14, _OUTSIDE)


def value(name: str, kind: Any, axes: Sequence[str] | None) -> bytes:
    """A ``ValueInfoProto``: an input or output.

    Args:
        name: Of the value.
        kind: Number type, as numpy names it.
        axes: Names of its axes, whose lengths are open; None leaves their number open, too.
    """
    tensor = _number(1, _KINDS[np.dtype(kind).name])
    if axes is not None:
        tensor += _bytes(2, b"".join(_bytes(1, _text(2, axis)) for axis in axes))
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def graph_file(
    nodes: Iterable[bytes],
    tensors: Iterable[bytes],
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
    *,
    name: str,
    operators: Mapping[str, int],
) -> bytes:
    """A ``ModelProto``, the content of a file.

    Args:
        nodes: In the order in which they can run.
        tensors: Weights and constants.
        inputs: Values that a run is given.
        outputs: Values that it gives.
        name: Of the graph.
        operators: Version of each domain of operators.
    """
    graph = b"".join(
        [
            *(_bytes(1, one) for one in nodes),
            _text(2, name),
            *(_bytes(5, one) for one in tensors),
            *(_bytes(11, one) for one in inputs),
            *(_bytes(12, one) for one in outputs),
        ]
    )
    versions = (_text(1, domain) + _number(2, version) for domain, version in operators.items())
    return _number(1, _IR_VERSION) + _bytes(7, graph) + b"".join(_bytes(8, one) for one in versions)


_IR_VERSION: Final = 9


def _tensor(shape: Sequence[int], kind: int, name: str) -> bytes:
    return b"".join(_number(1, length) for length in shape) + _number(2, kind) + _text(8, name)


def _attribute(name: str, given: Any) -> bytes:
    match given:
        case int():
            content, kind = _number(3, given), 2
        case float():
            content, kind = _float(2, given), 1
        case str():
            content, kind = _text(4, given), 3
        case [float(), *_]:
            content, kind = b"".join(_float(7, one) for one in given), 6
        case _:
            content, kind = b"".join(_number(8, int(one)) for one in given), 7
    return _text(1, name) + content + _number(20, kind)


def _number(field: int, given: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(given & 0xFFFF_FFFF_FFFF_FFFF)


def _float(field: int, given: float) -> bytes:
    return _varint(field << 3 | _FOUR_BYTES) + struct.pack("<f", given)


def _text(field: int, given: str) -> bytes:
    return _bytes(field, given.encode())


def _bytes(field: int, given: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(given)) + given


def _varint(given: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while given > 0x7F:
        found.append(given & 0x7F | 0x80)
        given >>= 7
    return bytes([*found, given])
