"""The call that a program makes of an official adapter opens the same place here, or is refused with the reason."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import duckdb
import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import VectorStoreQuery

from llama_index_presets.errors import FingerprintError, SettingsError, StoreError, UnknownOptionError
from llama_index_presets.store.duckdb.store import DuckDBVectorStore
from llama_index_presets.store.lancedb.store import LanceDBVectorStore
from llama_index_presets.store.pinecone.store import PineconeVectorStore
from llama_index_presets.store.postgres.connection import Done
from llama_index_presets.store.postgres.store import PostgresVectorStore
from llama_index_presets.store.weaviate.store import WeaviateVectorStore

NODE = TextNode(id_="a", text="red", embedding=[1.0, 0.0])
ASK = VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=1)
URL = "postgresql://u:p@localhost/d"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official default folder is ``./storage``."""
    monkeypatch.chdir(tmp_path)


def test_the_official_call_of_duckdb_keeps_what_was_added(tmp_path: Path) -> None:
    """`database_name`, `table_name` and `embed_dim` name a file in ``./storage``, its table, and the length."""
    with DuckDBVectorStore(database_name="a.duckdb", table_name="t", embed_dim=2) as store:
        store.add([NODE])
    assert (tmp_path / "storage" / "a.duckdb").is_file()
    with DuckDBVectorStore(tmp_path / "storage" / "a.duckdb", table="t", dim=2) as again:
        assert again.query(ASK).ids == ["a"]


@pytest.mark.parametrize(
    ("options", "file", "table"),
    [
        ({"database_name": "a.duckdb"}, "storage/a.duckdb", "documents"),
        ({"database_name": "a.duckdb", "persist_dir": "p"}, "p/a.duckdb", "documents"),
        ({"path": "a.duckdb", "persist_dir": "p", "table_name": "t"}, "p/a.duckdb", "t"),
        ({"database_name": "a.duckdb", "table": "t"}, "storage/a.duckdb", "t"),
        ({"path": "a.duckdb", "table_name": "t"}, "a.duckdb", "t"),
        ({"path": "a.duckdb", "database_name": None, "persist_dir": None}, "a.duckdb", "vectors"),
    ],
)
def test_official_names_open_the_official_place(options: Any, file: str, table: str) -> None:
    """A database that is named as there lies where it lies there, in the table that it has there."""
    with DuckDBVectorStore(**options) as store:
        assert (Path(store.path), store.table) == (Path(file), table)
        store.add([NODE])
    assert Path(file).is_file()


def test_the_other_constructors_take_official_names_too() -> None:
    """`from_params`, and `from_local` with its official keyword."""
    with DuckDBVectorStore.from_params(database_name="a.duckdb", table_name="t", embed_dim=2) as store:
        store.add([NODE])
    with DuckDBVectorStore.from_local(database_path="storage/a.duckdb", table_name="t") as store:
        assert store.query(ASK).ids == ["a"]
    with DuckDBVectorStore.from_local("storage/a.duckdb", table_name="t", embed_dim=2) as store:
        assert store.dim == 2
    with pytest.raises(SettingsError, match="needs the path of a file"):
        DuckDBVectorStore.from_local()
    with pytest.raises(StoreError, match="There is no file"):
        DuckDBVectorStore.from_local(database_path="nowhere.duckdb")
    with DuckDBVectorStore.from_local(
        database_path=":memory:", embed_dim=3
    ) as store:  # no file to be missing
        assert (store.database_name, store.table_name, store.embed_dim) == (":memory:", "documents", 3)


def test_a_connection_may_be_called_client_and_a_length_embed_dim() -> None:
    """What they do under the names of this package."""
    connection = duckdb.connect()
    store = DuckDBVectorStore(client=connection, table_name="t")
    store.add([NODE])
    assert connection.execute("SELECT count(*) FROM t").fetchall() == [(1,)]
    with pytest.raises(FingerprintError, match="vectors of 2 numbers, the caller wants 3"):
        DuckDBVectorStore(client=connection, table_name="t", embed_dim=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "t", "table_name": "u"}, "table is 't' and table_name is 'u': both mean the same"),
        ({"dim": 2, "embed_dim": 3}, "dim is 2 and embed_dim is 3"),
        ({"path": "a", "database_name": "b"}, "path is 'a' and database_name is 'b'"),
        ({"text_search_config": {"stemer": "german"}}, "'stemer': did you mean 'stemmer'"),
        ({"text_search_config": {"ignore": "x"}}, "sets ignore, which cannot be changed here"),
        ({"stores_text": False}, "stores_text: the store keeps the text"),
    ],
)
def test_what_contradicts_itself_or_cannot_be_honoured_is_refused(options: Any, message: str) -> None:
    """Before a file is made."""
    with pytest.raises(SettingsError, match=message):
        DuckDBVectorStore(**options)
    assert list(Path().iterdir()) == []


def test_the_official_text_search_config_sets_the_language() -> None:
    """Its default is English, and another stemmer is another language."""
    official = {
        "stemmer": "english",
        "stopwords": "english",
        "ignore": "(\\.|[^a-z])+",
        "strip_accents": True,
        "lower": True,
        "overwrite": False,
    }
    assert DuckDBVectorStore(text_search_config=official).text_language == "english"
    german = {**official, "stemmer": "german", "stopwords": "german"}
    assert DuckDBVectorStore(text_search_config=german).text_language == "german"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LanceDBVectorStore("v", reranker=object()), "reranker: .* CrossEncoderRerank"),
        (lambda: LanceDBVectorStore("v", query_type="vektor"), "query_type: choose 'vector'"),
        (lambda: LanceDBVectorStore("v", mode="write"), "mode: choose 'create'"),
        (lambda: LanceDBVectorStore("v", api_key="secret"), "api_key: it belongs to LanceDB Cloud"),
        (lambda: PostgresVectorStore(URL, customize_query_fn=print), "customize_query_fn: .* Use filters"),
        (lambda: PostgresVectorStore(URL, hnsw_kwargs={"hnsw_mm": 3}), "'hnsw_mm': did you mean 'hnsw_m'"),
        (
            lambda: PineconeVectorStore(host="h", api_key="k", text_key="body"),
            "text_key: .* kept under 'text'",
        ),
        (lambda: PineconeVectorStore(host="h", api_key="k", insert_kwargs={"x": 1}), "insert_kwargs: "),
        (
            lambda: PineconeVectorStore(host="h", api_key="k", add_sparse_vector=True),
            "Sparse vectors are not",
        ),
        (lambda: WeaviateVectorStore(url="http://h"), r"url: WeaviateVectorStore\.from_url"),
        (lambda: WeaviateVectorStore(class_prefix="X"), "class_prefix: give the whole name"),
        (lambda: WeaviateVectorStore.from_url("weaviate://h/C?gprc=1"), "'gprc': did you mean 'grpc'"),
    ],
)
def test_an_official_option_without_a_meaning_here_says_what_to_do(make: Any, message: str) -> None:
    """It is neither dropped nor called unknown, and its value, which may be a key, is not shown."""
    with pytest.raises(SettingsError, match=message) as refused:
        make()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda name: LanceDBVectorStore("v", name),
        lambda name: LanceDBVectorStore("v", text_key=name),
        lambda name: PostgresVectorStore(URL, table_name=name),
        lambda name: PostgresVectorStore(URL, schema_name=name),
        lambda name: DuckDBVectorStore(table=name),
        lambda name: PineconeVectorStore(host="h", api_key="k", namespace=name or "\0"),
        lambda name: PineconeVectorStore(name, api_key="k"),
    ],
    ids=[
        "lance",
        "lance column",
        "postgres",
        "postgres schema",
        "duckdb",
        "pinecone namespace",
        "pinecone index",
    ],
)
@pytest.mark.parametrize("name", ["", "a\ud800", "a\0b", "a\nb"], ids=["empty", "surrogate", "nul", "line"])
def test_a_name_that_no_database_takes_is_refused_at_construction(make: Any, name: str) -> None:
    """A table, column, schema, namespace or index; the message can be printed."""
    with pytest.raises(SettingsError) as refused:
        make(name)
    assert str(refused.value).encode()


@pytest.mark.parametrize("name", ["a b", "a/b", "../up", "..", ".", "ü", "a%", "x" * 250])
def test_a_table_name_that_lance_refuses_is_refused_at_construction(name: str) -> None:
    """Lance would say so with the first query, by a raw error."""
    with pytest.raises(SettingsError, match="LanceDB takes 1 to 249 letters"):
        LanceDBVectorStore("v", name)


def test_every_table_name_that_lance_takes_is_taken() -> None:
    """The longest, too, beside whose folder there is a lock file."""
    for name in ("a.b-c_1", "..a", "x" * 249):
        store = LanceDBVectorStore("v", name)
        store.add([NODE])
        assert store.query(ASK).ids == ["a"]


def test_columns_of_a_lance_table_need_names_of_their_own() -> None:
    """One name for two columns, or that of a column of this package, would lose one of them."""
    for options in ({"text_key": "id"}, {"text_key": "same", "doc_id_key": "same"}):
        with pytest.raises(SettingsError, match="each needs a name of its own"):
            LanceDBVectorStore("v", **options)


def test_the_table_that_remembers_tables_is_not_a_table_of_nodes() -> None:
    """Its name is taken."""
    with pytest.raises(SettingsError, match="is where the stores remember their tables"):
        DuckDBVectorStore(table="llama_index_presets_stores")


def test_a_weaviate_collection_has_the_name_of_a_class() -> None:
    """Umlauts and blanks are refused before the server is asked."""
    for name in ("Ümlaut", "A b", "A" * 256):
        with pytest.raises(SettingsError, match="capital letter first"):
            WeaviateVectorStore.from_url(f"weaviate://127.0.0.1:1/{name}")


def test_closing_postgres_works_in_every_official_way() -> None:
    """As a call, awaited, run, as a task, gathered; it is closed when the call returns."""
    store = PostgresVectorStore(URL)
    store.close()
    asyncio.run(store.close())

    async def story() -> None:
        await store.close()
        await asyncio.create_task(store.close())
        assert await asyncio.gather(store.close(), store.close()) == [None, None]
        await asyncio.wait_for(store.close(), 10)
        await store.aclose()

    asyncio.run(story())


def test_a_coroutine_that_is_done_passes_on_what_is_thrown_into_it() -> None:
    """It holds nothing that could catch it, and closing it is fine."""
    with pytest.raises(KeyError, match="thrown"):
        Done().throw(KeyError("thrown"))
    Done().close()


def test_a_class_of_the_user_keeps_its_own_fields_and_is_as_strict() -> None:
    """A field that a subclass adds is known; a misspelt one is not."""

    class Labelled(DuckDBVectorStore):
        label: str = ""

        def __init__(self, label: str = "", **options: Any) -> None:
            super().__init__(**options)
            self.label = label

    assert Labelled(label="mine", table="t").label == "mine"
    with pytest.raises(UnknownOptionError, match="Labelled does not know 'tabel': did you mean 'table'"):
        Labelled(label="mine", tabel="t")
