"""Killed, cut short, full disk, damaged, locked: the index is as before, or as after, and says what is wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import TextNode

from llama_index_presets.errors import StoreCorruptError, StoreLockedError, StoreWriteError
from llama_index_presets.retrieve import BM25Index
from llama_index_presets.retrieve.bm25 import index_files as folder
from llama_index_presets.retrieve.bm25.documents import write_array

needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals and file size limits are POSIX")


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def fishes(names: list[str], text: str = "fish") -> list[TextNode]:
    return [TextNode(id_=name, text=text) for name in names]


WRITER = """
import sys
from llama_index.core.schema import TextNode
from llama_index_presets.retrieve import BM25Index
index = BM25Index(sys.argv[1])
print("ready", flush=True)
for round_ in range(10_000):
    index.add([TextNode(id_=f"r{round_}-{i}", text="fish " * 400) for i in range(8)])
    print(round_, flush=True)
"""


@needs_posix
def test_killed_while_writing_it_holds_whole_changes(tmp_path: Path) -> None:
    """kill -9 in the middle: every change that was reported is there, and none is there by half."""
    for kill_after in (3, 11, 40):
        place = tmp_path / str(kill_after)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(place)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        assert process.stdout is not None
        reported = -1
        for line in process.stdout:
            if line.strip().isdigit():
                reported = int(line)
                if reported >= kill_after:
                    process.send_signal(signal.SIGKILL)
                    break
        process.wait()
        assert reported >= kill_after
        index = BM25Index(place)
        names = {name for name, _ in index.search("fish", 100_000)}
        rounds = {int(name.split("-")[0][1:]) for name in names}
        assert names == {f"r{r}-{i}" for r in rounds for i in range(8)}
        assert set(range(reported + 1)) <= rounds
        index.add(fishes(["after"]))
        assert len(BM25Index(place)) == len(names) + 1


@pytest.mark.parametrize("cut", [1, 7, 9, 40])
def test_a_journal_cut_short_loses_only_its_last_change(tmp_path: Path, cut: int) -> None:
    """What a crash left of a record is ignored by readers, and cut off by the next writer."""
    index = BM25Index(tmp_path)
    index.add(fishes(["a"]))
    journal = next(tmp_path.glob("journal-*.log"))
    header = journal.read_bytes()[:16]  # written after the record that it speaks of
    index.add(fishes(["b"]))
    journal.write_bytes(header + journal.read_bytes()[16:-cut])
    again = BM25Index(tmp_path)
    assert [name for name, _ in again.search("fish")] == ["a"]
    again.add(fishes(["c"]))
    assert sorted(name for name, _ in BM25Index(tmp_path).search("fish")) == ["a", "c"]


def test_damage_in_the_middle_is_reported_not_skipped(tmp_path: Path) -> None:
    """A change that was reported as durable must not vanish silently."""
    index = BM25Index(tmp_path)
    index.add(fishes(["a"]))
    index.add(fishes(["b"]))
    journal = next(tmp_path.glob("journal-*.log"))
    content = bytearray(journal.read_bytes())
    content[40] ^= 0xFF
    journal.write_bytes(bytes(content))
    with pytest.raises(StoreCorruptError, match=r"damaged: at byte 16 the checksum .*--repair"):
        BM25Index(tmp_path)
    assert journal.read_bytes() == bytes(content)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 99, "generation": 0}'])
def test_an_unreadable_manifest_is_reported(tmp_path: Path, content: str) -> None:
    """Nothing is touched, and the message says what to do."""
    BM25Index(tmp_path).add(fishes(["a"]))
    (tmp_path / "MANIFEST.json").write_text(content)
    with pytest.raises(StoreCorruptError, match=r"MANIFEST.json (is damaged|has format 99)"):
        BM25Index(tmp_path)
    assert (tmp_path / "MANIFEST.json").read_text() == content


@needs_posix
@pytest.mark.parametrize("nodes", [5, 900])
def test_a_full_disk_changes_nothing(tmp_path: Path, nodes: int) -> None:
    """A small change goes to the journal, a large one is a new snapshot: both fail whole, and work later."""
    index = BM25Index(tmp_path)
    index.add(fishes(["a"]))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        with pytest.raises(StoreWriteError, match=r"cannot be written .*(nothing of this change|as it was)"):
            index.add(fishes([f"n{i}" for i in range(nodes)], "fish " * 900))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [name for name, _ in index.search("fish", 9999)] == ["a"]
    assert [name for name, _ in BM25Index(tmp_path).search("fish", 9999)] == ["a"]
    index.add(fishes([f"n{i}" for i in range(nodes)]))
    assert len(index) == len(BM25Index(tmp_path)) == nodes + 1


def test_a_path_that_cannot_be_a_folder(tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "taken").write_text("x")
    with pytest.raises(StoreWriteError, match="cannot be written"):
        BM25Index(tmp_path / "taken").add(fishes(["a"]))


HOLDER = """
import sys, time
from llama_index_presets.retrieve.bm25.index_files import IndexDirectory
with IndexDirectory(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@needs_posix
def test_a_second_writer_waits_then_names_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers are not stopped; and a holder that dies holds nothing."""
    index = BM25Index(tmp_path)
    index.add(fishes(["a"]))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    monkeypatch.setattr(folder, "_PATIENCE_S", 0.2)
    try:
        with pytest.raises(StoreLockedError, match=f"held by process {holder.pid}") as locked:
            index.add(fishes(["b"]))
        assert locked.value.pid == holder.pid
        assert len(BM25Index(tmp_path)) == 1
    finally:
        holder.kill()
        holder.wait()
    index.add(fishes(["b"]))
    assert len(index) == 2


def test_a_crash_between_snapshot_and_manifest_leaves_the_old_index(tmp_path: Path) -> None:
    """Files that are not in force are ignored, and swept later."""
    index = BM25Index(tmp_path)
    index.add(fishes(["a"]))
    generation = json.loads((tmp_path / "MANIFEST.json").read_text())["generation"]
    orphan = tmp_path / f"snapshot-{generation + 1}"
    orphan.mkdir()
    (orphan / "rows.npy").write_bytes(b"half")
    (tmp_path / "MANIFEST.draft").write_text("{")
    again = BM25Index(tmp_path)
    again.add(fishes(["b"]))
    again.compact()
    assert sorted(name for name, _ in BM25Index(tmp_path).search("fish")) == ["a", "b"]
    assert len(list(tmp_path.glob("snapshot-*"))) == 1


@needs_posix
def test_an_array_that_the_disk_does_not_take_is_an_error(tmp_path: Path) -> None:
    """Also where only closing the file meets the full disk, as with what C's stdio still holds."""
    (tmp_path / "full.npy").symlink_to("/dev/full")
    for length in (1, 100_000):
        with pytest.raises(OSError, match="No space left"):
            write_array(tmp_path / "full.npy", np.arange(length))
    write_array(tmp_path / "a.npy", np.arange(5))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("again", [False, True], ids=["compacted before it reads", "and while it reads"])
def test_a_reader_and_a_writer_of_one_object_follow_a_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """The writer took the index for read, and failed at a journal that was deleted; or the reader called it damaged."""
    index, other = BM25Index(tmp_path), BM25Index(tmp_path)
    index.add(fishes(["a"]))
    other.compact()
    loaded, go_on = threading.Event(), threading.Event()
    load = folder.IndexDirectory.load

    def slow(self: folder.IndexDirectory, manifest: folder.Manifest) -> Any:
        found = load(self, manifest)
        if not loaded.is_set():
            loaded.set()
            assert go_on.wait(60)
        return found

    monkeypatch.setattr(folder.IndexDirectory, "load", slow)
    with ThreadPoolExecutor(2) as threads:
        reader = threads.submit(len, index)
        assert loaded.wait(60)
        if again:
            other.compact()
        writer = threads.submit(index.add, fishes(["b"]))
        wait([writer], timeout=0.3)  # it may wait for the reader, and must then read what the reader missed
        go_on.set()
        assert writer.result(60) == ["b"] and reader.result(60) in (1, 2)
    index.add(fishes(["c"]))
    assert len(index) == len(BM25Index(tmp_path)) == 3


def test_a_reader_of_the_same_object_does_not_wait_for_its_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long snapshot is written beside questions, which are answered from memory and load nothing."""
    index = BM25Index(tmp_path)
    index.add(fishes(["a"]))
    seen: list[int] = []
    commit = folder.IndexDirectory.commit_snapshot

    def asked(self: folder.IndexDirectory, *parts: Any) -> None:
        commit(self, *parts)
        reader = threading.Thread(target=lambda: seen.append(len(index)))
        reader.start()
        reader.join(60)
        assert not reader.is_alive()

    monkeypatch.setattr(folder.IndexDirectory, "commit_snapshot", asked)
    index.compact()
    assert seen == [1]
