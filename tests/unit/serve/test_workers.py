"""Several workers behind one socket: one index, one ledger, one budget; a worker that dies is replaced."""

from __future__ import annotations

import collections
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.openai import OpenAIServer
from tests.unit.serve.conftest import config_of, opener
from tests.unit.serve.test_process import served
from typer.testing import CliRunner

from llama_index_presets.cli import app
from llama_index_presets.errors import AnswerError, SettingsError
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.serve.callers.key_file import Caller, KeyFile
from llama_index_presets.serve.config import EngineConfig, ServeConfig
from llama_index_presets.serve.engines import Engines
from llama_index_presets.serve.server import Process, listen
from llama_index_presets.serve.workers import Workers, refuse_unshareable


def engine(**settings: Any) -> EngineConfig:
    return EngineConfig(preset="knowledge-base", storage="kb", settings=settings)


def test_an_index_that_must_not_be_shared_is_refused() -> None:
    """Workers share every index, DuckDB's too; an engine that says it is not shared is named."""
    refuse_unshareable({"kb": engine(), "small": engine(store="duckdb"), "said": engine(shared_index=True)})
    with pytest.raises(SettingsError, match=r"'small' has shared_index = false \(from code\).*--workers 1"):
        refuse_unshareable({"kb": engine(), "small": engine(store="duckdb", shared_index=False)})


def test_the_command_refuses_it_before_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, one line, no storage."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.toml").write_text("shared_index = false\n")
    arguments = ["knowledge-base", "--storage", "kb", "--settings", "settings.toml", "--workers", "2"]
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert (result.exit_code, "shared_index = false" in result.output, (tmp_path / "kb").exists()) == (
        2,
        True,
        False,
    )


@pytest.mark.parametrize("workers", [0, 257])
def test_the_number_of_workers_is_checked(workers: int) -> None:
    """Wrong numbers are a stated error."""
    with pytest.raises(SettingsError, match=f"workers is {workers}, expected 1 to 256"):
        ServeConfig(workers=workers)


def test_the_socket_is_taken_before_a_worker_starts(tmp_path: Path) -> None:
    """The address is known, and no process runs, until `run`."""
    workers = Workers(ServeConfig(engines={"kb": engine()}, port=0, workers=2))
    assert workers.url.startswith("http://127.0.0.1:") and workers._workers == []
    workers._socket.close()


def test_a_worker_takes_no_connection_before_it_is_warm(tmp_path: Path) -> None:
    """Connections wait for, or go to, a worker that is ready: none is answered with 503 because another still loads."""
    warming, loaded = threading.Event(), threading.Event()
    open_engine = opener()

    def slowly(config: EngineConfig) -> PresetEngine:
        warming.set()
        assert loaded.wait(60)
        return open_engine(config)

    config, told = config_of(tmp_path), threading.Event()
    socket = listen(config, bound=True)
    process = Process(config, engines=Engines(slowly), listening=socket, on_ready=told.set, warm_first=True)
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        assert warming.wait(60)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{process.url}/healthz")
        assert not told.is_set()
        loaded.set()
        assert told.wait(60)
        statuses = [httpx.get(f"{process.url}/readyz", timeout=30).status_code for _ in range(3)]
        assert statuses == [200, 200, 200]
    finally:
        loaded.set()
        process.stop()
        thread.join(60)
    assert not thread.is_alive()


def test_a_worker_that_is_stopped_while_it_loads_closes_what_it_opened(tmp_path: Path) -> None:
    """It never listens, and its engines are closed."""
    opened: list[PresetEngine] = []
    open_engine = opener()

    def stopped(config: EngineConfig) -> PresetEngine:
        opened.append(open_engine(config))
        process.stop()
        return opened[0]

    config = config_of(tmp_path)
    process = Process(config, engines=Engines(stopped), listening=listen(config, bound=True), warm_first=True)
    process.run()
    with pytest.raises(AnswerError, match="closed"):
        opened[0].query("What do cats do all day?")


def children(pid: int) -> list[int]:
    """Worker processes of a server; Python's resource tracker is none."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and b"multiprocessing-fork" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except (OSError, IndexError):
            continue
    return found


@pytest.mark.slow("starts a server of two workers, each of which imports LlamaIndex")
@pytest.mark.parametrize("store", ["lancedb", "duckdb"])
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are counted in /proc")
def test_two_workers_share_index_ledger_budget_and_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """64 questions race for a budget of a few: no call beyond it. A killed worker is replaced, a stop ends all."""
    keys = KeyFile(tmp_path / "keys.json")
    racer = keys.add(Caller(name="racer", budget="0.0005/day"))
    writer = keys.add(Caller(name="writer"))
    with OpenAIServer(latency_s=0.05, prompt=100, completion=50) as model:
        for name, value in {
            "OPENAI_API_KEY": "k",
            "OPENAI_API_BASE": model.url,
            "OPENAI_BASE_URL": model.url,
        }.items():
            monkeypatch.setenv(name, value)
        options = ("--storage", str(tmp_path / "kb"), "--keys", str(keys.path), "--workers", "2")
        settings = tmp_path / "settings.toml"
        settings.write_text(f'store = "{store}"\n[llm]\nname = "openai/gpt-4o-mini"\nmax_tokens = 100\n')
        options = (*options, "--settings", str(settings))
        with served(tmp_path, "knowledge-base", *options) as (process, url):
            until = time.monotonic() + 120
            while len(children(process.pid)) < 2 and time.monotonic() < until:
                time.sleep(0.1)
            with httpx.Client(
                base_url=url, timeout=60, headers={"Authorization": f"Bearer {writer}"}
            ) as client:
                documents = [{"id": f"d{n}", "text": f"The answer number {n} is 42."} for n in range(20)]
                place = client.post("/ingest", json={"documents": documents}).headers["location"]
                while client.get(place).json()["status"] not in ("done", "failed"):
                    assert time.monotonic() < until
                    time.sleep(0.1)
                assert client.get(place).json()["finished"] == 20
            statuses = race(url, racer, 64)
            assert set(statuses) == {200, 402}
            with httpx.Client(
                base_url=url, timeout=60, headers={"Authorization": f"Bearer {racer}"}
            ) as client:
                costs = client.get("/costs").json()
                assert costs["total_cost_usd"] <= 0.0005
                chats = next(line for line in costs["by"] if "mini" in line["key"])
                assert chats["calls"] == 64  # of both workers in one ledger, the refused ones at no cost
            asked = sum(path.endswith("/chat/completions") for path, _ in model.requests)
            assert asked == statuses[200]
            first = children(process.pid)
            os.kill(first[0], signal.SIGKILL)
            until = time.monotonic() + 120
            while len(set(children(process.pid)) - {first[0]}) < 2:
                assert time.monotonic() < until
                time.sleep(0.1)
            with httpx.Client(
                base_url=url, timeout=60, headers={"Authorization": f"Bearer {writer}"}
            ) as client:
                assert client.get("/documents").json()["document_count"] == 20
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert children(process.pid) == []


def race(url: str, key: str, callers: int) -> collections.Counter[int]:
    """Status codes of as many questions at once, each over a connection of its own."""
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=120, headers={"Authorization": f"Bearer {key}"}) as client:
            statuses.append(
                client.post("/query", json={"question": "What is the answer number 7?"}).status_code
            )

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return collections.Counter(statuses)


def test_workers_without_keys_announce_no_public_address(tmp_path: Path) -> None:
    """The refusal came after "Listening on http://0.0.0.0"; nothing listened, but it read as if."""
    with pytest.raises(SettingsError, match="there are no keys"):
        Workers(config_of(tmp_path, host="0.0.0.0", keys=str(tmp_path / "missing.json"), workers=2))
