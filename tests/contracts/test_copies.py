"""Every public object survives copy, deepcopy, pickle and to_dict, or says why it cannot."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import MockEmbedding
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from tests.fakes import WordEmbedding
from tests.servers.weaviate import weaviate_server
from tests.unit.rerank.conftest import save_model

import llama_index_presets as presets
from llama_index_presets import errors
from llama_index_presets.errors import PresetsError, StoreError
from llama_index_presets.store.encrypted import EncryptedVectorStore

NODES = [
    TextNode(id_="a", text="red fish", embedding=[1.0, 0.0]),
    TextNode(id_="b", text="blue whale", embedding=[0.0, 1.0]),
]
ASKED = VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=1)


def filled(store: Any) -> Any:
    store.add(NODES)
    return store


def hybrid(folder: Path) -> Any:
    words = presets.BM25Index.from_nodes(NODES)
    return presets.HybridFusionRetriever(words.as_retriever(), words)


def multi_modal(folder: Path) -> Any:
    return presets.MultiModalRetriever(filled(presets.DuckDBVectorStore()), MockEmbedding(embed_dim=2))


def engine(folder: Path) -> Any:
    built = presets.build(
        "knowledge-base",
        storage=folder / "engine",
        offline=True,
        embed_model=WordEmbedding(model_name="words"),
    )
    built.ingest([TextNode(id_="a", text="red fish")])
    return built


def reranker(folder: Path) -> Any:
    return presets.CrossEncoderRerank(save_model(folder / "model"), cache_size=4, callback_manager=None)


def scored(rerank: Any) -> list[str]:
    hits = [NodeWithScore(node=node, score=0.5) for node in NODES]
    return [hit.node.node_id for hit in rerank.postprocess_nodes(hits, QueryBundle("red"))]


def found(retriever: Any, query: Any = "red fish") -> list[str]:
    return [hit.node.node_id for hit in retriever.retrieve(query)]


Make = Callable[[Path], Any]
# root name -> (makes one, what it answers, whether it can be pickled)
OBJECTS: dict[str, tuple[Make, Callable[[Any], Any], bool]] = {
    "PRESETS": (lambda _: presets.PRESETS, lambda rows: rows["healthcare"].store, True),
    "PresetEngine": (engine, lambda made: found(made, QueryBundle("red fish")), True),
    "LocalEmbedding": (
        lambda _: presets.LocalEmbedding("all-MiniLM-L6-v2", max_length=64),
        lambda model: (model.max_length, model.dim),
        True,
    ),
    "ClipEmbedding": (lambda _: presets.ClipEmbedding(), lambda model: model.dim, True),
    "BatchedOpenAIEmbedding": (
        lambda _: presets.BatchedOpenAIEmbedding(dimensions=8),
        lambda model: model.dim,
        True,
    ),
    "CachedEmbedding": (
        lambda folder: presets.CachedEmbedding(MockEmbedding(embed_dim=2), folder / "cache"),
        lambda model: model.get_text_embedding("a"),
        True,
    ),
    "EmbeddingCache": (
        lambda folder: presets.EmbeddingCache(folder / "cache"),
        lambda cache: cache.contains_many([b"k"]),
        True,
    ),
    "ExtractiveLLM": (lambda _: presets.ExtractiveLLM(), lambda llm: llm.metadata.model_name, True),
    "DuckDBVectorStore": (
        lambda folder: filled(presets.DuckDBVectorStore(folder / "a.duckdb")),
        lambda store: store.query(ASKED).ids,
        True,
    ),
    "LanceDBVectorStore": (
        lambda folder: filled(presets.LanceDBVectorStore(str(folder / "lance"))),
        lambda store: store.query(ASKED).ids,
        True,
    ),
    "PostgresVectorStore": (
        lambda _: presets.PostgresVectorStore.from_url("postgresql://u:secret@127.0.0.1:1/db", embed_dim=2),
        lambda store: store.table_name,
        False,
    ),
    "PineconeVectorStore": (
        lambda _: presets.PineconeVectorStore("docs", host="http://127.0.0.1:1", api_key="secret"),
        lambda store: store.index_name,
        False,
    ),
    "BM25Index": (
        lambda folder: presets.BM25Index.from_nodes(NODES, folder / "words", language="german", k1=1.5),
        lambda index: (index.search("fish"), index.settings),
        True,
    ),
    "HybridFusionRetriever": (hybrid, found, True),
    "MultiModalRetriever": (multi_modal, found, True),
    "CrossEncoderRerank": (reranker, scored, True),
    "CostTrackingHandler": (
        lambda folder: presets.CostTrackingHandler(folder / "calls.duckdb"),
        lambda handler: (str(handler.ledger.path), handler.total_llm_token_count),
        True,
    ),
    "Ledger": (
        lambda folder: presets.Ledger(folder / "calls.duckdb"),
        lambda ledger: ledger.get_usage_stats().total_calls,
        True,
    ),
    # further states of the same classes
    "DuckDBVectorStore in memory": (
        lambda _: filled(presets.DuckDBVectorStore()),
        lambda store: store.query(ASKED).ids,
        True,
    ),
    "BM25Index in memory": (
        lambda _: presets.BM25Index.from_nodes(NODES),
        lambda index: index.search("fish"),
        True,
    ),
    "BM25Index over a store": (
        lambda _: presets.BM25Index.from_source(filled(presets.DuckDBVectorStore())),
        lambda index: [name for name, _ in index.search("fish")],
        True,
    ),
    "KeywordRetriever": (lambda _: presets.BM25Index.from_nodes(NODES).as_retriever(1), found, True),
}
WITH_A_SERVER = {"WeaviateVectorStore"}
FUNCTIONS = {"build", "recommend", "embed_dataframe", "embedded_postgres"}


@pytest.fixture(params=OBJECTS)
def part(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Callable[[Any], Any], bool]]:
    make, answer, pickles = OBJECTS[request.param]
    made = make(tmp_path)
    yield made, answer, pickles
    if hasattr(made, "close") and request.param != "PostgresVectorStore":  # there is no server
        made.close()


def test_every_root_name_is_looked_at() -> None:
    """A name that is added here fails until it says how it is copied."""
    known = {name for name in OBJECTS if name in presets.__all__}
    assert set(presets.__all__) == FUNCTIONS | WITH_A_SERVER | known


def test_a_store_of_a_running_server_is_shared_by_copies() -> None:
    """Weaviate's client has a connection open from the beginning."""
    with weaviate_server() as server, presets.WeaviateVectorStore.from_url(server.url("Chunks")) as store:
        store.add(NODES)
        assert copy.copy(store).query(ASKED).ids == copy.deepcopy(store).query(ASKED).ids == ["a"]
        with pytest.raises(PresetsError, match="cannot be pickled"):
            pickle.dumps(store)


def test_copies_answer_as_the_original(part: tuple[Any, Callable[[Any], Any], bool]) -> None:
    """Shallow and deep, and the original goes on."""
    made, answer, _ = part
    expected = answer(made)
    assert answer(copy.copy(made)) == answer(copy.deepcopy(made)) == answer(made) == expected


def test_a_pickle_is_opened_again_or_refused(part: tuple[Any, Callable[[Any], Any], bool]) -> None:
    """Refused where it would hold a secret or somebody else's connection; the message says what to do."""
    made, answer, pickles = part
    if pickles:
        written = pickle.dumps(made)
        assert answer(pickle.loads(written)) == answer(made)
    else:
        with pytest.raises(PresetsError, match="cannot be pickled"):
            pickle.dumps(made)


def test_a_dict_makes_an_equal_one(part: tuple[Any, Callable[[Any], Any], bool]) -> None:
    """Of those that LlamaIndex writes as dicts; the dict holds no secret, and a store in memory is refused."""
    made, answer, pickles = part
    if not hasattr(made, "from_dict"):
        assert not hasattr(made, "to_dict")
        return
    if getattr(made, "path", None) == ":memory:":
        with pytest.raises(StoreError, match="in memory with nodes cannot be a dict"):
            made.to_dict()
        return
    data = made.to_dict()
    assert "secret" not in str(data)
    assert pickles is False or answer(type(made).from_dict(data)) == answer(made)


def test_a_cached_embedding_needs_the_class_of_its_model(tmp_path: Path) -> None:
    """A dict cannot have anything imported; the model may be passed."""
    data = presets.CachedEmbedding(MockEmbedding(embed_dim=2), tmp_path).to_dict()
    data["inner"] = {**data["inner"], "class_name": "NoSuchEmbedding"}
    with pytest.raises(PresetsError, match="is not imported here"):
        presets.CachedEmbedding.from_dict(data)
    again = presets.CachedEmbedding.from_dict(data, inner=MockEmbedding(embed_dim=2))
    assert len(again.get_text_embedding("a")) == 2


def test_an_encrypted_store_is_shared_by_copies_and_not_pickled(tmp_path: Path) -> None:
    """Its key would be in the pickle."""
    module = importlib.import_module("llama_index_presets.files.encryption")
    store = EncryptedVectorStore(
        presets.DuckDBVectorStore(tmp_path / "a.duckdb"), sealer=module.Encryptor(b"k" * 32)
    )
    assert copy.deepcopy(store) is store
    with pytest.raises(PresetsError, match="cannot be pickled"):
        pickle.dumps(store)


def test_a_pickle_is_opened_by_another_process(tmp_path: Path) -> None:
    """Hybrid search in memory, whose nodes come along."""
    (tmp_path / "hybrid.pickle").write_bytes(pickle.dumps(hybrid(tmp_path)))
    program = (
        "import pickle, sys; from pathlib import Path; "
        "print([hit.node.node_id for hit in pickle.loads(Path(sys.argv[1]).read_bytes()).retrieve('red fish')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "hybrid.pickle")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "['a']"


ERRORS = [
    errors.MissingExtraError("lancedb", "lancedb"),
    errors.UnknownPresetError("healthcar", ["healthcare"], "healthcare"),
    errors.UnknownOptionError("build", {"storag": "storage"}, ["storage"]),
    errors.StoreLockedError("Another process holds 'a.duckdb'.", pid=7),
    errors.NodeRejectedError("Two nodes cannot be stored.", ["a", "b"]),
    errors.FingerprintError("The table was made by 'a'.", stored="a", given="b"),
    errors.ImageError("cat.png", "is no image."),
    errors.PartialEmbeddingError("One of two failed.", vectors={0: [1.0]}, failed=[1]),
    errors.StoreError("No such table."),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
)
def test_an_error_arrives_whole_from_a_worker(error: Any, copied: Callable[[Any], Any]) -> None:
    """Type, message and attributes; an error that cannot be unpickled would end the pool of processes instead."""
    found = copied(error)
    assert type(found) is type(error) and str(found) == str(error) and vars(found) == vars(error)
