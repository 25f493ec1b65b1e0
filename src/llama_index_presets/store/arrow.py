"""Arrow arrays of Python strings and numpy numbers, and back, without importing pandas.

``pyarrow.array`` and ``Array.to_numpy`` import pandas where it is installed, to see whether they have to do with
a Series: a second and more in the first call of a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["as_numpy", "numbers", "strings"]


def strings(values: Sequence[str | None]) -> pa.LargeStringArray:
    """An array of strings.

    Raises:
        UnicodeEncodeError: A string has no UTF-8 form (a lone surrogate).

    Example:
        >>> strings(["a", None, "é"]).to_pylist()
        ['a', None, 'é']
    """
    given = [value or "" for value in values]
    data = "".join(given)
    if data.isascii():
        lengths = list(map(len, given))
    else:
        lengths = [len(value) if value.isascii() else len(value.encode()) for value in given]
    ends = np.zeros(len(given) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    valid = None
    if None in values:
        present = np.array([value is not None for value in values])
        valid = pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.LargeStringArray.from_buffers(
        len(given), pa.py_buffer(ends), pa.py_buffer(data.encode()), valid
    )


def numbers(values: NDArray[Any]) -> pa.Array:
    """An array of numbers, sharing their memory where they lie in a row.

    Example:
        >>> numbers(np.array([1, 2])).to_pylist()
        [1, 2]
    """
    dense = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(dense.dtype), len(dense), [None, pa.py_buffer(dense)])


def as_numpy(array: pa.Array) -> NDArray[Any]:
    """The numbers of an array without nulls, sharing its memory; not to be written into.

    Example:
        >>> as_numpy(numbers(np.array([1, 2]))).tolist()
        [1, 2]
    """
    found: NDArray[Any] = np.from_dlpack(array)
    return found
