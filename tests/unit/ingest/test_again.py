"""Documents that are in the index are read again when asked: by a better reader, without embedding what stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.schema import Document
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.unit.ingest.test_pipeline import make_pipeline, run, stored, write

from llama_index_presets import build
from llama_index_presets.errors import BudgetExceededError, IngestError
from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.manifest import Manifest, ManifestEntry
from llama_index_presets.ingest.pipeline import Pipeline
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.progress import Silent
from llama_index_presets.ingest.readers import registry
from llama_index_presets.ingest.sources.source import read_again, sources
from llama_index_presets.presets.engine import PresetEngine

BETTER = " ".join(f"Step {number} is done by hand." for number in range(40))


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    made = make_pipeline(tmp_path)
    yield made
    made.manifest.close()


@pytest.fixture
def better(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release whose reader of plain text adds a sentence at the end."""

    class Better(registry.ReaderEntry):
        def load(self) -> registry.Reader:
            def read(path: Path, limit: SizeLimit) -> tuple[PlainText, dict[str, object]]:
                return plain_from_text(f"{path.read_text()} Signed."), {}

            return read

    monkeypatch.setattr(registry, "TEXT", Better("text:read_text", version=2))


def read_anew(pipeline: Pipeline, data: object, **options: object):  # type: ignore[no-untyped-def]
    return pipeline.run(read_again(sources(data)), Silent(), **options)  # type: ignore[arg-type]


def test_an_older_reader_is_counted_and_a_better_one_embeds_what_changed(
    pipeline: Pipeline, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """An ingest of unchanged files says how many an older reader has read; of those read again most chunks stay."""
    folder = write(tmp_path / "docs", long=BETTER, short="Alpha text.")
    first = run(pipeline, str(folder))
    assert (first.outdated, run(pipeline, str(folder)).outdated) == (0, 0)
    request.getfixturevalue("better")
    later = run(pipeline, str(folder))
    assert (later.documents, later.unchanged, later.outdated) == (0, 2, 2)
    again = read_anew(pipeline, str(folder))
    assert (again.documents, again.unchanged, again.chunks) == (2, 0, first.chunks)
    assert again.embedded == 2  # the last chunk of each
    assert sum("Signed." in text for text in stored(pipeline).values()) == 2
    assert run(pipeline, str(folder)).outdated == 0


def test_reading_again_what_gives_the_same_text_asks_no_model(pipeline: Pipeline, tmp_path: Path) -> None:
    """There is no cache here: the vectors are those of the store."""
    folder = write(tmp_path / "docs", a=BETTER, b="Beta text.")
    run(pipeline, str(folder))
    before, asked = stored(pipeline), list(pipeline.embed_model.embedded)  # type: ignore[attr-defined]
    report = read_anew(pipeline, str(folder))
    assert (report.documents, report.embedded, report.tokens) == (2, 0, 0)
    assert stored(pipeline) == before
    assert pipeline.embed_model.embedded == asked  # type: ignore[attr-defined]


def test_a_run_that_was_to_read_again_is_completed_by_a_plain_one(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the stopped run had done is not done again, and nothing is embedded twice."""
    folder = write(tmp_path / "docs", **{f"d{number}": f"Text number {number}." for number in range(10)})
    run(pipeline, str(folder))
    stop, record = iter(range(3)), Manifest.record

    def killed(manifest: Manifest, entries: object) -> None:
        if next(stop, None) is None:
            raise KeyboardInterrupt
        record(manifest, entries)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "record", killed)
        patch.setattr(Pipeline, "_batches", lambda self, cut: ([one] for one in cut))
        with pytest.raises(KeyboardInterrupt):
            read_anew(pipeline, str(folder))
    report = run(pipeline, str(folder))
    assert (report.documents, report.unchanged, report.embedded) == (7, 3, 0)
    assert run(pipeline, str(folder)).unchanged == 10


def test_a_document_that_cannot_be_read_again_keeps_its_text(pipeline: Pipeline, tmp_path: Path) -> None:
    """It is reported as failed, answered from as before, and tried again by the next run."""
    folder = write(tmp_path / "docs", a="Alpha text.", b="Beta text.")
    run(pipeline, str(folder))

    def broken() -> None:
        raise IngestError("The disk has a bad block.")

    from dataclasses import replace

    first, *others = read_again(sources(str(folder)))
    report = pipeline.run([replace(first, read=broken), *others], Silent())  # type: ignore[arg-type]
    assert (report.documents, len(report.failed)) == (1, 1)
    assert sorted(stored(pipeline).values()) == ["Alpha text.", "Beta text."]
    assert run(pipeline, str(folder)).documents == 1


def test_documents_of_a_manifest_without_versions_count_as_older(tmp_path: Path) -> None:
    """Earlier releases recorded none; documents that no reader reads are not asked about."""
    path = tmp_path / "documents.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE documents (doc_id TEXT PRIMARY KEY, content_hash TEXT NOT NULL, chunks INTEGER NOT NULL, "
            "tokens INTEGER NOT NULL, ingested_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        connection.execute(
            "INSERT INTO documents (doc_id, content_hash, chunks, tokens) VALUES ('/a', 'h', 1, 1)"
        )
    connection.close()
    manifest = Manifest(path)
    manifest.record([ManifestEntry("/b", "h", 1, 1, reader_version=1)])
    assert manifest.outdated({"/a": 1, "/b": 1, "/c": 1}) == ["/a"]
    assert manifest.outdated({"/a": 0}) == manifest.outdated({}) == []
    manifest.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PresetEngine]:
    settings = {"embedding_cache": "off", "permissions": "on"}
    with build(
        "financial-documents",
        storage=tmp_path / "index",
        offline=True,
        embed_model=WordEmbedding(),
        llm=ScriptedLLM(),
        vector_store=make_pipeline(tmp_path).store,
        settings=settings,
    ) as made:
        yield made


def test_permissions_and_metadata_stay_and_the_estimate_is_right(
    engine: PresetEngine, tmp_path: Path
) -> None:
    """Reading again is an ingest: a sidecar counts, permissions set by hand stay, and nothing costs anything."""
    folder = write(tmp_path / "docs", a=BETTER)
    (folder / "a.txt.meta.json").write_text('{"ward": "B"}')
    engine.ingest(folder, metadata={"year": 2026})
    name = (folder / "a.txt").as_posix()
    engine.set_permissions([name], ["hr"])
    expected = engine.estimate(folder, again=True)
    assert (expected.documents, expected.chunks, expected.cached) == (1, expected.chunks, expected.chunks)
    assert engine.estimate([Document(text="New.", id_="n")], again=True).tokens > 0
    report = engine.ingest(folder, metadata={"year": 2026}, again=True)
    assert (report.documents, report.embedded) == (1, 0)
    assert engine.permissions() == {name: ["hr"]}
    node = engine.as_user(user="root", everything=True).document_nodes(name)[0]
    assert (node.metadata["year"], node.metadata.get("ward")) == (2026, "B")
    assert engine.ingest(folder, metadata={"year": 2026}).unchanged == 1


def test_a_refused_run_leaves_nothing_to_be_read_again(tmp_path: Path) -> None:
    """A cost limit is looked at before anything is noted."""
    with build(
        "knowledge-base", storage=tmp_path / "index", embed_model=WordEmbedding(), llm=ScriptedLLM()
    ) as engine:
        folder = write(tmp_path / "docs", a="Alpha text.", b="Beta text.")
        engine.ingest(folder)
        (folder / "c.txt").write_text("Gamma text.")
        with pytest.raises(BudgetExceededError):
            engine.ingest(folder, again=True, max_cost_usd=0)
        (folder / "c.txt").unlink()
        assert engine.ingest(folder).unchanged == 2
