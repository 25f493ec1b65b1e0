"""Rows of data frames as documents: Polars, pandas, Arrow and DuckDB, several text columns by a template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index_presets._options import did_you_mean
from llama_index_presets.errors import IngestError
from llama_index_presets.text.digests import json_digest

__all__ = ["NO_COLUMNS", "FrameColumns", "Row", "frame_rows", "is_frame"]

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_BATCH = 4096
_LIBRARIES = ("polars", "pandas", "pyarrow", "duckdb", "_duckdb")
_KINDS = ("DataFrame", "LazyFrame", "Table", "RecordBatch", "RecordBatchReader", "DuckDBPyRelation")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameColumns:
    """Which columns of a frame become what.

    Attributes:
        text: Column of the text, or several, which are joined by line breaks.
        template: Text of a row, with columns in braces, ``"{title}\\n{body}"``, in place of `text`; ``{{`` is a
            brace.
        id: Column with a unique id; None makes one of the row's content.
        metadata: Columns that become metadata; None takes all that are neither text nor id.
    """

    text: str | Sequence[str] | None = None
    template: str | None = None
    id: str | None = None
    metadata: Sequence[str] | None = None

    def texts(self, columns: Sequence[str]) -> list[str]:
        """Columns that make the text.

        Raises:
            IngestError: None are named, both ways are, or the template names no column.
        """
        if self.text is not None and self.template is not None:
            raise IngestError("Both text_column and template say what the text is. Give one of them.")
        if self.template is not None:
            named = [name for match in _FIELD.finditer(self.template) if (name := match[1])]
            if not named:
                raise IngestError(
                    f"The template {self.template!r} names no column. Put one in braces: '{{{columns[0]}}}'."
                )
            return list(dict.fromkeys(named))
        if not self.text:
            raise IngestError(f"A data frame needs text_column. Its columns: {', '.join(columns)}.")
        return [self.text] if isinstance(self.text, str) else list(dict.fromkeys(self.text))

    def render(self, row: Mapping[str, Any], names: Sequence[str]) -> str:
        """Text of a row; empty where all of its columns are."""
        values = {name: "" if row[name] is None else str(row[name]) for name in names}
        if not any(value.strip() for value in values.values()):
            return ""
        if self.template is None:
            return "\n".join(value for value in values.values() if value.strip())
        return _FIELD.sub(lambda match: values[match[1]] if match[1] else match[0][0], self.template)


NO_COLUMNS = FrameColumns()
"""What is named where no frame is given."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        doc_id: Its id, such as ``row-17``.
        text: Its text.
        metadata: The other columns, without empty ones.
        problem: Why it is left out; empty for a good one.
    """

    doc_id: str
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def is_frame(data: Any) -> bool:
    """Whether an object is a Polars or pandas frame, an Arrow table, or a DuckDB relation."""
    return any(
        kind.__module__.partition(".")[0] in _LIBRARIES and kind.__name__ in _KINDS
        for kind in type(data).__mro__
    )


def frame_rows(frame: Any, columns: FrameColumns) -> Iterator[Row]:
    """Rows of a frame, in its order. An Arrow reader or a DuckDB relation is read in batches.

    Raises:
        IngestError: A column is unknown, named twice, or none is named for the text.
    """
    if hasattr(frame, "collect"):  # a Polars LazyFrame
        frame = frame.collect()
    names = _column_names(frame)
    texts = columns.texts(names)
    wanted = [*texts, *([columns.id] if columns.id else []), *(columns.metadata or ())]
    for name in wanted:
        _check_column(name, names)
    kept = [name for name in names if name not in {*texts, columns.id}]
    if columns.metadata is not None:
        kept = list(dict.fromkeys(columns.metadata))
    whole = columns.id if columns.id is not None and _is_whole_with_gaps(frame, columns.id) else None
    for number, row in enumerate(_records(frame), start=1):
        if whole is not None and row[whole] is not None:
            row[whole] = int(row[whole])
        try:
            yield _row(row, number, columns, texts, kept)
        except Exception as error:  # a cell may hold any object
            yield Row(f"row-{number}", problem=f"The row cannot be read ({type(error).__name__}: {error}).")


def _row(
    row: Mapping[str, Any], number: int, columns: FrameColumns, texts: Sequence[str], kept: Sequence[str]
) -> Row:
    text = columns.render(row, texts)
    metadata = {name: _plain_value(row[name]) for name in kept if row[name] is not None}
    if columns.id is None:
        return Row(f"row-{json_digest(text, metadata)[:32]}", text, metadata)
    given = row[columns.id]
    if given is None or not str(given).strip():
        return Row(
            f"row-number-{number}", problem=f"Row {number} has no value in the id column '{columns.id}'."
        )
    return Row(f"row-{given}", text, metadata)


def _column_names(frame: Any) -> list[str]:
    """Names of the columns, each once.

    Raises:
        IngestError: Two have the same name.
    """
    if hasattr(frame, "schema") and type(frame).__module__.startswith("pyarrow"):
        names = [str(name) for name in frame.schema.names]
    else:
        names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise IngestError(f"The data frame has more than one column '{twice[0]}'. Rename one of them.")
    return names


def _records(frame: Any) -> Iterator[dict[str, Any]]:
    if type(frame).__module__.startswith("polars"):
        yield from frame.iter_rows(named=True)
    elif hasattr(frame, "isna"):
        yield from _pandas_records(frame)
    else:
        for batch in _arrow_batches(frame):
            yield from batch.to_pylist()


def _arrow_batches(frame: Any) -> Iterable[Any]:
    if hasattr(frame, "fetch_arrow_reader"):  # a DuckDB relation, which runs now
        return _all_of(frame.fetch_arrow_reader(_BATCH))
    if hasattr(frame, "to_batches"):
        return list(frame.to_batches(_BATCH))
    return _all_of(frame) if hasattr(frame, "read_next_batch") else [frame]


def _all_of(reader: Any) -> Iterator[Any]:
    yield from reader


def _pandas_records(frame: Any) -> Iterator[dict[str, Any]]:
    missing = frame.isna()
    for place, row in enumerate(frame.to_dict(orient="records")):
        yield {
            str(key): None if missing.iloc[place, at] else value
            for at, (key, value) in enumerate(row.items())
        }


def _is_whole_with_gaps(frame: Any, column: str) -> bool:
    """Whether pandas made floats of whole numbers, as it does where one is missing: the id is 7, not 7.0."""
    if not hasattr(frame, "isna"):
        return False
    values = frame.iloc[:, [str(name) for name in frame.columns].index(column)]
    there = values.dropna()
    return values.dtype.kind == "f" and len(there) < len(values) and bool((there % 1 == 0).all())


def _check_column(column: str, columns: Sequence[str]) -> None:
    if column not in columns:
        hint = did_you_mean(column, columns, listed="Its columns")
        raise IngestError(f"The data frame has no column '{column}'. {hint}")


def _plain_value(value: Any) -> Any:
    """Metadata values are JSON: numpy scalars become Python's, dates become ISO text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, bool | int | float | str | list) else str(value)
