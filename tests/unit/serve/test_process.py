"""The command itself, in a process of its own: started, killed under load, started again, stopped by a signal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

import llama_index_presets
from llama_index_presets.cli import app

QUESTION = {"question": "How is botulism treated?"}


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], 2, "name a preset, or give --config"),
        (["nonsense"], 2, "There is no preset"),
        (["healthcare", "--config", "serve.toml"], 2, "named twice"),
        (["--config", "missing.toml"], 2, "cannot be read"),
        (["healthcare", "--host", "0.0.0.0"], 2, "there are no keys"),
        (["healthcare", "--certificate", "missing.pem"], 2, "There is no file 'missing.pem'"),
        (["healthcare", "--private-key", "missing.pem"], 2, "without its certificate"),
        (["healthcare", "--host", "192.0.2.7"], 2, "there are no keys"),
    ],
)
def test_wrong_usage_ends_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, reason: str
) -> None:
    """Exit code 2 and one line with the next step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert (result.exit_code, reason in result.output) == (code, True), result.output
    assert not (tmp_path / "llama-presets-storage").exists()


def test_a_port_that_is_taken_is_a_stated_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1; no storage is made for a server that cannot listen."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        storage = ["--storage", str(tmp_path / "clinic")]
        result = CliRunner().invoke(app, ["serve", "healthcare", "--port", port, *storage])
    assert (result.exit_code, f"Port {port}" in result.output) == (1, True)
    assert not (tmp_path / "clinic").exists()


def is_ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.ConnectError):  # of workers, none listens yet
        return client.get("/readyz").status_code == 200
    return False


@contextlib.contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, ready, and its address."""
    source = str(Path(llama_index_presets.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "XDG_CONFIG_HOME": str(folder / "config")}
    command = [sys.executable, "-m", "llama_index_presets", "serve", *options, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder)
    try:
        assert process.stderr is not None
        lines: list[str] = []
        url = ""
        while not url:
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
            if found := re.search(r"Listening on ([^\s,]+)", lines[-1]):
                url = found[1]
        drain = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
        drain.start()
        until = time.monotonic() + 120
        with httpx.Client(base_url=url, timeout=30) as client:
            while not is_ready(client):
                assert time.monotonic() < until and process.poll() is None, "".join(lines)
                time.sleep(0.1)
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


@pytest.mark.slow("starts the command twice, which imports LlamaIndex and a model, and kills it under load")
def test_a_killed_server_starts_again_with_everything(tmp_path: Path) -> None:
    """kill -9 amid questions and an ingest: the next start answers, finishes the job, and the ledger adds up."""
    options = ("healthcare", "--storage", str(tmp_path / "clinic"))
    documents = [
        {"id": f"d{n}", "text": f"Botulism is treated with antitoxin number {n}."} for n in range(60)
    ]
    answered: list[str] = []

    def ask(url: str) -> None:
        with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=30) as client:
            while True:
                answered.append(client.post("/query", json=QUESTION).json()["query_id"])

    with served(tmp_path, *options) as (process, url):
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(4)]
        place = httpx.post(f"{url}/ingest", json={"documents": documents}, timeout=30).headers["location"]
        for thread in threads:
            thread.start()
        while len(answered) < 12:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    with served(tmp_path, *options) as (process, url):
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.post("/query", json=QUESTION).json()["answer"]
            until = time.monotonic() + 120
            while (job := client.get(place).json())["status"] not in ("done", "failed"):
                assert time.monotonic() < until
                time.sleep(0.1)
            assert (job["status"], job["finished"]) == ("done", 60)
            assert {one["id"] for one in client.get("/documents").json()["documents"]} == {
                d["id"] for d in documents
            }
            billed = {line["key"] for line in client.get("/costs", params={"by": "query"}).json()["by"]}
            assert set(answered) <= billed  # the rows of an answer are with the system before it is sent
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.slow("starts the command, which imports LlamaIndex and a model")
def test_a_hangup_reloads_the_file(tmp_path: Path) -> None:
    """SIGHUP opens what the file names now, and closes what it no longer names."""
    table = "[engines.{0}]\npreset = 'healthcare'\nstorage = './{0}'\n"
    file = tmp_path / "serve.toml"
    file.write_text(table.format("one"))
    with served(tmp_path, "--config", str(file)) as (process, url), httpx.Client(base_url=url) as client:
        file.write_text(table.format("one") + table.format("two"))
        process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 60
        while [one["id"] for one in client.get("/v1/models").json()["data"]] != ["one", "two"]:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert json.loads(client.get("/engines").text)["engines"][1]["preset"] == "healthcare"
