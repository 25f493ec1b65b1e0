"""LanceDB vector store: a folder or an object store, no server, indexed once it is large."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets._options import refuse_values, strict
from llama_index_presets.errors import SettingsError, StoreCorruptError, StoreUnavailableError
from llama_index_presets.packages.extras import installed, require
from llama_index_presets.packages.stand_ins import standing_in
from llama_index_presets.store.base import NodeQuery, StoreBase, agreed_fingerprint
from llama_index_presets.store.lancedb.filters import one_of
from llama_index_presets.store.lancedb.indexes import (
    build_if_due,
    candidates,
    check_length,
    checked_choice,
    delete_versions,
    finish_load,
    fold_small_commits,
    index_text,
    optimize,
    probes,
    remember_fingerprint,
    rewrite,
    vector_index_type,
)
from llama_index_presets.store.lancedb.search import (
    MODES,
    MODES_OF_QUERY_TYPE,
    LanceSearch,
    cosines_of,
    select_where,
)
from llama_index_presets.store.lancedb.table import (
    LANCEDB,
    LIMITS,
    LanceColumns,
    WriteLock,
    check_names,
    connect,
    local_folder,
    official_fields,
    open_table,
    read_nodes,
    reading,
    whole_files,
    writing,
)
from llama_index_presets.store.query_modes import empty_result
from llama_index_presets.store.vectors import checked_vectors

require("lancedb", extra="lancedb")
# The official adapter imports pandas, which it does not declare, for an annotation; what would use it is ours here.
with standing_in(*(() if installed("pandas") else ("pandas",))):
    require("llama_index.vector_stores.lancedb", extra="lancedb")
from llama_index.vector_stores.lancedb import LanceDBVectorStore as OfficialStore  # noqa: E402
from llama_index.vector_stores.lancedb.base import TableNotFoundError  # noqa: E402

__all__ = ["LanceDBVectorStore"]

Result = TypeVar("Result")

_READS = 8
"""How often a read is begun, each time on the newest version, before missing files are a damage and no compaction."""


class MissingTableError(StoreUnavailableError, TableNotFoundError):
    """``mode="append"`` met no table; an app that catches the official adapter's error catches this one."""


@strict()
class LanceDBVectorStore(StoreBase, OfficialStore):
    """LanceDB under the promises that every store of this package keeps.

    Scores are cosine similarity, -1 to 1, higher is closer. `add` replaces nodes of the same id; each call is
    one commit, so it happens whole or not at all, also when the process is killed. Thread safe; processes
    that share a local folder take turns at writing.

    Args:
        uri: A folder, or ``s3://``, ``gs://``, ``az://`` with credentials in the environment.
        table_name: Table inside it; made by the first `add`.
        index: ``"auto"`` builds IVF_RQ from 20,000 rows on (IVF_PQ where 8 does not divide the dimension);
            ``"none"`` always scans (exact); ``"ivf_rq"``, ``"ivf_pq"`` and ``"hnsw"`` build from 256 rows on.
            Built by `finish_load`, or by an `add` after which the unindexed rows outnumber both 50,000 and the
            indexed ones.
        fingerprint: What makes the vectors (see `values.Fingerprint`); an empty table adopts it, another one
            must agree.
        text_language: Language of the stemmer and stop words of text search, as Lance names it.
        storage_options: Options of the object store; never shown or serialised.
        read_consistency_s: How long, in seconds, writes of other processes may go unseen; 0 sees them at
            once.
        vector_column_name, text_key, doc_id_key, nprobes, refine_factor, overfetch_factor, query_type, mode,
            connection, table: As in the official adapter. ``mode="append"`` refuses a missing table, the
            other modes create it; none ever wipes an existing one.

    Raises:
        FingerprintError: The table was made by another model.
        SettingsError: An option is unknown (the message names the nearest) or not supported.
        StoreError: The table has other columns, such as one made by the official adapter.
        StoreCorruptError: From any method: the table's files cannot be read.

    `query` takes two keywords more: ``where``, a further condition in Lance SQL, taken as it is, and ``query_type``, as
    in the official adapter.

    Example:
        >>> import tempfile
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.core.vector_stores import VectorStoreQuery
        >>> store = LanceDBVectorStore(tempfile.mkdtemp())
        >>> a, b = TextNode(id_="a", embedding=[1.0, 0.0]), TextNode(id_="b", embedding=[0.0, 1.0])
        >>> store.add([a, b])
        ['a', 'b']
        >>> found = store.query(VectorStoreQuery(query_embedding=[3, 4], similarity_top_k=1))
        >>> found.ids, [round(score, 6) for score in found.similarities]
        (['b'], [0.8])
    """

    flat_metadata: bool = False
    vector_column_name: str = "vector"
    text_key: str = "text"
    doc_id_key: str = "doc_id"
    nprobes: int | None = None
    overfetch_factor: int = 1
    table_name: str = "vectors"
    index: str = "auto"
    text_language: str = "English"
    read_consistency_s: float = 0.0

    _modes: ClassVar[frozenset[VectorStoreQueryMode]] = MODES
    _query_options: ClassVar[tuple[str, ...]] = ("where", "query_type")
    _columns: LanceColumns = PrivateAttr()
    _fingerprint: str | None = PrivateAttr(default=None)
    _lock: WriteLock = PrivateAttr()
    _looked: tuple[int, int] = PrivateAttr(default=(-1, 0))
    _seen: bool = PrivateAttr(default=False)

    def __init__(
        self,
        uri: str | Path | None = None,
        table_name: str = "vectors",
        *,
        index: str = "auto",
        fingerprint: str | None = None,
        text_language: str = "English",
        storage_options: dict[str, str] | None = None,
        read_consistency_s: float = 0.0,
        connection: Any | None = None,
        table: Any | None = None,
        **official: Any,
    ) -> None:
        if uri is None and connection is None and table is None:
            raise SettingsError("LanceDBVectorStore needs a uri: a folder, or s3://, gs://, az://.")
        if connection is None:
            connection = getattr(table, "_conn", None)
        uri = str(uri) if uri is not None else str(getattr(connection, "uri", ""))
        fields = {
            **official_fields(official),
            "uri": uri,
            "table_name": table.name if table is not None else table_name,
            "index": checked_choice(index),
            "text_language": text_language,
            "read_consistency_s": read_consistency_s,
        }
        columns = [fields[name] for name in ("vector_column_name", "text_key", "doc_id_key")]
        check_names(uri, fields["table_name"], columns)
        # Not through the official constructor: it prints, keeps the key, and connects without consistency.
        super(OfficialStore, self).__init__(**fields)
        self._columns = LanceColumns(
            vector=self.vector_column_name, text=self.text_key, doc_id=self.doc_id_key
        )
        self._lock = WriteLock(local_folder(uri), self.table_name)
        self._connection = connection or connect(
            uri, storage_options=storage_options, consistency_s=read_consistency_s
        )
        self._table = table
        self._table_name = self.table_name
        self._reranker = None
        self._fingerprint = fingerprint
        self._adopt(self._open())
        if self._table is None and self.mode not in ("create", "overwrite"):
            raise MissingTableError(
                f"Table '{self.table_name}' does not exist and mode='{self.mode}' does not create it."
            )

    @classmethod
    def from_table(cls, table: Any, **options: Any) -> LanceDBVectorStore:
        """Wrap an open Lance table that this class made."""
        return cls(table=table, **options)

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the vectors, as the table remembers it or, while it is empty, as passed."""
        return self._fingerprint

    def node_ids(self) -> list[str]:
        """Ids of all nodes, sorted; without reading the nodes."""

        def read() -> list[str]:
            table = self._open()
            if table is None:
                return []
            return sorted(table.search().select(["id"]).limit(None).to_arrow()["id"].to_pylist())

        return self._steadily(read)

    def similarities(self, embedding: Sequence[float], node_ids: Sequence[str]) -> dict[str, float]:
        """Cosines of nodes by id, as `query` gives them; without an index, and without reading the nodes.

        Args:
            embedding: Of the question.
            node_ids: Of the nodes; those that are not stored are absent from the result.

        Raises:
            StoreCorruptError: The table's files cannot be read.
            QueryError: The embedding is not a direction, or has another length than the table's.
        """

        def read() -> dict[str, float]:
            table = self._open()
            return {} if table is None else cosines_of(table, self._columns, embedding, node_ids)

        return self._steadily(read)

    def node_count(self) -> int:
        """Number of nodes, without reading them.

        Raises:
            StoreCorruptError: The table's files cannot be read.
        """

        def count() -> int:
            table = self._open()
            return 0 if table is None else int(table.count_rows())

        return self._steadily(count)

    def _mode(self, query: VectorStoreQuery, options: Mapping[str, Any]) -> VectorStoreQueryMode:
        refuse_values("LanceDBVectorStore.query", options, {"query_type": LIMITS["query_type"]})
        if query.mode is not VectorStoreQueryMode.DEFAULT:
            return query.mode
        return MODES_OF_QUERY_TYPE[options.get("query_type") or self.query_type or "vector"]

    def _search(
        self, query: VectorStoreQuery, mode: VectorStoreQueryMode, options: Mapping[str, Any]
    ) -> VectorStoreQueryResult:
        return self._steadily(lambda: self._search_once(query, mode, options))

    def _steadily(self, read: Callable[[], Result]) -> Result:
        """Read; again where a compaction removed the files of the version that was being read.

        Raises:
            StoreCorruptError: The table's files cannot be read.
        """
        for _ in range(_READS - 1):
            try:
                with reading(self.uri or ""):
                    return read()
            except StoreCorruptError as error:
                if "not found" not in str(error).lower():
                    raise
            self._table = None
        with reading(self.uri or ""):
            return read()

    def _search_once(
        self, query: VectorStoreQuery, mode: VectorStoreQueryMode, options: Mapping[str, Any]
    ) -> VectorStoreQueryResult:
        table = self._open()
        rows = table.count_rows() if table is not None else 0
        if table is None or not rows:
            return empty_result()
        search = LanceSearch(
            table,
            self._columns,
            replace(query, similarity_top_k=min(query.similarity_top_k, rows)),  # Lance takes 32 bits
            nprobes=self.nprobes or probes(rows),
            refine_factor=self.refine_factor or self._candidates(table, rows),
            overfetch=self.overfetch_factor,
            options=options,
            prepare_text=self._prepare_text_search,
        )
        return search.run(mode)

    def _candidates(self, table: Any, rows: int) -> int:
        """Number of candidates; looks up the table's index again once the row count has changed."""
        looked_at, found = self._looked
        if looked_at != rows:
            found = candidates(vector_index_type(table))
            self._looked = (rows, found)
        return found

    def finish_load(self) -> None:
        """Call once after a bulk load: compact the files, build or extend the indexes.

        Safe at any time; does nothing on an empty table.
        """
        with self._writing():
            table = self._open()
            if table is not None and table.count_rows():
                finish_load(table, self._columns, self.index)
                self._looked = (-1, 0)

    def optimize(self, *, keep_versions_s: float = 3600.0) -> None:
        """Compact the files, fold new rows into the indexes and drop old versions.

        Deleted nodes stay readable in old versions until then; ``keep_versions_s=0`` removes them from the
        disk for good.

        Args:
            keep_versions_s: Age, in seconds, up to which old versions are kept for their readers.
        """
        with self._writing():
            table = self._open()
            if table is not None:
                optimize(table, keep_versions_s=keep_versions_s)

    def compact(self) -> None:
        """Rewrite everything, so that nothing of deleted or replaced nodes is left in data, indexes or versions.

        Readers of other processes go on: a query that meets it is read again. Versions that somebody has tagged stay.
        """
        uri = self.uri or ""
        with self._lock.held(), writing(uri):
            table = self._open()
            if table is not None:
                # The old versions go when the new files are known to be whole: they are the only other copy.
                with whole_files(uri, self.table_name, self._open):
                    rewrite(table, self._columns, self.index, self.text_language)
                delete_versions(table, alone=local_folder(uri) is not None)
                self._looked = (-1, 0)

    def close(self) -> None:
        """Close the table and the connection; any later use opens the table again."""
        self._table = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the options; the copy opens the table again, with credentials of its own environment."""
        return {**self.__dict__, "fingerprint": self._fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the table again."""
        self.__init__(**state)  # type: ignore[misc]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        uri = self.uri or ""
        with self._lock.held(), writing(uri), whole_files(uri, self.table_name, self._open):
            yield

    def _open(self) -> Any | None:
        LANCEDB.check()
        table = self._table  # another thread may let go of it at any moment
        if table is None:
            with reading(self.uri or ""):
                table = open_table(self._connection, self.table_name)
            if table is not None:
                self._columns.check(table.schema, self.table_name)
            elif self._seen:
                raise StoreUnavailableError(
                    f"Table '{self.table_name}' in '{self.uri}' was deleted while this store has it open. Restore it "
                    "from a backup; where it is to be made afresh, open a new store."
                )
            self._table = table
        self._seen = self._seen or table is not None
        return table

    def _adopt(self, table: Any | None) -> None:
        """Agree on the fingerprint with a table that has rows: the first caller who knows it sets it."""
        if table is None or not table.count_rows():
            return
        stored = self._columns.fingerprint(table.schema)
        agreed = agreed_fingerprint(
            stored, self._fingerprint, place=f"Table '{self.table_name}'", kind="table"
        )
        if agreed and not stored:
            with self._writing():
                remember_fingerprint(table, self._columns, agreed)
        self._fingerprint = agreed

    def _upsert(self, nodes: list[BaseNode], *, replacing: Sequence[str] = (), bulk: bool = False) -> None:
        with self._writing():
            table: Any = self._open()
            dim = self._columns.dim(table.schema) if table is not None and table.count_rows() else None
            self._adopt(table)
            vectors = checked_vectors(nodes, dim)
            check_length(self.index, vectors.shape[1])
            schema = self._columns.schema(vectors.shape[1], self._fingerprint)
            rows = self._columns.table(nodes, vectors, schema)
            if dim is None:
                table = self._table = self._make_table(table, schema)
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            if replacing:
                merge = merge.when_not_matched_by_source_delete(one_of(self._columns.doc_id, replacing))
            merge.execute(rows)
            if not bulk:
                build_if_due(table, self._columns, self.index)
                fold_small_commits(table)

    def _make_table(self, empty: Any | None, schema: Any) -> Any:
        if empty is not None and empty.schema.equals(schema, check_metadata=True):
            return empty
        how: dict[str, Any] = {"mode": "overwrite"} if empty is not None else {"exist_ok": True}
        return self._connection.create_table(self.table_name, schema=schema, **how)

    def _delete(self, selection: NodeQuery) -> None:
        with self._writing():
            table = self._open()
            if table is not None:
                self._delete_where(select_where(table, self._columns, selection) or "true")

    def _select(self, selection: NodeQuery) -> list[BaseNode]:
        def read() -> Any | None:
            table = self._open()
            if table is None:
                return None
            where = select_where(table, self._columns, selection)
            return table.search().where(where or "true").limit(None).to_arrow()

        rows = self._steadily(read)
        return [] if rows is None else read_nodes(rows, self._columns)

    def _clear(self) -> None:
        """Delete every node; the empty table takes the dimension and fingerprint of what is added next."""
        self._delete_where("true")

    def _delete_where(self, where: str) -> None:
        with self._writing():
            table = self._open()
            if table is not None:
                table.delete(where)
                fold_small_commits(table)

    def _prepare_text_search(self, table: Any) -> None:
        with self._writing():
            index_text(table, self._columns, self.text_language)
