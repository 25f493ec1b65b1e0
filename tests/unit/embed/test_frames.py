"""Embedding a column: every row at its place, typed, in memory and from file to file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from llama_index.core import MockEmbedding
from tests.fakes import WordEmbedding

from llama_index_presets import embed_dataframe, embed_to_file
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


@pytest.mark.parametrize("suffix", [".parquet", ".lance"])
def test_from_files_to_a_file(tmp_path: Path, suffix: str) -> None:
    """Several files, in batches smaller than each, arrive row by row in order."""
    for number in range(2):
        rows = [f"text {number} {row}" for row in range(50)]
        pl.DataFrame({"n": [number] * 50, "t": rows}).write_parquet(tmp_path / f"{number}.parquet")
    sources = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    report = embed_to_file(sources, tmp_path / f"out{suffix}", "t", embed_model=words(), batch_rows=7)
    assert (report.rows, report.embedded) == (100, 100)
    if suffix == ".parquet":
        found = pl.read_parquet(report.target)
    else:
        import lancedb

        found = pl.from_arrow(lancedb.connect(str(tmp_path)).open_table("out").to_arrow())
    assert found["t"].to_list()[57] == "text 1 7" and found["n"].to_list() == [0] * 50 + [1] * 50
    assert found.schema["embedding"] == pl.Array(pl.Float32, 64)
    np.testing.assert_array_equal(found["embedding"][57].to_numpy(), vector("text 1 7"))


def test_a_lazy_frame_is_streamed(tmp_path: Path) -> None:
    """Filters of the plan hold, and nulls stay nulls."""
    lazy = pl.LazyFrame({"t": TEXTS, "keep": [True, True, True, True, False]}).filter("keep")
    report = embed_to_file(lazy, tmp_path / "out.parquet", "t", embed_model=words())
    assert (report.rows, report.embedded) == (4, 2)
    assert pq.read_table(report.target).column("embedding").null_count == 2


def test_no_more_than_one_batch_is_embedded_at_once(tmp_path: Path) -> None:
    """Memory is bounded by the batch, whatever the row groups of the source are."""
    sizes: list[int] = []

    class Watching(WordEmbedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            sizes.append(len(texts))
            return super()._get_text_embeddings(texts)

    pl.DataFrame({"t": [str(row) for row in range(1000)]}).write_parquet(tmp_path / "in.parquet")
    model = Watching(embedded=[], embed_batch_size=2048)
    embed_to_file(tmp_path / "in.parquet", tmp_path / "o.parquet", "t", embed_model=model, batch_rows=64)
    assert max(sizes) == 64 and sum(sizes) == 1000


def test_an_interrupted_run_leaves_no_target(tmp_path: Path) -> None:
    """The file appears when it is whole; run again, the cache gives what was computed."""

    class Failing(WordEmbedding):
        left: int = 3

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return super()._get_text_embeddings(texts)

    pl.DataFrame({"t": [f"text {row}" for row in range(40)]}).write_parquet(tmp_path / "in.parquet")
    inner = Failing(model_name="failing", embedded=[])
    model = CachedEmbedding(inner, EmbeddingCache(tmp_path / "cache"), identity="failing")
    arguments: Any = {"embed_model": model, "batch_rows": 10}
    with pytest.raises(KeyboardInterrupt):
        embed_to_file(tmp_path / "in.parquet", tmp_path / "out.parquet", "t", **arguments)
    assert not (tmp_path / "out.parquet").exists()
    inner.left = 100
    embed_to_file(tmp_path / "in.parquet", tmp_path / "out.parquet", "t", **arguments)
    assert (
        sorted(inner.embedded) == sorted({*inner.embedded})
        and pq.read_table(tmp_path / "out.parquet").num_rows == 40
    )


def test_wrong_use_is_said(tmp_path: Path) -> None:
    """Each mistake has a message with the way out."""
    model, frame = MockEmbedding(embed_dim=2), pl.DataFrame({"text": ["a"], "n": [1]})
    (tmp_path / "there.parquet").write_bytes(b"no parquet")
    for call, message in [
        (lambda: embed_dataframe(frame, "txt", embed_model=model), "no column 'txt'. Did you mean 'text'"),
        (lambda: embed_dataframe(frame, "n", embed_model=model), "'n' holds int64; expected texts"),
        (lambda: embed_dataframe([1], "n", embed_model=model), "got list"),
        (lambda: embed_dataframe(frame.lazy(), "n", embed_model=model), "use embed_to_file"),
        (
            lambda: embed_dataframe(frame, "text", embed_model=model, embedding_column="n"),
            "a column 'n' already",
        ),
        (
            lambda: embed_to_file(frame, tmp_path / "a.parquet", "text", embed_model=model),
            "use embed_dataframe",
        ),
        (lambda: embed_to_file("no.parquet", tmp_path / "a.parquet", "t", embed_model=model), "no such file"),
        (
            lambda: embed_to_file(frame.lazy(), tmp_path / "a.csv", "text", embed_model=model),
            "expected .parquet",
        ),
        (
            lambda: embed_to_file(frame.lazy(), tmp_path / "there.parquet", "text", embed_model=model),
            "exists",
        ),
        (
            lambda: embed_to_file(tmp_path / "there.parquet", tmp_path / "b.parquet", "t", embed_model=model),
            "cannot be read as Parquet",
        ),
    ]:
        with pytest.raises(SettingsError, match=message):
            call()
