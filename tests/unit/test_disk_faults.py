"""What a full disk, or a kill while a file is first made, does to stores, caches, locks and logs: nothing is lost."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import VectorStoreQuery

from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.errors import MonitorError, StoreCorruptError, StoreError, StoreWriteError
from llama_index_presets.evaluate.outcomes import Checkpoint, Outcome
from llama_index_presets.files.disk_faults import finish, is_half_made
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.manifest import Manifest, ManifestEntry
from llama_index_presets.monitor.budgets import BudgetState
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.retrieve.bm25.index import BM25Index
from llama_index_presets.store.duckdb.store import DuckDBVectorStore
from llama_index_presets.store.lancedb.store import LanceDBVectorStore

HEADER = 4096


def make(path: str) -> None:
    duckdb.connect(path).close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> bytes:
    """A database without a table, as DuckDB makes it: three headers."""
    path = tmp_path_factory.mktemp("empty") / "e.duckdb"
    make(str(path))
    content = path.read_bytes()
    assert len(content) == 3 * HEADER
    return content


def halves(empty: bytes) -> dict[str, bytes]:
    """Every state in which a kill, a full disk or a crash of the machine can leave it."""
    cuts = {f"{length} bytes": empty[:length] for length in (0, 512, 4096, 4608, 8192, 11_776)}
    zeros = bytes(HEADER)
    return {
        **cuts,
        "zeros": 3 * zeros,
        "one header": empty[:HEADER] + 2 * zeros,
        "two headers": empty[: 2 * HEADER] + zeros,
    }


def test_a_ledger_counts_its_rows_whatever_a_killed_fold_left(empty, tmp_path):
    """The rows in the journals are read and then folded, beside a file of which only a part was written."""
    for number, (name, content) in enumerate({**halves(empty), "whole": empty}.items()):
        path = tmp_path / f"{number}.duckdb"
        path.write_bytes(content)
        with Ledger(path) as ledger:
            ledger.record(kind="llm", prompt_tokens=number)
            assert ledger.get_usage_stats().total_calls == 1, name
        assert Ledger(path).get_usage_stats().total_tokens == number, name


def test_a_store_opens_whatever_a_killed_process_left_of_its_file(empty, tmp_path):
    """It is empty, as it was, takes nodes and keeps them."""
    for number, (name, content) in enumerate(halves(empty).items()):
        path = tmp_path / f"{number}.duckdb"
        path.write_bytes(content)
        with DuckDBVectorStore(path) as store:
            assert not store.get_nodes(), name
            store.add([TextNode(id_="a", text="kept", embedding=[1.0, 0.0])])
        with DuckDBVectorStore(path, read_only=True) as store:
            assert [node.node_id for node in store.get_nodes()] == ["a"], name


def test_a_half_made_file_is_nothing_to_read(empty, tmp_path):
    """A store that only reads says so and leaves the file as it is."""
    path = tmp_path / "s.duckdb"
    path.write_bytes(empty[:HEADER])
    with pytest.raises(StoreError, match="There is no file .* to read"):
        DuckDBVectorStore(path, read_only=True).get_nodes()
    assert path.read_bytes() == empty[:HEADER]


@pytest.mark.parametrize(
    "content",
    [b"a text of somebody\n" * 200, b"x" * HEADER, b"\0" * 20_000],
    ids=["text", "one block", "more than the headers"],
)
def test_a_file_of_something_else_is_not_overwritten(tmp_path, content):
    """Only what begins as DuckDB begins a file, and holds nothing yet, may be made again."""
    path = tmp_path / "s.duckdb"
    path.write_bytes(content)
    assert not is_half_made(path) and not finish(path, make)
    with pytest.raises(StoreCorruptError, match="Nothing was changed"):
        DuckDBVectorStore(path).get_nodes()
    assert path.read_bytes() == content


def test_a_file_with_a_log_beside_it_is_not_made_again(empty, tmp_path):
    """DuckDB writes the log after the headers: this file lost its beginning later, and the log may hold rows."""
    path = tmp_path / "s.duckdb"
    path.write_bytes(empty[:HEADER])
    Path(f"{path}.wal").write_bytes(b"rows")
    assert not finish(path, make)
    assert path.read_bytes() == empty[:HEADER]


def test_a_file_that_another_process_is_making_is_left_to_it(empty, tmp_path):
    """DuckDB's lock on it says that its maker lives; a file that the maker has finished is left alone, too."""
    import multiprocessing

    path = tmp_path / "s.duckdb"
    path.write_bytes(empty[:HEADER])
    ready, done = multiprocessing.Event(), multiprocessing.Event()
    maker = multiprocessing.Process(target=_hold, args=(path, ready, done))
    maker.start()
    assert ready.wait(60)
    assert finish(path, make) and path.read_bytes() == empty[:HEADER]
    done.set()
    maker.join()
    assert finish(path, make) and not is_half_made(path)
    assert not finish(path, make)


def _hold(path, ready, done):
    import fcntl

    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        ready.set()
        done.wait(60)


# ---- a full disk ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: each write behind them fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def nodes(first: int, last: int) -> list[TextNode]:
    return [
        TextNode(id_=f"n{number}", text=f"words {number} " * 20, embedding=[1.0, float(number)])
        for number in range(first, last)
    ]


STORES: dict[str, Callable[[Path], DuckDBVectorStore | LanceDBVectorStore]] = {
    "duckdb": lambda folder: DuckDBVectorStore(folder / "s.duckdb"),
    "lancedb": lambda folder: LanceDBVectorStore(str(folder / "lance")),
}


@pytest.mark.parametrize("room", [0, 4096, 12_288])
@pytest.mark.parametrize("name", STORES)
def test_a_store_on_a_full_disk_says_make_room_and_keeps_what_it_has(tmp_path, name, room):
    """The change is refused whole, what was there answers, and with room the same change works."""
    store = STORES[name](tmp_path)
    store.add(nodes(0, 10))
    with full_disk(room), pytest.raises(StoreWriteError, match=r"written.*(?i:make room)"):
        store.add(nodes(10, 400))
    assert {node.node_id for node in store.get_nodes()} == {f"n{number}" for number in range(10)}
    query = VectorStoreQuery(query_embedding=[1.0, 3.0], similarity_top_k=1)
    assert len(store.query(query).ids) == 1
    store.add(nodes(10, 20))
    assert len(store.get_nodes()) == 10 + 10
    store.close()


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_was_first_made_on_a_full_disk_works_with_room(tmp_path, name):
    """The failed first call leaves nothing behind that the next one trips over."""
    with full_disk(4096), pytest.raises(StoreWriteError, match=r"written.*(?i:make room)"):
        STORES[name](tmp_path).add(nodes(0, 400))
    with contextlib.closing(STORES[name](tmp_path)) as store:
        store.add(nodes(0, 5))
        assert len(store.get_nodes()) == 5


def test_an_index_of_lancedb_that_a_full_disk_refuses_is_not_called_damage(tmp_path):
    """A text search that would build its index, and the end of a load, say what to do about the disk."""
    store = LanceDBVectorStore(str(tmp_path))
    store.add(nodes(0, 50))
    query = VectorStoreQuery(query_str="words", mode="text_search", similarity_top_k=2)
    with full_disk(0):
        for act in (lambda: store.query(query), store.finish_load, lambda: store.delete_nodes(["n1"])):
            with pytest.raises(StoreWriteError, match="Make room on its disk"):
                act()
    assert len(store.query(query).ids) == 2 and len(store.get_nodes()) == 50


@pytest.mark.parametrize("room", range(1_000, 40_000, 3_000))
def test_a_compaction_of_lancedb_on_a_full_disk_keeps_every_node(tmp_path, room):
    """Lance's own error came out; and no old version goes before the new files are known to be whole."""
    store = LanceDBVectorStore(str(tmp_path))
    for first in range(0, 100, 10):
        store.add(nodes(first, first + 10))
    store.delete_nodes(["n1"])
    with full_disk(room):
        try:
            store.compact()
        except StoreWriteError as error:
            assert "ake room on its disk" in str(error)
    kept = {f"n{number}" for number in range(100)} - {"n1"}
    assert {node.node_id for node in store.get_nodes()} == kept
    store.compact()
    with contextlib.closing(LanceDBVectorStore(str(tmp_path))) as again:
        assert {node.node_id for node in again.get_nodes()} == kept


def test_a_lock_can_be_taken_on_a_full_disk(tmp_path):
    """Its note of who holds it is for those who wait; taking documents out, which makes room, needs only the lock."""
    with full_disk(0):
        with ingest_lock(tmp_path / "ingest.lock"):
            pass
        index = BM25Index(tmp_path / "keywords")
        with pytest.raises(StoreWriteError, match="Free space"):
            index.add(nodes(0, 5))
    index.add(nodes(0, 5))
    assert len(index) == 5


def test_an_embedding_cache_on_a_full_disk_keeps_and_finds_nothing(tmp_path, caplog):
    """Vectors are computed again and the log says why; with room again it keeps what it is given."""
    cache = EmbeddingCache(tmp_path)
    vectors = {os.urandom(32): [0.5] * 384}
    with full_disk(100):
        cache.put_many(vectors)
        assert cache.get_many(list(vectors)) == {} and cache.contains_many(list(vectors)) == set()
        with pytest.raises(StoreWriteError, match="make room"):
            cache.clear()
    assert "kept nothing" in caplog.text and "not asked" in caplog.text
    cache.put_many(vectors)
    assert cache.contains_many(list(vectors)) == set(vectors)
    cache.close()


def test_budgets_on_a_full_disk_refuse_and_damaged_sums_are_read_anew(tmp_path):
    """No call is made that no budget could hold; a file that a crash emptied is dropped, for the ledger knows all."""
    state = BudgetState(tmp_path / "calls.duckdb")
    with state.locked() as shares:
        shares.begin("day", Decimal(1))
    with (
        full_disk(0),
        pytest.raises(MonitorError, match=r"budgets .* cannot be written: .* Free space on its disk"),
        state.locked() as shares,
    ):
        shares.settle("call", ["day"], Decimal(1))
    with state.locked() as shares:
        assert shares.spent("day") == 1
    file = tmp_path / "calls.duckdb.journal" / "budgets.json"
    file.write_bytes(b"")
    with pytest.raises(MonitorError, match="were damaged"), state.locked():
        pass
    assert not state.knows("day")
    with state.locked() as shares:
        assert shares.spent("day") == 0


def test_an_evaluation_on_a_full_disk_keeps_its_answers(tmp_path):
    """The outcome that did not fit is named, those before it are read again by the next run."""
    path = tmp_path / "run.jsonl"
    with Checkpoint(path) as kept:
        kept.add(Outcome(question="q1"))
        with full_disk(path.stat().st_size), pytest.raises(StoreWriteError, match="Make room .* 1 question"):
            kept.add(Outcome(question="q2"))
    with Checkpoint(path) as again:
        assert list(again.outcomes) == ["q1"]


def test_a_manifest_on_a_full_disk_is_as_it_was(tmp_path):
    """The documents that did not fit are not recorded, and the next run, with room, records them."""
    manifest = Manifest(tmp_path / "manifest.sqlite")
    first, *others = [ManifestEntry(f"d{number}", "0" * 64, 1, 1) for number in range(400)]
    manifest.record([first])
    with full_disk(8192), pytest.raises(StoreWriteError, match=r"manifest .* as it was\. Make room"):
        manifest.record(others)
    assert set(manifest.hashes()) == {"d0"}
    manifest.record(others)
    assert len(manifest.hashes()) == 400
    manifest.close()
