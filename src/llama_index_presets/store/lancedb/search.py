"""Queries on a Lance table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from numpy.typing import NDArray

from llama_index_presets.filters import predicate, render
from llama_index_presets.filters.metadata import filterable_fields
from llama_index_presets.store.base import NodeQuery
from llama_index_presets.store.lancedb.filters import READS_ROWS, InexpressibleError, LanceDialect, one_of
from llama_index_presets.store.lancedb.table import LanceColumns, read_nodes
from llama_index_presets.store.node_codec import restricting_ids
from llama_index_presets.store.query_modes import answer, empty_result
from llama_index_presets.store.vectors import checked_question

__all__ = ["MODES", "MODES_OF_QUERY_TYPE", "LanceSearch", "cosines_of", "select_where"]

SPARE_ROWS = 6
"""Rows fetched beyond top_k, so that equal scores at the edge can be put in order of id."""

SCAN_ROWS = 10_000
SCAN_BYTES = 64 * 2**20
"""A filter that leaves at most this many rows, and vectors of this size, is answered by reading these, exactly."""

MODES = frozenset(
    {
        VectorStoreQueryMode.DEFAULT,
        VectorStoreQueryMode.TEXT_SEARCH,
        VectorStoreQueryMode.SPARSE,
        VectorStoreQueryMode.HYBRID,
        VectorStoreQueryMode.MMR,
    }
)

MODES_OF_QUERY_TYPE = {
    "vector": VectorStoreQueryMode.DEFAULT,
    "fts": VectorStoreQueryMode.TEXT_SEARCH,
    "hybrid": VectorStoreQueryMode.HYBRID,
}


def select_where(
    table: Any, columns: LanceColumns, selection: NodeQuery, where: str | None = None
) -> str | None:
    """SQL that selects the rows which satisfy every condition given; None where none is given.

    A filter that Lance cannot say exactly is evaluated here, on the metadata of the rows that the other
    conditions select, and becomes a list of ids.

    Raises:
        FilterError: A filter's value does not fit its operator.
    """
    parts = [f"({where})"] if where else []
    if selection.node_ids is not None:
        parts.append(one_of("id", selection.node_ids))
    if selection.doc_ids is not None:
        parts.append(one_of(columns.doc_id, selection.doc_ids))
    if selection.filters is not None and selection.filtered:
        try:
            parts.append(render(selection.filters, LanceDialect()).sql)
        except InexpressibleError:
            so_far = " AND ".join(parts) or "true"
            parts.append(one_of("id", _matching(table, columns, selection.filters, so_far)))
    return " AND ".join(parts) or None


def cosines_of(
    table: Any, columns: LanceColumns, embedding: Sequence[float], node_ids: Sequence[str]
) -> dict[str, float]:
    """Node id -> cosine, of those nodes that are in the table."""
    question = checked_question(embedding, columns.dim(table.schema))
    if not node_ids:
        return {}
    rows = table.search().where(one_of("id", node_ids)).select(["id", columns.vector]).limit(None).to_arrow()
    cosines = np.clip(_cosines(rows[columns.vector], question), -1.0, 1.0)
    return dict(zip(rows["id"].to_pylist(), cosines.tolist(), strict=True))


def _cosines(column: pa.ChunkedArray, question: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines of vectors with a question of length 1, shape (rows,)."""
    flat = column.combine_chunks().flatten().to_numpy()
    vectors = flat.reshape(len(column), len(question)).astype(np.float64)
    cosines: NDArray[np.float64] = vectors @ question / np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return cosines


def _matching(table: Any, columns: LanceColumns, filters: MetadataFilters, where: str) -> list[str]:
    wanted = predicate(filters)
    found = table.search().where(where).select(["id", columns.doc_id, "metadata"]).limit(None).to_arrow()
    rows = zip(*(found[name].to_pylist() for name in ("id", columns.doc_id, "metadata")), strict=True)
    return [node_id for node_id, doc_id, metadata in rows if wanted(filterable_fields(metadata, doc_id))]


@dataclass(frozen=True, slots=True)
class LanceSearch:
    """One query on one table.

    Attributes:
        table: A Lance table with rows.
        columns: Its columns.
        query: What is asked.
        nprobes: IVF partitions to search.
        refine_factor: How many times the limit of candidates is scored again on full vectors.
        overfetch: Factor on the number of candidates.
        options: Keywords of the query: ``where`` is a further condition in Lance SQL.
        prepare_text: Called with the table before a text search.
    """

    table: Any
    columns: LanceColumns
    query: VectorStoreQuery
    nprobes: int
    refine_factor: int
    overfetch: int
    options: Mapping[str, Any]
    prepare_text: Callable[[Any], None]

    def run(self, mode: VectorStoreQueryMode) -> VectorStoreQueryResult:
        """Answer the query."""
        where = self._where()
        return answer(
            self.query,
            mode,
            self.options,
            nearest=lambda top_k, vectors: self._nearest(top_k, where, vectors=vectors),
            words=lambda top_k: self._text(top_k, where),
        )

    def _nearest(self, top_k: int, where: str | None, *, vectors: bool) -> VectorStoreQueryResult:
        embedding = checked_question(self.query.query_embedding, self.columns.dim(self.table.schema))
        wanted = [*self.columns.of_nodes, *([self.columns.vector] if vectors else [])]
        scan = False
        if where is not None and top_k and READS_ROWS in where:
            few = self._few(where, len(embedding))
            if few is not None:
                return self._nearest_of(few, embedding, top_k, wanted)
        elif where is not None:
            scan = self.table.count_rows(where) <= SCAN_ROWS

        def fetch(limit: int) -> pa.Table:
            search = self.table.search(embedding, vector_column_name=self.columns.vector, query_type="vector")
            search = search.distance_type("cosine").limit(limit).refine_factor(self.refine_factor)
            search = search.bypass_vector_index() if scan else search.nprobes(self.nprobes)
            if where:
                search = search.where(where, prefilter=True)
            return search.select([*wanted, "_distance"]).to_arrow()

        def score(rows: pa.Table) -> list[float]:
            return [max(-1.0, min(1.0, 1.0 - distance)) for distance in rows["_distance"].to_pylist()]

        return self._best(fetch, top_k, score)

    def _few(self, where: str, dim: int) -> pa.Table | None:
        """Ids and vectors of the rows that pass a filter; None where they are many.

        For a filter that no index answers: it is evaluated once, and no further than it must be.
        """
        most = min(SCAN_ROWS, SCAN_BYTES // (4 * dim))
        found = (
            self.table.search().where(where).select(["id", self.columns.vector]).limit(most + 1).to_arrow()
        )
        return found if len(found) <= most else None

    def _nearest_of(
        self, few: pa.Table, question: NDArray[np.float64], top_k: int, wanted: list[str]
    ) -> VectorStoreQueryResult:
        cosines = _cosines(few[self.columns.vector], question)
        edge = np.partition(cosines, -top_k)[-top_k] if top_k < len(few) else -np.inf
        near = np.flatnonzero(cosines >= edge)
        ids = dict(zip(near.tolist(), few["id"].take(near).to_pylist(), strict=True))
        best = sorted(ids, key=lambda i: (-cosines[i], ids[i]))[:top_k]
        rows = self.table.search().where(one_of("id", [ids[i] for i in best])).select(wanted).limit(None)
        nodes = {node.node_id: node for node in read_nodes(rows.to_arrow(), self.columns)}
        # A node that another process deleted in between is no longer found.
        there = [i for i in best if ids[i] in nodes]
        return VectorStoreQueryResult(
            nodes=[nodes[ids[i]] for i in there],
            similarities=[max(-1.0, min(1.0, float(cosines[i]))) for i in there],
            ids=[ids[i] for i in there],
        )

    def _text(self, top_k: int, where: str | None) -> VectorStoreQueryResult:
        self.prepare_text(self.table)

        def fetch(limit: int) -> pa.Table:
            search = self.table.search(
                self.query.query_str, query_type="fts", fts_columns=self.columns.text
            ).limit(limit)
            if where:
                search = search.where(where, prefilter=True)
            return search.select([*self.columns.of_nodes, "_score"]).to_arrow()

        return self._best(fetch, top_k, lambda rows: rows["_score"].to_pylist())

    def _best(
        self, fetch: Callable[[int], pa.Table], top_k: int, score: Callable[[pa.Table], list[float]]
    ) -> VectorStoreQueryResult:
        """Fetch until no row beyond the cut can tie with a row inside, then order by score and id."""
        if top_k == 0:
            return empty_result()
        limit = top_k * max(1, self.overfetch) + SPARE_ROWS
        while True:
            rows = fetch(limit)
            scores = score(rows)
            if len(scores) < limit or sorted(scores, reverse=True)[top_k - 1] > min(scores):
                break
            limit *= 4
        ids = rows["id"].to_pylist()
        order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))[:top_k]
        return VectorStoreQueryResult(
            nodes=read_nodes(rows.take(pa.array(order, pa.int64())), self.columns),
            similarities=[scores[i] for i in order],
            ids=[ids[i] for i in order],
        )

    def _where(self) -> str | None:
        selection = NodeQuery(
            node_ids=restricting_ids(self.query.node_ids, self._kinds(self.query.node_ids)),
            doc_ids=self.query.doc_ids,
            filters=self.query.filters,
        )
        return select_where(self.table, self.columns, selection, self.options.get("where"))

    def _kinds(self, node_ids: Sequence[str] | None) -> dict[str, str]:
        if not node_ids:
            return {}
        named = self.table.search().where(one_of("id", node_ids))
        found = named.select(["id", "kind"]).limit(None).to_arrow()
        return dict(zip(found["id"].to_pylist(), found["kind"].to_pylist(), strict=True))
