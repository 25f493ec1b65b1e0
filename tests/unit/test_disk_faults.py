"""A DuckDB file whose making was cut short is made again; any other file that DuckDB cannot open is left alone."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from llama_index.core.schema import TextNode

from llama_index_presets.disk_faults import finish, is_half_made
from llama_index_presets.errors import StoreCorruptError, StoreError
from llama_index_presets.monitor.ledger import Ledger
from llama_index_presets.store.duckdb import DuckDBVectorStore

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
    cuts = {f"{length} bytes": empty[:length] for length in range(0, len(empty), 512)}
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
