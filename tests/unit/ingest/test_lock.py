"""Two ingests into one index take turns; the second pays for nothing that the first one did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from llama_index.core.schema import Document
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import StoreLockedError, StoreWriteError
from llama_index_presets.ingest.lock import ingest_lock

HOLDER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from llama_index_presets.ingest.lock import ingest_lock
with ingest_lock(Path({lock!r})):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(lock: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    code = HOLDER.format(path=[entry for entry in sys.path if entry], lock=str(lock))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    """By process id, and from when; the error carries the id."""
    holder = hold(tmp_path / "ingest.lock")
    with (
        pytest.raises(StoreLockedError, match=rf"Process {holder.pid} on .* since 20\d\d-") as raised,
        ingest_lock(tmp_path / "ingest.lock", wait=False),
    ):
        pass
    assert raised.value.pid == holder.pid
    holder.communicate("\n")


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    """The system frees the lock: nobody has to delete a file."""
    holder = hold(tmp_path / "ingest.lock")
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with ingest_lock(tmp_path / "ingest.lock", wait=False):
        assert str(os.getpid()) in (tmp_path / "ingest.lock").read_text()
    assert (tmp_path / "ingest.lock").read_text() == ""


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """As a storage folder that cannot be written is."""
    with pytest.raises(StoreWriteError, match="cannot be written"), ingest_lock(tmp_path / "no" / "lock"):
        pass


def test_two_ingests_at_once_embed_each_document_once(tmp_path: Path) -> None:
    """The second waits, reads the manifest again, and finds everything unchanged."""
    documents = [Document(text=f"Pump {n} is greased.", doc_id=str(n)) for n in range(6)]
    settings = {"llm": "extractive"}
    models = [WordEmbedding(embedded=[], seconds_a_text=0.05) for _ in range(2)]
    engines = [
        build("knowledge-base", storage=tmp_path / "s", embed_model=model, settings=settings)
        for model in models
    ]
    reports = []
    threads = [
        threading.Thread(target=lambda e=engine: reports.append(e.ingest(documents))) for engine in engines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [text for model in models for text in model.embedded if "Pump" in text]
    assert sorted(report.unchanged for report in reports) == [0, 6] and len(texts) == len(set(texts)) == 6
    for engine in engines:
        engine.close()


def test_who_does_not_want_to_wait_is_refused(tmp_path: Path) -> None:
    """`wait=False` fails at once and changes nothing; the command line says whom it waits for."""
    settings = {"llm": "extractive"}
    with build(
        "knowledge-base", storage=tmp_path / "s", embed_model=WordEmbedding(), settings=settings
    ) as engine:
        holder = hold(tmp_path / "s" / "ingest.lock")
        with pytest.raises(StoreLockedError, match=f"Process {holder.pid}"):
            engine.ingest([Document(text="x", doc_id="x")], wait=False)
        assert engine.explain()["documents"] == 0
        holder.communicate("\n")


@pytest.mark.slow("a process that loads torch: 15 s of CPU")
def test_the_command_line_says_whom_it_waits_for(tmp_path: Path) -> None:
    """One line, then it goes on by itself."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("Gloves are changed between patients.")
    (tmp_path / "s").mkdir()
    holder = hold(tmp_path / "s" / "ingest.lock")
    command = [
        sys.executable,
        "-m",
        "llama_index_presets.cli",
        "ingest",
        "healthcare",
        str(tmp_path / "docs"),
    ]
    process = subprocess.Popen(
        [*command, "--storage", str(tmp_path / "s")], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": "src"}, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.readline()
    assert f"Process {holder.pid}" in said and "Waiting" in said
    time.sleep(0.2)
    holder.communicate("\n")
    out, _ = process.communicate()
    assert process.returncode == 0 and "1 document ingested" in out
