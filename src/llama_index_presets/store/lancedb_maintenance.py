"""What a Lance table needs beside its rows: indexes, compaction, removal of old versions."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from llama_index_presets.store.lancedb_index import STALE_SHARE, is_due, plan_index
from llama_index_presets.store.lancedb_rows import FINGERPRINT_KEY, LanceColumns
from llama_index_presets.store.memory import returned

__all__ = [
    "build_if_due",
    "finish_load",
    "fold_small_commits",
    "index_text",
    "optimize",
    "purge",
    "remember_fingerprint",
    "vector_index_type",
]

VECTOR_INDEX = "vector_idx"
SMALL_FRAGMENTS = 32
"""Fragments (one a commit) beyond which small ones are put together."""

LARGE_FRAGMENT = 100_000
"""Rows from which on a fragment is left alone; Lance calls those below small."""

KEPT_VERSIONS = 8
"""Versions that stay for readers in the middle of a query; a version has some files of its own."""

TEXT_INDEX = "text_fts"
_log = logging.getLogger(__name__)


def build_if_due(table: Any, columns: LanceColumns, choice: str) -> None:
    """Build the indexes after an `add`, once enough rows have none."""
    rows = table.count_rows()
    if choice == "none" or not is_due(indexed=0, unindexed=rows):
        return
    unindexed = _unindexed(table, rows)
    if is_due(indexed=rows - unindexed, unindexed=unindexed):
        _build(table, columns, choice)


def finish_load(table: Any, columns: LanceColumns, choice: str) -> None:
    """Compact; build the vector index where it is missing or stale, extend all others."""
    rows = table.count_rows()
    if plan_index(choice, rows=rows, dim=columns.dim(table.schema)):
        if _unindexed(table, rows) > STALE_SHARE * rows:
            optimize(table)
            returned()
            _build(table, columns, choice)
            return
    else:
        _index_scalars(table, columns)
    optimize(table)
    fold_small_commits(table)


def fold_small_commits(table: Any) -> None:
    """Put the fragments of small commits together, and drop old versions, once there are many; cheap to call.

    Fragments that hold as many rows as all smaller ones together are left alone, so a row is written again only a few
    times however often the table changes. What fails here is tried again after later commits: the commit that it
    follows is on disk.
    """
    try:
        if table.stats()["fragment_stats"]["num_small_fragments"] > SMALL_FRAGMENTS:
            _fold(table.to_lance())
            table.checkout_latest()
        elif table.version % SMALL_FRAGMENTS == 0:
            _drop_old_versions(table.to_lance())
    except (RuntimeError, OSError, ValueError) as error:
        _log.warning("The table '%s' was not compacted: %s", table.name, str(error).splitlines()[0])


def _fold(dataset: Any) -> None:
    lengths = sorted(fragment.count_rows() for fragment in dataset.get_fragments())
    target = _rows_worth_folding([length for length in lengths if length < LARGE_FRAGMENT])
    if target:
        dataset.optimize.compact_files(target_rows_per_fragment=target)
        _drop_old_versions(dataset)


def _rows_worth_folding(lengths: list[int]) -> int:
    """Rows below which a fragment is to be folded; 0 where that would save few files.

    Args:
        lengths: Rows of each fragment, fewest first.

    Example:
        >>> _rows_worth_folding([2] * 33 + [1000]), _rows_worth_folding([2] * 33 + [60, 1000]), _rows_worth_folding([9])
        (66, 126, 0)
    """
    rows = folded = 0
    few = SMALL_FRAGMENTS // 2
    for folded, length in enumerate(lengths):
        if folded > few and length >= rows and len(lengths) - folded <= few:
            break
        rows += length
    else:
        folded = len(lengths)
    return min(rows, LARGE_FRAGMENT) if folded > few else 0


def _drop_old_versions(dataset: Any) -> None:
    """Drop all but the newest versions; those that somebody has tagged stay."""
    dataset.cleanup_old_versions(retain_versions=KEPT_VERSIONS, error_if_tagged_old_versions=False)


def optimize(table: Any, *, keep_versions_s: float = 3600.0) -> None:
    """Compact the files, fold new rows into the indexes, drop versions older than this many seconds."""
    table.optimize(cleanup_older_than=timedelta(seconds=keep_versions_s))


def purge(table: Any, columns: LanceColumns, choice: str, language: str, *, alone: bool) -> None:
    """Leave nothing of rows that are gone: not in data files, not in indexes, not in old versions.

    Args:
        table: Locked against other writers.
        columns: Of the table.
        choice: Which vector index the store wants.
        language: Of the text index.
        alone: Whether no other process can be in the middle of a commit, so that files without a version may go.
    """
    names = _names(table)
    for name in names:
        table.drop_index(name)
    dataset = table.to_lance()
    dataset.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
    table.checkout_latest()
    if table.count_rows():
        if VECTOR_INDEX in names:
            _build(table, columns, choice)
        elif names - {TEXT_INDEX}:
            _index_scalars(table, columns)
        if TEXT_INDEX in names:
            index_text(table, columns, language)
    table.to_lance().cleanup_old_versions(
        older_than=timedelta(0), delete_unverified=alone, error_if_tagged_old_versions=False
    )


def index_text(table: Any, columns: LanceColumns, language: str) -> None:
    """Make the text index where it is missing; rows added later are found without it."""
    if TEXT_INDEX in _names(table):
        return
    from lancedb.index import FTS

    table.create_index(columns.text, config=FTS(language=language), name=TEXT_INDEX)


def remember_fingerprint(table: Any, columns: LanceColumns, fingerprint: str) -> None:
    """Write down what made the vectors of a table."""
    table.update_field_metadata({"path": columns.vector, "metadata": {FINGERPRINT_KEY: fingerprint}})


def _build(table: Any, columns: LanceColumns, choice: str) -> None:
    plan = plan_index(choice, rows=table.count_rows(), dim=columns.dim(table.schema))
    if plan:
        table.create_index(columns.vector, config=plan.config(), name=VECTOR_INDEX, replace=True)
        returned()
        _index_scalars(table, columns)


def _index_scalars(table: Any, columns: LanceColumns) -> None:
    from lancedb.index import BTree, LabelList

    names = _names(table)
    for column, config in (("id", BTree()), (columns.doc_id, BTree()), ("labels", LabelList())):
        if f"{column}_idx" not in names:
            table.create_index(column, config=config, name=f"{column}_idx")


def _names(table: Any) -> set[str]:
    return {index.name for index in table.list_indices()}


def vector_index_type(table: Any) -> str | None:
    """Give the type of the vector index as Lance names it, such as ``"IvfRq"``; None where there is none."""
    index = _vector_index(table)
    return index.index_type if index else None


def _unindexed(table: Any, rows: int) -> int:
    """Rows that a vector query has to scan."""
    index = _vector_index(table)
    return int(index.num_unindexed_rows or 0) if index else rows


def _vector_index(table: Any) -> Any | None:
    return next((index for index in table.list_indices() if index.name == VECTOR_INDEX), None)
