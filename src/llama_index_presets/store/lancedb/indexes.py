"""Index policy of a Lance table: chosen by size, built after a load rather than during it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from llama_index_presets.errors import SettingsError
from llama_index_presets.store.lancedb.table import FINGERPRINT_KEY, LanceColumns
from llama_index_presets.store.move import returned

__all__ = [
    "INDEX_CHOICES",
    "IndexPlan",
    "build_if_due",
    "candidates",
    "check_length",
    "checked_choice",
    "delete_versions",
    "finish_load",
    "fold_small_commits",
    "index_text",
    "is_due",
    "optimize",
    "plan_index",
    "probes",
    "remember_fingerprint",
    "rewrite",
    "vector_index_type",
]

INDEX_CHOICES: tuple[str, ...] = ("auto", "none", "ivf_rq", "ivf_pq", "hnsw")

INDEX_FROM_ROWS = 20_000
"""Below this a scan of the table is as fast as an index and exact."""

MINIMUM_ROWS = 256
"""Product quantisation trains 256 centroids, so it needs as many rows; the other kinds have no use for fewer."""

RQ_BITS = 5
"""Bits of a dimension in an IVF_RQ index, as Lance itself chooses from its releases of September 2026 on."""

RQ_DIVISOR = 8
"""IVF_RQ takes vectors whose length this divides."""

PARTITION_ROWS = 1_500
"""Rows of an IVF partition."""

STALE_SHARE = 0.2
"""A load that leaves a larger unindexed share than this rebuilds the index instead of extending it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """Parameters of a vector index.

    Attributes:
        kind: ``"ivf_rq"`` (RaBitQ codes), ``"ivf_pq"`` (product-quantised codes) or ``"hnsw"`` (HNSW over
            scalar-quantised vectors, in IVF partitions).
        partitions: IVF partitions, >= 1.
        sub_vectors: PQ sub-vectors; divides the dimension. 0 for the other kinds.
    """

    kind: Literal["ivf_rq", "ivf_pq", "hnsw"]
    partitions: int
    sub_vectors: int = 0

    def config(self) -> Any:
        """Give the configuration that `lancedb` takes."""
        from lancedb.index import HnswSq, IvfPq, IvfRq

        if self.kind == "hnsw":
            return HnswSq(distance_type="cosine", num_partitions=self.partitions)
        if self.kind == "ivf_rq":
            return IvfRq(distance_type="cosine", num_partitions=self.partitions, num_bits=RQ_BITS)
        return IvfPq(distance_type="cosine", num_partitions=self.partitions, num_sub_vectors=self.sub_vectors)


def plan_index(choice: str, *, rows: int, dim: int) -> IndexPlan | None:
    """Index plan of a table.

    A partition holds about 1,500 rows (on 100,000 rows of MiniLM, 64 partitions found more than 316 did, and
    faster), and there are at most twice the square root of the rows. ``"auto"`` takes RaBitQ codes, which need no
    training and lose less than PQ codes (ADR 0082), and PQ where the length of the vectors is no multiple of 8.
    A PQ sub-vector covers 8 dimensions, or the nearest number that divides the dimension.

    Args:
        choice: One of `INDEX_CHOICES`.
        rows: Rows of the table.
        dim: Length of its vectors.

    Returns:
        None where a scan is better, or no index is wanted.

    Raises:
        SettingsError: Unknown choice, or ``"ivf_rq"`` for vectors that it does not take.

    Example:
        >>> plan_index("auto", rows=1_000, dim=384) is None
        True
        >>> plan_index("auto", rows=100_000, dim=384)
        IndexPlan(kind='ivf_rq', partitions=66, sub_vectors=0)
    """
    if checked_choice(choice) == "none" or rows < (INDEX_FROM_ROWS if choice == "auto" else MINIMUM_ROWS):
        return None
    if choice == "hnsw":
        return IndexPlan(kind="hnsw", partitions=max(1, rows // 1_000_000))
    check_length(choice, dim)
    if choice == "ivf_pq" or dim % RQ_DIVISOR:
        return IndexPlan(kind="ivf_pq", partitions=_partitions(rows), sub_vectors=_sub_vectors(dim))
    return IndexPlan(kind="ivf_rq", partitions=_partitions(rows))


def check_length(choice: str, dim: int) -> None:
    """Check that a kind of index takes vectors of a length.

    Raises:
        SettingsError: It does not.
    """
    if choice == "ivf_rq" and dim % RQ_DIVISOR:
        raise SettingsError(
            f"index='ivf_rq' takes vectors whose length {RQ_DIVISOR} divides, and these have {dim} numbers. "
            "Choose index='auto'."
        )


def probes(rows: int) -> int:
    """Count the IVF partitions that a query searches: a sixth of them, 20 at least.

    Example:
        >>> probes(100_000), probes(1_000_000)
        (20, 111)
    """
    return max(20, _partitions(rows) // 6)


def candidates(index_type: str | None) -> int:
    """Count the candidates, for each row wanted, whose full vectors are read to score them again.

    RaBitQ codes nearly know the order; PQ codes do not, and for HNSW it is also how widely the graph is searched.

    Args:
        index_type: As Lance names the index of the table; None where it has none, and every vector is read anyway.

    Example:
        >>> candidates("IvfRq"), candidates("IvfPq")
        (2, 8)
    """
    return 2 if index_type == "IvfRq" else 8


def _partitions(rows: int) -> int:
    return max(1, min(rows // PARTITION_ROWS, 2 * math.isqrt(rows)))


def checked_choice(choice: str) -> str:
    """Return the index choice, or refuse an unknown one.

    Raises:
        SettingsError: There is none.
    """
    if choice not in INDEX_CHOICES:
        raise SettingsError(f"index='{choice}' is not known. Choose one of: {', '.join(INDEX_CHOICES)}.")
    return choice


def is_due(*, indexed: int, unindexed: int) -> bool:
    """Whether `add` should build the index now.

    Only once the unindexed rows outnumber the indexed ones, so that all builds of a load together cost about
    twice the last one.

    Example:
        >>> is_due(indexed=0, unindexed=60_000), is_due(indexed=60_000, unindexed=10_000)
        (True, False)
    """
    return unindexed > max(50_000, indexed)


def _sub_vectors(dim: int) -> int:
    """Largest divisor of the dimension that leaves at least 8 dimensions each, else 1."""
    return next((count for count in range(max(1, dim // 8), 0, -1) if dim % count == 0), 1)


# -- maintenance: indexes, compaction, removal of old versions ------------------------------------------------


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
    """Merge fragments of small commits and drop old versions, once there are many; cheap to call.

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
    """Drop all but the newest versions; tagged ones stay."""
    dataset.cleanup_old_versions(retain_versions=KEPT_VERSIONS, error_if_tagged_old_versions=False)


def optimize(table: Any, *, keep_versions_s: float = 3600.0) -> None:
    """Compact the files, fold new rows into the indexes, drop versions older than this many seconds."""
    table.optimize(cleanup_older_than=timedelta(seconds=keep_versions_s))


def rewrite(table: Any, columns: LanceColumns, choice: str, language: str) -> None:
    """Write data files and indexes afresh without deleted rows; `delete_versions` then removes the old ones.

    Args:
        table: Locked against other writers.
        columns: Of the table.
        choice: Which vector index the store wants.
        language: Of the text index.
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


def delete_versions(table: Any, *, alone: bool) -> None:
    """Delete all versions but the current one, with their files.

    Args:
        table: Locked against other writers.
        alone: Whether no other process can be in the middle of a commit, so that files without a version may go.
    """
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
    """Store the fingerprint of a table's vectors."""
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
    """Number of rows that a vector query has to scan."""
    index = _vector_index(table)
    return int(index.num_unindexed_rows or 0) if index else rows


def _vector_index(table: Any) -> Any | None:
    return next((index for index in table.list_indices() if index.name == VECTOR_INDEX), None)
