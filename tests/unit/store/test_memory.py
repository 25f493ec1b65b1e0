"""A copy keeps its memory small, and leaves the process as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from llama_index.core.schema import TextNode

from llama_index_presets import DuckDBVectorStore, LanceDBVectorStore, cli
from llama_index_presets.store.move import frugal

READ_AHEAD = "LANCE_DEFAULT_IO_BUFFER_SIZE"


def test_lance_reads_little_ahead_only_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also inside of itself, as the command `move` has it, and when the copy fails."""
    monkeypatch.delenv(READ_AHEAD, raising=False)
    with pytest.raises(ZeroDivisionError), frugal():
        with frugal():
            assert int(os.environ[READ_AHEAD]) < 2**30
        assert int(os.environ[READ_AHEAD]) < 2**30
        _ = 1 // 0
    assert READ_AHEAD not in os.environ


def test_what_the_environment_says_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who set a size for Lance knows why."""
    monkeypatch.setenv(READ_AHEAD, "1234567")
    with frugal():
        assert os.environ[READ_AHEAD] == "1234567"
    assert os.environ[READ_AHEAD] == "1234567"


def test_the_command_copies_in_a_process_of_its_own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two threads of Lance and one arena, however many cores there are. What the environment says is kept."""
    ran: list[dict[str, str]] = []
    monkeypatch.setenv("TOKIO_WORKER_THREADS", "5")
    monkeypatch.setattr(sys, "argv", ["llama-presets", "move", f"duckdb:{tmp_path}", "lancedb:elsewhere"])
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, env, **_: ran.append(env) or subprocess.CompletedProcess(command, 3, "", ""),
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    (environment,) = ran
    names = ("LANCE_CPU_THREADS", "TOKIO_WORKER_THREADS", "MALLOC_ARENA_MAX", "PATH")
    assert [environment[name] for name in names] == ["2", "5", "1", os.environ["PATH"]]
    assert stopped.value.code == 3


@pytest.mark.parametrize("usual", [1, 3])
def test_duckdb_uses_few_threads_only_meanwhile(tmp_path: Path, usual: int) -> None:
    """Never more than before, also when the copy fails; other stores have none to set."""
    with DuckDBVectorStore(tmp_path / "nodes.duckdb") as store:
        store.client.execute(f"SET threads = {usual}")
        with pytest.raises(ZeroDivisionError), store.frugal_reads(2):
            assert int(_one(store, "SELECT current_setting('threads')")) == min(2, usual)
            _ = 1 // 0
        assert int(_one(store, "SELECT current_setting('threads')")) == usual
    with LanceDBVectorStore(str(tmp_path / "lance")).frugal_reads(2):
        pass


@pytest.mark.parametrize("set_limit", [None, "3GB", "-1"])
def test_the_cache_of_a_source_is_emptied_and_its_limit_stays(tmp_path: Path, set_limit: str | None) -> None:
    """Blocks that a scan left in memory go; the store answers as before."""
    path = tmp_path / "nodes.duckdb"
    with DuckDBVectorStore(path) as store:
        store.add(
            [TextNode(id_=f"{i}", text=f"{i} " * 200, embedding=[float(i), 1.0] * 32) for i in range(5_000)]
        )
    with DuckDBVectorStore(path, read_only=True) as store:
        if set_limit:
            store.client.execute(f"SET memory_limit = '{set_limit}'")
        limit = _one(store, "SELECT current_setting('memory_limit')")
        assert len(store.get_nodes()) == 5_000
        assert _cached(store) > 2**20
        for _ in range(100):
            store.drop_cache()
        assert _cached(store) <= 2**20
        assert _one(store, "SELECT current_setting('memory_limit')") == limit
        assert [node.node_id for node in store.get_nodes(["4999", "7"])] == ["4999", "7"]


def _cached(store: DuckDBVectorStore) -> int:
    """Bytes of the file's blocks in memory."""
    return int(
        _one(store, "SELECT sum(memory_usage_bytes)::BIGINT FROM duckdb_memory() WHERE tag = 'BASE_TABLE'")
    )


def _one(store: DuckDBVectorStore, sql: str) -> str:
    return str(store.client.execute(sql).fetchall()[0][0])
