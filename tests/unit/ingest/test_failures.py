"""Whatever one document raises is its own failure; what concerns the run ends it."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from llama_index.core.schema import BaseNode, Document, TextNode
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.unit.ingest.test_pipeline import make_pipeline, run, stored

from llama_index_presets import build
from llama_index_presets.errors import (
    BudgetExceededError,
    IngestError,
    MissingExtraError,
    ModelError,
    NodeRejectedError,
    StoreError,
    StoreLockedError,
    StoreWriteError,
)
from llama_index_presets.ingest import read
from llama_index_presets.ingest.failures import blame
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.metadata.overrides import MetadataOverrides
from llama_index_presets.ingest.pipeline import Pipeline
from llama_index_presets.ingest.progress import Silent
from llama_index_presets.ingest.sources import source
from llama_index_presets.ingest.sources.frames import FrameColumns
from llama_index_presets.ingest.sources.source import Source, sources
from llama_index_presets.presets.ingestion.ray import IngestDocuments, OpenedWorker, Recorder

GOOD = [Document(text="Alpha text.", doc_id="a"), Document(text="Beta text.", doc_id="b")]
POISON = Document(text="Poison text.", doc_id="p")


class ServiceError(Exception):
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


class Touchy(WordEmbedding):
    """Raises over texts with "Poison", or over every text."""

    error: Any = None
    always: bool = False

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        if self.always or any("Poison" in text for text in texts):
            raise self.error
        return super()._get_text_embeddings(texts)


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    made = make_pipeline(tmp_path)
    manifest = made.manifest
    yield made
    manifest.close()


def with_model(pipeline: Pipeline, error: BaseException, *, always: bool = False) -> Pipeline:
    object.__setattr__(pipeline, "embed_model", Touchy(embedded=[], error=error, always=always))
    return pipeline


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (ValueError("odd"), "document"),
        (RecursionError("deep"), "document"),
        (IngestError("empty"), "document"),
        (NodeRejectedError("odd", ["n"]), "document"),
        (ModelError("odd"), "either"),
        (StoreError("refused"), "either"),
        (ServiceError(400), "either"),
        (MissingExtraError("x", "readers"), "either"),
        (ServiceError(401), "run"),
        (ServiceError(429), "run"),
        (ServiceError(503), "run"),
        (BudgetExceededError("spent"), "run"),
        (StoreLockedError("held"), "run"),
        (StoreWriteError("full"), "run"),
        (OSError(errno.ENOSPC, "No space left on device"), "run"),
        (RuntimeError("lance: No space left on device (os error 28)"), "run"),
        (sqlite3.OperationalError("database is locked"), "run"),
        (ConnectionResetError("reset"), "run"),
    ],
)
def test_an_error_belongs_to_the_run_or_to_a_document(error: BaseException, whose: str) -> None:
    """The table of the module, also for the cause of an error."""
    outer = ModelError("1 of 2 texts were not embedded")
    outer.__cause__ = error
    assert blame(error) == whose
    assert blame(outer) == ("run" if whose == "run" else "either")


@pytest.mark.parametrize("error", [TypeError("must be str"), ModelError("odd"), ServiceError(400)])
def test_a_text_that_the_model_refuses_is_left_out_alone(pipeline: Pipeline, error: Exception) -> None:
    """The other documents of its batch are embedded and stored; it is named with the reason."""
    report = run(with_model(pipeline, error), [GOOD[0], POISON, GOOD[1]])
    assert (report.documents, report.chunks, report.embedded) == (2, 2, 2)
    assert [failure.source for failure in report.failed] == ["p"]
    assert sorted(stored(pipeline).values()) == ["Alpha text.", "Beta text."]


def test_an_error_of_the_service_ends_the_run(pipeline: Pipeline) -> None:
    """A refused key fails each document alike, and says nothing about any."""
    with pytest.raises(ServiceError):
        run(with_model(pipeline, ServiceError(401)), [GOOD[0], POISON])


def test_an_error_that_no_document_escapes_is_the_runs(pipeline: Pipeline) -> None:
    """Such as weights that are not there."""
    with pytest.raises(ModelError, match="no weights"):
        run(with_model(pipeline, ModelError("no weights"), always=True), GOOD)


def test_nodes_that_the_store_refuses_are_left_out_alone(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old chunks of the refused document stay."""
    store_nodes = pipeline.store.replace_documents

    def choosy(doc_ids: list[str], nodes: list[BaseNode]) -> None:
        bad = [node.node_id for node in nodes if "Poison" in node.get_content()]
        if bad:
            raise NodeRejectedError(f"Node '{bad[0]}' cannot be stored.", bad)
        store_nodes(doc_ids, nodes)

    run(pipeline, [Document(text="Old text.", doc_id="p")])
    monkeypatch.setattr(type(pipeline.store), "replace_documents", lambda _, *arguments: choosy(*arguments))
    report = run(pipeline, [*GOOD, POISON])
    assert report.documents == 2 and "cannot be stored" in report.failed[0].error
    assert sorted(stored(pipeline).values()) == ["Alpha text.", "Beta text.", "Old text."]


def test_halves_of_characters_in_a_text_are_replaced(pipeline: Pipeline) -> None:
    """A PDF may hold UTF-16 surrogates: pairs are their character, and lone ones do not stop the run."""
    document = Document(text="A \ud83d\ude00 and \udc00.", doc_id="d", metadata={"by": "J\ud800"})
    assert run(pipeline, [document, *GOOD]).documents == 3
    assert "A \U0001f600 and \ufffd." in stored(pipeline).values()


def test_ids_and_nodes_with_halves_of_characters_are_left_out(pipeline: Pipeline) -> None:
    """An id is never changed, and a ready node is stored as it is or not at all."""
    bad = [Document(text="x", doc_id="i\ud800"), TextNode(id_="n", text="t\ud800")]
    report = run(pipeline, [*bad, *GOOD])
    assert (report.documents, [failure.source for failure in report.failed]) == (2, ["i\\ud800", "n"])


def test_a_row_or_document_that_cannot_be_taken_is_left_out_alone() -> None:
    """Circular metadata and cells that refuse to be text; arrays become lists."""

    class Odd:
        def __str__(self) -> str:
            raise ValueError("no text")

    circle: dict[str, Any] = {}
    circle["self"] = circle
    documents = sources([Document(text="x", doc_id="d", metadata=circle), *GOOD])
    assert [bool(source.refusal) for source in documents] == [True, False, False]
    frame = pd.DataFrame({"t": ["a", "b"], "v": [Odd(), np.array([1, 2])]})
    rows = sources(frame, columns=FrameColumns(text="t"))
    assert [bool(source.refusal) for source in rows] == [True, False]
    assert rows[1].read().metadata == {"v": [1, 2]}  # type: ignore[union-attr]


def test_sync_takes_out_what_became_a_link_and_keeps_what_cannot_be_seen(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """A link out of the folder is no document of it; a folder that is closed for now still has its documents."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("Alpha text.")
    (folder / "b.txt").write_text("Beta text.")
    run(pipeline, folder)
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(tmp_path)
    report = run(pipeline, folder, sync=lambda _: True)
    assert (report.removed, len(report.failed)) == (1, 1)
    closed = sources([Document(text="x", doc_id="i\ud800")])[0]
    seen = [replace(closed, doc_id=folder.as_posix())]
    assert pipeline.run(seen, Silent(), sync=lambda _: True).removed == 0


def test_a_cluster_is_not_sent_what_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    """To a worker a link out of the folder would be a path like any other."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "link").symlink_to("/etc/passwd")
    sent: list[Source] = []
    report = pipeline.run(sources(tmp_path / "docs"), Silent(), load=lambda given, *_: sent.extend(given))
    assert "leads out of" in report.failed[0].error and not sent


def test_a_worker_leaves_out_one_document_and_does_the_others(pipeline: Pipeline, tmp_path: Path) -> None:
    """Also a file that is larger than the setting allows, and one that is gone by now."""
    for name, text in {"a": "Alpha text.", "p": "Poison text.", "big": "x" * 1_000_001}.items():
        (tmp_path / name).write_text(text)

    def opened(recorder: Recorder) -> OpenedWorker:
        poisoned = with_model(pipeline, KeyError("odd"))
        object.__setattr__(poisoned, "manifest", recorder)
        return OpenedWorker(poisoned, MetadataOverrides(), None, SizeLimit(1))

    paths = [(tmp_path / name).as_posix() for name in ("a", "p", "big", "gone")]
    results = IngestDocuments(opener=opened)([TextNode(id_=path, text="") for path in paths])
    done, *failed = (result.metadata for result in results)
    assert done["chunks"] == 1 and "error" not in done
    assert [
        "KeyError" in failed[0]["error"],
        "1.0 MB" in failed[1]["error"],
        "vanished" in failed[2]["error"],
    ] == [True] * 3


VANISHED = "The file vanished while it was being read. If it is back, or has another name, ingest again."


@pytest.mark.parametrize(
    "moment", ["before its hash", "before it is read", "in its reader", "with its folder"]
)
def test_a_file_that_vanishes_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """No class of an error, and the others go in; another error of the system is said with its reason."""
    folder = tmp_path / "documents"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt", "z.txt"):
        (folder / name).write_text("Cats purr.")
    module, function = {
        "before its hash": (source, "file_hash"),
        "before it is read": (source, "read_file"),
        "in its reader": (read, "reader_for"),
        "with its folder": (source, "read_file"),
    }[moment]
    usual = getattr(module, function)

    def late(path: Path, *rest: Any) -> Any:
        if path.name == "b.txt":
            shutil.rmtree(path.parent) if moment == "with its folder" else path.unlink()
        return usual(path, *rest)

    monkeypatch.setattr(module, function, late)
    parts: dict[str, Any] = {"embed_model": WordEmbedding(), "llm": ScriptedLLM(reply="?")}
    with build("knowledge-base", storage=tmp_path / "s", **parts) as engine:
        report = engine.ingest(folder)
    assert report.documents == 2
    assert [(one.source, one.error) for one in report.failed] == [
        ((folder / "sub/b.txt").as_posix(), VANISHED)
    ]


@pytest.mark.parametrize("function", ["file_hash", "read_file"])
def test_what_the_system_refuses_is_said_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """A file whose rights are taken away between the listing and the reading."""
    (tmp_path / "b.txt").write_text("Cats purr.")

    def refuse(path: Path, *rest: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(source, function, refuse)
    parts: dict[str, Any] = {"embed_model": WordEmbedding(), "llm": ScriptedLLM(reply="?")}
    with build("knowledge-base", storage=tmp_path / "s", **parts) as engine:
        (failure,) = engine.ingest(tmp_path / "b.txt").failed
    assert (
        failure.error == "The file cannot be opened (Permission denied). Check its rights, and ingest again."
    )
