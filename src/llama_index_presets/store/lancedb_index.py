"""Which Lance index a table gets, and when: decided from its size, built after a load and not during it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from llama_index_presets.errors import SettingsError

__all__ = [
    "INDEX_CHOICES",
    "IndexPlan",
    "candidates",
    "check_length",
    "checked_choice",
    "is_due",
    "plan_index",
    "probes",
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
    """Choose the index of a table.

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
    """Give the choice back if there is such an index.

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
