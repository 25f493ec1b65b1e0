"""A DuckDB file that processes share: they take turns, see each other's changes, and a kill leaves it usable."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest
from llama_index.core import Document
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import StoreError, StoreLockedError, StoreWriteError
from llama_index_presets.store.duckdb import shared
from llama_index_presets.store.duckdb.store import DuckDBVectorStore

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

spawned = multiprocessing.get_context("spawn")


def node(name: str, x: float = 1.0) -> TextNode:
    return TextNode(id_=name, text=f"text of {name}", embedding=[x, 1.0])


def best(store: DuckDBVectorStore, x: float) -> str:
    return (store.query(VectorStoreQuery(query_embedding=[x, 1.0], similarity_top_k=1)).ids or [""])[0]


def opened(path: Path, **options: Any) -> DuckDBVectorStore:
    return DuckDBVectorStore(path, shared=True, **options)


def write_batches(path: Path, name: str, batches: int) -> None:
    with opened(path) as store:
        for batch in range(batches):
            store.add([node(f"{name}-{batch}-{number}", batch + 2.0) for number in range(10)])


def read_until(path: Path, stop: Any, seen: Any) -> None:
    """Counts that a process reads while others write; one that is no whole batch, or falls, ends it."""
    with opened(path, read_only=True) as store:
        counts = [store.node_count()]
        while not stop.is_set():
            counts.append(store.node_count())
            assert best(store, 1.0) == "first"
        counts.append(store.node_count())
    seen.put((counts == sorted(counts), all(count % 10 == 1 for count in counts), counts[-1]))


@pytest.mark.slow("four processes, each of which imports LlamaIndex")
def test_processes_read_while_others_write(tmp_path: Path) -> None:
    """Two writers of 5 x 10 nodes and two readers of one file: every read is of whole writes, none is lost."""
    path = tmp_path / "a.duckdb"
    with opened(path) as store:
        store.add([node("first")])
        stop, seen = spawned.Event(), spawned.Queue()
        readers = [spawned.Process(target=read_until, args=(path, stop, seen)) for _ in range(2)]
        writers = [spawned.Process(target=write_batches, args=(path, name, 5)) for name in "ab"]
        for process in (*readers, *writers):
            process.start()
        for process in writers:
            process.join(120)
        stop.set()
        found = [seen.get(timeout=120) for _ in readers]
        for process in readers:
            process.join(120)
        assert [process.exitcode for process in (*readers, *writers)] == [0, 0, 0, 0]
        assert found == [(True, True, 101), (True, True, 101)]
        assert store.node_count() == 101
        assert best(store, 6.0)[2:3] == "4"  # the vectors of the last batches, which this process never wrote


def in_another_process(script: str, *arguments: object, check: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


INSERT = """
import sys, duckdb
with duckdb.connect(sys.argv[1]) as file:
    file.execute("UPDATE llama_index_presets_stores SET version = version + 1, removals = removals + 1")
    file.execute("DELETE FROM vectors WHERE node_id = ?", [sys.argv[2]])
"""


def test_nobody_has_the_file_between_two_uses(tmp_path: Path) -> None:
    """Another program may open and change it; the next question sees that."""
    path = tmp_path / "a.duckdb"
    with opened(path) as store:
        store.add([node("a", 1.0), node("b", 9.0)])
        assert best(store, 9.0) == "b"
        in_another_process(INSERT, path, "b")
        assert (best(store, 9.0), store.node_count(), store.node_ids()) == ("a", 1, ["a"])


KILLED = """
import os, signal, sys, duckdb
file = duckdb.connect(sys.argv[1])
file.execute("UPDATE llama_index_presets_stores SET version = version + 1, removals = removals + 1")
file.execute("DELETE FROM vectors WHERE node_id = 'b'")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
def test_what_a_killed_writer_committed_is_read(tmp_path: Path) -> None:
    """Its log stays beside the file: readers see it, and the next writer takes it up."""
    path = tmp_path / "a.duckdb"
    with opened(path) as store:
        store.add([node("a", 1.0), node("b", 9.0)])
        in_another_process(KILLED, path, check=False)
        assert Path(f"{path}.wal").exists()
        assert store.node_ids() == ["a"]
        store.add([node("c", 9.0)])
        assert best(store, 9.0) == "c"
    assert not Path(f"{path}.wal").exists()
    with opened(path) as store:
        assert store.node_ids() == ["a", "c"]


def test_a_program_that_takes_no_turns_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store without shared=True in another process keeps the file: the error says which process."""
    monkeypatch.setattr(shared, "_LINGER_S", 0.1)
    path = tmp_path / "a.duckdb"
    with opened(path) as store:
        store.add([node("a")])
        script = "import sys, duckdb; file = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
        holder = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            with pytest.raises(StoreLockedError, match=f"held by process {holder.pid}"):
                store.add([node("b")])
        finally:
            holder.communicate(b"\n", timeout=60)
        store.add([node("b")])
        assert store.node_ids() == ["a", "b"]


def test_a_turn_that_does_not_come_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers and writers wait for a writer; beyond the patience they say so, and nothing is written."""
    monkeypatch.setattr(shared, "_PATIENCE_S", 0.05)
    path = tmp_path / "a.duckdb"
    with opened(path) as store:
        store.add([node("a")])
        with shared.FileLock(Path(f"{path}.turn")) as other:
            assert other.acquire()
            with pytest.raises(
                StoreLockedError, match=r"was written by other processes for more than 0.05 s"
            ):
                store.get_nodes(["a"])
        with shared.FileLock(Path(f"{path}.users")) as other:
            assert other.acquire(shared=True)
            with pytest.raises(StoreLockedError, match=r"was read or written by other processes"):
                store.delete("a")
        assert store.node_ids() == ["a"]


def test_threads_of_one_process_share_a_reading(tmp_path: Path) -> None:
    """Eight threads read and two write through one store; every count is a whole number of writes."""
    path, wrong = tmp_path / "a.duckdb", []
    with opened(path, cache_mb=0) as store:  # every question is DuckDB's
        store.add([node("first")])

        def read() -> None:
            for _ in range(10):
                if best(store, 1.0) != "first" or store.node_count() % 2 != 1:
                    wrong.append("read")

        def write(name: str) -> None:
            for number in range(5):
                store.add([node(f"{name}{number}a", 9.0), node(f"{name}{number}b", 9.0)])

        threads = [threading.Thread(target=read) for _ in range(8)]
        threads += [threading.Thread(target=write, args=(name,)) for name in "xy"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert (wrong, store.node_count()) == ([], 1 + 2 * 5 * 2)


def test_another_process_may_compact(tmp_path: Path) -> None:
    """The file is another one then; the next question is asked of it."""
    path = tmp_path / "a.duckdb"
    script = (
        "import sys; from llama_index_presets import DuckDBVectorStore\n"
        "with DuckDBVectorStore(sys.argv[1], shared=True) as store: store.compact()"
    )
    with opened(path) as store:
        store.add([node("a", 1.0), node("b", 9.0)])
        store.delete_nodes(["b"])
        assert best(store, 9.0) == "a"
        before = path.stat().st_ino
        in_another_process(script, path)
        assert path.stat().st_ino != before
        assert (best(store, 9.0), store.node_ids()) == ("a", ["a"])


def test_both_ways_do_not_mix_in_a_process(tmp_path: Path) -> None:
    """One connection that lasts would keep all others out."""
    path = tmp_path / "a.duckdb"
    with opened(path), pytest.raises(StoreError, match=r"with shared=True and cannot be opened without it"):
        DuckDBVectorStore(path)
    with DuckDBVectorStore(path), pytest.raises(StoreError, match=r"without shared=True"):
        opened(path)


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    """Memory, a given connection, the connection that `client` would lend, and a write of a reader."""
    with pytest.raises(StoreError, match="in memory cannot be shared"):
        DuckDBVectorStore(shared=True)
    with duckdb.connect() as connection, pytest.raises(StoreError, match="given connection cannot be shared"):
        DuckDBVectorStore(connection=connection, shared=True)
    with pytest.raises(StoreError, match="no file .* to read"):
        opened(tmp_path / "none.duckdb", read_only=True)
    with opened(tmp_path / "a.duckdb") as store:
        with pytest.raises(StoreError, match="shared store keeps no connection"):
            _ = store.client
        store.add([node("a")])
    with opened(tmp_path / "a.duckdb", read_only=True) as store:
        assert store.node_ids() == ["a"]
        with pytest.raises(StoreWriteError, match="read_only=True"):
            store.add([node("b")])


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a reader does without the locks, or takes those of another user; a write says what is missing."""
    path = tmp_path / "a.duckdb"
    with opened(path) as store:
        store.add([node("a")])

    def refuse(where: Path) -> None:
        raise PermissionError(13, "Permission denied", str(where))

    monkeypatch.setattr("llama_index_presets.files.locks.private_file", refuse)
    for locks_are_there in (True, False):
        for read_only in (True, False):
            with opened(path, read_only=read_only) as store:
                assert store.node_ids() == ["a"]
        with (
            opened(path) as store,
            pytest.raises(
                StoreWriteError, match=r"a\.duckdb\.turn' cannot be taken: Permission denied.*without shared"
            ),
        ):
            store.add([node("b")])
        if locks_are_there:
            Path(f"{path}.turn").unlink()
            Path(f"{path}.users").unlink()


def fill_log(store: DuckDBVectorStore) -> None:
    """Have DuckDB keep some MiB in its log when it closes the file, as after a kill."""
    store.client.execute("PRAGMA disable_checkpoint_on_shutdown")
    store.client.execute("CREATE TABLE large AS SELECT hash(i)::VARCHAR || i AS t FROM range(100000) r(i)")


@pytest.mark.skipif(resource is None, reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("shared", [True, False])
def test_a_log_that_a_full_disk_refuses_to_take_up_is_read(tmp_path: Path, shared: bool) -> None:
    """What was there stays readable, as the error says in one line; once there is room, writing goes on."""
    path = tmp_path / "a.duckdb"
    store = DuckDBVectorStore(path)
    store.add([node("a")])
    fill_log(store)
    if shared:
        store.close()
    else:
        store._database._broken = True  # as after a commit that the disk refused
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 1_000, hard))
    try:
        if shared:
            store = opened(path)
        assert store.node_ids() == ["a"]
        with pytest.raises(StoreWriteError, match=r"could not be written: [^\n]*File too large\. The call"):
            store.add([node("b")])
        assert best(store, 1.0) == "a"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.add([node("b")])
    assert store.node_ids() == ["a", "b"]
    store.close()


def test_the_files_are_for_this_user_alone(tmp_path: Path) -> None:
    """The database and both locks have mode 0600."""
    with opened(tmp_path / "a.duckdb") as store:
        store.add([node("a")])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    if os.name == "posix":
        assert modes == {"a.duckdb": 0o600, "a.duckdb.turn": 0o600, "a.duckdb.users": 0o600}


ASK = """
import sys
from llama_index_presets import build
from tests.fakes import WordEmbedding
options = {"embed_model": WordEmbedding(), "settings": {"store": "duckdb", "encryption": "off"}}
with build("healthcare", storage=sys.argv[1], **options) as engine:
    print(engine.query("What do cats do?"))
    engine.delete(["dogs.txt"])
"""


def test_another_process_asks_and_removes_while_an_engine_is_open(tmp_path: Path) -> None:
    """As beside `serve` or a long ingest."""
    options: dict[str, Any] = {
        "embed_model": WordEmbedding(),
        "settings": {"store": "duckdb", "encryption": "off"},
    }
    with build("healthcare", storage=tmp_path / "clinic", **options) as engine:
        engine.ingest(
            [Document(text="Cats purr.", id_="cats.txt"), Document(text="Dogs bark.", id_="dogs.txt")]
        )
        assert "Cats purr" in in_another_process(ASK, tmp_path / "clinic")
        assert [one.id for one in engine.documents()] == ["cats.txt"]
        assert len(engine.retrieve("dogs")) == 1
