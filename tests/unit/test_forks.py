"""What was used before a fork works in the child, or says at once that it does not: nothing hangs, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores import VectorStoreQuery

from llama_index_presets import DuckDBVectorStore, LanceDBVectorStore, LocalEmbedding, build
from llama_index_presets.concurrency.forks import TORCH, UseGuard
from llama_index_presets.errors import ModelError
from llama_index_presets.retrieve.legs import LegExecutor, leg_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
PATIENCE_S = 60
QUESTION = VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=1)


def in_child(work: Callable[[], Any]) -> str:
    """Run work in a fork and give what it returned or raised, as text; a child that hangs is killed and said so."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = f"returned {work()}"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:4000])
        os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + PATIENCE_S
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hung"
        time.sleep(0.01)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


def nodes(count: int) -> list[TextNode]:
    return [TextNode(id_=str(i), text=f"text {i}", embedding=[1.0, float(i)]) for i in range(count)]


def test_a_library_is_refused_in_the_fork_of_a_process_that_used_it() -> None:
    """The parent may go on; the message says what to do in the child."""
    guard = UseGuard("A library", ModelError)
    guard.check()
    said = in_child(guard.check)
    guard.check()
    assert said.startswith(
        f"ModelError: A library was used in process {os.getpid()} before it forked process"
    )
    assert "Build the engine, model or store in the worker" in said


def test_a_library_that_the_parent_only_imported_is_free_in_the_fork() -> None:
    """Nothing was used, so nothing can be missing."""
    assert in_child(UseGuard("A library", ModelError).check) == "returned None"


def test_a_local_model_that_ran_before_a_fork_raises_in_the_child() -> None:
    """PyTorch hangs there: neither the same model, nor another one, nor a new object is called."""
    pytest.importorskip("torch", reason="the extra local-torch is not installed")
    model = LocalEmbedding("all-MiniLM-L6-v2", backend="torch")
    model.get_text_embedding("hello")
    for other in (model, LocalEmbedding("all-MiniLM-L6-v2", backend="torch", precision="float32")):
        assert in_child(lambda other=other: other.get_text_embedding("hello")).startswith(  # type: ignore[misc]
            "ModelError: PyTorch was used in process"
        )
    assert len(model.get_text_embedding("hello")) == 384


@pytest.mark.parametrize("which", ["clip", "reranker", "processes"])
def test_every_local_model_asks_before_it_runs(
    which: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One guard for all models of a process: a thread pool that is gone is gone for each of them."""
    from llama_index_presets.embed.clip.model import ClipCard, load_clip
    from llama_index_presets.embed.local.encoders import load_pool
    from llama_index_presets.rerank import CrossEncoderRerank

    uses: dict[str, Callable[[], Any]] = {
        "clip": lambda: load_clip(ClipCard(folder=tmp_path, dim=2, max_tokens=2), "cpu", "torch"),
        "reranker": lambda: CrossEncoderRerank(str(tmp_path), backend="torch").warm_up(),
        "processes": lambda: load_pool(tmp_path, "float32", "cpu", 2),
    }
    monkeypatch.setattr(TORCH, "_process", os.getpid())
    assert in_child(uses[which]).startswith("ModelError: PyTorch was used in process")


def test_a_lance_store_of_the_parent_raises_in_the_child(tmp_path: Path) -> None:
    """LanceDB's threads are not copied: reading, writing and opening another store are refused, the parent goes on."""
    store = LanceDBVectorStore(tmp_path / "db")
    store.add(nodes(3))
    uses = [
        lambda: store.query(QUESTION),
        lambda: store.add(nodes(1)),
        lambda: LanceDBVectorStore(tmp_path / "db"),
    ]
    for use in uses:
        assert in_child(use).startswith("StoreError: LanceDB was used in process")
    assert store.query(QUESTION).ids == ["0"]


def test_a_fork_that_ends_leaves_the_log_of_a_duckdb_store_to_its_parent(tmp_path: Path) -> None:
    """The child's exit neither writes the parent's log into the file nor deletes it: what follows it would be lost."""
    script = textwrap.dedent(
        """
        import os, sys
        from llama_index.core.schema import TextNode
        from llama_index_presets import DuckDBVectorStore
        folder = sys.argv[1]
        store = DuckDBVectorStore(folder + "/a.duckdb")
        store.add([TextNode(id_="a", text="one", embedding=[1.0, 0.0])])
        child = os.fork()
        if child == 0:
            store.close()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        store.add([TextNode(id_="b", text="two", embedding=[0.0, 1.0])])
        os.kill(os.getpid(), 9)
        """
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=PATIENCE_S, check=False)
    with DuckDBVectorStore(tmp_path / "a.duckdb") as store:
        assert [node.node_id for node in store.get_nodes()] == ["a", "b"]


def test_the_legs_of_a_search_get_new_threads_in_a_fork() -> None:
    """A pool whose threads stayed with the parent would wait for them for ever."""
    from llama_index.core import VectorStoreIndex
    from tests.fakes import WordEmbedding

    index = VectorStoreIndex(nodes=[TextNode(text="a valve leaks")], embed_model=WordEmbedding())
    legs = [leg_of(name, index.as_retriever(), 3) for name in ("one", "two")]
    pool = LegExecutor()

    def found() -> list[int]:
        return [len(one.found.pairs) if one.found else -1 for one in pool.run(legs, QueryBundle("valve"), 30)]

    assert found() == [1, 1]
    assert in_child(found) == "returned [1, 1]"


def test_an_engine_belongs_to_the_process_that_built_it(tmp_path: Path) -> None:
    """Asking and ingesting in a fork are refused with the way out; closing it there closes nothing of the parent."""
    from llama_index.core import Document
    from tests.fakes import WordEmbedding

    with build(
        "healthcare", storage=tmp_path, embed_model=WordEmbedding(), settings={"store": "duckdb"}
    ) as engine:
        engine.ingest([Document(text="Botulism is treated with an antitoxin.")])
        uses = [
            lambda: engine.query("How?"),
            lambda: engine.ingest([]),
            lambda: engine.retrieve(QueryBundle("How?")),
        ]
        for use in uses:
            assert in_child(use).startswith("AnswerError: The engine was built in process")
        assert in_child(engine.close) == "returned None"
        assert "antitoxin" in str(engine.query("How is botulism treated?"))
