"""What PostgresVectorStore promises beyond the contract of every store, on a real Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.postgres import PGVectorStore
from sqlalchemy import event, make_url
from tests.contracts.store import DIM, ask, only, text_node, vector
from tests.unit.test_filters import HOSTILE, metadatas, trees

from llama_index_presets.errors import NodeRejectedError, SettingsError, StoreError, StoreWriteError
from llama_index_presets.filters import predicate
from llama_index_presets.store.postgres import embedded
from llama_index_presets.store.postgres.connection import Transactions, make_engine
from llama_index_presets.store.postgres.embedded import embedded_postgres
from llama_index_presets.store.postgres.plain_path import plain_path, remove_link
from llama_index_presets.store.postgres.store import PostgresVectorStore

numbers = itertools.count()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with embedded_postgres(folder) as address:
        yield address


@pytest.fixture
def store(url: str) -> Iterator[PostgresVectorStore]:
    with new(url) as store:
        yield store


def new(url: str, dim: int = DIM, **options: Any) -> PostgresVectorStore:
    return PostgresVectorStore.from_url(url, embed_dim=dim, table_name=f"t{next(numbers)}", **options)


# ---- filters and hostile data ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(url: str) -> Iterator[PostgresVectorStore]:
    with new(url) as store:
        yield store


def storable(value: Any) -> bool:
    """Whether Postgres can hold it: NUL characters are refused, with a test of its own."""
    if isinstance(value, dict):
        return all(storable(key) and storable(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(storable, value))
    return not isinstance(value, str) or "\0" not in value


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(metadatas.filter(storable), min_size=1, max_size=4), filters=trees)
def test_postgres_selects_what_the_predicate_selects(
    shared: PostgresVectorStore, rows: list[dict[str, Any]], filters: MetadataFilters
) -> None:
    """Any tree of filters over any metadata means in Postgres what it means in Python."""
    shared.clear()
    shared.add([text_node(str(n), vector(1), metadata=row) for n, row in enumerate(rows)])
    accepts = predicate(filters)
    references = dict.fromkeys(("ref_doc_id", "doc_id", "document_id"))
    expected = [str(n) for n, row in enumerate(rows) if accepts({**references, **row})]
    assert [node.node_id for node in shared.get_nodes(filters=filters)] == expected


def test_hostile_ids_documents_keys_and_values_are_data(store: PostgresVectorStore) -> None:
    """No quote, marker or comment reaches the database as SQL."""
    names = [*(name for name in HOSTILE if "\0" not in name), "%(f0)s", "%s", "' OR '1'='1", "x" * 10_000]
    store.add([text_node(f"n{name}", vector(1), doc=name, metadata={name: name}) for name in names])
    for name in names:
        assert [node.node_id for node in store.get_nodes([f"n{name}"])] == [f"n{name}"]
        for operator, value in (("==", name), ("text_match", name), ("in", [name]), ("contains", name)):
            found = store.query(ask(vector(1), 100, filters=only(name, operator, value)))
            assert found.ids == [f"n{name}"], (operator, name[:20])
    for name in names:
        store.delete(name)
    assert store.get_nodes() == []


@pytest.mark.parametrize("table", ['we"ird; DROP', "Ünïcode", "sel ect", "x" * 63])
def test_any_table_name_is_quoted(url: str, table: str) -> None:
    """A name is a name, whatever it says."""
    with PostgresVectorStore.from_url(
        url, embed_dim=DIM, table_name=table, schema_name='my "schema"'
    ) as store:
        store.add([text_node("a", vector(1))])
        store.finish_load()
        assert store.query(ask(vector(1))).ids == ["a"]


def test_a_nul_character_is_refused_by_id(store: PostgresVectorStore) -> None:
    """Postgres cannot store it; the error names the node and nothing is written."""
    for bad in (
        text_node("bad", vector(1), text="a\0b"),
        text_node("bad", vector(1), metadata={"k": "a\0b"}),
        text_node("bad", vector(1), metadata={"k\0": ["a"]}),
    ):
        with pytest.raises(NodeRejectedError, match="'bad' has a NUL character"):
            store.add([text_node("good", vector(1)), bad])
    assert store.get_nodes() == []


# ---- options and secrets ---------------------------------------------------------------------------------


def test_it_is_the_official_store_and_takes_its_parameters(url: str) -> None:
    """isinstance holds, and `from_params` takes passwords with any character."""
    store = PostgresVectorStore.from_params(
        host="db.example", port="5432", database="d", user="u", password="p@ss:/w'd", embed_dim=3
    )
    assert isinstance(store, PGVectorStore)
    for form in (repr(store), str(store), str(store.to_dict()), store.json()):
        assert "p@ss" not in form and "***" in form
    with pytest.raises(StoreError, match="cannot be pickled"):
        pickle.dumps(store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "btree"}, "index='btree' is not known"),
        ({"embed_dim": 0}, "embed_dim is 0"),
        ({"colour": 1}, "does not know .colour"),
        ({"table_name": "a%b"}, "'a%b' is no name"),
        ({"connection_string": "mysql://x:geheim@h/d"}, "'mysql://' is not Postgres"),
        ({"connection_string": "::::geheim"}, "cannot be read"),
        ({"text_search_config": "english'; DROP"}, "is no name"),
        ({"hnsw_kwargs": {"hnsw_m": 1}}, "m=1"),
        ({"hnsw_kwargs": {"hnsw_dist_method": "vector_l2_ops"}}, "always for cosine"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """Each refusal says what is wrong, and no message shows a password."""
    given_options = {"connection_string": "postgresql://u:geheim@h/d", **options}
    with pytest.raises(SettingsError, match=message) as refused:
        PostgresVectorStore(**given_options)
    assert "geheim" not in str(refused.value)


def test_a_full_disk_of_the_server_is_said_at_once(url: str, store: PostgresVectorStore) -> None:
    """It is not tried again, as a lost connection is; the message says what is left and what to do."""
    store.add([text_node("a", vector(1))])
    full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left' USING ERRCODE = 'disk_full'; END $$"
    transactions = Transactions(
        make_engine(make_url(url), pool_size=1, statement_timeout_s=5, options={}), 60
    )
    with pytest.raises(StoreWriteError, match=r"is full: could not extend .* Make room there"):
        transactions.run(lambda cursor: cursor.execute(full))
    transactions.engine.dispose()
    assert store.query(ask(vector(1))).ids == ["a"]


def test_a_conflict_after_an_outage_is_tried_again(url: str) -> None:
    """The server has answered: after it was away, only a call that does not reach it gives up at once."""
    transactions = Transactions(make_engine(make_url(url), pool_size=1, statement_timeout_s=5, options={}), 5)
    transactions._down = True
    tries: list[int] = []

    def work(cursor: Any) -> str:
        tries.append(1)
        if len(tries) == 1:
            cursor.execute(
                "DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = 'serialization_failure'; END $$"
            )
        return "done"

    assert transactions.run(work) == "done"
    transactions.engine.dispose()


def test_an_unreachable_server_is_a_clear_error_without_the_password() -> None:
    """The error says where, for how long, and what to do."""
    store = PostgresVectorStore.from_url("postgresql://u:geheim@127.0.0.1:1/d", embed_dim=DIM, retry_s=0.2)
    with pytest.raises(StoreError, match=r"127.0.0.1/d cannot be reached, tried for 0.2 s") as refused:
        store.query(ask(vector(1)))
    assert "geheim" not in str(refused.value)


def test_another_dimension_of_a_filled_table_is_refused(url: str, store: PostgresVectorStore) -> None:
    """A filled table keeps its length, an empty one takes the new one."""
    store.add([text_node("a", vector(1))])
    other = PostgresVectorStore.from_url(url, embed_dim=3, table_name=store.table_name)
    with pytest.raises(StoreError, match=rf"stores vector\({DIM}\), not vector\(3\)"):
        other.get_nodes()
    store.clear()
    other.add([TextNode(id_="b", embedding=[1.0, 2.0, 3.0])])
    assert other.get_nodes()[0].embedding == [1.0, 2.0, 3.0]


def test_a_slow_statement_is_stopped(url: str) -> None:
    """`statement_timeout_s` reaches the server."""
    with new(url, statement_timeout_s=0.2) as store, pytest.raises(StoreError, match="stopped the statement"):
        store._run(lambda cursor: cursor.execute("SELECT pg_sleep(5)"))


# ---- indexes ---------------------------------------------------------------------------------------------


def cloud(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors in 40 clusters, as texts of 40 topics would be."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, dim))
    return centres[rng.integers(0, 40, rows)] + rng.normal(size=(rows, dim)) * 0.5


@pytest.mark.parametrize(
    ("dim", "index", "half"),
    [(32, "hnsw", False), (3072, "hnsw", False), (32, "ivfflat", False), (32, "hnsw", True)],
)
def test_the_index_is_used_and_finds_what_a_scan_finds(url: str, dim: int, index: str, half: bool) -> None:
    """EXPLAIN names the index, also above 2,000 dimensions, and recall@10 against the scan is 0.95 or more."""
    rows = 1_500 if dim == 32 else 400
    data, questions = cloud(rows, dim), cloud(10, dim, seed=1).tolist()
    with new(url, dim, index=index, use_halfvec=half) as store:
        store.add([TextNode(id_=f"{i}", embedding=v) for i, v in enumerate(data.tolist())])
        exact = [store.query(ask(question)).ids for question in questions]
        store.finish_load()
        assert "vectors" in plan_of(store, questions[0])
        found = [store.query(ask(question)) for question in questions]
        hits = sum(len(set(one.ids) & set(truth)) for one, truth in zip(found, exact, strict=True))
        assert hits >= 0.95 * 10 * len(questions)
        best = int(found[0].ids[0])
        cosine = data[best] @ questions[0] / np.linalg.norm(data[best]) / np.linalg.norm(questions[0])
        assert found[0].similarities[0] == pytest.approx(cosine, abs=1e-2 if half else 1e-5)


def test_stores_that_load_at_once_make_one_index(url: str) -> None:
    """Two stores of one table, two threads: each asks for the index, and it is there once, from the first row."""
    place = {"embed_dim": DIM, "table_name": "raced", "index": "hnsw"}
    with (
        PostgresVectorStore.from_url(url, **place) as one,
        PostgresVectorStore.from_url(url, **place) as other,
    ):
        for store in (one, other):
            store.add([text_node("a", vector(1)), text_node("b", vector(1, 1))])
        threads = [threading.Thread(target=store.finish_load) for store in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with one.client.connect() as connection:
            names = connection.exec_driver_sql(
                "SELECT indexname FROM pg_indexes WHERE tablename = 'raced' AND indexdef LIKE '%%hnsw%%'"
            ).fetchall()
        assert len(names) == 1


def plan_of(store: PostgresVectorStore, question: list[float]) -> str:
    """The plan of the statement that an unfiltered query runs."""
    from llama_index_presets.store.postgres.search import PostgresSearch, Where

    def explain(cursor: Any) -> str:
        search = PostgresSearch(store._place, cursor, ask(question))
        sql = search._by_index(Where(), False)
        text = "[" + ",".join(map(str, question)) + "]"
        cursor.execute(f"EXPLAIN {sql}", {"question": text, "limit": 10, "wide": 26})
        return "\n".join(line for (line,) in cursor.fetchall())

    return store._run(explain)


def test_filters_on_an_indexed_table_fill_top_k(url: str) -> None:
    """From one row in a thousand to all but one, k of k come back and they are the best."""
    data, question = cloud(8_000, 16), cloud(1, 16, seed=2)[0]
    cosines = data @ question / np.linalg.norm(data, axis=1)
    with new(url, 16, index="hnsw") as store:
        store.add([TextNode(id_=f"{i}", embedding=v, metadata={"n": i}) for i, v in enumerate(data.tolist())])
        store.finish_load()
        for filters, selected in (
            (only("n", "<", 8), np.arange(8_000) < 8),
            (only("n", "<", 80), np.arange(8_000) < 80),
            (only("n", ">=", 1_000), np.arange(8_000) >= 1_000),
            (only("n", "!=", 1), np.arange(8_000) != 1),
        ):
            best = [str(i) for i in np.argsort(-np.where(selected, cosines, -9))[: min(10, selected.sum())]]
            found = store.query(ask(question, 10, filters=filters)).ids
            assert len(found) == len(best) and len(set(found) & set(best)) >= 0.9 * len(best)


def test_text_search_ranks_stems_and_reads_no_syntax(store: PostgresVectorStore) -> None:
    """More and rarer words first; operators of a query language are words like others."""
    texts = ["dogs dog dog", "a dog sleeps", "cats sleep", "nothing here"]
    store.add([text_node(t, vector(1, i), text=t) for i, t in enumerate(texts)])
    words = {"mode": VectorStoreQueryMode.TEXT_SEARCH, "similarity_top_k": 10}
    assert store.query(VectorStoreQuery(query_str="dogs", **words)).ids == ["dogs dog dog", "a dog sleeps"]
    for hostile in ("dog's & (", "'dog' | !x", "dog:* <-> \\", "dog\0"):
        assert "a dog sleeps" in store.query(VectorStoreQuery(query_str=hostile, **words)).ids


# ---- many at once ----------------------------------------------------------------------------------------


def test_a_table_remembers_its_language_and_has_an_index_for_each(url: str) -> None:
    """German stems are found by whoever opens the table next; another language asked gets its own index."""
    place = {"embed_dim": DIM, "table_name": "sprache"}
    german = PostgresVectorStore.from_url(url, text_search_config="german", **place)
    german.add(
        [text_node("a", vector(1), text="Die Häuser am Fluss"), text_node("b", vector(1), text="running")]
    )
    later = PostgresVectorStore.from_url(url, **place)
    english = PostgresVectorStore.from_url(url, text_search_config="english", **place)
    query = {"mode": VectorStoreQueryMode.TEXT_SEARCH}
    assert later.query(ask(None, query_str="Haus Fluss", **query)).ids == ["a"]
    assert later.query(ask(None, query_str="runs", **query)).ids == []
    assert english.query(ask(None, query_str="runs", **query)).ids == ["b"]
    with english.client.connect() as connection:
        names = connection.exec_driver_sql("SELECT indexname FROM pg_indexes WHERE tablename = 'sprache'")
        assert sum("_words_" in name for (name,) in names) == 2
    with pytest.raises(StoreError, match="klingon"):
        PostgresVectorStore.from_url(url, text_search_config="klingon", **place).get_nodes()
    for store in (german, later, english):
        store.close()


def test_replacing_documents_is_one_transaction(store: PostgresVectorStore) -> None:
    """Readers see 20 old or 20 new nodes of a document, never another number."""
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            nodes = store.get_nodes(filters=only("ref_doc_id", "==", "d"))
            seen.add((len(nodes), len({node.metadata["version"] for node in nodes})))

    def version(number: int) -> list[TextNode]:
        return [
            text_node(f"{number}-{i}", vector(1, i), doc="d", metadata={"version": number}) for i in range(20)
        ]

    store.add(version(0))
    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 15):
        store.replace_documents(["d"], version(number))
    stop.set()
    reader.join()
    assert seen == {(20, 1)}


def test_many_tasks_in_two_loops_share_one_store(store: PostgresVectorStore) -> None:
    """Forty concurrent calls with a pool of five, in one event loop and then in another."""

    async def both() -> None:
        await asyncio.gather(*(store.async_add([text_node(f"{i}", vector(1, i))]) for i in range(20)))
        found = await asyncio.gather(*(store.aquery(ask(vector(1), 100)) for _ in range(20)))
        assert all(len(one.ids) == 20 for one in found)

    asyncio.run(both())
    asyncio.run(both())


WRITER = """
import sys
sys.path[:0] = {path!r}
from llama_index_presets.store.postgres.store import PostgresVectorStore
from llama_index_presets.store.postgres import embedded
from llama_index_presets.store.postgres.connection import Transactions, make_engine
from tests.contracts.store import DIM, text_node, vector
store = PostgresVectorStore.from_url({url!r}, embed_dim=DIM, table_name={table!r})
print("ready", flush=True)
sys.stdin.readline()
for batch in range(30):
    nodes = [text_node(f"{{batch}}-{{i}}", vector(1, i), doc=f"d{{batch}}") for i in range(20)]
    store.replace_documents([f"d{{batch}}"], nodes[:: {step}])
    print(batch, flush=True)
"""


def start(url: str, table: str, step: int = 1) -> subprocess.Popen[str]:
    code = WRITER.format(path=[entry for entry in sys.path if entry], url=url, table=table, step=step)
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


def test_two_processes_ingesting_the_same_documents_leave_one_copy(url: str) -> None:
    """They start together on a missing table, write the same ids in opposite order, and both succeed."""
    table = f"t{next(numbers)}"
    writers = [start(url, table, 1), start(url, table, -1)]
    go(*writers)
    outcomes = [writer.communicate() and writer.returncode for writer in writers]
    assert outcomes == [0, 0]
    with PostgresVectorStore.from_url(url, embed_dim=DIM, table_name=table) as store:
        stored = [node.node_id for node in store.get_nodes()]
    assert len(stored) == len(set(stored)) == 600


# ---- a server inside a folder ----------------------------------------------------------------------------


def test_a_server_in_a_folder_starts_without_a_word() -> None:
    """What its parts say of themselves at every start is nothing for the user of a command to read."""
    code = (
        "import sys; from llama_index_presets.store.postgres.embedded import embedded_postgres\n"
        "for _ in range(2):\n    with embedded_postgres(sys.argv[1]) as url: assert url.startswith('postgresql')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    with tempfile.TemporaryDirectory() as name:
        done = subprocess.run(
            [sys.executable, "-c", code, name], env=environment, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


IN_A_BLOCK = """
import sys, time
from llama_index_presets.store.postgres.embedded import embedded_postgres
block = embedded_postgres(sys.argv[1])
block.__enter__()
print("in", flush=True)
sys.stdin.readline()
"""


def in_a_block(folder: Path) -> subprocess.Popen[str]:
    """A process that uses the folder's server, and ends without leaving its block as soon as it may read a line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_BLOCK, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    return process


def server_of(folder: Path) -> int | None:
    """Process id of the folder's server; None where none runs."""
    try:
        pid = int((folder / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def unused() -> Iterator[Path]:
    """A folder that nobody uses while no test does."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


ODD = 'Müller\'s "new" 50%20 $HOME; `id`, a=b (1)\n'


@pytest.mark.parametrize("name", [ODD, "long" * 40])
def test_a_server_runs_in_a_folder_of_any_name(name: str) -> None:
    """Blanks, quotes, what a shell, a socket or a URL reads, and length; a link that is lost is made again."""
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / name / "data"
        with embedded_postgres(folder) as url, PostgresVectorStore.from_url(url, embed_dim=DIM) as store:
            assert server_of(folder) is not None
            store.add([text_node("a", vector(1))])
            link = Path(url.partition("?host=")[2])
            assert link.is_symlink() and not link.parent.stat().st_mode & 0o022
            link.unlink()
            store._transactions.engine.dispose()
            assert store.query(ask(vector(1))).ids == ["a"]
            kill(in_a_block(folder))
            assert server_of(folder) is not None
        assert server_of(folder) is None
        assert not link.is_symlink()


def test_a_server_that_another_process_is_starting_is_waited_for(
    unused: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ask` beside the end of another command failed with "No Postgres starts in …: ."."""
    kind = embedded._library().PostgresServer
    start, calls = kind.start, []

    def busy(self: Any) -> None:
        calls.append(1)
        assert len(calls) > 2
        start(self)

    monkeypatch.setattr(kind, "start", busy)
    with embedded_postgres(unused):
        assert len(calls) == 3


def test_a_server_that_another_process_stops_is_waited_for_also_by_its_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stopped it took the link away that the next one had just made, which then failed, or made empty data."""
    folder = tmp_path / "a folder"
    first = in_a_block(folder)
    lock = embedded.FileLock

    class Slow(lock):  # type: ignore[misc,valid-type]
        def acquire(self, **options: Any) -> Any:
            if options.get("shared"):
                first.communicate("end\n")
            return super().acquire(**options)

    monkeypatch.setattr(embedded, "FileLock", Slow)
    with embedded_postgres(folder):
        assert plain_path(folder).readlink() == folder


def test_a_link_that_another_process_makes_at_the_same_time_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one failed: a link with this name exists."""
    folder, make = Path("/srv/two at once"), Path.symlink_to

    def twice(link: Path, target: Path, **options: Any) -> None:
        make(link, target, **options)
        make(link, target, **options)

    monkeypatch.setattr(Path, "symlink_to", twice)
    assert plain_path(folder).readlink() == folder
    remove_link(folder)


def test_a_folder_of_links_that_others_can_write_to_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can turn the link can have the server run on data of their own."""
    short = Path(tempfile.mkdtemp(dir="/tmp"))  # the path of a test's own folder is too long for a socket
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    links = short / f"llama-presets-{os.geteuid()}"
    links.mkdir()
    links.chmod(0o777)
    with pytest.raises(StoreError, match="others may write to it.*move the storage, or set TMPDIR"):
        plain_path(Path("/srv/a b"))
    links.chmod(0o755)
    links.joinpath("turned").symlink_to("/etc")
    link = plain_path(Path("/srv/a b"))
    links.joinpath("turned").replace(link)
    assert plain_path(Path("/srv/a b")).readlink() == Path("/srv/a b")
    shutil.rmtree(short)


def test_the_last_living_process_stops_the_server_of_a_folder(unused: Path) -> None:
    """Killed processes do not count, whatever became of their ids; living ones keep the server."""
    folder = unused
    kill(in_a_block(folder))
    killed = server_of(folder)
    assert killed is not None
    # An id of a killed process may be another's by now: this one lives as long as the test.
    (folder / ".handle_pids.json").write_text(json.dumps([os.getppid(), 999_999]))
    with embedded_postgres(folder):
        assert server_of(folder) == killed
    assert server_of(folder) is None
    first, second = in_a_block(folder), in_a_block(folder)
    with embedded_postgres(folder):
        kill(first)
    assert server_of(folder) is not None
    second.communicate("end\n")
    assert server_of(folder) is None


def test_a_forked_child_does_not_stop_the_server(unused: Path) -> None:
    """Its end, and the end of the block that it was forked in, leave the server to the parent."""
    folder = unused
    block = embedded_postgres(folder)
    block.__enter__()
    child = os.fork()
    if not child:
        block.__exit__(None, None, None)
        with embedded_postgres(folder):
            pass
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server_of(folder) is not None
    block.__exit__(None, None, None)
    assert server_of(folder) is None


def test_a_block_of_a_fork_outlives_the_one_it_was_forked_in(unused: Path) -> None:
    """The child leaves what it inherited inside its own block; when the parent has ended, the server is still there."""
    folder = unused
    inherited = embedded_postgres(folder)
    inherited.__enter__()
    reached, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        with embedded_postgres(folder):
            inherited.__exit__(None, None, None)
            os.write(reached[1], b"1")
            os.read(go_on[0], 1)
        os._exit(0)
    os.read(reached[0], 1)
    inherited.__exit__(None, None, None)
    assert server_of(folder) is not None
    os.write(go_on[1], b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server_of(folder) is None


# ---- a server that dies ----------------------------------------------------------------------------------


def kill_server(folder: Path) -> None:
    """Kill a server and its processes, of which one may serve a connection for a moment more."""
    server = int((folder / "postmaster.pid").read_text().split()[0])
    own = [int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
    for pid in (server, *own):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_an_embedded_server_that_dies_is_started_again_by_the_next_call(unused: Path) -> None:
    """A question waits for the start, not for `retry_s`, and so does the question whether the store is ready."""
    with (
        embedded_postgres(unused) as url,
        PostgresVectorStore.from_url(url, embed_dim=DIM, retry_s=600) as store,
    ):
        store.add([text_node("a", vector(1))])
        for use in (lambda: store.query(ask(vector(1))), store.check_ready, store.node_ids):
            kill_server(unused)
            use()
            assert store.query(ask(vector(1))).ids == ["a"]


def test_a_server_that_does_not_start_again_is_said_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where its data is gone, no empty database is made, and nobody waits for `retry_s`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        with (
            embedded_postgres(folder) as url,
            PostgresVectorStore.from_url(url, embed_dim=DIM, retry_s=600) as store,
        ):
            store.add([text_node("a", vector(1))])
            kill_server(folder)
            folder.rename(Path(name) / "aside")
            folder.mkdir()
            for use in (lambda: store.query(ask(vector(1))), store.check_ready):
                with pytest.raises(StoreError, match=r"does not start again: its data folder was deleted"):
                    use()
            assert not list(folder.iterdir())
            folder.rmdir()
            (Path(name) / "aside").rename(folder)
            embedded._uses[folder.resolve()].failed = None  # as after some seconds
            assert store.query(ask(vector(1))).ids == ["a"]


def test_a_server_that_stays_away_is_waited_for_once(url: str) -> None:
    """The first call is patient; those after it try once, until the server answers."""
    with new(url, retry_s=1.5) as store:
        store.add([text_node("a", vector(1))])
        store.close()
        away = make_engine(
            make_url("postgresql+psycopg2://u@127.0.0.1:1/d"), pool_size=1, statement_timeout_s=1, options={}
        )
        there, store._transactions.engine = store._transactions.engine, away
        waits = []
        for tried in ("tried for 1.5 s", "tried once", "tried once"):
            begun = time.monotonic()
            with pytest.raises(StoreError, match=f"cannot be reached, {tried}"):
                store.query(ask(vector(1)))
            waits.append(time.monotonic() - begun)
        assert waits[0] > 1 > waits[1] + waits[2]
        store._transactions.engine = there
        assert store.query(ask(vector(1))).ids == ["a"]
        store._transactions.engine = away
        with pytest.raises(StoreError, match=r"tried for 1\.5 s"):
            store.query(ask(vector(1)))


def test_a_server_that_says_nothing_is_not_waited_for_without_end() -> None:
    """A connection that is accepted and not answered ends after the URL's, or our, patience."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        with (
            PostgresVectorStore.from_url(f"{address}?connect_timeout=2", embed_dim=DIM, retry_s=0.1) as store,
            pytest.raises(StoreError, match="timeout expired"),
        ):
            store.query(ask(vector(1)))
        engine = make_engine(make_url(address), pool_size=1, statement_timeout_s=1, options={})
        parameters: dict[str, Any] = {}

        def note(dialect: Any, record: Any, positional: Any, given: dict[str, Any]) -> Any:
            parameters.update(given)
            raise InterruptedError

        event.listen(engine, "do_connect", note)
        with pytest.raises(InterruptedError):
            engine.raw_connection()
        assert parameters["connect_timeout"] == 10


@pytest.mark.slow("a server and a writer, killed and started again")
def test_a_server_killed_in_the_middle_of_ingest_and_query_loses_nothing() -> None:
    """Writer and reader wait while Postgres is killed and started again; no call fails or is half-written."""
    with tempfile.TemporaryDirectory() as name, embedded_postgres(name) as url:
        table = "ingest"
        writer = start(url, table)
        with PostgresVectorStore.from_url(url, embed_dim=DIM, table_name=table) as store:
            go(writer)
            assert writer.stdout is not None
            while writer.stdout.readline() != "3\n":
                pass
            os.kill(int((Path(name) / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            reader = threading.Thread(target=lambda: answers.append(store.query(ask(vector(1))).ids))
            answers: list[Any] = []
            reader.start()
            time.sleep(0.3)
            with embedded_postgres(name):
                writer.communicate()
                reader.join()
                assert writer.returncode == 0 and len(answers[0]) == 10
                counts = {doc: 0 for doc in range(30)}
                for node in store.get_nodes():
                    counts[int(node.node_id.split("-")[0])] += 1
                assert set(counts.values()) == {20}
