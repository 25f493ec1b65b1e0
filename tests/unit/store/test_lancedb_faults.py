"""LanceDBVectorStore when processes die, race each other, or the folder is an object store."""

from __future__ import annotations

import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from moto.server import ThreadedMotoServer
from tests.contracts.store import ask, only, text_node, vector

from llama_index_presets.errors import StoreCorruptError, StoreError, StoreWriteError
from llama_index_presets.store.lancedb import indexes as lancedb_maintenance
from llama_index_presets.store.lancedb.indexes import KEPT_VERSIONS, SMALL_FRAGMENTS
from llama_index_presets.store.lancedb.store import LanceDBVectorStore
from llama_index_presets.store.lancedb.table import reading

WRITER = """
import sys
sys.path[:0] = {path!r}
from llama_index_presets.store.lancedb.store import LanceDBVectorStore
from tests.contracts.store import text_node, vector
store = LanceDBVectorStore({folder!r})
print("ready", flush=True)
sys.stdin.readline()
{body}
"""


def start(folder: Path, body: str) -> subprocess.Popen[str]:
    """Start a writer process and wait until it has opened the store."""
    path = [entry for entry in sys.path if entry]
    code = WRITER.format(path=path, folder=str(folder), body=body)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """What a writer says first: a busy machine may take seconds for it, so no pause stands in for reading."""
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


@pytest.mark.slow("three writers are started and killed; one is in the next test")
def test_a_killed_reingest_leaves_the_old_or_the_new_chunks(tmp_path: Path) -> None:
    """A process that is killed while it replaces a document over and over leaves one whole version of it."""
    body = """
for version in range(10_000):
    store.replace_documents(["d"], [text_node(f"{version}-{i}", vector(1, i), doc="d") for i in range(20)])
    print(version, flush=True)
"""
    for versions, pause_s in ((0, 0.05), (1, 0.13), (1, 0.29)):
        writer = start(tmp_path, body)
        go(writer)
        assert all(lines(writer, versions))
        time.sleep(pause_s)
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        left = [node.node_id for node in LanceDBVectorStore(tmp_path).get_nodes()]
        assert len(left) in (0, 20) and len({node_id.split("-")[0] for node_id in left}) <= 1
    assert len(left) == 20


def test_a_killed_add_loses_only_the_unfinished_call(tmp_path: Path) -> None:
    """Every add that returned is there, the one that was killed is there whole or not at all."""
    body = """
for call in range(10_000):
    store.add([text_node(f"{call:05}-{i}", vector(1, i)) for i in range(10)])
    print(call, flush=True)
"""
    writer = start(tmp_path, body)
    go(writer)
    first = lines(writer, 3)
    time.sleep(0.2)
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.stdout is not None
    returned = len(first) + len(writer.stdout.readlines())
    writer.communicate()
    stored = [node.node_id for node in LanceDBVectorStore(tmp_path).get_nodes()]
    assert returned > 0 and len(stored) in (returned * 10, (returned + 1) * 10)


def test_two_processes_adding_the_same_documents_leave_one_copy(tmp_path: Path) -> None:
    """Both start on an empty folder at the same moment."""
    body = """
for batch in range(10):
    store.add([text_node(f"{batch}-{i}", vector(1, i), doc=f"d{batch}") for i in range(20)])
"""
    writers = [start(tmp_path, body) for _ in range(2)]
    go(*writers)
    assert [writer.wait() for writer in writers] == [0, 0]
    stored = [node.node_id for node in LanceDBVectorStore(tmp_path).get_nodes()]
    assert len(stored) == len(set(stored)) == 200


def test_a_folder_that_is_a_file_is_said_to_be_unwritable(tmp_path: Path) -> None:
    """The error names the folder, not an internal of the database."""
    store = LanceDBVectorStore(tmp_path / "db")
    (tmp_path / "db").rmdir()
    (tmp_path / "db").write_text("in the way")
    with pytest.raises(StoreWriteError, match=r"db' cannot be written"):
        store.add([text_node("a", vector(1))])
    with pytest.raises(StoreWriteError, match=r"db/below' cannot be written"):
        LanceDBVectorStore(tmp_path / "db" / "below")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket behind a real S3 protocol server on loopback, credentials in the environment."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
        Bucket="papers"
    )
    yield "s3://papers/index"
    server.stop()


def test_an_s3_url_is_a_store_like_any_other(bucket: str) -> None:
    """Add, upsert, filter, replace and reopen over S3, credentials from the environment alone."""
    store = LanceDBVectorStore(bucket, fingerprint="model=a")
    store.add(
        [text_node("a", vector(1), doc="d", metadata={"k": "v"}), text_node("b", vector(0, 1), doc="d")]
    )
    store.add([text_node("a", vector(1), doc="d", metadata={"k": "w"})])
    assert store.query(ask(vector(1), filters=only("k", "==", "w"))).ids == ["a"]
    store.replace_documents(["d"], [text_node("c", vector(1, 1), doc="d")])
    again = LanceDBVectorStore(bucket)
    assert [node.node_id for node in again.get_nodes()] == ["c"] and again.fingerprint == "model=a"


# ---- growth ----------------------------------------------------------------------------------------------


def files_in(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def test_small_upserts_and_deletes_do_not_pile_up_files(tmp_path: Path) -> None:
    """At most the unfolded commits and the kept versions, with three files each, beside the folded fragments."""
    store = LanceDBVectorStore(tmp_path / "db")
    store.add([TextNode(id_=f"old {n}", text="x", embedding=[1.0, n]) for n in range(500)])
    for n in range(150):
        store.add([TextNode(id_=f"{n}", text=f"text {n}", embedding=[1.0, n])])
        if n % 2:
            store.delete_nodes([f"{n - 1}"])
    assert files_in(tmp_path / "db") <= 3 * (2 * SMALL_FRAGMENTS + KEPT_VERSIONS)
    assert len(store.node_ids()) == 500 + 150 - 75
    assert [node.text for node in store.get_nodes(["149"])] == ["text 149"]


def test_a_large_fragment_is_not_written_again_for_small_ones(tmp_path: Path) -> None:
    """The commits of a few rows are folded among themselves: the first fragment keeps its file."""
    store = LanceDBVectorStore(tmp_path / "db")
    store.add([TextNode(id_=f"old {n}", text="x", embedding=[1.0, n]) for n in range(500)])
    [first] = (tmp_path / "db").rglob("*.lance/data/*.lance")
    for n in range(40):
        store.add([TextNode(id_=f"{n}", text="y", embedding=[1.0, n])])
    assert first.exists()
    assert store._open().stats()["fragment_stats"]["num_fragments"] < 40


def test_a_reader_goes_on_while_another_store_folds_and_drops_versions(tmp_path: Path) -> None:
    """Each query sees one state of the table, whatever files a compaction takes away meanwhile."""
    writer, reader = LanceDBVectorStore(tmp_path / "db"), LanceDBVectorStore(tmp_path / "db")
    writer.add([TextNode(id_="first", text="x", embedding=[1.0, 0.0])])
    failures: list[BaseException] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                assert (
                    "first"
                    in reader.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=3)).ids
                )
            except BaseException as error:
                failures.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    for n in range(70):
        writer.add([TextNode(id_=f"{n}", text="y", embedding=[0.0, 1.0])])
        if n % 10 == 0:
            writer.optimize(keep_versions_s=0)
    over.set()
    thread.join()
    assert failures == []


def test_a_compaction_that_fails_does_not_fail_the_commit_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The nodes are stored; the log says what was not done."""

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(lancedb_maintenance, "_drop_old_versions", refuse)
    store = LanceDBVectorStore(tmp_path / "db")
    for n in range(40):
        store.add([TextNode(id_=f"{n}", text="y", embedding=[1.0, 0.0])])
    assert len(store.node_ids()) == 40
    assert "was not compacted: disk full" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_data_file_that_the_disk_cut_is_no_commit(tmp_path: Path) -> None:
    """LanceDB says nothing of the last bytes that found no room: the write raises, and the table is as before."""
    refused = 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for sectors in range(7, 15):
        store = LanceDBVectorStore(str(tmp_path / str(sectors)))
        store.add([TextNode(id_="old", text="old", embedding=[1.0] + [0.0] * 15)])
        new = [
            TextNode(id_=f"n{i}", text=f"text {i}", embedding=[math.sin(i + k) for k in range(16)])
            for i in range(50)
        ]
        resource.setrlimit(resource.RLIMIT_FSIZE, (512 * sectors, before[1]))
        try:
            store.add(new, bulk=True)
            kept = 51
        except StoreWriteError:
            refused, kept = refused + 1, 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        again = LanceDBVectorStore(str(tmp_path / str(sectors)))
        assert again.node_count() == len(again.get_nodes(None, None)) == kept
        again.add(new)
        assert again.node_count() == 51
    signal.signal(signal.SIGXFSZ, handler)
    assert refused


READS: dict[str, Callable[[LanceDBVectorStore], list[str]]] = {
    "query": lambda store: (
        store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=1)).ids or []
    ),
    "get_nodes": lambda store: [node.node_id for node in store.get_nodes(["first"])],
    "node_ids": lambda store: store.node_ids()[-1:],
    "node_count": lambda store: ["first"][: store.node_count()],
}


@pytest.mark.parametrize("name", READS)
def test_a_read_that_meets_several_compactions_is_begun_again(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time the version that was opened is gone before it is read; the fourth attempt is left alone."""
    folder = tmp_path / "db"
    writer, reader = LanceDBVectorStore(folder), LanceDBVectorStore(folder, read_consistency_s=3600)
    writer.add([TextNode(id_="first", text="x", embedding=[1.0, 0.0])])
    opened = LanceDBVectorStore._open
    compactions = iter(range(3))

    def overtaken(store: LanceDBVectorStore) -> object:
        table = opened(store)
        if store is reader and (n := next(compactions, None)) is not None:
            table.count_rows()
            writer.add([TextNode(id_=f"{n}", text="y", embedding=[0.0, 1.0])])
            writer.compact()
        return table

    monkeypatch.setattr(LanceDBVectorStore, "_open", overtaken)
    assert READS[name](reader) == ["first"]


@pytest.mark.parametrize(
    "said",
    [
        "lance error: Not found: /db/vectors.lance/data/1.lance",
        "Not found: LanceError(IO): /db/data/1.lance, x.rs:1",
    ],
)
def test_every_form_of_lances_errors_is_the_stores(said: str) -> None:
    """It says "lance error" when a read begins, and "LanceError" in the middle of its stream."""
    with pytest.raises(StoreCorruptError, match=r"cannot be read .*Not found"), reading("/db"):
        raise RuntimeError(said)


def test_a_huge_top_k_asks_for_all_nodes(tmp_path: Path) -> None:
    """Lance takes 32 bits; there are never more hits than nodes."""
    store = LanceDBVectorStore(tmp_path)
    store.add([TextNode(id_=name, text=name, embedding=[1.0, 0.0]) for name in "ab"])
    query = VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=10**12)
    assert store.query(query).ids == ["a", "b"]


def test_a_table_that_is_gone_is_no_empty_table(tmp_path: Path) -> None:
    """A folder deleted under an open store is an error to read and to write, not an index without nodes."""
    folder, aside = tmp_path / "v", tmp_path / "aside"
    with LanceDBVectorStore(folder) as store:
        assert store.node_count() == 0
        store.add([text_node("a", vector(1))])
        folder.rename(aside)
        uses: list[Callable[[], Any]] = [
            lambda: store.query(ask(vector(1))),
            lambda: store.add([text_node("b", vector(1))]),
            store.node_ids,
            store.check_ready,
        ]
        for use in uses:
            with pytest.raises(
                StoreError, match="Table 'vectors' in .* was deleted while this store has it open"
            ):
                use()
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        assert store.query(ask(vector(1))).ids == ["a"]


def test_what_lance_says_of_a_damaged_file_has_no_text_of_a_row() -> None:
    """A panic, which is no RuntimeError, and quoted values: the message goes to logs."""
    panic = type("RustPanic", (Exception,), {})
    told = RuntimeError(
        "lance error: Invalid user input: no such value 'secret' in '/data/a.lance', /src/x.rs:1"
    )
    for error in (panic("rust future panicked: secret"), told):
        with pytest.raises(StoreCorruptError, match="cannot be read") as refused, reading("place"):
            raise error
        assert "secret" not in str(refused.value)
    assert "/data/a.lance" in str(refused.value) and "x.rs" not in str(refused.value)


def test_lances_caches_do_not_grow_with_each_ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of replaced indexes stay in them until they are full, by default at 6 GiB."""
    import lancedb

    sessions: list[Any] = []
    make = lancedb.Session
    monkeypatch.setattr(
        lancedb, "Session", lambda **options: sessions.append(make(**options)) or sessions[-1]
    )
    for name in ("_INDEX_CACHE", "_METADATA_CACHE"):
        monkeypatch.setattr(f"llama_index_presets.store.lancedb.table.{name}", 128 << 10)
    with LanceDBVectorStore(tmp_path) as store:
        store.add([text_node(f"n{number}", vector(number + 1.0)) for number in range(300)])
        for number in range(15):
            store.add([text_node(f"n{number}", vector(number + 1.0))])
            store.finish_load()
        assert store.node_count() == 300
    assert len(sessions) == 1 and sessions[0].size_bytes < 1 << 20  # without the limits, twice of that
