"""Delimited rows under a header line: a paragraph a row, each cell with the name of its column."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from llama_index_presets.ingest.clean import without_controls
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file

__all__ = ["plain_from_rows", "read_csv"]


def read_csv(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Rows of a csv or tsv file."""
    decoded = read_text_file(path, limit)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    return decoded.of(plain_from_rows(decoded.text, limit, delimiter=delimiter)), {}


def plain_from_rows(text: str, limit: SizeLimit = DEFAULT_LIMIT, *, delimiter: str = ",") -> PlainText:
    """Delimited rows under a header line: a paragraph a row, ``column: value; …``.

    Example:
        >>> plain_from_rows("name,age\\nAda,36\\n").text
        'name: Ada; age: 36'
    """
    rows = csv.DictReader(
        io.StringIO(without_controls(text)), delimiter=delimiter, restkey="more", restval=""
    )
    return PlainText("\n\n".join(limit.texts(map(_row_text, rows))))


def _row_text(row: dict[str | Any, str | Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in row.items() if value)
