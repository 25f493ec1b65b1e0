"""Quality of answers as they are given: how each question ended, and what its reader said of it. Ids and numbers alone.

Kept beside the ledger, one row a question, the newest 100,000: abstentions, sentences that no passage supports,
searches that lost a leg, answers from the cache, and thumbs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import AnswerError
from llama_index_presets.files.sqlite_files import open_sqlite

__all__ = ["QUALITY_FILE", "Quality", "keep_outcome", "owner_of", "quality", "rate"]

QUALITY_FILE: Final = "quality.sqlite"
_KEPT: Final = 100_000
_log = logging.getLogger(__name__)
_TABLE: Final = """
create table if not exists outcomes (
  place integer primary key autoincrement, query_id text not null unique, at real not null, owner text not null,
  tenant text not null, outcome text not null, sentences integer not null, unsupported integer not null,
  failed_legs integer not null, cached integer not null, thumb integer not null default 0
)"""
_SUMS: Final = """
    select count(*), coalesce(sum(outcome = 'abstained'), 0), coalesce(sum(outcome = 'failed'), 0),
      coalesce(sum(sentences), 0), coalesce(sum(unsupported), 0), coalesce(sum(failed_legs > 0), 0),
      coalesce(sum(cached), 0), coalesce(sum(thumb > 0), 0), coalesce(sum(thumb < 0), 0)
    from outcomes where at >= ? and at < ? and (? is null or tenant = ?)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Quality of the answers of a period.

    Attributes:
        questions: How many were asked.
        abstained: Of these, answered with "I don't know".
        failed: Of these, ended by an error.
        sentences: Sentences of the answers that were checked against what they cite.
        unsupported: Of these, supported by no passage.
        failed_legs: Questions whose search lost a leg.
        cached: Answers of the answer cache.
        up: Answers that their reader found good.
        down: Answers that their reader found bad.
    """

    questions: int
    abstained: int
    failed: int
    sentences: int
    unsupported: int
    failed_legs: int
    cached: int
    up: int
    down: int

    def to_dict(self) -> dict[str, int]:
        """As JSON values."""
        return asdict(self)


def owner_of(*names: object) -> str:
    """Whose question it was, as a digest: tenant, user, and what the user may see."""
    return hashlib.sha256(json.dumps(names, default=sorted).encode()).hexdigest()


def keep_outcome(
    folder: Path, query_id: str, *, owner: str, tenant: str, outcome: str, metadata: Mapping[str, Any]
) -> None:
    """Keep how a question ended; a folder that cannot be written costs no answer, and is logged.

    Args:
        folder: Of the storage.
        query_id: Of the question.
        owner: Who may say what it was worth, see `owner_of`.
        tenant: Whose engine, or empty.
        outcome: ``"known"``, ``"abstained"``, ``"failed"`` or ``"abandoned"``.
        metadata: Of the response.
    """
    sentences = [one for one in metadata.get("sentences") or () if one.get("supported") is not None]
    row = (
        query_id, time.time(), owner, tenant, outcome, len(sentences),
        sum(not one["supported"] for one in sentences), len(metadata.get("failed_legs") or ()),
        "cached" in metadata,
    )  # fmt: skip
    try:
        with closing(_open(folder, timeout_s=1)) as connection, connection:  # an answer waits for it
            connection.execute(
                "insert or ignore into outcomes (query_id, at, owner, tenant, outcome, sentences, unsupported, "
                "failed_legs, cached) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            connection.execute(
                "delete from outcomes where place <= (select max(place) from outcomes) - ?", (_KEPT,)
            )
    except (OSError, sqlite3.Error, UnicodeEncodeError) as error:
        _log.warning("How query %s ended is not kept: %s", query_id, error)


def _open(folder: Path, *, timeout_s: float = 5) -> sqlite3.Connection:
    # An answer waits for no disk.
    return open_sqlite(folder / QUALITY_FILE, timeout_s=timeout_s, schema=_TABLE, pragmas=["synchronous=off"])


def rate(folder: Path, query_id: str, *, owner: str, up: bool) -> None:
    """Keep what the reader of an answer found; the last word counts.

    Raises:
        AnswerError: No such question of this owner is kept, or the file cannot be written.
    """
    try:
        with closing(_open(folder)) as connection, connection:
            found = connection.execute(
                "update outcomes set thumb = ? where query_id = ? and owner = ?",
                (1 if up else -1, query_id, owner),
            ).rowcount
    except UnicodeEncodeError:  # half a character is no id of ours
        found = 0
    except (OSError, sqlite3.Error) as error:
        raise AnswerError(f"Feedback cannot be kept ({error}). Check the storage folder.") from error
    if not found:
        raise AnswerError(
            f"No query {query_id!r} of yours is kept; the last {_KEPT:,} are. Take the query_id of a response."
        )


def quality(folder: Path, *, since: float, until: float | None = None, tenant: str | None = None) -> Quality:
    """Sum up a period.

    Args:
        folder: Of the storage.
        since: Its start, in seconds since 1970.
        until: Its end; None means now.
        tenant: Only this tenant's questions; None means all.

    Raises:
        AnswerError: The file cannot be read.
    """
    path = folder / QUALITY_FILE
    if not path.exists():
        return Quality(**dict.fromkeys(Quality.__dataclass_fields__, 0))
    try:
        with closing(_open(folder)) as connection:
            end = time.time() + 1 if until is None else until
            row = connection.execute(_SUMS, (since, end, tenant, tenant)).fetchone()
    except (OSError, sqlite3.Error) as error:
        raise AnswerError(
            f"'{path}' cannot be read ({error}). Remove it; new answers are counted again."
        ) from error
    return Quality(**dict(zip(Quality.__dataclass_fields__, row, strict=True)))
