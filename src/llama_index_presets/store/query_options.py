"""Keyword options of `query` and `add`: the same for every store, each checked, none dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery, VectorStoreQueryMode

from llama_index_presets._options import refuse_unknown
from llama_index_presets._utf8 import has_utf8, printable
from llama_index_presets.errors import QueryError
from llama_index_presets.filters.values import check

__all__ = [
    "ADD_OPTIONS",
    "MMR_OPTIONS",
    "SELECTING",
    "Diversity",
    "check_options",
    "check_texts",
    "diversity",
]

ADD_OPTIONS = ("bulk",)
"""Keywords of `add`: ``bulk=True`` leaves building indexes to `finish_load`, where a store has indexes to build."""

SELECTING = ("node_ids", "filters")
"""Arguments of `get_nodes` and `delete_nodes`."""

MMR_OPTIONS = ("mmr_threshold", "mmr_prefetch_factor", "mmr_prefetch_k")
"""Keywords of a query in mode MMR, as in `VectorIndexRetriever`'s ``vector_store_kwargs``."""

_THRESHOLD, _FACTOR = 0.5, 4.0


def check_options(
    store: str, query: VectorStoreQuery, options: Mapping[str, Any], known: Sequence[str] = ()
) -> None:
    """Refuse keywords of a query that would have no effect.

    Args:
        store: Class of the store, for the message.
        query: What is asked.
        options: The keywords.
        known: Those that this store takes beside `MMR_OPTIONS`.

    Raises:
        UnknownOptionError: A keyword is not known; names the nearest.
        QueryError: An option of MMR with another mode, a value out of range, or a text without a UTF-8 form.
    """
    refuse_unknown(f"{store}.query", options, [*MMR_OPTIONS, *known])
    idle = [name for name in MMR_OPTIONS if options.get(name) is not None]
    if idle and query.mode is not VectorStoreQueryMode.MMR:
        raise QueryError(
            f"{', '.join(idle)} has no effect in mode '{query.mode.value}'. Ask in mode 'mmr' "
            "(vector_store_query_mode='mmr'), or leave it out."
        )
    if query.mode is VectorStoreQueryMode.MMR:
        diversity(query, options)
    check_texts(query)


def check_texts(query: VectorStoreQuery) -> None:
    """Refuse a query whose ids or filters, or whose words where its mode reads them, have no UTF-8 form.

    Raises:
        QueryError: Names the field and shows the text, escaped.
        FilterError: The same of a filter, or its value does not fit its operator.
    """
    reads_words = query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
    texts = {
        "query_str": [query.query_str or ""] if reads_words else [],
        "node_ids": query.node_ids or [],
        "doc_ids": query.doc_ids or [],
    }
    _check_filters(query.filters)
    for name, values in texts.items():
        bad = [value for value in values if not has_utf8(value)]
        if bad:
            raise QueryError(
                f"{name} of the query has '{printable(bad[0])}', with a lone surrogate, which has no UTF-8 form. "
                "Nothing in a store can match it: leave it out, or repair the text."
            )


def _check_filters(filters: MetadataFilters | None) -> None:
    for part in filters.filters if filters is not None else ():
        if isinstance(part, MetadataFilters):
            _check_filters(part)
        else:
            check(part)


@dataclass(frozen=True, slots=True)
class Diversity:
    """Options of an MMR query.

    Attributes:
        threshold: From 0 (only unlike each other) to 1 (only like the question).
        candidates: How many of the nearest nodes it chooses from.
    """

    threshold: float
    candidates: int


def diversity(query: VectorStoreQuery, options: Mapping[str, Any]) -> Diversity:
    """Read the options of MMR; the query's own ``mmr_threshold`` comes first.

    Args:
        query: ``similarity_top_k`` nodes are chosen.
        options: ``mmr_threshold``, 0.5 by default; ``mmr_prefetch_factor`` times top_k candidates, 4 by default, or
            ``mmr_prefetch_k`` candidates; never fewer than top_k.

    Raises:
        QueryError: A value is out of range, or both ways to count the candidates are given.

    Example:
        >>> diversity(VectorStoreQuery(similarity_top_k=3), {"mmr_threshold": 0.2, "mmr_prefetch_factor": 2})
        Diversity(threshold=0.2, candidates=6)
    """
    factor, candidates = options.get("mmr_prefetch_factor"), options.get("mmr_prefetch_k")
    if factor is not None and candidates is not None:
        raise QueryError(
            "mmr_prefetch_factor and mmr_prefetch_k both say how many candidates; give one of them."
        )
    threshold = options.get("mmr_threshold") if query.mmr_threshold is None else query.mmr_threshold
    threshold = _THRESHOLD if threshold is None else threshold
    if not 0 <= threshold <= 1:
        raise QueryError(f"mmr_threshold is {threshold}; it must be from 0 (diverse) to 1 (relevant).")
    for name, value in (("mmr_prefetch_factor", factor), ("mmr_prefetch_k", candidates)):
        if value is not None and not 0 < value < 2**31:
            raise QueryError(f"{name} is {value}; it must be above 0.")
    top_k = query.similarity_top_k
    wanted = candidates if candidates is not None else top_k * (_FACTOR if factor is None else factor)
    return Diversity(float(threshold), max(top_k, int(wanted)))
