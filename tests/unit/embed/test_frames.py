"""Embedding a column: every row at its place, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from llama_index.core import MockEmbedding
from tests.fakes import WordEmbedding

from llama_index_presets import embed_dataframe
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding
from llama_index_presets.errors import SettingsError

TEXTS = ["a cat", None, "a dog", " ", "a cat"]


def words() -> WordEmbedding:
    return WordEmbedding(model_name="words", embedded=[])


def vector(text: str) -> np.ndarray:
    return np.float32(words().get_text_embedding(text))


def test_polars_gets_a_fixed_size_column() -> None:
    """Array(Float32, dim), null where there is no text, the other columns untouched."""
    frame = pl.DataFrame({"id": range(5), "body": TEXTS})
    found = embed_dataframe(frame, "body", embed_model=words())
    assert found.schema["embedding"] == pl.Array(pl.Float32, 64)
    assert found["embedding"].is_null().to_list() == [False, True, False, True, False]
    assert found.drop("embedding").equals(frame) and "embedding" not in frame.columns
    np.testing.assert_array_equal(found["embedding"][2].to_numpy(), vector("a dog"))


def test_pandas_keeps_its_index() -> None:
    """A typed Arrow column, aligned to the frame's own index."""
    frame = pd.DataFrame({"body": TEXTS}, index=[9, 7, 5, 3, 1])
    found = embed_dataframe(frame, "body", embed_model=words(), embedding_column="v")
    assert str(found["v"].dtype) == "fixed_size_list<element: float>[64][pyarrow]" or "[64]" in str(
        found["v"].dtype
    )
    np.testing.assert_array_equal(np.float32(found.loc[5, "v"]), vector("a dog"))
    assert found["v"].isna().tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    "frame", [pl.DataFrame({"t": []}, schema={"t": pl.String}), pl.DataFrame({"t": [None]})]
)
def test_frames_without_text_have_a_typed_column(frame: Any) -> None:
    """No row, or none with text: the column is there and typed."""
    assert embed_dataframe(frame, "t", embed_model=words()).schema["embedding"] == pl.Array(pl.Float32, 64)


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    """Behind a cache a frame that grew costs what grew."""
    inner = words()
    model = CachedEmbedding(inner, EmbeddingCache(tmp_path))
    embed_dataframe(pl.DataFrame({"t": ["a", "b"]}), "t", embed_model=model)
    embed_dataframe(pl.DataFrame({"t": ["a", "b", "c"]}), "t", embed_model=model)
    assert inner.embedded == ["a", "b", "c"]


def test_wrong_use_is_said() -> None:
    """Each mistake has a message with the way out."""
    model, frame = MockEmbedding(embed_dim=2), pl.DataFrame({"text": ["a"], "n": [1]})
    for call, message in [
        (lambda: embed_dataframe(frame, "txt", embed_model=model), "no column 'txt'. Did you mean 'text'"),
        (lambda: embed_dataframe(frame, "n", embed_model=model), "'n' holds int64; expected texts"),
        (lambda: embed_dataframe([1], "n", embed_model=model), "got list"),
        (lambda: embed_dataframe(frame.lazy(), "n", embed_model=model), "Collect a LazyFrame"),
        (
            lambda: embed_dataframe(frame, "text", embed_model=model, embedding_column="n"),
            "a column 'n' already",
        ),
    ]:
        with pytest.raises(SettingsError, match=message):
            call()
