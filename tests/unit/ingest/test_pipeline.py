"""Ingest is incremental, complete, and survives being killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.schema import Document, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from tests.fakes import WordEmbedding

from llama_index_presets.errors import StoreCorruptError, StoreError
from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.manifest import Manifest, ManifestEntry
from llama_index_presets.ingest.pipeline import IngestReport, Pipeline
from llama_index_presets.ingest.progress import Silent
from llama_index_presets.ingest.sources.source import sources
from llama_index_presets.store.lancedb.store import LanceDBVectorStore


def make_pipeline(folder: Path, **embedding: float) -> Pipeline:
    model = WordEmbedding(embedded=[], **embedding)  # type: ignore[arg-type]
    return Pipeline(
        embed_model=model,
        chunker=SentenceChunker(tokenize=model.tokenize, max_tokens=model.max_tokens),
        store=LanceDBVectorStore(str(folder / "vectors"), index="none"),
        manifest=Manifest(folder / "documents.sqlite"),
        batch_chunks=4,
    )


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    made = make_pipeline(tmp_path)
    yield made
    made.manifest.close()


def run(pipeline: Pipeline, data: object, **options: object) -> IngestReport:
    return pipeline.run(sources(data), Silent(), **options)  # type: ignore[arg-type]


def stored(pipeline: Pipeline) -> dict[str, str]:
    query = VectorStoreQuery(query_embedding=[1.0] * 64, similarity_top_k=1000)
    return {node.node_id: node.get_content() for node in pipeline.store.query(query).nodes or []}


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_a_second_run_embeds_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """Unchanged documents cost nothing."""
    folder = write(tmp_path / "docs", a="Alpha text.", b="Beta text.")
    first, second = run(pipeline, str(folder)), run(pipeline, str(folder))
    assert (first.documents, first.embedded) == (2, 2)
    assert (second.documents, second.unchanged, second.embedded, second.tokens) == (0, 2, 0, 0)


def test_a_changed_document_replaces_its_chunks(pipeline: Pipeline, tmp_path: Path) -> None:
    """Nothing of the old text can be retrieved any more, and the others are left alone."""
    folder = write(tmp_path / "docs", a="Old words here. " * 30, b="Beta text.")
    run(pipeline, str(folder))
    write(folder, a="New words now.")
    report = run(pipeline, str(folder))
    assert (report.documents, report.unchanged) == (1, 1)
    assert sorted(stored(pipeline).values()) == ["Beta text.", "New words now."]


def test_sync_removes_what_vanished_below_the_folder_and_nothing_else(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """Documents from elsewhere stay."""
    folder = write(tmp_path / "docs", a="Alpha text.", b="Beta text.")
    run(pipeline, str(folder))
    run(pipeline, [Document(text="Kept.", doc_id="elsewhere")])
    (folder / "a.txt").unlink()
    report = run(pipeline, str(folder), sync=lambda doc_id: doc_id.startswith(folder.as_posix()))
    assert report.removed == 1
    assert sorted(stored(pipeline).values()) == ["Beta text.", "Kept."]
    assert run(pipeline, str(folder)).unchanged == 1


def test_a_bad_file_is_reported_and_the_rest_lands(pipeline: Pipeline, tmp_path: Path) -> None:
    """One unreadable file never stops a run."""
    folder = write(tmp_path / "docs", a="Alpha text.")
    (folder / "bad.pdf").write_bytes(b"%PDF-garbage")
    (folder / "zero.txt").touch()
    report = run(pipeline, str(folder))
    assert report.documents == 1
    assert [Path(failed.source).name for failed in report.failed] == ["bad.pdf", "zero.txt"]


def test_a_document_that_turned_bad_keeps_its_last_good_chunks(pipeline: Pipeline, tmp_path: Path) -> None:
    """Losing a file's content on disk must not silently lose it from the index."""
    folder = write(tmp_path / "docs", a="Alpha text.")
    run(pipeline, str(folder))
    (folder / "a.txt").write_bytes(b"")
    assert len(run(pipeline, str(folder)).failed) == 1
    assert list(stored(pipeline).values()) == ["Alpha text."]


def test_ready_nodes_with_vectors_are_stored_as_they_are(pipeline: Pipeline) -> None:
    """Who embedded already does not pay again; a node that the model cannot read whole is refused."""
    report = run(
        pipeline,
        [TextNode(id_="n", text="Mine.", embedding=[0.5] * 64), TextNode(id_="long", text="w " * 99)],
    )
    assert (report.documents, report.embedded) == (1, 0)
    assert "Node 'long' has 101 tokens; the model reads 64" in report.failed[0].error


def test_a_node_without_a_source_goes_alone(pipeline: Pipeline) -> None:
    """Each is a document of its own: the others, which have no source either, stay."""
    run(pipeline, [TextNode(id_=name, text=f"Note {name}.") for name in ("a", "b", "c")])
    assert pipeline.remove(["b"]) == 1
    assert sorted(stored(pipeline)) == ["a", "c"]


def test_a_store_without_atomic_replace_works_too(tmp_path: Path) -> None:
    """Any LlamaIndex store can be given: documents are deleted and added."""
    from dataclasses import replace

    from llama_index.core.vector_stores import SimpleVectorStore

    class Recording(SimpleVectorStore):
        stores_text: bool = True

    plain = replace(make_pipeline(tmp_path), store=Recording())
    run(plain, [Document(text="One.", doc_id="d")])
    run(plain, [Document(text="Two.", doc_id="d")])
    assert len(plain.store.data.embedding_dict) == 1  # type: ignore[attr-defined]


KILLED = """
import sys
from pathlib import Path
from tests.unit.ingest.test_pipeline import make_pipeline, run
run(make_pipeline(Path(sys.argv[1]), seconds_a_text=0.05), sys.argv[2])
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_is_completed_by_the_next(tmp_path: Path, stop: signal.Signals) -> None:
    """kill -9 or Ctrl-C anywhere leaves whole documents; the next run gives what an undisturbed one gives."""
    folder = write(
        tmp_path / "docs", **{f"d{number}": f"Text number {number}. " * 20 for number in range(24)}
    )
    (tmp_path / "killed").mkdir()
    (tmp_path / "calm").mkdir()
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(folder)]
    process = subprocess.Popen(
        arguments, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": "src:."}
    )
    deadline = time.monotonic() + 120
    while not _documents(tmp_path / "killed") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    process.wait()
    survivors = make_pipeline(tmp_path / "killed")
    before = survivors.manifest.totals()[0]
    assert 0 < before < 24
    report = run(survivors, str(folder))
    assert report.unchanged == before and report.documents == 24 - before
    calm = make_pipeline(tmp_path / "calm")
    run(calm, str(folder))
    assert stored(survivors) == stored(calm)


def _documents(folder: Path) -> int:
    if not (folder / "documents.sqlite").exists():
        return 0
    manifest = Manifest(folder / "documents.sqlite")
    try:
        return manifest.totals()[0]
    finally:
        manifest.close()


def test_two_runs_at_once_end_with_one_copy(tmp_path: Path) -> None:
    """Two processes that ingest the same folder do not double it."""
    folder = write(tmp_path / "docs", **{f"d{number}": f"Text number {number}." for number in range(6)})
    (tmp_path / "index").mkdir()
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "index"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": "src:."}
    processes = [subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode)[1] for process in processes] == [0, 0]
    assert sorted(stored(make_pipeline(tmp_path / "index")).values()) == [
        f"Text number {n}." for n in range(6)
    ]


def test_a_damaged_manifest_says_so(tmp_path: Path) -> None:
    """The error says what to do; nothing is thrown away silently."""
    path = tmp_path / "documents.sqlite"
    path.write_bytes(b"this is not a database, it is longer than one hundred bytes " * 4)
    with pytest.raises(StoreCorruptError, match="is damaged .* ingest again"):
        Manifest(path)


def test_the_manifest_remembers_and_forgets(tmp_path: Path) -> None:
    """Totals follow what was recorded, across re-opening."""
    manifest = Manifest(tmp_path / "m.sqlite")
    manifest.record(
        [ManifestEntry("a", "1", 3, 30), ManifestEntry("b", "1", 1, 10), ManifestEntry("a", "2", 2, 20)]
    )
    manifest.forget(["b", "unknown"])
    manifest.close()
    again = Manifest(tmp_path / "m.sqlite")
    assert (again.hashes(), again.totals()) == ({"a": "2"}, (1, 2))
    again.close()


def test_errors_of_a_manifest_in_use_are_ours(tmp_path: Path) -> None:
    """A disk that fails under an open manifest, damage that is met later, and a closed one."""
    manifest = Manifest(tmp_path / "m.sqlite")
    manifest.record([ManifestEntry(f"d{i}", "h" * 64, 1, 1) for i in range(500)])
    manifest.close()
    with pytest.raises(StoreError, match="is closed"):
        manifest.totals()
    content = bytearray((tmp_path / "m.sqlite").read_bytes())
    content[4096 * 3 : 4096 * 5] = b"\xff" * 4096 * 2
    (tmp_path / "m.sqlite").write_bytes(bytes(content))
    with pytest.raises(StoreCorruptError, match="is damaged .* Delete it and ingest again"):
        Manifest(tmp_path / "m.sqlite").hashes()
