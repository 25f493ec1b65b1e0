"""Weights of a ``.safetensors`` file, mapped into memory, so that only what is read takes room."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from llama_index_presets.counting import counted
from llama_index_presets.errors import ModelError

__all__ = ["TensorPlace", "forget_pages", "places_in_files", "read_safetensors"]

_LONGEST_HEADER: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where the numbers of a tensor lie.

    Attributes:
        file: Name of the file in its folder.
        offset: First byte.
        length: Bytes.
    """

    file: str
    offset: int
    length: int


def read_safetensors(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors by name: float32 as they lie in the file, float16 and bfloat16 as float32 copies, integers as they are.

    Args:
        file: In the safetensors format, or the ``.index.json`` of several.

    Raises:
        ModelError: The file cannot be read as such.
    """
    try:
        if file.name.endswith(".index.json"):
            places = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
            parts = {name: read_safetensors(file.parent / name) for name in sorted(set(places.values()))}
            return {tensor: parts[name][tensor] for tensor, name in places.items()}
        return _tensors(file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"'{file}' cannot be read as safetensors ({type(error).__name__}: {error}). Download the model again."
        ) from error


def forget_pages(tensors: Mapping[str, np.ndarray]) -> None:
    """Give the memory of mapped tensors back; what is read of them again comes from the file.

    Args:
        tensors: As `read_safetensors` gave them.
    """
    maps = {}
    for array in tensors.values():
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
        if base is not None:
            maps[id(base)] = base
    for one in maps.values():
        if hasattr(one, "madvise"):  # not on Windows
            one.madvise(mmap.MADV_DONTNEED)


def places_in_files(file: Path) -> tuple[Path, dict[str, TensorPlace]]:
    """Folder of the files of weights, and the places in them of tensors that can be used as they lie: float32, aligned.

    Links, as in the hub's cache, are followed. There are no places where the files do not lie in one folder.

    Args:
        file: As of `read_safetensors`, which has read it.
    """
    names = {file.name}
    if file.name.endswith(".index.json"):
        names = set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
    real = [(file.parent / name).resolve() for name in sorted(names)]
    if len({one.parent for one in real}) != 1:
        return file.parent, {}
    found: dict[str, TensorPlace] = {}
    for one in real:
        start, header = _header(np.memmap(one, dtype=np.uint8, mode="r"))
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if entry["dtype"] == "F32" and (start + begin) % 4 == 0 and end > begin:
                found[name] = TensorPlace(one.name, start + begin, end - begin)
    return real[0].parent, found


def _header(data: np.ndarray) -> tuple[int, dict[str, Any]]:
    """Where the numbers begin, and the entry of each tensor."""
    length = int(data[:8].view("<u8")[0])
    if not 2 <= length <= min(_LONGEST_HEADER, len(data) - 8):
        raise ValueError(f"a header of {counted(length, 'byte')} in a file of {len(data)}")
    header: dict[str, Any] = json.loads(bytes(data[8 : 8 + length]))
    header.pop("__metadata__", None)
    return 8 + length, header


def _tensors(file: Path) -> dict[str, np.ndarray]:
    data = np.memmap(file, dtype=np.uint8, mode="r")
    start, header = _header(data)
    body = data[start:]
    return {
        name: _tensor(body[slice(*entry["data_offsets"])], entry["dtype"]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def _tensor(raw: np.ndarray, dtype: str) -> np.ndarray:
    # The format aligns no tensor: a copy is made of those that lie across the border of an item.
    if dtype == "BF16":
        wide = np.frombuffer(raw.tobytes(), dtype="<u2").astype(np.uint32) << 16
        return wide.view(np.float32)
    kind = np.dtype({"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "I32": "<i4"}.get(dtype, "u1"))
    aligned = raw.ctypes.data % kind.itemsize == 0
    values = raw.view(kind) if aligned else np.frombuffer(raw.tobytes(), dtype=kind)
    return values.astype(np.float32) if dtype in ("F16", "F64") else values
