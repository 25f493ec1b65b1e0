"""Arrow arrays made from buffers are those that pyarrow would have made."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_presets.store.duckdb.table import as_numpy, numbers, strings

TEXTS = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])))


@given(TEXTS)
def test_strings_are_those_of_pyarrow(values: list[str | None]) -> None:
    """Any text, with and without nulls, valid in every buffer."""
    made = strings(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.large_string()))


def test_a_lone_surrogate_has_no_arrow_form() -> None:
    """It is refused, not replaced."""
    with pytest.raises(UnicodeEncodeError):
        strings(["fine", "\ud800"])


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.intp, np.float32])
def test_numbers_go_there_and_back(dtype: type) -> None:
    """Also those that do not lie in a row."""
    values = np.arange(12, dtype=dtype)[::3]
    made = numbers(values)
    made.validate(full=True)
    assert made.equals(pa.array(values))
    assert as_numpy(made).tolist() == values.tolist() and as_numpy(made).dtype == dtype
    assert as_numpy(made.slice(1, 2)).tolist() == values[1:3].tolist()
