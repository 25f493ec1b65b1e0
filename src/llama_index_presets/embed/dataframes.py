"""Embedding of a data-frame column, Polars or pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index_presets._options import did_you_mean, strict
from llama_index_presets.errors import ModelError, SettingsError

__all__ = ["embed_dataframe"]


@strict()
def embed_dataframe(
    frame: Any, text_column: str, *, embed_model: BaseEmbedding, embedding_column: str = "embedding"
) -> Any:
    """Return a frame with one more column: the vectors of its texts.

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
            f"embed_dataframe takes a Polars or pandas DataFrame, got {type(frame).__name__}. Collect a LazyFrame, "
            "in slices where it does not fit into memory."
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


def _check_columns(columns: Sequence[str], text_column: str, embedding_column: str) -> None:
    if text_column not in columns:
        hint = did_you_mean(text_column, map(str, columns), listed="Columns")
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


def _embedded(texts: Sequence[str | None], model: BaseEmbedding) -> pa.Array:
    """Vectors of texts as an Arrow array of fixed-size lists, null where there is no text."""
    there = [place for place, text in enumerate(texts) if text and text.strip()]
    vectors = model.get_text_embedding_batch([texts[place] for place in there]) if there else []
    dim = len(vectors[0]) if vectors else _dim(model)
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
