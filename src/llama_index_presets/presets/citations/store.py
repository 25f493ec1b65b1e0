"""Citations of past answers: which stretches of which chunks each rests on; ids and numbers, never a word.

Kept beside the ledger, so that ``llama-presets show-citation`` can open what an answer cited. The words come from the
store when they are shown: what was deleted since then cannot be shown any more.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import AnswerError
from llama_index_presets.files.sqlite_files import open_sqlite

__all__ = ["KEPT_QUERIES", "StoredCitation", "keep_citations", "read_citation"]

_CITATIONS_FILE: Final = "citations.sqlite"
KEPT_QUERIES: Final = 10_000
"""Questions whose citations are kept; the oldest go first. They take about 3 MB."""

_log = logging.getLogger(__name__)
_TABLE: Final = """
create table if not exists citations (
  place integer primary key autoincrement, query_id text not null, n integer not null, node_id text not null,
  spans text not null, unique (query_id, n)
)"""


@dataclass(frozen=True, slots=True)
class StoredCitation:
    """A citation as it is kept.

    Attributes:
        query_id: Of the question.
        n: Its number in the answer.
        node_id: Of the chunk that was cited.
        spans: Stretches that the answer rests on: ``node_id``, ``start`` and ``end`` in the chunk's text.
    """

    query_id: str
    n: int
    node_id: str
    spans: list[dict[str, Any]]


def keep_citations(folder: Path, query_id: str, citations: Sequence[dict[str, Any]]) -> None:
    """Keep the valid citations of an answer; a folder that cannot be written costs no answer, and is logged."""
    rows = [
        (query_id, one["n"], one["node_id"], json.dumps(one.get("spans", []), separators=(",", ":")))
        for one in citations
        if one.get("valid")
    ]
    if not rows:
        return
    path = folder / _CITATIONS_FILE
    try:
        with closing(_open(path)) as connection, connection:
            connection.executemany(
                "insert or replace into citations (query_id, n, node_id, spans) values (?, ?, ?, ?)", rows
            )
            connection.execute(
                "delete from citations where place <= (select max(place) from citations) - ?",
                (KEPT_QUERIES * 4,),
            )
    except (OSError, sqlite3.Error) as error:
        _log.warning("Citations of query %s are not kept: %s", query_id, error)


def _open(path: Path) -> sqlite3.Connection:
    # An answer waits for no disk.
    return open_sqlite(path, timeout_s=5, schema=_TABLE, pragmas=["synchronous=off"])


def read_citation(folder: Path, query_id: str, n: int) -> StoredCitation:
    """A citation that was kept.

    Args:
        folder: Of the storage.
        query_id: Of the question, or its first letters, where they name one question.
        n: Number of the citation in the answer.

    Raises:
        AnswerError: Nothing is kept under these, or the file cannot be read.
    """
    path = folder / _CITATIONS_FILE
    if not path.exists():
        raise AnswerError(f"'{folder}' keeps no citations. They are kept from the first answer that cites.")
    try:
        with closing(_open(path)) as connection:
            found = connection.execute(
                "select query_id, n, node_id, spans from citations where substr(query_id, 1, ?) = ?",
                (len(query_id), query_id),
            ).fetchall()
    except sqlite3.Error as error:
        raise AnswerError(
            f"'{path}' cannot be read ({error}). Remove it; new answers are kept again."
        ) from error
    if not query_id or not found:
        raise AnswerError(
            f"No citation of query '{query_id}' is kept; the last {KEPT_QUERIES:,} answers are. Take the query_id of "
            "a response."
        )
    if len({row[0] for row in found}) > 1:
        raise AnswerError(f"'{query_id}' begins the id of several queries. Give all of it.")
    for row in found:
        if row[1] == n:
            return StoredCitation(row[0], row[1], row[2], json.loads(row[3]))
    numbers = ", ".join(str(row[1]) for row in sorted(found, key=lambda row: row[1]))
    raise AnswerError(f"Query '{query_id}' has no citation [{n}]; it has {numbers}.")
