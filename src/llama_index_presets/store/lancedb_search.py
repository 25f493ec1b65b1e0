"""Queries on a Lance table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets.errors import QueryError
from llama_index_presets.filters import predicate, render
from llama_index_presets.store.lancedb_filters import InexpressibleError, LanceDialect, one_of
from llama_index_presets.store.lancedb_rows import LanceColumns, filterable, read_nodes
from llama_index_presets.store.rows import Row, restricting_ids

__all__ = ["LanceSearch", "select_where"]

SPARE_ROWS = 16
"""Rows fetched beyond top_k, so that equal scores at the edge can be put in order of id."""

_NEAREST = VectorStoreQueryMode.DEFAULT
_MODES_OF_QUERY_TYPE = {
    "vector": VectorStoreQueryMode.DEFAULT,
    "fts": VectorStoreQueryMode.TEXT_SEARCH,
    "hybrid": VectorStoreQueryMode.HYBRID,
}


def select_where(
    table: Any,
    columns: LanceColumns,
    *,
    node_ids: Sequence[str] | None = None,
    doc_ids: Sequence[str] | None = None,
    filters: MetadataFilters | None = None,
    where: str | None = None,
) -> str | None:
    """SQL that selects the rows which satisfy every condition given; None where none is given.

    A filter that Lance cannot say exactly is evaluated here, on the metadata of the rows that the other
    conditions select, and becomes a list of ids.

    Raises:
        FilterError: A filter's value does not fit its operator.
    """
    parts = [f"({where})"] if where else []
    if node_ids is not None:
        parts.append(one_of("id", node_ids))
    if doc_ids is not None:
        parts.append(one_of(columns.doc_id, doc_ids))
    if filters is not None and filters.filters:
        try:
            parts.append(render(filters, LanceDialect()).sql)
        except InexpressibleError:
            parts.append(one_of("id", _matching(table, columns, filters, " AND ".join(parts) or "true")))
    return " AND ".join(parts) or None


def _matching(table: Any, columns: LanceColumns, filters: MetadataFilters, where: str) -> list[str]:
    wanted = predicate(filters)
    found = table.search().where(where).select(["id", columns.doc_id, "metadata"]).limit(None).to_arrow()
    rows = zip(*(found[name].to_pylist() for name in ("id", columns.doc_id, "metadata")), strict=True)
    return [
        node_id
        for node_id, doc_id, metadata in rows
        if wanted(filterable(Row(node_id, doc_id, None, metadata, "", "")))
    ]


@dataclass(frozen=True, slots=True)
class LanceSearch:
    """One query on one table.

    Attributes:
        table: A Lance table with rows.
        columns: Its columns.
        query: What is asked.
        nprobes: IVF partitions to search.
        refine_factor: How many times top_k candidates are scored again on their full vectors; None: our own
            choice.
        overfetch: Factor on the number of candidates.
        where: A further condition in Lance SQL.
        prepare_text: Called with the table before a text search.
    """

    table: Any
    columns: LanceColumns
    query: VectorStoreQuery
    nprobes: int
    refine_factor: int | None
    overfetch: int
    where: str | None
    prepare_text: Callable[[Any], None]

    def run(self, query_type: str) -> VectorStoreQueryResult:
        """Answer the query; `query_type` is the official adapter's name of the default mode."""
        mode = self.query.mode
        if mode == _NEAREST:
            mode = _MODES_OF_QUERY_TYPE.get(query_type, mode)
        legs = {
            VectorStoreQueryMode.DEFAULT: self._nearest,
            VectorStoreQueryMode.TEXT_SEARCH: self._text,
            VectorStoreQueryMode.SPARSE: self._text,
        }
        if mode not in legs:
            raise QueryError(
                f"LanceDBVectorStore has no mode '{mode.value}'. "
                f"Use one of: {', '.join(leg.value for leg in legs)}."
            )
        if self.query.similarity_top_k < 0:
            raise QueryError(f"similarity_top_k is {self.query.similarity_top_k}. Ask for 0 rows or more.")
        if self.query.similarity_top_k == 0:
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        return legs[mode]()

    def _nearest(self) -> VectorStoreQueryResult:
        top_k, where, embedding = self.query.similarity_top_k, self._where(), self._embedding()

        def fetch(limit: int) -> pa.Table:
            search = self.table.search(embedding, vector_column_name=self.columns.vector, query_type="vector")
            search = search.distance_type("cosine").limit(limit).nprobes(self.nprobes)
            search = search.refine_factor(self.refine_factor or 1)
            if where:
                search = search.where(where, prefilter=True)
            return search.select([*self.columns.of_nodes, "_distance"]).to_arrow()

        return self._result(fetch, top_k, lambda rows: [1.0 - d for d in rows["_distance"].to_pylist()])

    def _text(self) -> VectorStoreQueryResult:
        if not self.query.query_str:
            raise QueryError("A text search needs query_str. Give it the words to look for.")
        text, where = self.query.query_str, self._where()
        self.prepare_text(self.table)

        def fetch(limit: int) -> pa.Table:
            search = self.table.search(text, query_type="fts", fts_columns=self.columns.text).limit(limit)
            if where:
                search = search.where(where, prefilter=True)
            return search.select([*self.columns.of_nodes, "_score"]).to_arrow()

        top_k = self.query.sparse_top_k or self.query.similarity_top_k
        return self._result(fetch, top_k, lambda rows: rows["_score"].to_pylist())

    def _result(
        self, fetch: Callable[[int], pa.Table], top_k: int, score: Callable[[pa.Table], list[float]]
    ) -> VectorStoreQueryResult:
        """Fetch until no row beyond the edge can tie with a row inside, then order by score and id."""
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
            similarities=[
                max(-1.0, min(1.0, scores[i])) if "_distance" in rows.column_names else scores[i]
                for i in order
            ],
            ids=[ids[i] for i in order],
        )

    def _where(self) -> str | None:
        return select_where(
            self.table,
            self.columns,
            node_ids=restricting_ids(self.query.node_ids, self._kinds(self.query.node_ids)),
            doc_ids=self.query.doc_ids,
            filters=self.query.filters,
            where=self.where,
        )

    def _kinds(self, node_ids: Sequence[str] | None) -> dict[str, str]:
        if not node_ids:
            return {}
        found = (
            self.table.search().where(one_of("id", node_ids)).select(["id", "kind"]).limit(None).to_arrow()
        )
        return dict(zip(found["id"].to_pylist(), found["kind"].to_pylist(), strict=True))

    def _embedding(self) -> list[float]:
        embedding = self.query.query_embedding
        if embedding is None:
            raise QueryError("A vector search needs query_embedding. Embed the query, or search by text.")
        dim = self.columns.dim(self.table.schema)
        if len(embedding) != dim:
            raise QueryError(
                f"The query vector has {len(embedding)} numbers; the table stores {dim}. "
                "Embed the query with the model that made the table."
            )
        if not all(map(math.isfinite, embedding)):
            raise QueryError("The query vector is not finite: it has NaN or infinity. Embed the query again.")
        if not any(embedding):
            raise QueryError("The query vector is all zeros, so it has no direction. Embed the query again.")
        return [float(value) for value in embedding]
