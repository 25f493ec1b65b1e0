"""Ingest on a Ray cluster gives the same index as ingest in one process, and goes on where it was killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import Document
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import IngestError, SettingsError
from llama_index_presets.presets.engine import PresetEngine

ROOT = Path(__file__).parents[2]
TOPICS = ("pumps", "valves", "motors", "seals", "pipes", "filters")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy files, of which one is empty and one is not text."""
    folder = tmp_path_factory.mktemp("docs")
    for number in range(68):
        topic = TOPICS[number % len(TOPICS)]
        text = f"# {topic.title()}\n\nIn hall {number} the {topic} are greased every {number + 2} days. " + (
            f"Spare {topic} of hall {number} lie in rack {number * 7}. "
            * (60 if number % 17 == 0 else number % 5)
        )
        (folder / f"{number}.md").write_text(text)
    (folder / "empty.txt").touch()
    (folder / "binary.txt").write_bytes(b"\x00\x01\x02" * 50)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of one local cluster with two CPUs for this module; no dashboard, no usage reports."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT / "src"))  # workers are processes of their own
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            object_store_memory=100 * 2**20,
        )  # fmt: skip
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture(scope="module")
def engines(
    documents: Path, cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PresetEngine, PresetEngine]]:
    """The same documents, ingested here and on the cluster."""
    folder = tmp_path_factory.mktemp("engines")
    with (
        build("healthcare", storage=folder / "here") as here,
        build("healthcare", storage=folder / "ray") as ray,
    ):
        first, second = here.ingest(documents), ray.ingest(documents, workers="ray")
        for name in ("documents", "unchanged", "chunks", "embedded", "tokens", "cost_usd"):
            assert getattr(first, name) == getattr(second, name), name
        assert sorted(map(str, first.failed)) == sorted(map(str, second.failed)) and len(first.failed) == 2
        yield here, ray


def manifest(engine: PresetEngine) -> list[tuple[object, ...]]:
    rows = engine._parts.manifest._connection.execute(
        "select doc_id, content_hash, chunks, tokens from documents"
    )
    return sorted(rows.fetchall())


@pytest.mark.slow("a Ray cluster whose workers load torch")
def test_the_index_is_exactly_the_same(engines: tuple[PresetEngine, PresetEngine]) -> None:
    """Ids, texts, metadata, links, vectors and manifest."""
    here, there = (engine.vector_store.get_nodes() for engine in engines)
    assert len(here) == len(there) > 68
    mine, theirs = ({node.node_id: node for node in nodes} for nodes in (here, there))
    assert mine.keys() == theirs.keys()
    for node_id, node in mine.items():
        other = theirs[node_id]
        assert (node.get_content(), node.metadata) == (other.get_content(), other.metadata)
        assert node.relationships == other.relationships
        cosine = float(np.dot(node.embedding or [], other.embedding or []))
        assert cosine > 0.9999 and np.linalg.norm(other.embedding or []) == pytest.approx(1, abs=1e-5)
    assert manifest(engines[0]) == manifest(engines[1])


@pytest.mark.slow("a Ray cluster whose workers load torch")
def test_it_answers_and_is_billed_the_same(engines: tuple[PresetEngine, PresetEngine]) -> None:
    """Same answer and source; the ledger has the tokens of the workers, tagged."""
    here, there = engines
    question = "How often are the valves in hall 7 greased?"
    assert str(here.query(question)) == str(there.query(question))
    tokens = [
        engine.ledger.sql("select sum(prompt_tokens) from llm_calls where kind = 'embedding' and query_id in "
                          "(select query_id from llm_calls group by 1 having sum(prompt_tokens) > 500)").fetchone()
        for engine in engines
    ]  # fmt: skip
    assert tokens[0] == tokens[1]
    assert (
        there.ledger.sql("select count(*) from llm_calls where list_contains(tags, 'ray')").fetchone()[0] > 1
    )


@pytest.mark.slow("a Ray cluster whose workers load torch")
def test_documents_of_a_cluster_are_seen_by_those_whom_they_allow(cluster: str, tmp_path: Path) -> None:
    """Workers store what sidecars allow; a document without one nobody sees."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("hr", "all", "none"):
        (folder / f"{name}.md").write_text(f"---\nallowed: [all]\n---\nThe valves of {name} are greased.")
    (folder / "hr.md.meta.json").write_text('{"allowed": ["hr"]}')
    (folder / "all.md.meta.json").write_text('{"allowed": ["all", "hr"]}')
    question = "Which valves are greased?"
    with build("healthcare", storage=tmp_path / "index", settings={"permissions": "on"}) as engine:
        assert engine.ingest(folder, workers="ray").documents == 3
        seen = {}
        for group in ("hr", "all", "sales"):
            view = engine.as_user(groups=[group])
            found = {Path(one.id).stem for one in view.documents()}
            assert {Path(str(hit.node.ref_doc_id)).stem for hit in view.query(question).source_nodes} == found
            seen[group] = found
        assert seen == {"hr": {"hr", "all"}, "all": {"all"}, "sales": set()}


@pytest.mark.slow("a Ray cluster whose workers load torch")
def test_a_second_run_starts_nothing_and_a_change_is_one_document(
    engines: tuple[PresetEngine, PresetEngine], documents: Path
) -> None:
    """Unchanged documents are not sent; sync removes what vanished, with the same result as here."""
    changed, vanished = documents / "3.md", documents / "4.md"
    before = changed.read_text(), vanished.read_text()
    changed.write_text("# Seals\n\nSeals of hall 3 are blue now.")
    vanished.unlink()
    try:
        reports = [
            engines[0].ingest(documents, sync=True),
            engines[1].ingest(documents, sync=True, workers="ray"),
        ]
    finally:
        changed.write_text(before[0])
        vanished.write_text(before[1])
    assert [(r.documents, r.removed, r.unchanged) for r in reports] == [(1, 1, 66)] * 2
    assert manifest(engines[0]) == manifest(engines[1])
    assert {n.node_id for n in engines[0].vector_store.get_nodes()} == {
        n.node_id for n in engines[1].vector_store.get_nodes()
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"store": "duckdb"}, "DuckDB takes one process"), ({"pattern": "hybrid"}, "has one writer")],
)
def test_what_has_one_writer_is_refused(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    """Before a cluster is started, with what to do instead."""
    with (
        build("knowledge-base", storage=tmp_path, offline=True, settings=settings) as engine,
        pytest.raises(SettingsError, match=message),
    ):
        engine.ingest(str(ROOT / "recipes"), workers="ray")


def test_parts_and_data_that_cannot_travel_are_refused(tmp_path: Path) -> None:
    """Workers open parts by name and read files."""
    with build("knowledge-base", storage=tmp_path / "a", embed_model=WordEmbedding(),
               settings={"llm": "extractive"}) as engine:  # fmt: skip
        with pytest.raises(SettingsError, match="embedding given by hand.*give paths"):
            engine.ingest([Document(text="x")], workers="ray")
        with pytest.raises(SettingsError, match="workers is 'dask'"):
            engine.ingest(str(ROOT / "recipes"), workers="dask")  # type: ignore[arg-type]
    with (
        build("healthcare", storage=tmp_path / "b") as engine,
        pytest.raises(SettingsError, match=r"'10\.1\.2\.3:6379' is not on this machine"),
    ):
        engine.ingest(str(ROOT / "recipes"), workers="ray", ray_address="10.1.2.3:6379")


@pytest.mark.slow("a Ray cluster whose workers load torch")
def test_a_store_that_fails_on_a_worker_ends_the_run_with_its_words(
    cluster: str, documents: Path, tmp_path: Path
) -> None:
    """Not with a stack of Ray's; what was stored before stays recorded."""
    with build("healthcare", storage=tmp_path / "s") as engine:
        vectors = engine._parts.storage.vectors
        if vectors.exists():
            vectors.rename(vectors.parent / "moved")
        (vectors / "vectors.lance").mkdir(parents=True)
        (vectors / "vectors.lance" / "data").write_text("in the way of what a worker writes")
        told = r"A Ray worker failed: StoreError: Lance cannot change the table in .*run again to go on"
        with pytest.raises(IngestError, match=told):
            engine.ingest(documents, workers="ray")
        assert engine.explain()["documents"] == 0


@pytest.mark.slow("a Ray cluster whose workers load torch")
def test_a_killed_run_goes_on_where_it_was(cluster: str, documents: Path, tmp_path: Path) -> None:
    """The driver is killed while documents arrive; the next run completes the same index."""
    code = (
        "import ray, sys; from llama_index_presets import build\n"
        f"ray.init(address={cluster!r}, log_to_driver=False, logging_level='ERROR')\n"
        f"build('healthcare', storage={str(tmp_path / 's')!r}).ingest({str(documents)!r}, workers='ray')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "src"}, cwd=ROOT
    )
    deadline, found = time.monotonic() + 120, 0
    while not found and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
        try:
            with sqlite3.connect(tmp_path / "s" / "documents.sqlite") as connection:
                found = connection.execute("select count(*) from documents").fetchone()[0]
        except sqlite3.OperationalError:
            continue
    process.send_signal(signal.SIGKILL)
    process.wait()
    with build("healthcare", storage=tmp_path / "s") as engine:
        report = engine.ingest(documents, workers="ray")
        assert report.unchanged >= found > 0 and report.documents + report.unchanged == 68
        nodes = engine.vector_store.get_nodes()
        assert len({node.node_id for node in nodes}) == len(nodes) == engine.explain()["chunks"]
