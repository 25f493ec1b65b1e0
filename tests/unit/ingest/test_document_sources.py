"""Documents from sources: listed with versions, read when they changed, removed when they are listed no more."""

from __future__ import annotations

import functools
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from llama_index.core import Document, SimpleDirectoryReader
from llama_index.core.readers import StringIterableReader

from llama_index_presets import PresetEngine, build
from llama_index_presets.errors import IngestError, SettingsError
from llama_index_presets.ingest.sources.document_source import DocumentSource, LlamaIndexSource, SourceItem
from llama_index_presets.ingest.sources.file_system_source import FileSystemSource, stays_here
from llama_index_presets.ingest.sources.source import sources
from llama_index_presets.ingest.sources.watch import follow


class Wiki:
    """A source of the application's own."""

    name = "wiki"

    def __init__(self, **pages: tuple[str, str]) -> None:
        self.pages, self.reads = pages, list[str]()

    def list(self) -> list[SourceItem]:
        return [
            SourceItem(id=name, version=version, permissions=["staff"])
            for name, (version, _) in self.pages.items()
        ]

    def read(self, id: str) -> Document:
        self.reads.append(id)
        return Document(text=self.pages[id][1])


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PresetEngine]:
    with build("healthcare", storage=tmp_path / "storage") as made:
        yield made


def ids(engine: PresetEngine) -> list[str]:
    return [document.id for document in engine.documents()]


def test_only_changed_versions_are_read_and_vanished_ones_removed(engine: PresetEngine) -> None:
    """The version decides what is read, the difference of the lists what goes."""
    wiki = Wiki(pump=("1", "The pump leaks."), valve=("1", "The valve is shut."))
    assert isinstance(wiki, DocumentSource)
    engine.ingest(wiki)
    wiki.pages = {"pump": ("2", "The pump is dry."), "fan": ("1", "The fan turns.")}
    wiki.reads.clear()
    report = engine.ingest(wiki, sync=True)
    assert (report.documents, report.removed, wiki.reads) == (2, 1, ["pump", "fan"])
    assert ids(engine) == ["wiki/fan", "wiki/pump"]
    node = engine.vector_store.get_nodes()[0]
    assert node.metadata["groups"] == ["staff"] and node.metadata["source"].startswith("wiki/")


def test_other_documents_are_not_removed_with_a_source(engine: PresetEngine) -> None:
    """A difference counts within the source alone."""
    engine.ingest([Document(text="By hand.", id_="wikipedia"), Document(text="By hand.", id_="other")])
    engine.ingest(Wiki(pump=("1", "The pump leaks.")), sync=True)
    assert ids(engine) == ["other", "wiki/pump", "wikipedia"]


def test_a_listing_that_breaks_removes_nothing(engine: PresetEngine) -> None:
    """Half a list would look like deletions."""

    class Broken(Wiki):
        def list(self) -> Any:
            yield SourceItem(id="pump", version="1")
            raise ConnectionError("reset by peer")

    engine.ingest(Wiki(pump=("1", "The pump leaks."), valve=("1", "The valve is shut.")))
    with pytest.raises(ConnectionError, match="reset"):
        engine.ingest(Broken(), sync=True)
    assert ids(engine) == ["wiki/pump", "wiki/valve"]


def test_changed_permissions_are_a_change(engine: PresetEngine) -> None:
    """Who may see a document is stored with it, so it must follow."""
    wiki = Wiki(pump=("1", "The pump leaks."))
    engine.ingest(wiki)
    wiki.list = lambda: [SourceItem(id="pump", version="1", permissions=[])]  # type: ignore[method-assign]
    assert engine.ingest(wiki).documents == 1


def write(url: str, text: str) -> None:
    with fsspec.open(url, "w") as file:
        file.write(text)


def test_a_url_of_any_file_system_is_a_folder(engine: PresetEngine) -> None:
    """Files are read by their kind, keep their URL as id, and go when they are gone."""
    write("memory://ward/a/pump.md", "# Pump\n\nIt leaks.")
    write("memory://ward/.hidden.txt", "Secret.")
    write("memory://ward/valve.txt", "The valve is shut.")
    engine.ingest("memory://ward", sync=True)
    assert ids(engine) == ["memory://ward/a/pump.md", "memory://ward/valve.txt"]
    headings = {node.metadata.get("heading") for node in engine.vector_store.get_nodes()}
    assert headings == {"Pump", None}
    fsspec.filesystem("memory").rm("/ward/valve.txt")
    report = engine.ingest("memory://ward", sync=True)
    assert (report.unchanged, report.removed) == (1, 1)


def test_a_zip_archive_is_a_folder(tmp_path: Path) -> None:
    """What is in an archive needs no unpacking."""
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as archive:
        archive.writestr("a/pump.txt", "The pump leaks.")
    (found,) = sources(f"zip://::file://{tmp_path}/docs.zip")
    assert found.read().plain.text == "The pump leaks."  # type: ignore[union-attr]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "pump.txt").write_text("The pump leaks.")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_page_is_read_by_http(website: str) -> None:
    """One URL is one document."""
    (found,) = sources(f"{website}/pump.txt")
    assert not found.refusal, found.refusal
    assert found.doc_id == f"{website}/pump.txt"
    assert found.read().plain.text == "The pump leaks."  # type: ignore[union-attr]


@pytest.mark.slow("a server of S3's protocol")
def test_s3_needs_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow opens buckets; keys and endpoint come from the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in {
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
        client.create_bucket(Bucket="manuals")
        client.put_object(Bucket="manuals", Key="plant/pump.txt", Body=b"The pump leaks.")
        (found,) = sources("s3://manuals/plant")
        assert found.doc_id == "s3://manuals/plant/pump.txt"
        assert found.read().plain.text == "The pump leaks."  # type: ignore[union-attr]
    finally:
        server.stop()


def test_a_missing_place_is_named_without_its_password() -> None:
    """An error goes into logs."""
    with pytest.raises(IngestError, match="no file to ingest in 'memory://nowhere'|cannot be listed"):
        sources("memory://nowhere")
    with pytest.raises(IngestError, match="^'nosuch://host/x' cannot be opened"):
        sources("nosuch://user:secret@host/x")
    assert FileSystemSource("memory://user:secret@shelf").name == "memory://shelf"


def test_a_large_file_is_refused_before_it_is_read() -> None:
    """The size in the list is enough."""
    from llama_index_presets.ingest.limits import SizeLimit

    write("memory://large/x.txt", "x" * 1_500_000)
    (found,) = sources("memory://large", limit=SizeLimit(1))
    assert found.refusal == "It has 1.5 MB. Split it, or raise max_document_mb."


@pytest.mark.parametrize(
    "url", ["s3://bucket/x", "https://example.org/x", "zip://::https://example.org/x.zip"]
)
def test_a_local_preset_asks_no_other_machine(engine: PresetEngine, url: str) -> None:
    """What would leave the machine is a request; it is refused before it is made."""
    assert not stays_here(url)
    with pytest.raises(SettingsError, match="asks nothing of other machines"):
        engine.ingest(url)


def test_any_reader_of_llama_index_is_a_source(tmp_path: Path, engine: PresetEngine) -> None:
    """Of readers that draw ids by chance, the content is the id; those that list resources are read one by one."""
    notes = LlamaIndexSource(
        StringIterableReader(), name="notes", texts=["The pump leaks.", "The fan turns."]
    )
    engine.ingest(notes)
    assert engine.ingest(notes).unchanged == 2
    (tmp_path / "valve.txt").write_text("The valve is shut.")
    folder = LlamaIndexSource(SimpleDirectoryReader(str(tmp_path), exclude=["storage"]), name="files")
    (found,) = sources(folder)
    assert found.doc_id == f"files/{tmp_path}/valve.txt"
    assert found.read().plain.text == "The valve is shut."  # type: ignore[union-attr]


@pytest.mark.parametrize("installed", [True, False], ids=["watchfiles", "polling"])
def test_a_folder_is_followed(tmp_path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One item at once, and one after a file was added, changed or removed; none without a change."""
    if not installed:
        monkeypatch.setattr(
            "llama_index_presets.ingest.sources.watch.importlib.util.find_spec", lambda name: None
        )
    stop = threading.Event()
    changes = follow([str(tmp_path)], interval_s=0.1, stop=stop)
    next(changes)
    for change in (
        lambda: (tmp_path / "a.txt").write_text("x"),
        lambda: (tmp_path / "a.txt").write_text("longer"),
        lambda: (tmp_path / "a.txt").unlink(),
    ):
        change()
        next(changes)
    stop.set()
    assert list(changes) == []


def test_a_file_behind_a_url_is_read_as_any_source_gives_it() -> None:
    """A copy under its own name, which goes with the source."""
    import fsspec

    with fsspec.open("memory://read/pump.txt", "w") as file:
        file.write("The pump leaks.")
    source = FileSystemSource("memory://read")
    path = source.read("pump.txt")
    assert (path.name, path.read_text()) == ("pump.txt", "The pump leaks.")
    with pytest.raises(IngestError, match="cannot be read"):
        source.read("gone.txt")
    del source
    assert not path.exists()
