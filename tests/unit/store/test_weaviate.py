"""What WeaviateVectorStore does at the limits of the service, and when it fails."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import weaviate
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.weaviate import WeaviateVectorStore as OfficialStore
from tests.contracts.store import ask, only, text_node, vector
from tests.servers.weaviate import WeaviateServer, weaviate_server

from llama_index_presets import LanceDBVectorStore, WeaviateVectorStore
from llama_index_presets.errors import FilterError, SettingsError, StoreError
from llama_index_presets.store.move import move


@pytest.fixture
def server() -> Iterator[WeaviateServer]:
    with weaviate_server() as server:
        yield server


@pytest.fixture
def store(server: WeaviateServer) -> Iterator[WeaviateVectorStore]:
    with WeaviateVectorStore.from_url(server.url("Chunks"), api_key="s3cr3t") as store:
        yield store


def test_it_is_the_official_store_and_shows_no_key(
    server: WeaviateServer, store: WeaviateVectorStore
) -> None:
    """isinstance holds; the key goes to the server and to nobody else; pickling is refused."""
    assert isinstance(store, OfficialStore)
    store.add([text_node("a", vector(1))])
    assert server.headers["authorization"] == "Bearer s3cr3t"
    for form in (repr(store), str(store), str(store.to_dict()), store.json()):
        assert "s3cr3t" not in form
    with pytest.raises(StoreError, match="cannot be pickled"):
        pickle.dumps(store)


def test_a_client_of_the_caller_stays_open(server: WeaviateServer) -> None:
    """Who opened it, closes it."""
    client = weaviate.connect_to_local(port=server.port, grpc_port=server.grpc_port, skip_init_checks=True)
    with client:
        store = WeaviateVectorStore(client, index_name="Chunks")
        store.add([text_node("a", vector(1))])
        store.close()
        assert client.is_connected() and store.query(ask(vector(1))).ids == ["a"]


def test_an_unavailable_server_is_tried_again(server: WeaviateServer, store: WeaviateVectorStore) -> None:
    """Inserts, searches and deletes that meet one failure each lose nothing."""
    down = grpc.StatusCode.UNAVAILABLE
    server.fail = lambda number: down if number % 3 == 1 else None
    store.add([text_node(f"n{i}", vector(1, i), doc=f"d{i % 2}") for i in range(6)])
    store.delete("d0")
    assert store.node_ids() == ["n1", "n3", "n5"]


def test_a_refusal_is_a_clear_error_and_is_not_tried_again(
    server: WeaviateServer, store: WeaviateVectorStore
) -> None:
    """The server's words arrive; the key does not."""
    store.add([text_node("a", vector(1))])
    before = server.count
    server.fail = lambda number: grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(StoreError, match=r"planned failure.*again is safe") as refused:
        store.query(ask(vector(1)))
    assert server.count == before + 1 and "s3cr3t" not in str(refused.value)


def test_an_unreachable_server_is_a_clear_error() -> None:
    """The message names the host and what to do."""
    with pytest.raises(StoreError, match=r"127\.0\.0\.1 cannot be reached.*Start the server"):
        WeaviateVectorStore.from_url("weaviate://127.0.0.1:1/Chunks")


def test_nobody_is_asked_but_the_server(server: WeaviateServer, store: WeaviateVectorStore) -> None:
    """The client's initial checks, which ask PyPI for its newest version, are not made."""
    store.add([text_node("a", vector(1))])
    assert store.client._connection._skip_init_checks


def test_a_collection_of_another_program_is_refused(server: WeaviateServer) -> None:
    """The official adapter's objects lack what a node needs; the error names it."""
    client = weaviate.connect_to_local(port=server.port, grpc_port=server.grpc_port, skip_init_checks=True)
    with client:
        OfficialStore(client, index_name="Theirs")
        with pytest.raises(StoreError, match="has no property kind.*another program"):
            WeaviateVectorStore(client, index_name="Theirs").get_nodes()


def test_more_than_one_question_may_give_are_found_and_deleted(store: WeaviateVectorStore) -> None:
    """The server gives and deletes 10,000 objects at a time; a filter that selects more is still answered."""
    nodes = [TextNode(id_=f"n{i:05}", text="t", embedding=[1.0, i], metadata={"k": 1}) for i in range(10_050)]
    store.batch_size = 2_000
    store.add(nodes)
    assert len(store.get_nodes(filters=only("k", "==", 1))) == 10_050
    assert len(store.node_ids()) == 10_050
    store.delete_nodes(filters=only("k", "==", 1))
    assert store.node_ids() == []


def test_a_document_is_replaced_and_never_gone(server: WeaviateServer, store: WeaviateVectorStore) -> None:
    """The new objects are written before the first old one is deleted."""
    store.add([text_node(f"old{i}", vector(1, i), doc="d") for i in range(3)])
    server.requests.clear()
    assert store.replace_documents(["d"], [text_node("old1", vector(1), doc="d", text="new")]) == ["old1"]
    assert server.requests.index("BatchObjects") < server.requests.index("BatchDelete")
    assert [(node.node_id, node.text) for node in store.get_nodes()] == [("old1", "new")]


def test_text_search_and_hybrid_find_words(store: WeaviateVectorStore) -> None:
    """BM25 scores are the server's; hybrid is fused here, so that alpha means what it means everywhere."""
    store.add([text_node("a", vector(1), text="the red valve"), text_node("b", vector(0, 1), text="a pump")])
    words = store.query(ask(None, mode=VectorStoreQueryMode.TEXT_SEARCH, query_str="valve"))
    assert words.ids == ["a"] and words.similarities[0] > 0
    query = VectorStoreQuery(
        query_embedding=vector(0, 1), query_str="valve", mode=VectorStoreQueryMode.HYBRID, alpha=0.0
    )
    assert store.query(query).ids[0] == "a"
    assert store.query(query.__class__(**{**query.__dict__, "alpha": 1.0})).ids[0] == "b"


def test_what_weaviate_cannot_say_is_refused_before_anything_is_sent(
    server: WeaviateServer, store: WeaviateVectorStore
) -> None:
    """The error names the filter and the way out."""
    before = server.count
    with pytest.raises(FilterError, match="Weaviate cannot filter.*no substrings.*LanceDB or Postgres"):
        store.query(ask(vector(1), filters=only("k", "text_match", "x")))
    assert server.count == before


def test_a_move_arrives_whole(store: WeaviateVectorStore, tmp_path: Any) -> None:
    """From a folder to the service and back: every node and vector as it was."""
    here, back = (LanceDBVectorStore(tmp_path / name, fingerprint="m") for name in ("here", "back"))
    here.add([text_node(f"n{i:03}", vector(1, i), metadata={"i": i, "a.b": i / 2}) for i in range(120)])
    there = WeaviateVectorStore(store.client, index_name="There", fingerprint="m")
    for source, target in ((here, there), (there, back)):
        report = move(source, target)
        assert report.ok and report.copied == 120 and report.recall_at_10 == 1.0
    assert back.get_nodes() == here.get_nodes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeaviateVectorStore(), "connected weaviate.WeaviateClient"),
        (lambda: WeaviateVectorStore(None, colour=1), "does not know .colour"),
        (lambda: WeaviateVectorStore.from_url("weaviate://host"), "Give weaviate://HOST/COLLECTION"),
        (lambda: WeaviateVectorStore.from_url("https://u:pw@host/x"), "'host/x' is no place"),
    ],
)
def test_wrong_options_are_refused(make: Any, message: str) -> None:
    """Each refusal says what is wrong, and repeats no password."""
    with pytest.raises(SettingsError, match=message):
        make()


def test_a_name_must_begin_with_a_capital(store: WeaviateVectorStore) -> None:
    """Weaviate would rename it silently."""
    with pytest.raises(SettingsError, match="capital letter first"):
        WeaviateVectorStore(store.client, index_name="chunks")
