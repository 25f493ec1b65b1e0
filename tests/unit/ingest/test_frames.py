"""Rows of every kind of frame become the same documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.sources.frames import FrameColumns, frame_rows
from llama_index_presets.ingest.sources.source import sources

COLUMNS = {"id": [1, 2], "title": ["Pump", None], "body": ["It leaks.", "It runs."], "year": [2019, None]}
FRAMES: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "polars": pl.DataFrame,
    "polars lazy": lambda columns: pl.DataFrame(columns).lazy(),
    "pandas": lambda columns: pd.DataFrame(columns).astype({"year": "Int64"}),
    "arrow": pa.table,
    "arrow reader": lambda columns: pa.table(columns).to_reader(),
    "arrow batch": lambda columns: pa.table(columns).to_batches()[0],
    "duckdb": lambda columns: duckdb.connect().from_arrow(pa.table(columns)),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_gives_the_same_documents(kind: str) -> None:
    """Ids, text by the template, and the other columns as metadata, without empty ones."""
    columns = FrameColumns(template="{title}\n{body}", id="id")
    rows = list(frame_rows(FRAMES[kind](COLUMNS), columns))
    assert [row.doc_id for row in rows] == ["row-1", "row-2"]
    assert [row.text for row in rows] == ["Pump\nIt leaks.", "\nIt runs."]
    assert [dict(row.metadata) for row in rows] == [{"year": 2019}, {}]


@pytest.mark.parametrize("kind", FRAMES)
def test_sources_take_every_frame(kind: str) -> None:
    """What an engine ingests it knows by its kind."""
    found = sources(FRAMES[kind](COLUMNS), columns=FrameColumns(text=["title", "body"], id="id"))
    assert [source.doc_id for source in found] == ["row-1", "row-2"]
    assert [source.read().plain.text for source in found] == ["Pump\nIt leaks.", "It runs."]  # type: ignore[union-attr]


def test_chosen_columns_become_metadata() -> None:
    """A wide table does not fill every chunk."""
    rows = list(frame_rows(pl.DataFrame(COLUMNS), FrameColumns(text="body", metadata=["title"])))
    assert [dict(row.metadata) for row in rows] == [{"title": "Pump"}, {}]


def test_a_row_without_its_id_is_left_out_by_its_number() -> None:
    """An id of its content would make another document of it at the next change."""
    frame = pl.DataFrame({"id": ["a", None, " "], "t": ["x", "y", "z"]})
    refused = [source.refusal for source in sources(frame, columns=FrameColumns(text="t", id="id"))]
    assert refused == [
        "",
        "Row 2 has no value in the id column 'id'.",
        "Row 3 has no value in the id column 'id'.",
    ]


def test_rows_that_share_an_id_and_differ_are_refused() -> None:
    """Storing one would delete the other; twice the same row is one document."""
    frame = pl.DataFrame({"id": ["a", "a", "b", "b"], "t": ["x", "y", "z", "z"]})
    first, second = sources(frame, columns=FrameColumns(text="t", id="id"))
    assert first.doc_id == "row-a" and "2 documents have the id 'row-a' and differ" in first.refusal
    assert second.doc_id == "row-b" and not second.refusal


def test_braces_and_odd_names_in_a_template() -> None:
    """Doubled braces are braces; a column's name may have spaces and dots, and its value is not a template."""
    frame = pl.DataFrame({"unit price": [3], "a.b": ["{body}"]})
    (row,) = frame_rows(frame, FrameColumns(template="{{x}} {unit price} {a.b}"))
    assert row.text == "{x} 3 {body}"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (FrameColumns(template="{titel}"), "no column 'titel'. Did you mean 'title'?"),
        (FrameColumns(template="text"), "The template 'text' names no column. Put one in braces: '{id}'."),
        (FrameColumns(template="{body}", text="body"), "Both text_column and template"),
        (FrameColumns(text="body", metadata=["yaer"]), "no column 'yaer'. Did you mean 'year'?"),
        (FrameColumns(), "needs text_column. Its columns: id, title, body, year"),
    ],
)
def test_wrong_columns_are_named(columns: FrameColumns, message: str) -> None:
    """The error says what the frame has."""
    with pytest.raises(IngestError, match=message.replace("?", r"\?").replace("{", r"\{")):
        list(frame_rows(pl.DataFrame(COLUMNS), columns))


def test_two_columns_of_one_name_are_refused() -> None:
    """Which of them would be the text is anyone's guess."""
    frame = pd.DataFrame([["x", "y"]], columns=["t", "t"])
    with pytest.raises(IngestError, match="more than one column 't'"):
        list(frame_rows(frame, FrameColumns(text="t")))


def test_an_id_is_the_same_where_another_row_lacks_its_own() -> None:
    """pandas makes floats of whole numbers in a column with a gap: 7.0 would be a second document beside 7."""
    columns = FrameColumns(text="text", id="id")
    rows = {"text": ["The pump is red.", "The lamp is green."]}
    full = pd.DataFrame({**rows, "id": [7, 8]})
    gap = pd.DataFrame({**rows, "id": [7, None]})
    measures = pd.DataFrame({**rows, "id": [7.5, None]})
    found = [next(iter(frame_rows(frame, columns))).doc_id for frame in (full, gap, measures)]
    assert found == ["row-7", "row-7", "row-7.5"]
