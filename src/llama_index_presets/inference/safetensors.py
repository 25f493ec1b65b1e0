"""Weights of a ``.safetensors`` file, mapped into memory, so that only what is read takes room."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from llama_index_presets.errors import ModelError

__all__ = ["forget_pages", "read_safetensors"]

_LONGEST_HEADER: Final = 100_000_000


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


def _tensors(file: Path) -> dict[str, np.ndarray]:
    data = np.memmap(file, dtype=np.uint8, mode="r")
    length = int(data[:8].view("<u8")[0])
    if not 2 <= length <= min(_LONGEST_HEADER, len(data) - 8):
        raise ValueError(f"a header of {length} bytes in a file of {len(data)}")
    header: dict[str, Any] = json.loads(bytes(data[8 : 8 + length]))
    body = data[8 + length :]
    return {
        name: _tensor(body[slice(*entry["data_offsets"])], entry["dtype"]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
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
