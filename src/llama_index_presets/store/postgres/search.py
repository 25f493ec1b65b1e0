"""Queries on the table of a `PostgresVectorStore`."""

# ruff: noqa: S608 -- statements are made of quoted identifiers and rendered conditions; values are bound.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets.errors import QueryError
from llama_index_presets.filters import render
from llama_index_presets.store.base import NodeQuery
from llama_index_presets.store.node_codec import restricting_ids
from llama_index_presets.store.postgres.filters import PostgresDialect
from llama_index_presets.store.postgres.table import NODE_COLUMNS, PostgresTable, read_nodes
from llama_index_presets.store.query_modes import answer, empty_result
from llama_index_presets.store.vectors import checked_question

__all__ = ["MODES", "OPTIONS", "PostgresSearch", "Where", "select_where"]

SPARE_ROWS = 16
"""Rows taken from an index beyond top_k, so that they can be scored again exactly."""

PROBES = 20
"""Lists of an ivfflat index that a query looks into."""

OPTIONS = ("hnsw_ef_search", "ivfflat_probes")
"""Keywords of a query for its index, as in the official adapter; a scan needs none."""

SCAN_ROWS = 5_000
"""A filter that leaves at most this many rows is answered by scoring them all, which is exact."""

MODES = frozenset(
    {
        VectorStoreQueryMode.DEFAULT,
        VectorStoreQueryMode.TEXT_SEARCH,
        VectorStoreQueryMode.SPARSE,
        VectorStoreQueryMode.HYBRID,
        VectorStoreQueryMode.MMR,
    }
)

_NODE = ", ".join(NODE_COLUMNS)


@dataclass(frozen=True, slots=True)
class Where:
    """SQL condition and its bound values.

    Attributes:
        sql: ``"TRUE"`` where every row is selected.
        parameters: For psycopg2's ``%(name)s``.
    """

    sql: str = "TRUE"
    parameters: dict[str, Any] = field(default_factory=dict)


def select_where(selection: NodeQuery) -> Where:
    """Give the condition that selects the rows of a selection.

    Raises:
        FilterError: A filter's value does not fit its operator.
    """
    condition = render(selection.filters, PostgresDialect())
    parts, parameters = [], dict(condition.parameters)
    for column, wanted in (("node_id", selection.node_ids), ("ref_doc_id", selection.doc_ids)):
        if wanted is not None:
            parts.append(f"{column} = ANY(%({column}s)s)")
            parameters[f"{column}s"] = [one for one in wanted if "\0" not in one]
    if selection.filtered:
        parts.append(condition.sql)
    return Where(" AND ".join(parts) or "TRUE", parameters)


@dataclass(frozen=True, slots=True)
class PostgresSearch:
    """One query, inside one transaction.

    Attributes:
        table: Where to search.
        cursor: Of the transaction.
        query: What is asked.
        options: Keywords of the query.
    """

    table: PostgresTable
    cursor: Any
    query: VectorStoreQuery
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, mode: VectorStoreQueryMode) -> VectorStoreQueryResult:
        """Answer the query."""
        where = self._where()
        return answer(
            self.query,
            mode,
            self.options,
            nearest=lambda top_k, vectors: self._nearest(top_k, where, vectors=vectors),
            words=lambda top_k: self._words(top_k, where),
        )

    def _where(self) -> Where:
        ids = restricting_ids(self.query.node_ids, self._kinds(self.query.node_ids))
        return select_where(NodeQuery(node_ids=ids, doc_ids=self.query.doc_ids, filters=self.query.filters))

    def _kinds(self, node_ids: Sequence[str] | None) -> dict[str, str]:
        if not node_ids:
            return {}
        where = select_where(NodeQuery(node_ids=node_ids))
        self.cursor.execute(f"SELECT node_id, kind FROM {self.table.sql} WHERE {where.sql}", where.parameters)
        return dict(self.cursor.fetchall())

    def _nearest(self, top_k: int, where: Where, *, vectors: bool) -> VectorStoreQueryResult:
        question = checked_question(self.query.query_embedding, self.table.dim)
        if top_k == 0:
            return empty_result()
        parameters = {
            **where.parameters,
            "question": "[" + ",".join(map(repr, question.tolist())) + "]",
            "limit": top_k,
            "wide": top_k + SPARE_ROWS,
        }
        if where.sql == "TRUE" and self.table.has_index(self.cursor, "vectors"):
            return _result(self._select(self._by_index(where, vectors), parameters))
        selected, rows = self._few(where, vectors, parameters)
        if selected <= SCAN_ROWS:
            return _result(rows)
        if self.table.has_index(self.cursor, "vectors"):
            rows = self._select(self._by_index(where, vectors), parameters)
        if len(rows) < top_k:
            # No index, or its scan ended early: score every selected row.
            self.cursor.execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_seqscan = on")
            rows = self._select(self._by_scan(where, vectors), parameters)
        return _result(rows)

    def _few(self, where: Where, vectors: bool, parameters: dict[str, Any]) -> tuple[int, list[Any]]:
        """Count the selected rows up to `SCAN_ROWS` and one; where they are no more, score them, exactly."""
        few = f"SELECT * FROM {self.table.sql} WHERE {where.sql} LIMIT {SCAN_ROWS + 1}"
        best = self._scored(f"(SELECT * FROM few WHERE counted.n <= {SCAN_ROWS})", vectors)
        rows = self._select(
            f"WITH few AS MATERIALIZED ({few}), counted AS (SELECT count(*) AS n FROM few) "
            f"SELECT counted.n, best.* FROM counted LEFT JOIN LATERAL ({best}) best ON TRUE ORDER BY 2 DESC, 3",
            parameters,
        )
        return int(rows[0][0]), [row[1:] for row in rows if row[1] is not None]

    def _by_index(self, where: Where, vectors: bool) -> str:
        index = self.table.index
        # The planner does not see that long vectors lie outside of the rows, and takes a scan for cheap.
        self.cursor.execute("SET LOCAL enable_seqscan = off")
        if index.choice == "ivfflat":
            probes = self._whole_number("ivfflat_probes", PROBES, 32_768)
            self.cursor.execute(
                f"SET LOCAL ivfflat.iterative_scan = relaxed_order; SET LOCAL ivfflat.probes = {probes}"
            )
        else:
            ef_search = self._whole_number("hnsw_ef_search", index.ef_search, 1_000)
            wide = max(ef_search, min(1000, self.query.similarity_top_k + SPARE_ROWS))
            self.cursor.execute(
                "SET LOCAL hnsw.iterative_scan = relaxed_order; "
                f"SET LOCAL hnsw.max_scan_tuples = 100000; SET LOCAL hnsw.ef_search = {int(wide)}"
            )
        # An offset of 0 keeps the planner from looking at the columns of the inner query.
        order = f"{self.table.indexed_vector} <=> %(question)s::halfvec({self.table.dim})"
        found = f"SELECT * FROM {self.table.sql} WHERE {where.sql} ORDER BY {order} LIMIT %(wide)s"
        return self._scored(f"({found})", vectors)

    def _whole_number(self, name: str, usual: int, most: int) -> int:
        """An option of the index; bound by pgvector to 1 and `most`."""
        value = self.options.get(name)
        if value is None:
            return usual
        if not 1 <= int(value) <= most:
            raise QueryError(f"{name} is {value}; pgvector takes 1 to {most:,}.")
        return int(value)

    def _by_scan(self, where: Where, vectors: bool) -> str:
        return self._scored(f"(SELECT * FROM {self.table.sql} WHERE {where.sql} OFFSET 0)", vectors)

    def _scored(self, source: str, vectors: bool) -> str:
        question = f"%(question)s::{self.table.vector_type}"
        embedding = ", embedding::text" if vectors else ""
        return (
            f"SELECT 1 - (embedding <=> {question}) AS similarity, {_NODE}{embedding} FROM {source} found "
            f"ORDER BY embedding <=> {question}, node_id LIMIT %(limit)s"
        )

    def _words(self, top_k: int, where: Where) -> VectorStoreQueryResult:
        self.table.index_text(self.cursor)
        # Any of the words, as BM25 does; `plainto_tsquery` makes lexemes of whatever the text is.
        asked = f"replace(plainto_tsquery('{self.table.language}'::regconfig, %(words)s)::text, '&', '|')::tsquery"
        sql = (
            f"SELECT ts_rank_cd({self.table.words}, asked, 1) AS rank, {_NODE} "
            f"FROM {self.table.sql}, (SELECT {asked} AS asked) question "
            f"WHERE {self.table.words} @@ asked AND {where.sql} "
            "ORDER BY rank DESC, node_id LIMIT %(limit)s"
        )
        text = (self.query.query_str or "").replace("\0", " ")
        return _result(self._select(sql, {**where.parameters, "words": text, "limit": top_k}))

    def _select(self, sql: str, parameters: dict[str, Any]) -> list[Any]:
        self.cursor.execute(sql, parameters)
        return list(self.cursor.fetchall())


def _result(rows: list[Any]) -> VectorStoreQueryResult:
    nodes = read_nodes([row[1:] for row in rows])
    return VectorStoreQueryResult(
        nodes=nodes,
        similarities=[float(row[0]) for row in rows],
        ids=[node.node_id for node in nodes],
    )
