"""What was removed is gone from the disk: no file of a storage has its text, its words, its ids or its picture."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.schema import ImageNode, TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from tests.fakes import WordEmbedding
from typer.testing import CliRunner

from llama_index_presets import DuckDBVectorStore, LanceDBVectorStore, build
from llama_index_presets.cli import app
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.errors import StoreError, StoreLockedError
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.presets.index.compaction import compact_storage
from llama_index_presets.store.duckdb.rewrite import ReadWriteLock

STORES = [("lancedb", "simple"), ("lancedb", "hybrid"), ("duckdb", "hybrid"), ("pgvector", "hybrid")]
SECRET = "zanzibar"
TEXT = f"The patient Quirinus {SECRET} was treated in ward seven with an antitoxin"
QUESTION = VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=5)


def files_with(folder: Path, *words: str) -> list[str]:
    """Files that hold one of the words, in any case."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(word.encode() in path.read_bytes().lower() for word in words)
    ]


def engine_at(place: Path, store: str, pattern: str) -> Any:
    settings = {"store": store, "pattern": pattern, "encryption": "off"}
    return build("healthcare", storage=place, embed_model=WordEmbedding(), settings=settings)


def documents(folder: Path) -> Path:
    """One file that is to go, and others that stay, so that blocks are shared."""
    folder.mkdir()
    (folder / f"{SECRET}.md").write_text(f"{TEXT}.\n")
    for number in range(30):
        (folder / f"{number}.md").write_text(f"Guideline {number} says how botulism is treated.\n")
    return folder


@pytest.mark.parametrize(("store", "pattern"), STORES)
def test_nothing_of_a_removed_document_is_left(store: str, pattern: str, tmp_path: Path) -> None:
    """Ingested, asked for, removed by sync, compacted: grep finds neither its words nor its name."""
    data, place = documents(tmp_path / "data"), tmp_path / "storage"
    with engine_at(place, store, pattern) as engine:
        engine.ingest(data)
        assert SECRET in str(engine.query(f"Where was {SECRET} treated?"))
    assert files_with(place, SECRET)
    (data / f"{SECRET}.md").unlink()
    with engine_at(place, store, pattern) as engine:
        assert engine.ingest(data, sync=True).removed == 1
        report = engine.compact()
        assert files_with(place, SECRET, "quirinus") == []
        assert "Guideline 7" in str(engine.query("What says guideline 7?"))
        assert engine.explain()["documents"] == 30
    assert files_with(place, SECRET, "quirinus") == []
    assert report.parts[0] == "vectors" and "documents" in report.parts
    with engine_at(place, store, pattern) as engine:
        assert engine.ingest(data).unchanged == 30


@pytest.mark.parametrize(("store", "pattern"), STORES)
def test_nothing_of_a_changed_or_the_last_document_is_left(store: str, pattern: str, tmp_path: Path) -> None:
    """A replaced text goes as a removed one does, and an index that becomes empty keeps no sample of it."""
    place = tmp_path / "storage"
    with engine_at(place, store, pattern) as engine:
        engine.ingest([Document(text=TEXT, id_="a")])
        engine.ingest([Document(text="Something else.", id_="a")], compact=True)
        assert files_with(place, SECRET) == []
        engine.vector_store.clear()
        engine.compact()
    assert files_with(place, "something else") == []


def test_lance_keeps_one_version_and_indexes_without_the_text(tmp_path: Path) -> None:
    """Compressed data cannot be grepped: the old versions, fragments with deletions and old indexes are gone."""
    store = LanceDBVectorStore(tmp_path / "db", index="ivf_rq")
    nodes = [
        TextNode(id_=f"n{n}", text=f"text {n} alpha", embedding=[1.0, n, 1.0, 2.0] * 4) for n in range(400)
    ]
    store.add([*nodes, TextNode(id_="gone", text=TEXT, embedding=[1.0] * 16)])
    words = VectorStoreQuery(query_str=SECRET, mode="text_search", similarity_top_k=1)
    assert store.query(words).ids == ["gone"]
    before = {index.name for index in store._open().list_indices()}
    store.delete_nodes(["gone"])
    store.compact()
    table = store._open()
    dataset = table.to_lance()
    assert len(dataset.versions()) == 1
    assert [fragment.num_deletions for fragment in dataset.get_fragments()] == [0]
    assert {index.name for index in table.list_indices()} == before
    assert len(list((tmp_path / "db" / "vectors.lance" / "_indices").iterdir())) == len(before)
    assert store.query(words).ids == [] and len(store.node_ids()) == 400
    assert files_with(tmp_path, SECRET) == []


def test_a_picture_goes_with_its_node(tmp_path: Path) -> None:
    """The bytes of an image lie in its node, as base64."""
    store = LanceDBVectorStore(tmp_path / "db")
    picture = ImageNode(id_="p", image="WmFuemliYXI" * 20, text="", embedding=[1.0, 0.0])
    store.add([picture, TextNode(id_="t", text="x", embedding=[0.0, 1.0])])
    assert files_with(tmp_path, "wmfuemliyxi")
    store.delete_nodes(["p"])
    store.compact()
    assert files_with(tmp_path, "wmfuemliyxi") == [] and store.node_ids() == ["t"]


def test_the_vectors_of_the_cache_go_too(tmp_path: Path) -> None:
    """A vector tells something of its text, and nobody can say which were those of removed texts."""
    cache = EmbeddingCache(tmp_path)
    keys = cache.keys("m", "passage", [str(number) for number in range(500)])
    cache.put_many({key: [1.5] * 200 for key in keys})
    (tmp_path / "damaged.sqlite").write_bytes(b"x")
    before = cache.path.stat().st_size + cache.path.with_name("embeddings.sqlite-wal").stat().st_size
    cache.compact()
    assert len(cache) == 0 and not (tmp_path / "damaged.sqlite").exists()
    assert cache.path.stat().st_size < before / 4
    vector = np.array([1.5] * 20, "<f4").tobytes()
    assert [path for path in tmp_path.iterdir() if vector in path.read_bytes()] == []
    cache.put_many({keys[0]: [1.0]})
    assert len(cache) == 1


def test_a_duckdb_file_has_no_free_blocks_left(tmp_path: Path) -> None:
    """Compressed text cannot be grepped: what DuckDB itself counts as free is where removed rows would be."""
    with DuckDBVectorStore(tmp_path / "a.duckdb") as store:
        store.add([TextNode(id_=str(n), text=f"text {n} " * 50, embedding=[1.0, n]) for n in range(20_000)])
        store.delete_nodes([str(n) for n in range(1, 20_000)])
        store.client.execute("CHECKPOINT")
        before = (tmp_path / "a.duckdb").stat().st_size
    with DuckDBVectorStore(tmp_path / "a.duckdb") as store:
        store.compact()
        sizes = store.client.execute("SELECT free_blocks, wal_size FROM pragma_database_size()").fetchall()
        assert sizes == [(0, "0 bytes")]
        assert (tmp_path / "a.duckdb").stat().st_size < before / 2
        assert store.query(QUESTION).ids == ["0"]


def test_readers_and_writers_go_on_while_a_duckdb_file_is_written_afresh(tmp_path: Path) -> None:
    """Other threads and other stores of the process meet the old rows or the new file, and lose nothing."""
    store, other = DuckDBVectorStore(tmp_path / "a.duckdb"), DuckDBVectorStore(tmp_path / "a.duckdb")
    store.add([TextNode(id_="first", text=TEXT, embedding=[1.0, 0.0])])
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(15):
                other.add([TextNode(id_=f"{number}-{step}", text="x", embedding=[0.0, 1.0])])
                assert "first" in other.query(QUESTION).ids
                assert other.get_nodes(["first"])[0].text == TEXT
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        store.compact()
    for thread in threads:
        thread.join()
    store.close()
    other.close()
    assert failures == []
    with DuckDBVectorStore(tmp_path / "a.duckdb", read_only=True) as again:
        assert len(again.get_nodes()) == 1 + 3 * 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.duckdb"]


def test_a_compaction_cut_short_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before the new file takes its place: nothing is lost, no copy is left, the store goes on."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    store = DuckDBVectorStore(tmp_path / "a.duckdb")
    store.add([TextNode(id_="a", text="x", embedding=[1.0, 0.0])])
    with monkeypatch.context() as patch:
        patch.setattr("llama_index_presets.store.duckdb.rewrite.tighten", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.compact()
    for name in ("a.duckdb.compact", "a.duckdb.compact.wal"):  # as a kill leaves them
        (tmp_path / name).write_bytes(b"half a copy")
    store.add([TextNode(id_="b", text="y", embedding=[1.0, 0.0])])
    store.compact()
    assert store.query(QUESTION).ids == ["a", "b"]
    assert list(tmp_path.glob("*.compact*")) == []
    store.close()


def test_a_gate_lets_a_thread_that_is_inside_pass_again_and_waits_for_it() -> None:
    """Closing it does not lock out who is inside, nor goes on before it has left."""
    gate = ReadWriteLock()
    with gate.passing(), gate.passing():
        failed: list[str] = []

        def close() -> None:
            try:
                with gate.closed(0.05):
                    failed.append("was alone")
            except StoreLockedError as error:
                failed.append(str(error))

        thread = threading.Thread(target=close)
        thread.start()
        thread.join()
    assert failed == ["The store was read or written for more than 0.05 s without a break. Try again later."]
    with gate.closed(1.0):
        pass
    with gate.passing():
        pass


def test_what_has_no_file_of_its_own_says_so(tmp_path: Path) -> None:
    """A store in memory, one with a connection of the caller beside, a read-only one."""
    import duckdb

    with pytest.raises(StoreError, match="has no file to compact"):
        DuckDBVectorStore().compact()
    store = DuckDBVectorStore(tmp_path / "a.duckdb", dim=2)
    beside = duckdb.connect(str(tmp_path / "a.duckdb"))
    with pytest.raises(StoreError, match="further connections"):
        store.compact()
    beside.close()
    store.compact()
    store.close()
    with (
        DuckDBVectorStore(tmp_path / "a.duckdb", read_only=True) as reader,
        pytest.raises(StoreError, match="read_only"),
    ):
        reader.compact()


def test_the_command_compacts_without_model_or_key(tmp_path: Path) -> None:
    """One JSON object on standard output; the parts as they come on standard error."""
    with engine_at(tmp_path / "s", "lancedb", "hybrid") as engine:
        engine.ingest([Document(text=TEXT, id_="a"), Document(text="Something else.", id_="b")])
        engine.vector_store.delete("a")
    ran = CliRunner().invoke(app, ["compact", str(tmp_path / "s"), "--json"])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert report["parts"] == ["vectors", "keywords", "documents"] and report["storage"] == str(
        tmp_path / "s"
    )
    assert report["bytes_after"] > 0 and "Compacting: vectors" in ran.stderr
    spoken = CliRunner().invoke(app, ["compact", "--storage", str(tmp_path / "s")])
    assert "vectors, keywords, documents written afresh" in spoken.stdout


def test_an_unknown_folder_and_two_names_are_refused(tmp_path: Path) -> None:
    """Nothing is made; the message says what to do."""
    ran = CliRunner().invoke(app, ["compact", str(tmp_path / "nothing")])
    assert ran.exit_code == 1 and "holds no index. Run 'llama-presets ingest'" in ran.stderr
    assert not (tmp_path / "nothing").exists()
    ran = CliRunner().invoke(app, ["compact", "a", "--storage", "b"])
    assert ran.exit_code == 2 and "named twice" in ran.stderr


def test_a_compaction_waits_for_an_ingest(tmp_path: Path) -> None:
    """It takes the same lock."""
    with engine_at(tmp_path / "s", "lancedb", "simple") as engine:
        engine.ingest([Document(text=TEXT, id_="a")])
    done: list[tuple[str, ...]] = []
    thread = threading.Thread(target=lambda: done.append(compact_storage(tmp_path / "s").parts))
    with ingest_lock(tmp_path / "s" / "ingest.lock"):
        thread.start()
        thread.join(0.5)
        assert done == []
    thread.join()
    assert done == [("vectors", "documents")]


def test_the_copy_of_a_killed_compaction_goes_when_the_file_is_opened_for_writing(tmp_path: Path) -> None:
    """It holds rows that may have been deleted since; a reader, beside whom others may compact, leaves it alone."""
    drafts = [tmp_path / name for name in ("a.duckdb.compact", "a.duckdb.compact.wal")]
    with DuckDBVectorStore(tmp_path / "a.duckdb") as store:
        store.add([TextNode(id_="a", text="a", embedding=[1.0, 0.0])])
    for draft in drafts:
        draft.write_text("the text that was removed")
    with DuckDBVectorStore(tmp_path / "a.duckdb", read_only=True):
        assert all(draft.exists() for draft in drafts)
    with DuckDBVectorStore(tmp_path / "a.duckdb") as store:
        assert not any(draft.exists() for draft in drafts)
        assert [node.text for node in store.get_nodes()] == ["a"]
