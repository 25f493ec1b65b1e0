"""Moving an index between stores keeps every node, and says so."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.contracts.store import ALL_KINDS, DIM, METADATA, random_vectors, text_node, vector
from tests.servers.pinecone import pinecone_server

from llama_index_presets.errors import FingerprintError, StoreError
from llama_index_presets.store.duckdb.store import DuckDBVectorStore
from llama_index_presets.store.lancedb.store import LanceDBVectorStore
from llama_index_presets.store.move import move
from llama_index_presets.store.pinecone.store import PineconeVectorStore
from llama_index_presets.store.postgres.embedded import embedded_postgres
from llama_index_presets.store.postgres.store import PostgresVectorStore

MODEL = "model=a"
KINDS = ("duckdb", "lancedb", "postgres", "pinecone")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(folder) as address:
        yield address


@pytest.fixture
def make(tmp_path: Path, url: str) -> Iterator[Callable[[str], Any]]:
    """A new empty store of a kind."""
    count = itertools.count()
    with pinecone_server(DIM) as server:

        def make(kind: str, fingerprint: str | None = MODEL) -> Any:
            place = f"{tmp_path.name[:40]}{next(count)}"
            if kind == "duckdb":
                return DuckDBVectorStore(tmp_path / f"{place}.duckdb", fingerprint=fingerprint)
            if kind == "lancedb":
                return LanceDBVectorStore(tmp_path / place, fingerprint=fingerprint)
            if kind == "postgres":
                return PostgresVectorStore.from_url(
                    url, embed_dim=DIM, table_name=place, fingerprint=fingerprint
                )
            return PineconeVectorStore(host=server.url, api_key="k", namespace=place, fingerprint=fingerprint)

        yield make


def zoo() -> list[Any]:
    """Nodes of every kind and with every kind of metadata."""
    vectors = random_vectors(len(METADATA)).tolist()
    nodes: list[Any] = [
        text_node(f"z{i}", vectors[i], metadata=m, doc=f"d{i % 3}") for i, m in enumerate(METADATA)
    ]
    return nodes + [node.model_copy(update={"embedding": vector(1, i)}) for i, node in enumerate(ALL_KINDS)]


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(KINDS, 2)))
def test_every_node_arrives_as_it_was(make: Callable[..., Any], old: str, new: str) -> None:
    """Text, metadata in its order, type, relations and vector to the last bit of float32."""
    source, target = make(old), make(new)
    source.add(zoo())
    report = move(source, target, batch_nodes=4)
    assert report.ok and report.copied == report.nodes == report.compared == len(zoo())
    assert report.recall_at_10 == 1.0 and target.fingerprint == MODEL
    ids = sorted(node.node_id for node in zoo())
    for left, right in zip(source.get_nodes(ids), target.get_nodes(ids), strict=True):
        assert np.array_equal(np.float32(left.embedding), np.float32(right.embedding))
        assert left.model_copy(update={"embedding": None}) == right.model_copy(update={"embedding": None})
        assert list(left.metadata) == list(right.metadata)


def test_an_interrupted_move_goes_on(make: Callable[..., Any]) -> None:
    """What arrived before the interruption is not copied again."""
    source, target = make("duckdb"), make("lancedb")
    source.add([text_node(f"n{i:03}", vector(1, i)) for i in range(100)])

    def stop(done: int, total: int) -> None:
        if done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move(source, target, batch_nodes=10, progress=stop)
    report = move(source, target, batch_nodes=10)
    assert report.ok and (report.nodes, report.copied) == (100, 70)


def test_vectors_of_another_model_are_refused(make: Callable[..., Any]) -> None:
    """Two models cannot share an index; a target without a fingerprint must be opened with one."""
    source = make("duckdb")
    source.add([text_node("a", vector(1))])
    with pytest.raises(FingerprintError, match=r"'model=a'.*'model=b'"):
        move(source, make("lancedb", "model=b"))
    with pytest.raises(StoreError, match="Open it with fingerprint='model=a'"):
        move(source, make("lancedb", None))


def test_what_was_in_the_target_before_is_reported(make: Callable[..., Any]) -> None:
    """Extra nodes are named, and no recall is claimed."""
    source, target = make("duckdb"), make("lancedb")
    source.add([text_node("a", vector(1))])
    target.add([text_node("old", vector(1))])
    report = move(source, target)
    assert report.ok and report.extra == ("old",) and report.recall_at_10 is None
    assert json.loads(report.to_json())["extra"] == ["old"]


def test_a_node_that_differs_is_named(make: Callable[..., Any]) -> None:
    """A node that the target already had under the same id, with other content, is found by the check."""
    source, target = make("duckdb"), make("lancedb")
    source.add([text_node("a", vector(1), text="new")])
    target.add([text_node("a", vector(1), text="old")])
    report = move(source, target)
    assert not report.ok and report.different == ("a",)


def test_an_empty_source_is_moved_at_once(make: Callable[..., Any]) -> None:
    """Nothing to do is done."""
    report = move(make("duckdb"), make("lancedb"))
    assert report.ok and report.nodes == 0 and report.recall_at_10 is None
