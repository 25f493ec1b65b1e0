"""What DuckDBVectorStore promises beyond the contract of every store."""

from __future__ import annotations

import asyncio
import gc
import pickle
import random
import threading
import warnings
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from llama_index.core import StorageContext
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode as Mode

from llama_index_presets import DuckDBVectorStore
from llama_index_presets.errors import (
    FingerprintError,
    NodeRejectedError,
    QueryError,
    SettingsError,
    StoreCorruptError,
    StoreError,
    StoreWriteError,
)
from llama_index_presets.store.duckdb import store as module
from llama_index_presets.store.duckdb.table import Incoming

DIM = 6


def node(name: str, *numbers: float, text: str = "", doc: str = "d", **metadata: Any) -> TextNode:
    embedding = [*numbers, *([0.1] * (DIM - len(numbers)))]
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc)}
    return TextNode(id_=name, text=text, embedding=embedding, metadata=metadata, relationships=source)


def ask(top_k: int = 10, **fields: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=top_k, **fields)


def words(text: str, top_k: int = 10, **fields: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_str=text, similarity_top_k=top_k, mode=Mode.TEXT_SEARCH, **fields)


def only(key: str, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value)])


# ---- opening -----------------------------------------------------------------------------------------------


def test_nothing_can_be_downloaded(tmp_path: Path) -> None:
    """A store of ours switches off DuckDB's automatic extensions."""
    with DuckDBVectorStore(tmp_path / "s.duckdb") as store:
        names = ("autoinstall_known_extensions", "autoload_known_extensions")
        for name in names:
            assert store.client.execute(f"SELECT current_setting('{name}')").fetchall() == [(False,)]


def test_several_tables_share_a_file(tmp_path: Path) -> None:
    """Each has its own dimension, model and rows, whatever its name."""
    path = tmp_path / "s.duckdb"
    with (
        DuckDBVectorStore(path, table='a "b"', fingerprint="model=a") as one,
        DuckDBVectorStore(path, table="x; DROP TABLE y", fingerprint="model=b") as two,
    ):
        one.add([node("a", 1.0)])
        two.add([TextNode(id_="b", text="b", embedding=[1.0, 2.0])])
        assert (one.dim, two.dim) == (DIM, 2)
        assert (one.fingerprint, two.fingerprint) == ("model=a", "model=b")
        one.clear()
        assert [n.node_id for n in two.get_nodes()] == ["b"]


def test_a_table_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """Also where the file is otherwise ours."""
    with duckdb.connect(str(tmp_path / "s.duckdb")) as connection:
        connection.execute("CREATE TABLE vectors (mine INTEGER)")
        for _ in range(2):
            with pytest.raises(StoreError, match="'vectors' was not made by this store"):
                DuckDBVectorStore(connection=connection)
            DuckDBVectorStore(connection=connection, table="other").add([node("a", 1.0)])
        assert connection.execute("SELECT count(*) FROM vectors").fetchall() == [(0,)]


def test_a_given_connection_stays_open(tmp_path: Path) -> None:
    """It is the caller's to close, and its rows are plain SQL."""
    with duckdb.connect(str(tmp_path / "s.duckdb")) as connection:
        with DuckDBVectorStore(connection=connection) as store:
            store.add([node("a", 1.0, text="hello", year=2024)])
        rows = connection.execute("SELECT node_id, text, metadata ->> 'year' FROM vectors").fetchall()
        assert rows == [("a", "hello", "2024")]


@pytest.mark.parametrize("wrong", [{"table": ""}, {"dim": 0}, {"cache_mb": -1}, {"text_language": "klingon"}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    """The message names the setting's value."""
    with pytest.raises(SettingsError, match=str(next(iter(wrong.values()))) or "table name"):
        DuckDBVectorStore(**wrong)


@pytest.mark.parametrize("name", ["who?", "back\\slash"])
def test_a_path_that_duckdb_reads_its_own_way_is_refused(tmp_path: Path, name: str) -> None:
    """Its log was sought at "who.wal?/…", and a folder "back" instead of "back\\slash"."""
    (tmp_path / name).mkdir()
    with pytest.raises(SettingsError, match="DuckDB keeps no file at .*Rename the folder"):
        DuckDBVectorStore(str(tmp_path / name / "v.duckdb")).add([])


def test_from_local_wants_the_file_and_from_params_makes_it(tmp_path: Path) -> None:
    """Two ways in, for what exists and for what may not."""
    path = tmp_path / "deep" / "s.duckdb"
    with pytest.raises(StoreError, match="no file"):
        DuckDBVectorStore.from_local(path)
    DuckDBVectorStore.from_params(path=path, table="t", dim=DIM).close()
    with DuckDBVectorStore.from_local(path, table="t") as store:
        assert store.dim == DIM


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """Closing twice is fine, using it afterwards is not."""
    store = DuckDBVectorStore(tmp_path / "s.duckdb")
    store.add([node("a", 1.0)])
    store.close()
    store.close()
    for use in (lambda: store.query(ask()), lambda: store.add([node("b", 1.0)]), store.get_nodes):
        with pytest.raises(StoreError, match="closed"):
            use()


def test_the_key_is_in_no_description(tmp_path: Path) -> None:
    """Neither repr, nor to_dict, nor JSON, nor an error shows the encryption key."""
    secret = "correct horse 'battery'"
    try:
        store = DuckDBVectorStore(tmp_path / "s.duckdb", encryption_key=secret)
    except StoreError as error:
        assert "battery" not in str(error) and error.__cause__ is None
        return
    for shown in (repr(store), str(store.to_dict()), store.to_json(), repr(store._database)):
        assert "battery" not in shown
    store.close()


def test_a_file_is_encrypted_or_the_error_says_how_it_could_be(tmp_path: Path) -> None:
    """Without OpenSSL nothing is written in a weaker way; the versions that do so warn of it."""
    path = tmp_path / "s.duckdb"
    weak = duckdb.__version__ in ("1.4.0", "1.4.1")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            store = DuckDBVectorStore(path, encryption_key="k")
    except StoreError as error:
        assert "httpfs" in str(error) and duckdb.__version__ in str(error) and not weak
        assert not path.exists() or path.stat().st_size == 0
        return
    assert weak == any("CVE-2025-64429" in str(one.message) for one in said)
    store.add([node("a", 1.0, text="a very particular sentence")])
    assert store.query(ask()).ids == ["a"]
    store.close()
    assert b"particular" not in path.read_bytes()
    with pytest.raises(StoreError, match="does not open"):
        DuckDBVectorStore(path, encryption_key="wrong")
    with pytest.raises(StoreError, match="encrypted"):
        DuckDBVectorStore(path)
    with DuckDBVectorStore(path, encryption_key="k", read_only=True) as again:
        assert again.get_nodes(["a"])[0].text == "a very particular sentence"
        with pytest.raises(StoreError, match="encrypted store cannot be pickled"):
            pickle.dumps(again)


def test_stores_of_a_process_share_a_file_and_see_each_other_at_once(tmp_path: Path) -> None:
    """A reader beside a writer, in one process, has the newest rows."""
    path = tmp_path / "s.duckdb"
    with DuckDBVectorStore(path) as writer, DuckDBVectorStore(path, read_only=True) as reader:
        assert reader.query(ask()).ids == []
        writer.add([node("a", 1.0)])
        assert reader.query(ask()).ids == ["a"]
        writer.delete("d")
        assert reader.query(ask()).ids == []
        with pytest.raises(StoreWriteError, match="read_only"):
            reader.add([node("b", 1.0)])


def test_one_of_them_may_close_first(tmp_path: Path) -> None:
    """The file stays open until the last is closed."""
    path = tmp_path / "s.duckdb"
    one, two = DuckDBVectorStore(path), DuckDBVectorStore(path)
    one.close()
    two.add([node("a", 1.0)])
    two.close()
    with DuckDBVectorStore(path) as three:
        assert three.query(ask()).ids == ["a"]


def test_changes_past_the_store_are_seen(tmp_path: Path) -> None:
    """Another connection of the process, and SQL by hand, reach the next query."""
    path = tmp_path / "s.duckdb"
    with DuckDBVectorStore(path) as store:
        store.add([node("a", 1.0), node("b", 2.0), node("c", 3.0)])
        assert len(store.query(ask()).ids) == 3
        with duckdb.connect(str(path)) as other:
            DuckDBVectorStore(connection=other).add([node("d", 4.0)])
            assert "d" in store.query(ask()).ids
            other.execute("DELETE FROM vectors WHERE node_id = 'a'")
        assert sorted(store.query(ask()).ids) == ["b", "c", "d"]
        store.client.execute("DELETE FROM vectors WHERE node_id = 'b'")
        assert sorted(store.query(ask()).ids) == ["c", "d"]


def test_a_file_that_the_process_has_open_already_stays_open_as_it_is(tmp_path: Path) -> None:
    """Opening a store takes nothing away from a connection in the middle of a transaction."""
    path = tmp_path / "s.duckdb"
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE mine AS SELECT 1 AS x")
        other.execute("BEGIN TRANSACTION")
        other.execute("SELECT * FROM mine").fetchall()
        with DuckDBVectorStore(path) as store:
            store.add([node("a", 1.0)])
            assert other.execute("SELECT x FROM mine").fetchall() == [(1,)]
        other.execute("COMMIT")
        assert other.execute("SELECT node_id FROM vectors").fetchall() == [("a",)]


def test_a_load_goes_into_the_file_in_small_groups(tmp_path: Path) -> None:
    """At the commit most of it is written already, instead of lying in the log until the checkpoint."""
    path = tmp_path / 'it\'s "mine".duckdb'
    rows = 10_000
    with DuckDBVectorStore(path) as store:
        store.add([node(f"n{i}", float(i), text="word " * 100) for i in range(rows)])
        groups = store.client.execute(
            "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('vectors')"
        ).fetchall()[0][0]
        if duckdb.__version__.startswith("1.4."):
            assert groups == 1  # it cannot say whether other connections use the file, so it is left as it is
        else:
            assert groups == 2
            assert path.with_name(path.name + ".wal").stat().st_size < path.stat().st_size
    with DuckDBVectorStore(path) as again:
        assert len(again.query(ask(rows + 1)).ids) == rows


def test_a_memory_store_sees_sql_by_hand() -> None:
    """Whoever takes the connection may write with it."""
    with DuckDBVectorStore() as store:
        store.add([node("a", 1.0), node("b", 2.0)])
        assert len(store.query(ask()).ids) == 2
        store.client.execute("DELETE FROM vectors WHERE node_id = 'a'")
        assert store.query(ask()).ids == ["b"]


# ---- identity ----------------------------------------------------------------------------------------------


def test_another_dimension_is_refused_at_open(tmp_path: Path) -> None:
    """Before anything is asked, with both numbers."""
    path = tmp_path / "s.duckdb"
    DuckDBVectorStore(path, dim=DIM).close()
    with pytest.raises(FingerprintError, match=rf"{DIM} numbers.*7") as refused:
        DuckDBVectorStore(path, dim=7)
    assert (refused.value.stored, refused.value.given) == (f"dim={DIM}", "dim=7")


def test_clear_forgets_the_model(tmp_path: Path) -> None:
    """An empty table can be filled by another model; what was open goes on with it."""
    with DuckDBVectorStore(tmp_path / "s.duckdb") as store:
        store.add([node("a", 1.0)])
        store.query(ask())
        store.clear()
        store.add([TextNode(id_="b", text="b", embedding=[0.0, 1.0, 0.0])])
        assert store.dim == 3
        assert store.query(VectorStoreQuery(query_embedding=[0.0, 2.0, 0.0])).ids == ["b"]


def test_a_model_that_came_meanwhile_is_refused(tmp_path: Path) -> None:
    """Two stores open an empty file; the one that writes first decides."""
    path = tmp_path / "s.duckdb"
    with (
        DuckDBVectorStore(path, fingerprint="model=a") as one,
        DuckDBVectorStore(path, fingerprint="model=b") as two,
    ):
        one.add([node("a", 1.0)])
        for use in (lambda: two.query(ask()), lambda: two.add([node("b", 1.0)]), two.get_nodes):
            with pytest.raises(FingerprintError, match=r"model=a.*model=b"):
                use()


def test_a_table_of_a_later_format_is_not_guessed_at(tmp_path: Path) -> None:
    """The error says to upgrade."""
    with duckdb.connect(str(tmp_path / "s.duckdb")) as connection:
        DuckDBVectorStore(connection=connection, dim=2)
        connection.execute("UPDATE llama_index_presets_stores SET format = 99")
        with pytest.raises(StoreCorruptError, match=r"format 99.*Upgrade"):
            DuckDBVectorStore(connection=connection)


def test_a_pickled_store_opens_its_file_again(tmp_path: Path) -> None:
    """Settings travel, rows stay where they are."""
    with DuckDBVectorStore(tmp_path / "s.duckdb", table="t", cache_mb=7, fingerprint="m") as store:
        store.add([node("a", 1.0)])
        with pickle.loads(pickle.dumps(store)) as copy:
            assert (copy.table, copy.cache_mb, copy.fingerprint) == ("t", 7, "m")
            assert copy.query(ask()).ids == ["a"]


def test_a_pickled_store_in_memory_brings_its_nodes() -> None:
    """They are another store's from then on."""
    with DuckDBVectorStore(table="t") as store:
        store.add([node("a", 1.0)])
        with pickle.loads(pickle.dumps(store)) as copy:
            copy.add([node("b", 2.0)])
            assert copy.node_ids() == ["a", "b"] and store.node_ids() == ["a"]


def test_a_store_on_a_given_connection_is_not_pickled() -> None:
    """The connection would stay behind."""
    with (
        duckdb.connect() as connection,
        DuckDBVectorStore(connection=connection) as store,
        pytest.raises(StoreError, match="cannot be pickled"),
    ):
        pickle.dumps(store)


# ---- writing -----------------------------------------------------------------------------------------------


def test_metadata_that_json_cannot_hold(tmp_path: Path) -> None:
    """Numpy numbers become numbers, NaN becomes null, an object is refused by id with nothing written."""
    with DuckDBVectorStore(tmp_path / "s.duckdb") as store:
        store.add([node("a", 1.0, n=np.float32(0.5), nan=float("nan"), array=np.arange(2))])
        assert store.get_nodes(["a"])[0].metadata == {"n": 0.5, "nan": None, "array": [0, 1]}
        for bad in (
            node("bad", 1.0, k=object()),
            node("bad", 1.0, text="\ud800"),
            node("bad", 1.0, k="\ud800"),
        ):
            with pytest.raises(NodeRejectedError, match="'bad'"):
                store.add([node("b", 1.0), bad])
        assert [n.node_id for n in store.get_nodes()] == ["a"]


def test_a_refusal_in_a_later_batch_undoes_the_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call is one transaction, however many batches it takes."""
    monkeypatch.setattr("llama_index_presets.store.duckdb.table._ROWS", 4)
    with DuckDBVectorStore() as store:
        store.add([node("before", 1.0)])
        nodes = [node(f"n{i}", 1.0) for i in range(11)]
        store.add(nodes)
        assert len(store.get_nodes()) == 12
        nodes[9] = TextNode(id_="bad", text="", embedding=[float("nan")] * DIM)
        with pytest.raises(NodeRejectedError, match="'bad'"):
            store.add([n.model_copy(update={"id_": f"second-{n.node_id}"}) for n in nodes[:9]] + nodes[9:])
        assert len(store.get_nodes()) == 12


def test_a_reader_that_stops_early_is_no_failure_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """When DuckDB gives up, on a full disk for example, its own error is what the caller hears."""
    monkeypatch.setattr("llama_index_presets.store.duckdb.table._ROWS", 4)
    incoming = Incoming([node(f"n{i}", 1.0) for i in range(11)], DIM)
    stream = incoming.stream(0)
    assert stream.read_next_batch().num_rows == 4
    del stream
    gc.collect()
    assert incoming.failure is None


def test_restrictions_reach_rows_in_several_pieces_and_none() -> None:
    """Documents, ids and filters, over rows that were added one by one, and when all are gone."""
    with DuckDBVectorStore() as store:
        store.query(ask())
        for i in range(5):
            store.add([node(f"n{i}", float(i), doc=f"d{i % 2}", parity=i % 2)])
            store.query(ask())
        assert sorted(store.query(ask(doc_ids=["d1"])).ids) == ["n1", "n3"]
        assert store.query(ask(doc_ids=[])).ids == []
        assert sorted(store.query(ask(node_ids=["n4", "n1", "gone"])).ids) == ["n1", "n4"]
        assert sorted(store.query(ask(filters=only("parity", 0))).ids) == ["n0", "n2", "n4"]
        store.delete_nodes([f"n{i}" for i in range(5)])
        for empty_result in (
            ask(),
            ask(filters=only("parity", 0)),
            ask(doc_ids=["d1"]),
            ask(node_ids=["n1"]),
        ):
            assert store.query(empty_result).ids == []


def test_a_large_table_says_once_where_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the size that exact search is for, one warning names the stores and the command."""
    monkeypatch.setattr(module, "_MANY", 3)
    with DuckDBVectorStore() as store:
        store.add([node(f"n{i}", 1.0) for i in range(3)])
        with pytest.warns(UserWarning, match=r"4 vectors.*LanceDBVectorStore.*llama-presets move"):
            store.add([node("n9", 1.0)])
        store.add([node("n10", 1.0)])


# ---- the copy in memory ------------------------------------------------------------------------------------


def snapshot(store: DuckDBVectorStore) -> Any:
    return store._cache.current(store._state())


def test_a_small_add_is_appended_not_rebuilt() -> None:
    """The room of the matrix is kept, and earlier snapshots stay as they were."""
    rng = np.random.default_rng(0)
    with DuckDBVectorStore() as store:
        store.add([node(f"n{i}", *rng.normal(size=DIM)) for i in range(100)])
        before = snapshot(store)
        store.add([node("new", *rng.normal(size=DIM)), node("n3", *rng.normal(size=DIM))])
        after = snapshot(store)
        assert after.matrix.buffers is before.matrix.buffers
        assert (before.matrix.count, after.matrix.count, after.dead.tolist()) == (100, 102, [3])
        assert len(store.query(ask(1000)).ids) == 101


def test_a_table_beyond_the_memory_given_is_scanned_by_duckdb() -> None:
    """The answers are the same; nothing is kept."""
    rng = np.random.default_rng(0)
    nodes = [node(f"n{i}", *rng.normal(size=DIM), year=i % 3) for i in range(300)]
    with DuckDBVectorStore(cache_mb=0) as scanned, DuckDBVectorStore() as cached:
        scanned.add(nodes)
        cached.add(nodes)
        assert snapshot(scanned) is None and snapshot(cached) is not None
        for query in (ask(7), ask(7, filters=only("year", 1)), ask(7, mode=Mode.MMR), ask(500)):
            assert scanned.query(query).ids == cached.query(query).ids
            assert scanned.query(query).similarities == cached.query(query).similarities


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_like_a_fresh_store(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Adds, replacements and deletions in any order, with the copy closed up on the way: vectors, words and
    filters answer as if all had been added at once."""
    monkeypatch.setattr("llama_index_presets.store.duckdb.snapshot._DEAD_FEW", 8)
    monkeypatch.setattr("llama_index_presets.store.duckdb.snapshot._CHUNKS", 4)
    chance, rng = random.Random(seed), np.random.default_rng(seed)
    terms = ["red", "green", "blue", "fish", "boat", "sea"]
    living: dict[str, TextNode] = {}
    with DuckDBVectorStore() as store, DuckDBVectorStore() as fresh:
        for step in range(40):
            if chance.random() < 0.65 or not living:
                new = [
                    node(
                        f"n{chance.randrange(60)}",
                        *rng.normal(size=DIM),
                        text=" ".join(chance.choices(terms, k=5)),
                        parity=step % 2,
                    )
                    for _ in range(chance.randrange(1, 8))
                ]
                store.add(new)
                living |= {n.node_id: n for n in new}
            else:
                gone = chance.sample(sorted(living), min(len(living), 4))
                store.delete_nodes(gone)
                for name in gone:
                    del living[name]
            if chance.random() < 0.05:
                store.clear()
                living.clear()
            if chance.random() < 0.5:
                store.query(words("red fish"))
        fresh.add(list(living.values()))
        for query in (
            ask(100),
            ask(5),
            ask(5, filters=only("parity", 1)),
            words("red fish", 100),
            words("boat", 3, filters=only("parity", 0)),
            ask(6, mode=Mode.HYBRID, query_str="green sea"),
        ):
            mine, expected = store.query(query), fresh.query(query)
            assert mine.ids == expected.ids
            assert mine.similarities == pytest.approx(expected.similarities, rel=1e-6)


# ---- modes -------------------------------------------------------------------------------------------------

LIBRARY = [
    node("a", 1.0, text="The red fish swims", year=1),
    node("b", 0.9, 0.5, text="A red boat", year=1),
    node("c", 0.0, 1.0, text="Fishing for red fish with red nets", year=2),
    node("d", 0.0, 0.0, 1.0, text="Nothing of the kind", year=2),
]


def test_text_search_ranks_by_bm25_and_filters_before_it_ranks() -> None:
    """Only nodes that hold a word are found; scores are above 0; the filter is no afterthought."""
    with DuckDBVectorStore() as store:
        store.add(LIBRARY)
        found = store.query(words("red fish"))
        assert found.ids == ["c", "a", "b"]
        assert found.similarities == sorted(found.similarities, reverse=True) and min(found.similarities) > 0
        assert store.query(words("red fish", filters=only("year", 1))).ids == ["a", "b"]
        assert store.query(words("red", 1, filters=only("year", 2))).ids == ["c"]
        assert store.query(words("unheard of")).ids == []
        assert store.query(words("red fish", 10, sparse_top_k=1)).ids == ["c"]
        store.add([node("a", 1.0, text="rewritten")])
        assert store.query(words("red fish")).ids == ["c", "b"]
        assert store.query(words("rewritten")).ids == ["a"]


def test_alpha_leads_from_words_to_vectors() -> None:
    """0 is the order of BM25, 1 that of the vectors, and between them both count."""
    with DuckDBVectorStore() as store:
        store.add(LIBRARY)

        def hybrid(alpha: float, **fields: Any) -> list[str]:
            query = VectorStoreQuery(
                query_embedding=[1.0, *([0.0] * (DIM - 1))],
                query_str="red fish",
                mode=Mode.HYBRID,
                alpha=alpha,
                similarity_top_k=4,
                **fields,
            )
            return list(store.query(query).ids)

        vectors_only = store.query(
            VectorStoreQuery(query_embedding=[1.0, *([0.0] * (DIM - 1))], similarity_top_k=4)
        )
        assert hybrid(0.0) == ["c", "a", "b"]
        assert hybrid(1.0) == vectors_only.ids
        assert hybrid(0.5)[0] == "a"
        assert len(hybrid(0.5, hybrid_top_k=2)) == 2
        assert hybrid(0.5, filters=only("year", 2)) == ["c", "d"]
        with pytest.raises(QueryError, match=r"alpha is 1\.5"):
            hybrid(1.5)


@pytest.mark.parametrize("mode", [Mode.TEXT_SEARCH, Mode.SPARSE, Mode.HYBRID])
def test_words_are_needed_where_words_are_searched(mode: Mode) -> None:
    """A query without query_str is refused, not answered with nothing."""
    with DuckDBVectorStore() as store:
        store.add(LIBRARY)
        with pytest.raises(QueryError, match="query_str"):
            store.query(ask(mode=mode))


def test_mmr_trades_likeness_for_difference() -> None:
    """A near copy of the best is passed over; the threshold may come either way; scores are cosines."""
    near = [node("a", 1.0, 0.0), node("a2", 1.0, 0.001), node("z", 0.3, 1.0)]
    with DuckDBVectorStore() as store:
        store.add(near)
        query = VectorStoreQuery(
            query_embedding=near[0].embedding, similarity_top_k=2, mode=Mode.MMR, mmr_threshold=0.3
        )
        found = store.query(query)
        assert found.ids == ["a", "z"]
        assert found.similarities[0] == pytest.approx(1.0)
        query.mmr_threshold = None
        assert store.query(query, mmr_threshold=1.0).ids == ["a", "a2"]
        assert store.query(query, mmr_threshold=0.3, mmr_prefetch_k=2).ids == ["a", "a2"]
        with pytest.raises(QueryError, match="mmr_threshold is 2"):
            store.query(query, mmr_threshold=2)


def test_many_questions_get_what_each_would_get(tmp_path: Path) -> None:
    """Plain, filtered and keyword questions may be mixed; so may their limits."""
    rng = np.random.default_rng(0)
    with DuckDBVectorStore(tmp_path / "s.duckdb") as store:
        assert store.query_many([ask(), ask()])[1].ids == []
        store.add([node(f"n{i}", *rng.normal(size=DIM), text=f"word{i % 5}", year=i % 3) for i in range(500)])
        queries = [
            VectorStoreQuery(query_embedding=rng.normal(size=DIM).tolist(), similarity_top_k=1 + i % 7)
            for i in range(20)
        ]
        queries[3] = words("word3")
        queries[5] = ask(4, filters=only("year", 2))
        for query, found in zip(queries, store.query_many(queries), strict=True):
            alone = store.query(query)
            assert (found.ids, found.similarities) == (alone.ids, alone.similarities)
        assert asyncio.run(store.aquery_many(queries))[7].ids == store.query(queries[7]).ids


def test_async_methods_leave_the_loop_free(tmp_path: Path) -> None:
    """While a write has to wait, the loop goes round."""

    async def story(store: DuckDBVectorStore) -> int:
        rounds = 0
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with store._database.writing:
                held.set()
                release.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(30)
        writing = asyncio.create_task(store.async_add([node("a", 1.0)]))
        while rounds < 100:
            await asyncio.sleep(0)
            rounds += 1
        assert not writing.done()
        release.set()
        await writing
        holder.join()
        return rounds

    with DuckDBVectorStore(tmp_path / "s.duckdb") as store:
        assert asyncio.run(story(store)) == 100
        assert store.query(ask()).ids == ["a"]


def test_persist_says_that_a_store_in_memory_keeps_nothing(tmp_path: Path) -> None:
    """`StorageContext.persist` writes the rest of an index; vectors in memory would be missed at the next start."""
    context = StorageContext.from_defaults(vector_store=DuckDBVectorStore())
    with pytest.warns(UserWarning, match=r"in memory keeps nothing on the disk.*Make it with a path"):
        context.persist(str(tmp_path / "index"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StorageContext.from_defaults(vector_store=DuckDBVectorStore(tmp_path / "a.duckdb")).persist(
            str(tmp_path)
        )
