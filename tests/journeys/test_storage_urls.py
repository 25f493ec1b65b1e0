"""A storage that is a URL: vectors on a server, the rest on this machine, and no password anywhere to be seen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Document
from moto.server import ThreadedMotoServer
from tests.fakes import WordEmbedding
from tests.servers.pinecone import PineconeServer, pinecone_server

from llama_index_presets import LanceDBVectorStore, build, embedded_postgres
from llama_index_presets.errors import FingerprintError, SettingsError, StoreError
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.index.address import read_address
from llama_index_presets.presets.index.storage import resolve_storage

DOCUMENTS = [
    Document(text="Pumps of type A are greased every month.", doc_id="a", metadata={"plant": "north"}),
    Document(text="Valves of type B are greased every year.", doc_id="b", metadata={"plant": "south"}),
]
SETTINGS = {"llm": "extractive", "monitoring": "basic", "answer_floor": 0.1}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMA_PRESETS_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real server with a user that has a password (a socket asks for none, but takes it)."""
    with embedded_postgres(tmp_path_factory.mktemp("pg")) as url:
        yield url.replace("postgres:@", "postgres:hunter%402@")


@pytest.fixture
def pinecone(monkeypatch: pytest.MonkeyPatch) -> Iterator[PineconeServer]:
    monkeypatch.setenv("PINECONE_API_KEY", "pc-secret")
    with pinecone_server(64) as server:
        yield server


def open_engine(storage: str, **settings: object) -> PresetEngine:
    preset = "high-volume" if storage.startswith("pinecone") else "knowledge-base"
    return build(preset, storage=storage, embed_model=WordEmbedding(), settings={**SETTINGS, **settings})


def works(storage: str, **settings: object) -> dict[str, object]:
    """Ingest, ask, close, open again, ask again; gives what `explain` says."""
    with open_engine(storage, **settings) as engine:
        assert engine.ingest(DOCUMENTS).documents == 2
        assert "every month" in str(engine.query("How often are pumps of type A greased?"))
    with open_engine(storage, **settings) as engine:
        assert engine.ingest(DOCUMENTS).unchanged == 2
        assert "every year" in str(engine.query("How often are valves of type B greased?"))
        assert "hunter" not in repr(engine) + json.dumps(engine.explain())
        return engine.explain()


def test_postgres_by_url(postgres: str, state: Path) -> None:
    """The table is named behind '#'; the password shows nowhere, not in any file either."""
    explained = works(postgres + "#table=manuals", store="pgvector")
    assert re.fullmatch(r"postgresql:///postgres\?host=.*#table=manuals", str(explained["storage"]))
    assert Path(str(explained["state"])).parent == state
    written = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert b"hunter" not in written and b"#table=manuals" in written


def test_lancedb_on_s3_by_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials come from the environment; the bucket holds the table."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        values = {"ACCESS_KEY_ID": "t", "SECRET_ACCESS_KEY": "t", "REGION": "us-east-1", "ENDPOINT": address}
        for name, value in {**values, "ALLOW_HTTP": "true"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
        client.create_bucket(Bucket="manuals")
        assert works("s3://manuals/plant")["storage"] == "s3://manuals/plant"
        assert client.list_objects_v2(Bucket="manuals")["KeyCount"] > 0
    finally:
        server.stop()


def test_pinecone_by_url_keeps_tenants_apart(pinecone: PineconeServer) -> None:
    """The path is the namespace; another tenant has its own vectors, manifest and ledger."""
    explained = works(f"pinecone://manuals/tenant-1?host={pinecone.url}")
    assert len(pinecone.spaces["tenant-1"]) == 2
    with open_engine(f"pinecone://manuals/tenant-2?host={pinecone.url}") as other:
        assert str(other.query("How often are pumps of type A greased?")) == "I don't know."
        assert other.explain()["state"] != explained["state"] and other.explain()["documents"] == 0


def test_another_machine_asks_what_this_one_ingested(postgres: str, tmp_path: Path) -> None:
    """A new state folder sees the vectors, and another model is still refused, by the table's own memory."""
    url = postgres + "#table=shared"
    with open_engine(url, store="pgvector") as engine:
        engine.ingest(DOCUMENTS)
    elsewhere = str(tmp_path / "other machine")
    with open_engine(url, store="pgvector", state=elsewhere) as engine:
        assert "every month" in str(engine.query("How often are pumps of type A greased?"))
    with pytest.raises(FingerprintError, match="Vectors of|made"):
        open_engine(url, store="pgvector", state=str(tmp_path / "third"), chunk_tokens=32).query("Pumps?")


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("ftp://host/x", "'ftp://' names no store"),
        ("postgresql://u:p@ss/w@h/db", "percent-encoded"),
        ("s3://key:secret@bucket/x", "carries no user or password"),
        ("pinecone://", "names nothing"),
        ("postgresql://u:secret@db.example.com/docs", "names the store 'pgvector'.*in 'lancedb'"),
        ("pinecone://index", r"names the store 'pinecone'"),
    ],
)
def test_a_url_that_cannot_be_is_refused_before_anything_is_made(
    storage: str, message: str, state: Path
) -> None:
    """One line, no secret in it, no folder left behind."""
    with pytest.raises(SettingsError, match=message) as raised:
        build("knowledge-base", storage=storage, embed_model=WordEmbedding(), settings=SETTINGS)
    assert "secret" not in str(raised.value) and not state.exists()


def test_a_managed_store_needs_its_url_and_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are told before anything is made."""
    monkeypatch.delenv("PINECONE_API_KEY", raising=False)
    with pytest.raises(SettingsError, match=r"Give storage='pinecone://INDEX'"):
        open_high_volume(str(tmp_path / "s"))
    with pytest.raises(SettingsError, match="needs PINECONE_API_KEY, which is not set"):
        open_high_volume("pinecone://manuals")
    assert not (tmp_path / "s").exists()


def open_high_volume(storage: str) -> PresetEngine:
    return build("high-volume", storage=storage, embed_model=WordEmbedding(), settings=SETTINGS)


def test_a_remote_url_is_refused_where_nothing_may_leave(tmp_path: Path) -> None:
    """Offline and the local preset take folders, and servers on loopback."""
    with pytest.raises(SettingsError, match="is not on this machine"):
        build("healthcare", storage="s3://clinic/index")
    with pytest.raises(SettingsError, match="is not on this machine"):
        build("knowledge-base", storage="gs://b/x", offline=True)
    store = LanceDBVectorStore(str(tmp_path / "v"))
    with pytest.raises(SettingsError, match="two places: 's3://b/x' and the LanceDBVectorStore"):
        build(
            "knowledge-base",
            storage="s3://b/x",
            vector_store=store,
            embed_model=WordEmbedding(),
            settings=SETTINGS,
        )


def test_a_path_that_swallowed_a_slash_is_told(tmp_path: Path) -> None:
    """`Path` makes one slash of two; a `file://` URL is a folder."""
    with pytest.raises(SettingsError, match="given as a Path"):
        resolve_storage(Path("postgresql://h/db"))
    assert resolve_storage(f"file://{tmp_path}/a%20b").folder == tmp_path / "a b"


def test_one_place_has_one_state_folder_whoever_logs_in() -> None:
    """User and password do not change where the manifest lies; the table does."""
    folders = {
        resolve_storage(f"{scheme}://{user}h/db#table={table}").folder.name
        for scheme in ("postgres", "postgresql")
        for user in ("", "ada:x@", "bob:y@")
        for table in ("t", "u")
    }
    assert len(folders) == 2


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("postgresql://localhost:5432/db", True),
        ("postgresql:///db?host=/run/postgresql", True),
        ("postgresql://127.0.0.2/db", True),
        ("postgresql://localhost.example.com/db", False),
        ("postgresql://127.0.0.1/db?host=db.example.com", False),
        ("pinecone://index", False),
        ("s3://localhost/x", False),
    ],
)
def test_which_addresses_stay_on_the_machine(url: str, local: bool) -> None:
    """A name that merely begins like loopback does not."""
    assert read_address(url).local is local


def test_asking_a_folder_without_an_index_says_so(tmp_path: Path) -> None:
    """The shown name is the one that was given."""
    from llama_index_presets.presets.index.storage import read_metadata

    with pytest.raises(StoreError, match="holds no index"):
        read_metadata(tmp_path)
