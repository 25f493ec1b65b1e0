"""Embedding of data-frame columns: Polars or pandas in memory, or from file to file beyond memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.utils import get_tqdm_iterable

from llama_index_presets._extras import require
from llama_index_presets._options import strict
from llama_index_presets.errors import ModelError, SettingsError

__all__ = ["EmbeddedRows", "embed_dataframe", "embed_to_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedRows:
    """What `embed_to_file` wrote.

    Attributes:
        rows: Rows of the target.
        embedded: Those with a vector; the others have no text.
        target: Where they are.
    """

    rows: int
    embedded: int
    target: Path


@strict()
def embed_dataframe(
    frame: Any, text_column: str, *, embed_model: BaseEmbedding, embedding_column: str = "embedding"
) -> Any:
    """Give a frame with one more column: the vectors of its texts.

    Args:
        frame: A Polars or pandas frame; left as it is.
        text_column: Column of texts. A missing or blank text gets no vector (null).
        embed_model: Any LlamaIndex embedding; behind a `CachedEmbedding`, a second run computes only new texts.
        embedding_column: Name of the new column.

    Returns:
        A frame of the same kind: in Polars an ``Array(Float32, dim)``, in pandas an Arrow fixed-size list of float32.

    Raises:
        SettingsError: Not such a frame, no such column, not texts, or the new column exists already.

    Example:
        >>> import polars
        >>> from llama_index.core import MockEmbedding
        >>> frame = polars.DataFrame({"text": ["a", None]})
        >>> embed_dataframe(frame, "text", embed_model=MockEmbedding(embed_dim=2))["embedding"].to_list()
        [[0.5, 0.5], None]
    """
    library = type(frame).__module__.partition(".")[0]
    if library not in ("polars", "pandas") or type(frame).__name__ != "DataFrame":
        raise SettingsError(
            f"embed_dataframe takes a Polars or pandas DataFrame, got {type(frame).__name__}. For a LazyFrame or "
            "files use embed_to_file."
        )
    _check_columns(list(frame.columns), text_column, embedding_column)
    texts = _as_texts(pa.array(frame[text_column], from_pandas=library == "pandas"), text_column)
    vectors = _embedded(texts, embed_model)
    if library == "polars":
        import polars

        return frame.with_columns(polars.Series(embedding_column, vectors))
    import pandas

    column = pandas.Series(pandas.arrays.ArrowExtensionArray(vectors), index=frame.index)
    return frame.assign(**{embedding_column: column})


@strict()
def embed_to_file(
    source: Any,
    target: str | Path,
    text_column: str,
    *,
    embed_model: BaseEmbedding,
    embedding_column: str = "embedding",
    batch_rows: int = 2_048,
    overwrite: bool = False,
    show_progress: bool = False,
) -> EmbeddedRows:
    """Embed a column of more rows than fit into memory: read, embedded and written batch by batch.

    The target appears when it is complete. A run that was killed starts from the first row again; with a
    `CachedEmbedding` it takes what was computed from the cache.

    Args:
        source: A Parquet file, a folder of them, several, or a Polars `LazyFrame` (which passes through a temporary
            Parquet file).
        target: A ``.parquet`` file, or a ``.lance`` folder: a LanceDB table of that name.
        text_column: Column of texts. A missing or blank text gets no vector (null).
        embed_model: Any LlamaIndex embedding.
        embedding_column: Name of the new column, a fixed-size list of float32.
        batch_rows: Rows in memory at once, >= 1.
        overwrite: Whether a target that exists is replaced.
        show_progress: Whether a bar is drawn on standard error.

    Raises:
        SettingsError: No such source or column, not texts, a target of another kind or one that exists.

    Example:
        >>> import polars, tempfile
        >>> from llama_index.core import MockEmbedding
        >>> lazy = polars.LazyFrame({"text": ["a", "b"]})
        >>> embed_to_file(lazy, tempfile.mkdtemp() + "/v.parquet", "text", embed_model=MockEmbedding(embed_dim=2)).rows
        2
    """
    path = Path(target)
    if path.suffix not in _WRITERS:
        raise SettingsError(f"The target '{path}' ends in '{path.suffix}'; expected {' or '.join(_WRITERS)}.")
    if path.exists() and not overwrite:
        raise SettingsError(f"The target '{path}' exists. Choose another one, or give overwrite=True.")
    if batch_rows < 1:
        raise SettingsError(f"batch_rows is {batch_rows}; it must be at least 1.")
    with _dataset(source) as rows:
        _check_columns(rows.schema.names, text_column, embedding_column)
        counts = {"rows": 0, "embedded": 0}
        column = pa.field(embedding_column, pa.list_(pa.float32(), _dim(embed_model)))

        def batches() -> Iterator[pa.RecordBatch]:
            total = -(-rows.count_rows() // batch_rows)
            found = rows.to_batches(batch_size=batch_rows, batch_readahead=1, fragment_readahead=1)
            for batch in get_tqdm_iterable(found, show_progress, f"Embedding (about {total} batches)"):
                texts = _as_texts(batch.column(text_column), text_column)
                vectors = _embedded(texts, embed_model, dim=column.type.list_size)
                counts["rows"] += len(texts)
                counts["embedded"] += len(texts) - vectors.null_count
                yield batch.append_column(column, vectors)

        path.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[path.suffix](path, rows.schema.append(column), batches())
    return EmbeddedRows(target=path, **counts)


# -- writers ------------------------------------------------------------------------------------------------------


def _write_parquet(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    from pyarrow import parquet

    partial = path.with_name(path.name + ".partial")
    with parquet.ParquetWriter(partial, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    partial.replace(path)


def _write_lance(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    database = require("lancedb", extra="lancedb").connect(str(path.parent))
    # A version becomes visible when its last batch is written.
    database.create_table(
        path.stem, data=pa.RecordBatchReader.from_batches(schema, batches), mode="overwrite"
    )


_WRITERS: dict[str, Callable[[Path, pa.Schema, Iterable[pa.RecordBatch]], None]] = {
    ".parquet": _write_parquet,
    ".lance": _write_lance,
}


# -- texts and vectors --------------------------------------------------------------------------------------------


@contextmanager
def _dataset(source: Any) -> Iterator[Any]:
    from pyarrow import dataset

    if type(source).__name__ == "LazyFrame":
        with tempfile.TemporaryDirectory() as folder:
            source.sink_parquet(Path(folder) / "rows.parquet")
            yield dataset.dataset(folder, format="parquet")
        return
    paths = [source] if isinstance(source, str | Path) else source
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str | Path) for path in paths):
        raise SettingsError(
            f"embed_to_file takes Parquet files or a Polars LazyFrame, got {type(source).__name__}. For a frame in "
            "memory use embed_dataframe."
        )
    missing = [str(path) for path in paths if not Path(path).exists()]
    if missing or not paths:
        raise SettingsError(f"There is no such file: {', '.join(missing) or 'none was given'}.")
    try:
        yield dataset.dataset([dataset.dataset(str(path), format="parquet") for path in paths])
    except pa.ArrowInvalid as error:
        raise SettingsError(
            f"The source cannot be read as Parquet ({str(error).splitlines()[0]})."
        ) from error


def _check_columns(columns: Sequence[str], text_column: str, embedding_column: str) -> None:
    if text_column not in columns:
        nearest = get_close_matches(text_column, columns, n=1)
        hint = f"Did you mean '{nearest[0]}'?" if nearest else f"Columns: {', '.join(map(str, columns))}."
        raise SettingsError(f"There is no column '{text_column}'. {hint}")
    if embedding_column in columns:
        raise SettingsError(
            f"There is a column '{embedding_column}' already. Drop it, or name another embedding_column."
        )


def _as_texts(column: Any, name: str) -> list[str | None]:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not texts and not pa.types.is_null(kind):
        raise SettingsError(f"The column '{name}' holds {kind}; expected texts.")
    return column.to_pylist()  # type: ignore[no-any-return]


def _embedded(texts: Sequence[str | None], model: BaseEmbedding, dim: int | None = None) -> pa.Array:
    """Vectors of texts as an Arrow array of fixed-size lists, null where there is no text."""
    there = [place for place, text in enumerate(texts) if text and text.strip()]
    vectors = model.get_text_embedding_batch([texts[place] for place in there]) if there else []
    dim = dim or (len(vectors[0]) if vectors else _dim(model))
    if any(len(vector) != dim for vector in vectors):
        raise ModelError(f"'{model.model_name}' returned vectors that are not all of {dim} numbers.")
    values, missing = np.zeros((len(texts), dim), dtype=np.float32), np.ones(len(texts), dtype=bool)
    if vectors:
        values[there] = np.asarray(vectors, dtype=np.float32)
        missing[there] = False
    return pa.FixedSizeListArray.from_arrays(values.ravel(), dim, mask=pa.array(missing))


def _dim(model: BaseEmbedding) -> int:
    """Length of a vector; of a model that does not say, found by embedding a word."""
    dim = getattr(model, "dim", None) or getattr(model, "dimensions", None)
    return int(dim) if isinstance(dim, int) else len(model.get_text_embedding("dimension"))
