"""Killed at any step of a change, then changed again from outside: the next run leaves nothing over and nothing out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import Document, TextNode
from tests.fakes import WordEmbedding

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.ingest.pipeline import IngestReport, Pipeline
from llama_index_presets.ingest.progress import Silent
from llama_index_presets.ingest.sources.source import Source, sources
from llama_index_presets.presets.ingestion import ray as distributed
from llama_index_presets.presets.ingestion.ray import RayLoad
from llama_index_presets.retrieve.bm25.consistency import check_consistency
from llama_index_presets.retrieve.bm25.index import BM25Index
from llama_index_presets.store.duckdb.store import DuckDBVectorStore

OLD = {"a": "Old alpha.", "b": "Beta stays.", "node": "A node of its own."}
CHANGES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "first ingest": ({}, OLD),
    "update": (OLD, {**OLD, "a": "New alpha."}),
    "removal": (OLD, {"b": OLD["b"]}),
}
"""Change -> what the index held before it, and what it was to hold."""

STEPS: dict[str, tuple[type, tuple[str, ...], bool]] = {
    "intent written": (Manifest, ("begin", "begin_removal"), True),
    "store not yet changed": (DuckDBVectorStore, ("replace_documents",), False),
    "store changed": (DuckDBVectorStore, ("replace_documents",), True),
    "keyword index changed": (Manifest, ("record", "forget"), False),
    "manifest changed": (Manifest, ("record", "forget"), True),
}
"""Step -> the methods at which the process dies, and whether it does after them."""

AFTERWARDS: dict[str, dict[str, str]] = {
    "nothing left": {},
    "the old is back": OLD,
    "the new stays": {**OLD, "a": "New alpha."},
    "one is gone": {"b": OLD["b"]},
}
"""What the next run is given."""


def opened(folder: Path) -> Pipeline:
    """A pipeline with a keyword index beside the store, repaired as `build` does it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = WordEmbedding(embedded=[])
    store = DuckDBVectorStore(folder / "vectors.duckdb")
    keyword = BM25Index(folder / "keywords", nodes=store)
    if keyword.unfinished:
        check_consistency(store, keyword, documents=keyword.unfinished, repair=True)
    return Pipeline(
        embed_model=model,
        chunker=SentenceChunker(tokenize=model.tokenize, max_tokens=model.max_tokens),
        store=store,
        manifest=Manifest(folder / "documents.sqlite"),
        keyword=keyword,
    )


def run(pipeline: Pipeline, texts: dict[str, str], *, sync: bool = True) -> IngestReport:
    documents: list[Any] = [
        TextNode(id_=name, text=text) if name == "node" else Document(doc_id=name, text=text)
        for name, text in texts.items()
    ]
    data = sources(documents) if documents else []
    return pipeline.run(data, Silent(), sync=(lambda _: True) if sync else None)


def die(method: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def deadly(*arguments: Any, **named: Any) -> None:
        if after:
            method(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return deadly


def kill_everywhere(root: Path) -> None:
    """For every change and step, an index whose process was killed there; in a fork each, since it dies."""
    for change, (before, wanted) in CHANGES.items():
        for step, (kind, methods, after) in STEPS.items():
            child = os.fork()
            if child == 0:
                pipeline = opened(root / change / step)
                run(pipeline, before)
                for name in methods:
                    setattr(kind, name, die(getattr(kind, name), after=after))
                run(pipeline, wanted)
                os._exit(0)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of killed processes: change / step."""
    root = tmp_path_factory.mktemp("killed")
    code = f"from tests.unit.ingest.test_killed import *; kill_everywhere(Path({str(root)!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return root


def in_store(pipeline: Pipeline) -> dict[str, str]:
    nodes = pipeline.store.get_nodes()
    return {node.ref_doc_id or node.node_id: node.get_content() for node in nodes}


@pytest.mark.parametrize("afterwards", AFTERWARDS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("change", CHANGES)
def test_the_next_sync_holds_what_it_is_given_and_nothing_else(
    killed: Path, tmp_path: Path, change: str, step: str, afterwards: str
) -> None:
    """Store, keyword index and manifest hold the documents of the next run, whatever the killed one was at."""
    shutil.copytree(killed / change / step, tmp_path / "index")
    pipeline, texts = opened(tmp_path / "index"), AFTERWARDS[afterwards]
    run(pipeline, texts)
    assert in_store(pipeline) == texts
    keyword: Any = pipeline.keyword
    assert check_consistency(pipeline.store, keyword).consistent and len(keyword) == len(texts)
    assert pipeline.manifest.hashes().keys() == texts.keys() and not pipeline.manifest.leftovers()
    assert run(pipeline, texts).unchanged == len(texts)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("change", CHANGES)
def test_without_sync_no_document_is_there_by_half(
    killed: Path, tmp_path: Path, change: str, step: str
) -> None:
    """A run with other documents takes a first ingest or a removal that was cut short out; an update stays, whole."""
    shutil.copytree(killed / change / step, tmp_path / "index")
    pipeline = opened(tmp_path / "index")
    run(pipeline, {"c": "Gamma is new."}, sync=False)
    assert in_store(pipeline).keys() == pipeline.manifest.hashes().keys()
    begun = step != "manifest changed"
    expected = {"first ingest": set() if begun else {*OLD}, "update": {*OLD}, "removal": {"b"}}[change]
    assert in_store(pipeline).keys() == expected | {"c"}


@pytest.mark.parametrize("change", ["first ingest", "removal"])
def test_remove_takes_out_what_a_killed_run_left(killed: Path, tmp_path: Path, change: str) -> None:
    """Documents that the store holds and the manifest does not are removed by their ids."""
    step = "store changed" if change == "first ingest" else "intent written"
    shutil.copytree(killed / change / step, tmp_path / "index")
    pipeline = opened(tmp_path / "index")
    assert in_store(pipeline) == OLD
    assert pipeline.remove(["a", "node"]) == 2
    assert in_store(pipeline) == {"b": OLD["b"]}


def test_a_node_without_a_source_is_removed(tmp_path: Path) -> None:
    """It is a document of its own, and leaves store and keyword index as any other."""
    pipeline = opened(tmp_path)
    run(pipeline, OLD)
    assert run(pipeline, {"a": OLD["a"]}).removed == 2
    assert in_store(pipeline) == {"a": OLD["a"]} and len(pipeline.keyword) == 1  # type: ignore[arg-type]


def test_a_cluster_begins_when_all_documents_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker stores what this process has not heard of yet, so the intent of the whole run is written first."""
    manifest = Manifest(tmp_path / "documents.sqlite")
    documents = [Source(name, "hash", list, owner={"tenant": "acme"}) for name in ("a", "b", "c")]

    def lost_after_one(*_: object) -> Iterator[TextNode]:
        assert manifest.leftovers() == ["a", "b", "c"]
        about = {"hash": "h", "chunks": 2, "document_tokens": 20, "personal": None}
        yield TextNode(id_="a", text="", metadata=about)
        raise IngestError("The Ray cluster gave up.")

    monkeypatch.setattr(distributed, "ray_cluster", nullcontext)
    monkeypatch.setattr(RayLoad, "_results", lost_after_one)
    load = RayLoad(opener=None, manifest=manifest, watch=None, used=lambda *_: None)  # type: ignore[arg-type]
    with pytest.raises(IngestError, match="gave up"):
        load(documents, IngestReport(), Silent())
    assert (manifest.hashes(), manifest.owners()) == ({"a": "h"}, {"a": {"tenant": "acme"}})
    assert manifest.leftovers() == ["b", "c"]
    manifest.close()
