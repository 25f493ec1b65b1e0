"""What PineconeVectorStore does when the service limits, slows down or fails."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.schema import TextNode
from llama_index.vector_stores.pinecone import PineconeVectorStore as OfficialStore
from tests.contracts.store import DIM, ask, only, text_node, vector
from tests.servers.pinecone import PineconeServer, pinecone_server

from llama_index_presets.errors import FilterError, NodeRejectedError, SettingsError, StoreError
from llama_index_presets.store.pinecone.store import PineconeVectorStore


@pytest.fixture
def server() -> Iterator[PineconeServer]:
    with pinecone_server(DIM) as server:
        yield server


@pytest.fixture
def store(server: PineconeServer) -> PineconeVectorStore:
    return PineconeVectorStore(host=server.url, api_key="s3cr3t")


def test_every_third_request_failing_loses_nothing(
    server: PineconeServer, store: PineconeVectorStore
) -> None:
    """429 and 500 in turn on every third request: all 500 nodes arrive, once each, and are found."""
    server.fail = lambda number: (
        None if number % 3 else ((429, {"Retry-After": "0.05"}) if number % 2 else (500, {}))
    )
    store.batch_size = 20
    store.add([text_node(f"n{i:03}", vector(1, i), doc=f"d{i % 5}") for i in range(500)])
    store.delete("d0")
    assert len(store.get_nodes()) == 400
    assert len(store.query(ask(vector(1), 1000)).ids) == 400


def test_retry_after_is_waited_for(server: PineconeServer, store: PineconeVectorStore) -> None:
    """The service says when to come back."""
    store.add([text_node("a", vector(1))])
    next_request = server.count + 1
    server.fail = lambda number: (429, {"Retry-After": "1"}) if number == next_request else None
    begun = time.monotonic()
    store.query(ask(vector(1)))
    assert time.monotonic() - begun >= 1


def test_a_service_that_stays_down_is_a_clear_error(
    server: PineconeServer, store: PineconeVectorStore
) -> None:
    """After three rounds of the SDK's four attempts, the error says so, and carries no key."""
    server.fail = lambda number: (503, {"Retry-After": "0"})
    with pytest.raises(StoreError, match=r"503.*calling again is safe") as refused:
        store.query(ask(vector(1)))
    assert server.count == 12 and "s3cr3t" not in str(refused.value)


def test_a_refusal_is_not_tried_again(server: PineconeServer, store: PineconeVectorStore) -> None:
    """A 4xx other than 429 is final."""
    server.fail = lambda number: (403, {})
    with pytest.raises(StoreError, match="403"):
        store.query(ask(vector(1)))
    assert server.count == 1


def test_requests_stay_below_two_megabytes(server: PineconeServer, store: PineconeVectorStore) -> None:
    """Large records go in smaller batches: the server refuses any request above the limit."""
    store.add([text_node(f"n{i}", vector(1, i), text="x" * 30_000) for i in range(150)])
    sizes = [len(body["vectors"]) for path, body in server.requests if path == "/vectors/upsert"]
    assert sum(sizes) == 150 and len(sizes) > 2


@pytest.mark.parametrize(
    "bad",
    [text_node("x" * 600, vector(1)), text_node("b", vector(1), text="ü" * 25_000)],
    ids=["id", "metadata"],
)
def test_what_is_too_large_is_refused_before_anything_is_sent(
    server: PineconeServer, store: PineconeVectorStore, bad: Any
) -> None:
    """40 kB of metadata and 512 bytes of id, with the numbers in the message."""
    with pytest.raises(NodeRejectedError, match="40,960 and 512") as refused:
        store.add([text_node("good", vector(1)), bad])
    assert refused.value.node_ids == [bad.node_id]
    assert not [path for path, _ in server.requests if path == "/vectors/upsert"]


def test_namespaces_keep_tenants_apart(server: PineconeServer) -> None:
    """The same id in two namespaces is two nodes; clearing one leaves the other."""
    a, b = (PineconeVectorStore(host=server.url, api_key="k", namespace=name) for name in "ab")
    a.add([text_node("n", vector(1), text="of a")])
    b.add([text_node("n", vector(1), text="of b")])
    assert a.query(ask(vector(1))).nodes[0].text == "of a"
    a.clear()
    assert a.get_nodes() == [] and b.get_nodes()[0].text == "of b"


def test_another_metric_is_refused(server: PineconeServer) -> None:
    """Scores are cosine, so the index must be."""
    server.metric = "euclidean"
    with pytest.raises(StoreError, match="compares by 'euclidean'"):
        PineconeVectorStore(host=server.url, api_key="k").query(ask(vector(1)))


def test_a_document_is_deleted_by_id_prefix(server: PineconeServer, store: PineconeVectorStore) -> None:
    """No filter is sent, as not every serverless index deletes by filter; 250 ids come in pages."""
    store.add([text_node(f"n{i:03}", vector(1, i), doc="doc1") for i in range(250)])
    store.add([text_node("other", vector(1), doc="doc10"), text_node("sub", vector(1), doc="doc1#n")])
    server.requests.clear()
    store.delete("doc1")
    assert store.node_ids() == ["other", "sub"]
    deletes = [body for path, body in server.requests if path == "/vectors/delete"]
    assert deletes and all(set(body) == {"namespace", "ids"} for body in deletes)
    listed = [body["prefix"] for path, body in server.requests if path == "/vectors/list"]
    assert listed[:3] == ["doc1#"] * 3


def test_a_document_id_of_any_length_has_a_prefix(store: PineconeVectorStore) -> None:
    """A long document id stands in record ids as its digest, so that 512 bytes are enough."""
    long, longer = "d" * 600, "d" * 601
    store.add([text_node("a", vector(1), doc=long), text_node("b", vector(1), doc=longer)])
    store.delete(long)
    assert [node.ref_doc_id for node in store.get_nodes()] == [longer]


def test_a_document_is_replaced_and_never_gone(server: PineconeServer, store: PineconeVectorStore) -> None:
    """The new records are written before the first old one is deleted; calling again finishes a failure."""
    store.add([text_node(f"old{i}", vector(1, i), doc="d") for i in range(3)])
    server.requests.clear()
    assert store.replace_documents(["d"], [text_node("old1", vector(1), doc="d", text="new")]) == ["old1"]
    paths = [path for path, _ in server.requests]
    assert paths.index("/vectors/upsert") < paths.index("/vectors/delete")
    assert [(node.node_id, node.text) for node in store.get_nodes()] == [("old1", "new")]
    store.replace_documents(["d"], [])
    assert store.node_ids() == []


@pytest.mark.parametrize(
    ("operator", "value", "message"),
    [
        ("text_match", "x", "no substrings"),
        (">", "2024", "no order of strings"),
        ("<", 2**60, "numbers of 2"),
    ],
)
def test_what_pinecone_cannot_say_is_refused_before_anything_is_sent(
    server: PineconeServer, store: PineconeVectorStore, operator: str, value: Any, message: str
) -> None:
    """The error names the filter and the way out."""
    with pytest.raises(FilterError, match=f"{message}.*LanceDB or Postgres"):
        store.query(ask(vector(1), filters=only("k", operator, value)))
    assert server.count == 0


def test_it_is_the_official_store_and_shows_no_key(store: PineconeVectorStore) -> None:
    """isinstance holds; repr, to_dict and json are free of the key; pickling is refused."""
    assert isinstance(store, OfficialStore)
    for form in (repr(store), str(store), str(store.to_dict()), store.json()):
        assert "s3cr3t" not in form
    with pytest.raises(StoreError, match="cannot be pickled"):
        pickle.dumps(store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs an index_name"),
        ({"host": "h", "api_key": ""}, "No Pinecone key"),
        ({"host": "h", "add_sparse_vector": True}, "Sparse vectors are not supported"),
        ({"host": "h", "colour": 1}, "does not know .colour"),
        ({"host": "h", "namespace": "llama-index-presets"}, "is taken by this package"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal says what is wrong."""
    monkeypatch.delenv("PINECONE_API_KEY", raising=False)
    with pytest.raises(SettingsError, match=message):
        PineconeVectorStore(**{"api_key": "k", **options})


def test_an_index_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong name in a storage URL is no fault of the service."""
    with pinecone_server() as server:
        server.fail = lambda number: (404, {})
        monkeypatch.setenv("PINECONE_CONTROLLER_HOST", server.url)
        with pytest.raises(StoreError, match="no index 'manuals' under this key. Create it"):
            PineconeVectorStore("manuals", api_key="k")


def test_an_id_with_a_nul_character_is_refused(store: PineconeVectorStore) -> None:
    """Pinecone's client would raise an error of its own in the middle of a batch."""
    with pytest.raises(NodeRejectedError, match=r"Node 'k\\x00' .* NUL character"):
        store.add([text_node("a", vector(1)), TextNode(id_="k\0", text="1", embedding=vector(1))])
    assert store.get_nodes() == []
