"""The snapshot file beside a DuckDB database: the same answers, never those of another version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery

from llama_index_presets import DuckDBVectorStore
from llama_index_presets.store.duckdb import snapshot
from llama_index_presets.store.duckdb.snapshot_file import SnapshotFile

DIM = 8


@pytest.fixture(autouse=True)
def small_tables_too(monkeypatch):
    monkeypatch.setattr(snapshot, "_WORTH_BYTES", 0)


def nodes(first: int, count: int) -> list[TextNode]:
    vectors = np.random.default_rng(first).standard_normal((count, DIM))
    return [
        TextNode(
            id_=f"n{first + i}",
            text=f"text {first + i} é",
            embedding=vectors[i].tolist(),
            metadata={"part": i % 3},
        )
        for i in range(count)
    ]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.snapshot"))


def answers(store: DuckDBVectorStore) -> list[tuple[list[str], list[float], list[str]]]:
    """Ids, scores and texts of three questions, the last one filtered."""
    some = MetadataFilters(filters=[MetadataFilter(key="part", value=1)])
    asked = [(1, None), (2, None), (3, some)]
    found = []
    for seed, filters in asked:
        question = np.random.default_rng(seed).standard_normal(DIM).tolist()
        result = store.query(VectorStoreQuery(query_embedding=question, similarity_top_k=7, filters=filters))
        found.append((result.ids, result.similarities, [node.text for node in result.nodes]))
    return found


@pytest.fixture
def path(tmp_path):
    """A database of 3,000 rows, closed, with its snapshot file."""
    store = DuckDBVectorStore(tmp_path / "v.duckdb")
    store.add(nodes(0, 3000))
    store.close()
    assert len(files(tmp_path)) == 1
    return tmp_path / "v.duckdb"


def expected(path: Path, monkeypatch) -> list[tuple[list[str], list[float], list[str]]]:
    """Answers of a copy of the database that has no snapshot file and makes none."""
    copy = path.with_name("copy") / path.name
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(path, copy)
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "_WORTH_BYTES", 2**60)
        store = DuckDBVectorStore(copy)
        found = answers(store)
        store.close()
    return found


def loads(monkeypatch) -> list[bool]:
    """Collects, for each attempt to map a snapshot file, whether it was."""
    seen: list[bool] = []
    original = SnapshotFile.load

    def load(self):
        kept = original(self)
        seen.append(kept is not None)
        return kept

    monkeypatch.setattr(SnapshotFile, "load", load)
    return seen


@pytest.mark.parametrize("read_only", [False, True])
def test_an_opened_store_answers_from_the_file_as_from_the_table(path, monkeypatch, read_only):
    """The first query maps the file and reads no table; ids, scores and texts are the same to the last bit."""
    seen, wanted = loads(monkeypatch), expected(path, monkeypatch)
    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "_rows_of", None)  # whoever reads the table fails
        store = DuckDBVectorStore(path, read_only=read_only)
        assert answers(store) == wanted
        store.close()
    assert seen == [True]


def test_rows_added_replaced_and_deleted_since_are_seen(path, monkeypatch):
    """A file of an earlier version is brought up to date from the table, within one process and across two."""
    store = DuckDBVectorStore(path)
    store.add(nodes(3000, 20))
    store.delete_nodes(["n5"])
    store.add(nodes(7, 1))
    here = answers(store)
    store.close()
    seen = loads(monkeypatch)
    again = DuckDBVectorStore(path)
    assert answers(again) == here == expected(path, monkeypatch)
    assert seen[0] and again.get_nodes(["n5"]) == []
    again.close()


def test_a_file_that_much_has_changed_since_is_written_again(path):
    """More than a tenth of the rows came: closing writes them into the file."""
    before = files(path.parent)[0].stat().st_size
    store = DuckDBVectorStore(path)
    store.add(nodes(3000, 1000))
    store.close()
    assert files(path.parent)[0].stat().st_size > before * 1.2


def test_a_database_from_a_backup_is_read_itself(path, monkeypatch):
    """Two lines of changes may reach the same version; the file belongs to one of them alone."""
    shutil.copy2(path, path.with_suffix(".backup"))
    store = DuckDBVectorStore(path)
    store.add(nodes(3000, 5))
    store.close()
    shutil.copy2(path.with_suffix(".backup"), path)
    os.utime(path)
    other = DuckDBVectorStore(path)
    other.add([node.model_copy(update={"id_": f"other-{node.id_}"}) for node in nodes(9000, 5)])
    assert answers(other) == expected_now(other, path, monkeypatch)
    assert len(other.get_nodes(["n3001"])) == 0
    other.close()


def expected_now(store: DuckDBVectorStore, path: Path, monkeypatch):
    with store._database.cursor() as cursor:
        cursor.execute("CHECKPOINT")
    return expected(path, monkeypatch)


@pytest.mark.parametrize("place", [10, 4096 + 5, -5])
def test_a_damaged_file_is_not_believed_and_written_again(path, monkeypatch, place):
    """One flipped byte in header, numbers or rows: the table is read instead."""
    file, wanted = files(path.parent)[0], expected(path, monkeypatch)
    content = bytearray(file.read_bytes())
    content[place] ^= 0x10
    file.write_bytes(content)
    store = DuckDBVectorStore(path)
    assert answers(store) == wanted
    store.close()
    seen = loads(monkeypatch)
    again = DuckDBVectorStore(path)
    assert answers(again) == wanted
    assert seen == [True]
    again.close()


def test_a_file_cut_short_is_not_believed(path, monkeypatch):
    """Half of a file is as good as none."""
    file, wanted = files(path.parent)[0], expected(path, monkeypatch)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    store = DuckDBVectorStore(path)
    assert answers(store) == wanted
    store.close()


def test_a_killed_writer_leaves_a_database_that_answers(path, monkeypatch):
    """Rows committed by a process that is killed are found, though it never closed the store."""
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from tests.unit.store.test_duckdb_snapshot_file import DuckDBVectorStore, nodes\n"
        "store = DuckDBVectorStore(sys.argv[1]); store.add(nodes(3000, 4)); os._exit(9)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script, str(path), str(root)], cwd=root, check=False)
    assert done.returncode == 9
    store = DuckDBVectorStore(path)
    assert store.node_count() == 3004
    assert answers(store) == expected_now(store, path, monkeypatch)
    store.close()


def test_a_script_that_never_closes_leaves_a_file(tmp_path):
    """The end of the process does what close would have done."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from tests.unit.store.test_duckdb_snapshot_file import DuckDBVectorStore, nodes, snapshot\n"
        "snapshot._WORTH_BYTES = 0\n"
        "store = DuckDBVectorStore(sys.argv[1]); store.add(nodes(0, 40))"
    )
    root, path = Path(__file__).parents[3], tmp_path / "v.duckdb"
    subprocess.run([sys.executable, "-c", script, str(path), str(root)], cwd=root, check=True)
    store = DuckDBVectorStore(path, read_only=True)
    assert store._cache._file.load() is not None
    store.close()


def test_compacting_and_clearing_delete_the_file(path):
    """Nothing of a deleted node is left in the folder."""
    store = DuckDBVectorStore(path)
    store.add([TextNode(id_="q", text="Quirinus", embedding=[1.0] * DIM)])
    store.close()
    store = DuckDBVectorStore(path)
    answers(store)
    store.delete_nodes(["q"])
    store.compact()
    assert files(path.parent) == []
    store.close()
    assert all(b"Quirinus" not in file.read_bytes() for file in path.parent.iterdir() if file.is_file())
    store = DuckDBVectorStore(path)
    store.clear()
    assert files(path.parent) == []
    store.close()


def test_tables_have_a_file_each(tmp_path):
    """Two tables of one database do not read each other's rows."""
    path = tmp_path / "v.duckdb"
    one, two = DuckDBVectorStore(path, table="one"), DuckDBVectorStore(path, table='t"w/o')
    one.add(nodes(0, 30))
    two.add(nodes(500, 30))
    one.close()
    two.close()
    assert len(files(tmp_path)) == 2
    again = DuckDBVectorStore(path, table='t"w/o')
    assert {name[:2] for name in answers(again)[0][0]} == {"n5"}
    again.close()


def test_small_tables_have_no_file(tmp_path, monkeypatch):
    """A table that is read in an instant needs no copy."""
    monkeypatch.undo()
    store = DuckDBVectorStore(tmp_path / "v.duckdb")
    store.add(nodes(0, 30))
    answers(store)
    store.close()
    assert files(tmp_path) == []


def test_nothing_is_kept_beside_an_encrypted_database(tmp_path):
    """Vectors and texts would be there in plain."""
    database = DuckDBVectorStore(tmp_path / "plain.duckdb")._database
    assert SnapshotFile(database, "vectors").possible
    database.encryption_key = "secret"
    assert not SnapshotFile(database, "vectors").possible
    assert SnapshotFile(database, "vectors").load() is None


def test_a_connection_that_was_lent_ends_the_trust(path, monkeypatch):
    """Who writes past the store changes rows without a new version."""
    store = DuckDBVectorStore(path)
    store.client.execute("UPDATE vectors SET text = 'by hand'")
    store.close()
    again = DuckDBVectorStore(path)
    assert {text for _, _, texts in answers(again) for text in texts} == {"by hand"}
    again.close()


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_the_file_is_as_private_as_the_database(path):
    """It has the same mode."""
    assert files(path.parent)[0].stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_costs_the_file_and_no_answer(path, monkeypatch):
    """What cannot be written is answered from memory, and no half of a file stays."""
    files(path.parent)[0].unlink()
    wanted = expected(path, monkeypatch)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llama_index_presets.store.duckdb.snapshot_file.write_at", full)
    store = DuckDBVectorStore(path)
    assert answers(store) == wanted
    store.close()
    assert files(path.parent) == [] and not list(path.parent.glob("*.draft"))
