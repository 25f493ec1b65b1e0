"""What a DuckDBVectorStore does when the process, the file or the disk fails, and when many threads meet."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import VectorStoreQuery

from llama_index_presets.errors import StoreCorruptError, StoreError, StoreLockedError, StoreWriteError
from llama_index_presets.store.duckdb.store import DuckDBVectorStore

DIM = 16


def node(name: str, number: float, doc: str = "d") -> TextNode:
    embedding = [1.0, number, *([0.5] * (DIM - 2))]
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc)}
    return TextNode(id_=name, text=f"{name} {number}", embedding=embedding, relationships=source)


def asked(top_k: int = 5) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=top_k)


def names(store: DuckDBVectorStore) -> set[str]:
    return {node.node_id for node in store.get_nodes()}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


ADD_FOR_EVER = """
import sys
from tests.unit.store.test_duckdb_faults import DuckDBVectorStore, node
store = DuckDBVectorStore(sys.argv[1])
for call in range(1000):
    store.add([node(f"{call}-{i}", i) for i in range(400)])
    print(call, flush=True)
"""


def test_kill_9_during_add_loses_only_the_unfinished_call(tmp_path: Path) -> None:
    """Calls that returned are there, whole; the one that was cut off is there whole or not at all."""
    process = python(ADD_FOR_EVER, tmp_path / "s.duckdb")
    assert process.stdout
    for _ in range(4):
        done = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    with DuckDBVectorStore(tmp_path / "s.duckdb") as store:
        calls = [name.split("-")[0] for name in names(store)]
        assert {calls.count(call) for call in set(calls)} == {400}
        assert set(map(str, range(done + 1))) <= set(calls)
        store.add([node("after", 1.0)])
        assert len(store.query(asked(3)).ids) == 3


@pytest.mark.parametrize("left", [0.6, 0.05, 0.001])
def test_a_truncated_file_is_an_error_and_is_not_touched(tmp_path: Path, left: float) -> None:
    """A copy that broke off is named as such, and stays as it is."""
    path = tmp_path / "s.duckdb"
    with DuckDBVectorStore(path) as store:
        store.add([node(str(i), i) for i in range(3000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * left)])
    with pytest.raises(StoreCorruptError, match="cannot be read"):
        DuckDBVectorStore(path).query(asked())
    assert path.read_bytes() == whole[: int(len(whole) * left)]
    assert [file.name for file in tmp_path.iterdir()] == ["s.duckdb"]


def test_a_file_of_something_else_is_an_error_and_is_not_touched(tmp_path: Path) -> None:
    """A path that names a text file is not overwritten."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 1000)
    with pytest.raises(StoreCorruptError, match="not a valid DuckDB database"):
        DuckDBVectorStore(path)
    assert path.read_text() == "not a database " * 1000


DISK_FULL = """
import resource, signal, sys
from tests.unit.store.test_duckdb_faults import DuckDBVectorStore, StoreWriteError, asked, names, node
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = DuckDBVectorStore(sys.argv[1])
store.add([node(f"before-{i}", i) for i in range(100)])
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, resource.RLIM_INFINITY))
try:
    for call in range(100):
        store.add([node(f"{call}-{i}", i) for i in range(20_000)])
    sys.exit("nothing failed")
except StoreWriteError as error:
    print(error)
kept = names(store)
assert all(f"before-{i}" in kept for i in range(100)), len(kept)
assert (len(kept) - 100) % 20_000 == 0, len(kept)
assert len(store.query(asked(5)).ids) == 5
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.add([node("after", 1.0)])
assert "after" in names(store)
store.close()
print("kept", len(kept))
"""


def test_a_full_disk_leaves_what_was_there_readable(tmp_path: Path) -> None:
    """The call that does not fit fails as a whole; reading, and writing once there is room, go on."""
    process = python(DISK_FULL, tmp_path / "s.duckdb")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-2000:]
    assert "could not be written" in out
    with DuckDBVectorStore(tmp_path / "s.duckdb") as store:
        assert {f"before-{i}" for i in range(100)} | {"after"} <= names(store)


HOLD = """
import sys
from tests.unit.store.test_duckdb_faults import DuckDBVectorStore
store = DuckDBVectorStore(sys.argv[1], read_only=sys.argv[2] == "read")
print("open", flush=True)
sys.stdin.readline()
sys.stdin.readline()
"""


def holder(path: Path, how: str) -> subprocess.Popen[str]:
    process = python(HOLD, path, how)
    assert process.stdout and process.stdout.readline() == "open\n"
    return process


def test_a_lock_names_its_holder_and_the_ways_out(tmp_path: Path) -> None:
    """The error says which process has the file, and what to do."""
    path = tmp_path / "s.duckdb"
    with DuckDBVectorStore(path) as store:
        store.add([node("a", 1.0)])
    process = holder(path, "write")
    try:
        for options in ({}, {"read_only": True}):
            with pytest.raises(
                StoreLockedError, match=r"Close it there; .* shared=True .* read_only=True"
            ) as refused:
                DuckDBVectorStore(path, **options)
            assert refused.value.pid == process.pid and str(process.pid) in str(refused.value)
    finally:
        process.kill()
        process.communicate()


def test_many_processes_read_at_once(tmp_path: Path) -> None:
    """With read_only=True readers share the file; a writer has to wait."""
    path = tmp_path / "s.duckdb"
    with DuckDBVectorStore(path) as store:
        store.add([node("a", 1.0)])
    process = holder(path, "read")
    try:
        with DuckDBVectorStore(path, read_only=True) as store:
            assert store.query(asked()).ids == ["a"]
            with pytest.raises(StoreWriteError, match="read_only=True"):
                store.add([node("b", 1.0)])
            with pytest.raises(StoreWriteError, match="read_only=True"):
                store.delete("d")
        with pytest.raises(StoreLockedError, match=str(process.pid)):
            DuckDBVectorStore(path)
    finally:
        process.kill()
        process.communicate()


def test_a_read_only_store_needs_a_file(tmp_path: Path) -> None:
    """Reading makes neither file nor folder."""
    with pytest.raises(StoreError, match="no file"):
        DuckDBVectorStore(tmp_path / "new" / "s.duckdb", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The error names the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError, match="folder"):
        DuckDBVectorStore(tmp_path / "file" / "s.duckdb")


class Player(threading.Thread):
    """Adds, replaces, deletes and asks in its own corner of the ids, so that the end is known."""

    def __init__(self, store: DuckDBVectorStore, name: int, seconds: float) -> None:
        super().__init__()
        self.store, self.corner, self.stop_after = store, f"t{name}", seconds
        self.kept: dict[str, float] = {}
        self.failure: BaseException | None = None
        self.steps = 0

    def run(self) -> None:
        stop, chance = threading.Event(), random.Random(self.corner)
        timer = threading.Timer(self.stop_after, stop.set)
        timer.start()
        try:
            while not stop.is_set():
                self.step(chance)
                self.steps += 1
        except BaseException as error:
            self.failure = error
        finally:
            timer.cancel()

    def step(self, chance: random.Random) -> None:
        what = chance.random()
        if what < 0.4:
            new = {f"{self.corner}-{chance.randrange(60)}": chance.random() for _ in range(5)}
            self.store.add([node(name, number, doc=self.corner) for name, number in new.items()])
            self.kept |= new
        elif what < 0.6 and self.kept:
            gone = chance.sample(sorted(self.kept), min(3, len(self.kept)))
            self.store.delete_nodes(gone)
            for name in gone:
                del self.kept[name]
        elif what < 0.62:
            self.store.delete(self.corner)
            self.kept.clear()
        else:
            self.check()

    def check(self) -> None:
        found = self.store.query(
            VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=200, doc_ids=[self.corner])
        )
        assert set(found.ids) == set(self.kept)
        for hit in found.nodes:
            assert hit.text == f"{hit.node_id} {self.kept[hit.node_id]}"


SECONDS = float(os.environ.get("STORE_THREADS_SECONDS", "6"))


def test_eight_threads_end_where_a_sequential_replay_ends(tmp_path: Path) -> None:
    """Every thread reads its own writes at once, no call fails, and the end is the sum of what each did."""
    with DuckDBVectorStore(tmp_path / "s.duckdb") as store:
        players = [Player(store, i, SECONDS) for i in range(8)]
        for player in players:
            player.start()
        for player in players:
            player.join()
        assert [player.failure for player in players if player.failure] == []
        assert all(player.steps > 5 for player in players)
        expected = {name: number for player in players for name, number in player.kept.items()}
        assert {n.node_id: float(n.text.split()[1]) for n in store.get_nodes()} == expected
        everything = store.query(asked(10_000))
        assert set(everything.ids) == set(expected)
    with DuckDBVectorStore(tmp_path / "s.duckdb") as again:
        assert names(again) == set(expected)


def test_writers_on_two_connections_of_a_process_keep_ids_unique(tmp_path: Path) -> None:
    """Stores that do not know of each other meet in the table's own row, and the later one tries again."""
    import duckdb

    with duckdb.connect(str(tmp_path / "s.duckdb")) as one, duckdb.connect(str(tmp_path / "s.duckdb")) as two:
        stores = [DuckDBVectorStore(connection=one, dim=DIM), DuckDBVectorStore(connection=two)]

        def write(store: DuckDBVectorStore, mark: float) -> None:
            for _ in range(25):
                store.add([node(f"n{i}", mark) for i in range(10)])

        threads = [threading.Thread(target=write, args=(store, i)) for i, store in enumerate(stores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for store in stores:
            assert sorted(n.node_id for n in store.get_nodes()) == sorted(f"n{i}" for i in range(10))
            assert len(store.query(asked(100)).ids) == 10


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_gone_is_not_read_or_written_on(tmp_path: Path, shared: bool, replaced: bool) -> None:
    """What would be written to a deleted file would be lost at the end; put back, it is as it was."""
    path, aside = tmp_path / "v.duckdb", tmp_path / "aside"
    with DuckDBVectorStore(path, shared=shared) as store:
        store.add([node("a", 1)])
        path.rename(aside)
        if replaced and not shared:  # to a shared store this is a compaction of another process
            path.write_bytes(aside.read_bytes())
        what = "replaced by another file" if replaced and not shared else "deleted or moved"
        uses: list[Callable[[], Any]] = [
            lambda: store.query(asked()),
            lambda: store.add([node("b", 2)]),
            lambda: store.delete("d"),
            store.node_count,
            store.check_ready,
            store.get_nodes,
        ]
        for use in uses:
            with pytest.raises(StoreError, match=f"was {what} while it is open"):
                use()
        aside.replace(path)
        assert names(store) == {"a"}
        store.compact()  # our own new file is no other one
        store.check_ready()
        assert names(store) == {"a"}


@pytest.mark.parametrize("reopened", [False, True])
def test_a_store_whose_file_was_replaced_leaves_the_new_one_alone(tmp_path: Path, reopened: bool) -> None:
    """A backup put back under an open store is read when opened again, and closing the old one takes nothing of it."""
    path, log = tmp_path / "v.duckdb", tmp_path / "v.duckdb.wal"
    old = DuckDBVectorStore(path)
    old.add([node("a", 1)])
    kept = {file: file.read_bytes() for file in (path, log)}  # what is added last stands in the log
    old.add([node("b", 2)])
    for file, content in kept.items():
        file.unlink()
        file.write_bytes(content)
    if reopened:
        with DuckDBVectorStore(path) as new:
            assert names(new) == {"a"}
            old.close()
            with DuckDBVectorStore(path) as third:  # the same file, once
                third.add([node("c", 3)])
            assert names(new) == {"a", "c"}
    else:
        old.close()
        assert log.read_bytes() == kept[log]
    with DuckDBVectorStore(path) as store:
        assert names(store) == ({"a", "c"} if reopened else {"a"})


def test_a_shared_file_may_be_compacted_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may put its new file there between two looks at it."""
    path = tmp_path / "v.duckdb"
    with DuckDBVectorStore(path, shared=True) as store:
        store.add([node("a", 1)])
        numbers = iter(range(1_000))
        for module in ("database", "shared"):
            place = f"llama_index_presets.store.duckdb.{module}.inode_of"
            monkeypatch.setattr(place, lambda path: next(numbers), raising=False)
        assert store.node_count() == 1
        monkeypatch.undo()
