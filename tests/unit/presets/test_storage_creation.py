"""One folder, made by several at once: one card, and everybody is held to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from llama_index_presets.errors import PresetsError, StoreError, StoreWriteError
from llama_index_presets.presets.index.storage import open_storage, read_metadata
from llama_index_presets.values import Fingerprint

FINGERPRINT = Fingerprint(model="words", dim=4, chunker="sentence-64")
CREATORS = 8


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    """Threads take turns as often as they can, so that every order of their steps comes up."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def made_at_once(folder: Path, presets: list[str]) -> list[PresetsError | None]:
    """What each of several threads, let go together, was told."""
    start = Barrier(len(presets))

    def make(preset: str) -> PresetsError | None:
        start.wait()
        try:
            open_storage(folder, preset, FINGERPRINT)
        except PresetsError as error:
            return error
        return None

    with ThreadPoolExecutor(len(presets)) as pool:
        return list(pool.map(make, presets))


@pytest.mark.parametrize("attempt", range(10))
def test_several_first_openings_of_one_preset_all_succeed(tmp_path: Path, attempt: int) -> None:
    """Nobody stumbles over the draft of another."""
    assert made_at_once(tmp_path / "kb", ["healthcare"] * CREATORS) == [None] * CREATORS
    assert [path.name for path in (tmp_path / "kb").iterdir()] == ["preset.json"]


def test_a_card_made_since_we_looked_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes the storage between our look and our card: its card stays, and we are refused."""
    open_storage(tmp_path, "healthcare", FINGERPRINT)
    looks = iter([False])
    exists = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda path: next(looks, True) if path.name == "preset.json" else exists(path)
    )
    with pytest.raises(StoreError, match="made by the preset 'healthcare', not 'research-papers'"):
        open_storage(tmp_path, "research-papers", FINGERPRINT)
    assert read_metadata(tmp_path)["preset"] == "healthcare"


@pytest.mark.parametrize("attempt", range(10))
def test_of_several_presets_one_wins_and_the_others_are_refused(tmp_path: Path, attempt: int) -> None:
    """The card names the one preset that was let in; it is never replaced."""
    presets = [f"preset-{number}" for number in range(CREATORS)]
    outcomes = dict(zip(presets, made_at_once(tmp_path, presets), strict=True))
    winners = [preset for preset, error in outcomes.items() if error is None]
    assert winners == [read_metadata(tmp_path)["preset"]]
    refusals = {type(error) for error in outcomes.values() if error is not None}
    assert refusals == {StoreError}


def test_a_card_is_made_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no hard links holds a storage, too, and no second preset replaces its card."""
    monkeypatch.setattr(os, "link", _no_links)
    open_storage(tmp_path, "healthcare", FINGERPRINT)
    with pytest.raises(StoreError, match="made by the preset 'healthcare', not 'research-papers'"):
        open_storage(tmp_path, "research-papers", FINGERPRINT)


def _no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_card_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is a StoreWriteError with the file's name, and leaves no card."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreWriteError, match=r"preset\.json' cannot be written \(No space left on device\)"):
        open_storage(tmp_path, "healthcare", FINGERPRINT)
    assert list(tmp_path.iterdir()) == []


CREATOR = """
import sys
from pathlib import Path
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.presets.index.storage import open_storage
from llama_index_presets.values import Fingerprint
for line in sys.stdin:
    storage = open_storage(line.strip(), "healthcare", Fingerprint(model="words", dim=4))
    Manifest(storage.manifest).close()
    print("made", flush=True)
"""


def test_several_processes_make_card_and_manifest_at_once(tmp_path: Path) -> None:
    """Processes that meet in a folder that is not there yet all open it, 20 times over."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    creators = [
        subprocess.Popen(
            [sys.executable, "-c", CREATOR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]
    folders = "".join(f"{tmp_path / str(number)}\n" for number in range(20))
    for creator in creators:
        assert creator.stdin is not None
        creator.stdin.write(folders)
        creator.stdin.flush()
    ends = [creator.communicate() for creator in creators]
    assert [(said, errors) for said, errors in ends] == [("made\n" * 20, "")] * 3
