"""What a storage keeps is for its owner alone, whoever made the file: we, SQLite, DuckDB, Lance or Postgres."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.schema import TextNode
from tests.fakes import WordEmbedding

from llama_index_presets import BM25Index, DuckDBVectorStore, LanceDBVectorStore, Ledger, build
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.files.private_files import private_file, private_folder, private_open, tighten
from llama_index_presets.monitor.budgets import BudgetState
from llama_index_presets.monitor.json_log import JsonLog
from llama_index_presets.presets.index.storage import resolve_storage

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are a matter of POSIX")
NODE = TextNode(id_="a", text="Jane Doe", embedding=[1.0, 0.0])


@pytest.fixture(autouse=True)
def _usual_umask() -> Any:
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """Files and folders of this user that another one may use; passing through a folder to one's own is no use.

    What lies in a folder of another user, as the data of Postgres under root, is behind that folder's own mode.
    """
    found = []
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        if path.parent.stat().st_uid != os.geteuid():
            assert mode(path.parent) == 0o700 or path.parent.parent.stat().st_uid != os.geteuid()
            continue
        passage = stat.S_IXGRP | stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0
        if (
            status.st_uid == os.geteuid()
            and status.st_mode & 0o077 & ~passage
            and not stat.S_ISSOCK(status.st_mode)
        ):
            found.append(f"{path.relative_to(folder)} {stat.filemode(status.st_mode)}")
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("preset", "store", "pattern"),
    [
        ("healthcare", "lancedb", "simple"),
        ("healthcare", "duckdb", "hybrid"),
        ("financial-documents", "duckdb", "hybrid"),
        ("financial-documents", "pgvector", "hybrid"),
    ],
)
def test_everything_in_a_storage_is_private(
    preset: str, store: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an ingest, after a question and after the end, of each local store, under the usual umask."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    place = tmp_path / "storage"
    choice = {"store": store, "pattern": pattern}
    with build(preset, storage=place, embed_model=WordEmbedding(), offline=True, settings=choice) as engine:
        engine.ingest([Document(text="Botulism is treated with an antitoxin.", id_="a")])
        assert open_to_others(place) == []
        engine.query("How is botulism treated?")
    assert open_to_others(place) == []
    assert mode(place) == (0o711 if store == "pgvector" and os.geteuid() == 0 else 0o700)


def test_an_older_storage_is_tightened_when_it_is_opened(tmp_path: Path) -> None:
    """What an earlier release left readable for all is closed, and still opens."""
    options: dict[str, Any] = {"storage": tmp_path / "old", "embed_model": WordEmbedding()}
    with build("healthcare", **options) as engine:
        engine.ingest([Document(text="Botulism is treated with an antitoxin.", id_="a")])
    for path in [tmp_path / "old", *(tmp_path / "old").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with build("healthcare", **options) as engine:
        assert open_to_others(tmp_path / "old") == []
        assert "antitoxin" in str(engine.query("How is botulism treated?"))


def test_a_folder_with_files_of_others_keeps_them_and_its_mode(tmp_path: Path) -> None:
    """The current folder as storage: only what is ours is closed."""
    (tmp_path / "report.md").write_text("public")
    (tmp_path / "report.md").chmod(0o644)
    (tmp_path / "calls.duckdb").touch(0o644)
    tmp_path.chmod(0o755)
    resolve_storage(tmp_path).protect()
    assert (mode(tmp_path), mode(tmp_path / "report.md"), mode(tmp_path / "calls.duckdb")) == (
        0o755,
        0o644,
        0o600,
    )


def test_a_folder_shared_with_its_group_on_purpose_stays_so(tmp_path: Path) -> None:
    """The set-group-ID bit says it: the group keeps its rights, the others lose theirs."""
    (tmp_path / "preset.json").touch()
    (tmp_path / "preset.json").chmod(0o664)
    tmp_path.chmod(0o2775)
    resolve_storage(tmp_path).protect()
    assert (mode(tmp_path), mode(tmp_path / "preset.json")) == (0o2770, 0o660)


def test_each_part_alone_makes_private_folders_and_files(tmp_path: Path) -> None:
    """Stores, keyword index, cache, ledger, budgets and log, used without an engine, in folders that they make."""
    with DuckDBVectorStore(tmp_path / "duckdb" / "a.duckdb") as store:
        store.add([NODE])
        assert mode(tmp_path / "duckdb" / "a.duckdb.wal") == 0o600
        assert open_to_others(tmp_path / "duckdb") == []
    LanceDBVectorStore(tmp_path / "lance").add([NODE])
    BM25Index(tmp_path / "keywords").add([NODE])
    cache = EmbeddingCache(tmp_path / "cache")
    cache.put_many({cache.keys("m", "passage", ["a"])[0]: [1.0]})
    with Ledger(tmp_path / "ledger" / "calls.duckdb") as ledger:
        log = JsonLog(ledger, to=tmp_path / "logs" / "calls.jsonl")
        ledger.record(kind="llm")
        with BudgetState(ledger.path).locked():
            pass
        log.close()
    assert [mode(tmp_path / name) for name in ("lance", "keywords", "cache", "logs")] == [0o700] * 4
    for name in ("keywords", "cache", "logs", "ledger/calls.duckdb.journal"):
        assert open_to_others(tmp_path / name) == []
    assert mode(tmp_path / "ledger" / "calls.duckdb") == 0o600


def test_files_are_made_private_whatever_the_umask(tmp_path: Path) -> None:
    """Also where the umask would let everybody read and write."""
    os.umask(0)
    private_folder(tmp_path / "a" / "b")
    private_file(tmp_path / "made")
    with private_open(tmp_path / "opened", "w") as file:
        file.write("x")
    assert [mode(tmp_path / name) for name in ("a/b", "made", "opened")] == [0o700, 0o600, 0o600]


def test_a_file_system_that_refuses_modes_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error, and the storage can be used."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Operation not permitted")

    (tmp_path / "preset.json").touch()
    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(Path, "chmod", refuse)
    tighten(tmp_path)
    resolve_storage(tmp_path).protect()
    assert (tmp_path / "preset.json").exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link in a storage does not close what it points to."""
    (tmp_path / "outside").touch()
    (tmp_path / "outside").chmod(0o644)
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "link").symlink_to(tmp_path / "outside")
    tighten(tmp_path / "storage")
    assert mode(tmp_path / "outside") == 0o644
