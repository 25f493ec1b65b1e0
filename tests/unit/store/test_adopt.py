"""Nodes that stock adapters wrote arrive in a store of this package as they were."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.utils import node_to_metadata_dict

from llama_index_presets.errors import SettingsError, StoreCorruptError, StoreError
from llama_index_presets.store.adopt.places import find_stock, open_stock
from llama_index_presets.store.duckdb.store import DuckDBVectorStore
from llama_index_presets.store.lancedb.store import LanceDBVectorStore
from llama_index_presets.store.move import move
from llama_index_presets.store.postgres.embedded import embedded_postgres

DIM = 8


def nodes() -> list[BaseNode]:
    """Nodes with relationships, metadata of several types, odd ids, and of several classes."""
    chance = random.Random(7)
    made: list[BaseNode] = []
    for i in range(30):
        node = TextNode(
            id_=f"node'{i}\"",
            text=f"Passage {i}: Händewaschen “{i * i}”.",
            metadata={"page": i, "source": f"file{i % 3}.md", "rate": i / 7},
            embedding=[np.float32(chance.gauss(0, 1)).item() for _ in range(DIM)],
        )
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(
            node_id=f"doc{i % 5}", metadata={"a": 1}
        )
        if i:
            node.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(node_id=f"node'{i - 1}\"")
        made.append(node)
    unit = [1.0] + [0.0] * (DIM - 1)
    made.append(
        IndexNode(id_="index", text="A link.", index_id="other", metadata=made[0].metadata, embedding=unit)
    )
    made.append(
        ImageNode(id_="image", text="A scan.", image="aGk=", metadata=made[0].metadata, embedding=unit)
    )
    return made


def write_duckdb(folder: Path, written: Sequence[BaseNode]) -> str:
    """The table of the official adapter, which cannot be installed beside our DuckDB: its statement, its rows."""
    with duckdb.connect(str(folder / "stock.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE documents (node_id VARCHAR PRIMARY KEY, text TEXT, embedding FLOAT[], metadata_ JSON)"
        )
        for node in written:
            row = (
                node.node_id,
                node.get_content(metadata_mode=MetadataMode.NONE),
                node.get_embedding(),
                node_to_metadata_dict(node, remove_text=True, flat_metadata=True),
            )
            connection.execute("INSERT INTO documents VALUES (?, ?, ?, to_json(?))", row)
    return f"duckdb:{folder / 'stock.duckdb'}"


def write_lancedb(folder: Path, written: Sequence[BaseNode]) -> str:
    from llama_index.vector_stores.lancedb import LanceDBVectorStore as Official

    Official(uri=str(folder / "lance"), mode="overwrite").add(list(written))
    return f"lancedb:{folder / 'lance'}"


def write_simple(folder: Path, written: Sequence[BaseNode]) -> str:
    index = VectorStoreIndex(list(written), embed_model=MockEmbedding(embed_dim=DIM))
    index.storage_context.persist(str(folder / "storage"))
    return f"simple:{folder / 'storage'}"


def write_chroma(folder: Path, written: Sequence[BaseNode]) -> str:
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    settings = chromadb.config.Settings(anonymized_telemetry=False)
    client = chromadb.PersistentClient(str(folder / "chroma"), settings=settings)
    ChromaVectorStore(chroma_collection=client.get_or_create_collection("papers")).add(list(written))
    return f"chroma:{folder / 'chroma'}"


WRITERS: dict[str, Callable[[Path, Sequence[BaseNode]], str]] = {
    "duckdb": write_duckdb,
    "lancedb": write_lancedb,
    "simple": write_simple,
    "chroma": write_chroma,
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(folder) as address:
        yield address


def assert_arrived(place: str, target: Any) -> None:
    """Every node, relationship and vector is equal, and a question finds the node whose vector it is."""
    with_vectors = {node.node_id: node for node in nodes()}
    reader = open_stock(place)
    try:
        report = move(reader, target, batch_nodes=7)
    finally:
        reader.close()
    assert report.ok and report.nodes == report.copied == len(with_vectors) and report.recall_at_10 == 1.0
    for copy in target.get_nodes(list(with_vectors)):
        node = with_vectors.pop(copy.node_id)
        assert copy.model_copy(update={"embedding": None}) == node.model_copy(update={"embedding": None})
        assert np.array_equal(np.float32(copy.get_embedding()), np.float32(node.get_embedding()))
    assert with_vectors == {}
    found = target.query(VectorStoreQuery(query_embedding=nodes()[3].get_embedding(), similarity_top_k=1))
    assert found.ids == ["node'3\""]


@pytest.mark.parametrize("kind", list(WRITERS))
def test_nodes_of_a_stock_adapter_arrive_as_they_were(kind: str, tmp_path: Path) -> None:
    """Id, text, metadata, relationships, class and vector, without a model at hand."""
    assert_arrived(WRITERS[kind](tmp_path, nodes()), DuckDBVectorStore(tmp_path / "ours.duckdb"))


def test_nodes_of_the_official_postgres_adapter_arrive_as_they_were(url: str, tmp_path: Path) -> None:
    """The table is named as the adapter's `table_name` is, without its prefix."""
    from llama_index.vector_stores.postgres import PGVectorStore
    from sqlalchemy import make_url

    parts = make_url(url)
    official = PGVectorStore.from_params(
        host=parts.host or parts.query.get("host"), port=str(parts.port or 5432), database=parts.database,
        user=parts.username, password=parts.password or "", table_name="chunks", embed_dim=DIM,
        connection_string=url.replace("postgresql://", "postgresql+psycopg2://"),
        async_connection_string=url.replace("postgresql://", "postgresql+asyncpg://"),
    )  # fmt: skip
    official.add(nodes())
    assert_arrived(f"{url}#table=chunks", LanceDBVectorStore(tmp_path / "ours"))
    with pytest.raises(
        StoreError, match=r"There is no table 'public.data_other' of 'postgresql.*official adapter"
    ):
        open_stock(f"{url}#table=other")
    with pytest.raises(SettingsError, match=r"'#tabel=chunks' names no table. Write #table=NAME"):
        open_stock(f"{url}#tabel=chunks")


@pytest.mark.slow("an environment of its own for the official DuckDB adapter, which pins duckdb < 1.4")
def test_a_file_of_the_official_duckdb_adapter_arrives_as_it_was(tmp_path: Path) -> None:
    """The adapter itself writes, with the DuckDB that it pins; ours reads the file with a newer one."""
    environment = tmp_path / "environment"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, "llama-index-vector-stores-duckdb", "numpy"],
        check=True,
    )
    writer = (
        "import sys; sys.path.insert(0, sys.argv[1]); from stock_nodes import nodes\n"
        "from llama_index.vector_stores.duckdb import DuckDBVectorStore as Official\n"
        # Its constructor downloads DuckDB's extension for full text: the statement after that is run alone.
        "Official._initialize_table = classmethod(lambda cls, connection, table, dim: connection.execute("
        "f'CREATE TABLE IF NOT EXISTS {table} (node_id VARCHAR PRIMARY KEY, text TEXT, "
        "embedding {cls._get_embedding_type(dim)}, metadata_ JSON)'))\n"
        f"Official('stock.duckdb', persist_dir=sys.argv[1], embed_dim={DIM}).add(nodes())\n"
    )
    source = Path(__file__).read_text("utf-8")
    body = source[source.index("def nodes()") : source.index("def write_duckdb")]
    (tmp_path / "stock_nodes.py").write_text(
        f"import random\nimport numpy as np\nfrom llama_index.core.schema import *\nDIM = {DIM}\n{body}",
        "utf-8",
    )
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-c", writer, tmp_path], check=True, env=plain)
    assert_arrived(
        f"duckdb:{tmp_path / 'stock.duckdb'}#documents", DuckDBVectorStore(tmp_path / "ours.duckdb")
    )


def test_an_index_over_adopted_nodes_answers_as_before(tmp_path: Path) -> None:
    """`VectorStoreIndex.from_vector_store` gives the passages and scores that the stock index gave."""
    model = MockEmbedding(embed_dim=DIM)
    place = write_simple(tmp_path, nodes())
    stock = VectorStoreIndex(nodes(), embed_model=model).as_retriever(similarity_top_k=1)
    store = LanceDBVectorStore(tmp_path / "ours")
    assert move(open_stock(place), store).ok
    ours = VectorStoreIndex.from_vector_store(store, embed_model=model).as_retriever(similarity_top_k=1)
    (before,), (after,) = stock.retrieve("Passage 4"), ours.retrieve("Passage 4")
    assert (after.node_id, after.text) == (before.node_id, before.text)
    assert after.score == pytest.approx(before.score, abs=1e-6)


def test_the_source_is_not_changed(tmp_path: Path) -> None:
    """The files of each kind have the same bytes after a move."""
    for kind, write in WRITERS.items():
        folder = tmp_path / kind
        folder.mkdir()
        place = write(folder, nodes())
        before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        reader = open_stock(place)
        assert move(reader, DuckDBVectorStore()).ok
        reader.close()
        assert {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} == before


def test_a_row_that_stands_twice_is_read_once_and_two_different_rows_are_refused(tmp_path: Path) -> None:
    """The official LanceDB adapter adds a document again when it is ingested twice; nothing is lost in silence."""
    from llama_index.vector_stores.lancedb import LanceDBVectorStore as Official

    official = Official(uri=str(tmp_path / "lance"), mode="overwrite")
    official.add(nodes())
    official.add(nodes()[:2])
    reader = open_stock(f"lancedb:{tmp_path / 'lance'}")
    assert len(reader.ids_as_stored()) == len(nodes()) and move(reader, DuckDBVectorStore()).ok
    official.add([nodes()[0].model_copy(update={"embedding": [9.0] * DIM})])
    with pytest.raises(StoreError, match=r"holds two different nodes with the id 'node'0\"'. Delete one"):
        move(open_stock(f"lancedb:{tmp_path / 'lance'}"), DuckDBVectorStore())


def test_our_own_files_are_no_stock_nodes(tmp_path: Path) -> None:
    """A move between our stores is what it was."""
    with DuckDBVectorStore(tmp_path / "ours.duckdb") as store:
        store.add(nodes())
    LanceDBVectorStore(tmp_path / "ours").add(nodes())
    places = (
        f"duckdb:{tmp_path / 'ours.duckdb'}",
        f"lancedb:{tmp_path / 'ours'}",
        "pinecone:index",
        "duckdb:gone",
    )
    assert [find_stock(place) for place in places] == [None] * 4


def test_places_without_stock_nodes_say_what_is_there(tmp_path: Path) -> None:
    """Each message names the place and the next step."""
    file = write_duckdb(tmp_path, nodes())
    with pytest.raises(
        StoreError, match=r"has no table 'vectors' of the official adapter; it has the tables 'documents'"
    ):
        open_stock(f"{file}#vectors")
    with pytest.raises(StoreError, match=r"has no 'default__vector_store.json'. Vector stores in it: none"):
        open_stock(f"simple:{tmp_path}")
    with pytest.raises(StoreError, match=r"has no 'chroma.sqlite3'. Give the folder of a PersistentClient"):
        open_stock(f"chroma:{tmp_path}")
    with pytest.raises(
        StoreError, match=r"has the collections papers. Name the one to read: chroma:.*#COLLECTION"
    ):
        open_stock(f"{write_chroma(tmp_path, nodes())}#essays")
    with pytest.raises(SettingsError, match=r"'qdrant:x' names no stock nodes. Give duckdb:FILE#TABLE"):
        open_stock("qdrant:x")


def test_a_vector_without_its_node_is_refused(tmp_path: Path) -> None:
    """A docstore.json of another index has no text for the vectors."""
    place = write_simple(tmp_path, nodes())
    StorageContext.from_defaults().persist(str(tmp_path / "empty"))
    (tmp_path / "empty" / "docstore.json").replace(tmp_path / "storage" / "docstore.json")
    with pytest.raises(
        StoreCorruptError, match=r"has a vector of 'node'0\"', but its docstore.json no such node"
    ):
        open_stock(place).get_nodes(["node'0\""])
