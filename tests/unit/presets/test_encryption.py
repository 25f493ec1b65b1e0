"""An encrypted storage: no byte of it tells, and it is never half encrypted or under two keys."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import EncryptionError, FilterError, FingerprintError, SettingsError
from llama_index_presets.files.encryption import Encryptor
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.index.encryption import ENCRYPTION_KEY, encryption_key
from llama_index_presets.store.duckdb.store import DuckDBVectorStore
from llama_index_presets.store.encrypted import EncryptedVectorStore

KEY, OTHER = "1f" * 32, "2e" * 32
NAME, WARD, FILE = "Zylberschtejn", "Quarantaenestation", "zylberschtejn-discharge.md"
TEXT = f"# Discharge of {NAME}\n\nMrs {NAME} takes warfarin every evening with water."


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """The key in the environment."""
    monkeypatch.setenv(ENCRYPTION_KEY, KEY)
    return KEY


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the embedded Postgres can reach when root runs the tests and it runs as another user."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def open_engine(storage: Path, preset: str = "healthcare", **settings: Any) -> PresetEngine:
    settings = {"answer_floor": 0.0, **settings}
    return build(preset, storage=storage, embed_model=WordEmbedding(), settings=settings)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def only(key: str, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value)])


@pytest.mark.parametrize("store", ["lancedb", "duckdb", "pgvector"])
@pytest.mark.usefixtures("key")
def test_no_byte_of_the_storage_tells_a_name(store: str, tmp_path: Path, folder: Path) -> None:
    """Not the text, the metadata, the name of the file or the question; open or closed; and it answers as ever."""
    (tmp_path / FILE).write_text(TEXT)
    noted = Document(text="Warfarin is a blood thinner.", metadata={"ward": WARD, "year": 2025}, doc_id=NAME)
    for _ in range(2):
        settings = {"store": store, "searchable_metadata": ["year"], "pii": "off"}
        with open_engine(folder / "s", **settings) as engine:
            engine.ingest([str(tmp_path / FILE)])
            engine.ingest([noted])
            response = engine.query(f"When does {NAME} take warfarin?")
            assert "every evening" in str(response)
            assert {hit.node.ref_doc_id for hit in response.source_nodes} == {str(tmp_path / FILE), NAME}
            (hit,) = engine.with_filters(only("year", 2025)).retriever.retrieve("warfarin")
            assert hit.metadata["ward"] == WARD and hit.text == noted.text
            with pytest.raises(FilterError, match="'ward' is encrypted"):
                engine.with_filters(only("ward", WARD)).retriever.retrieve("warfarin")
            found = files(folder)
        found |= files(folder)
        secret = re.compile(f"{NAME}|{WARD}|warfarin|{KEY}".encode(), re.IGNORECASE)
        assert [path for path, content in found.items() if secret.search(content)] == []
        assert not any(secret.search(path.encode()) for path in found)
        assert any(b"sealed1:" in content for content in found.values())
    with open_engine(folder / "clear", store=store, encryption="off") as engine:
        engine.ingest([str(tmp_path / FILE)])
    assert any(
        secret.search(content) for content in files(folder / "clear").values()
    )  # this search does find


@pytest.mark.usefixtures("key")
def test_changed_and_vanished_documents_are_still_found(tmp_path: Path) -> None:
    """The manifest knows its documents by sealed ids; unchanged ones cost nothing, sync removes."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nAlpha.")
    (folder / "b.md").write_text("# B\n\nBeta.")
    with open_engine(tmp_path / "s") as engine:
        assert engine.ingest(folder).documents == 2
    (folder / "b.md").unlink()
    (folder / "a.md").write_text("# A\n\nGamma.")
    with open_engine(tmp_path / "s") as engine:
        report = engine.ingest(folder, sync=True)
        assert (report.documents, report.unchanged, report.removed) == (1, 0, 1)
        assert [node.get_content() for node in engine.vector_store.get_nodes()] == ["Gamma."]
        assert engine.ingest(folder).unchanged == 1


def test_clear_and_encrypted_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each storage stays what it was made as, and every error says what to do."""
    monkeypatch.delenv(ENCRYPTION_KEY, raising=False)
    with open_engine(tmp_path / "clear") as engine:
        assert engine.explain()["effective"]["encryption"] == "off: no key was found"
        engine.ingest([Document(text="Alpha.")])
    monkeypatch.setenv(ENCRYPTION_KEY, KEY)
    with pytest.raises(EncryptionError, match="is in clear and a key was given"):
        open_engine(tmp_path / "clear")
    open_engine(tmp_path / "clear", encryption="off").close()
    with open_engine(tmp_path / "sealed", searchable_metadata=["b", "a"]) as engine:
        engine.ingest([Document(text="Alpha.")])
    with pytest.raises(SettingsError, match=r"searchable_metadata = \['a', 'b'\]; you ask for \['a'\]"):
        open_engine(tmp_path / "sealed", searchable_metadata=["a"])
    with pytest.raises(EncryptionError, match="is encrypted and no key was given"):
        open_engine(tmp_path / "sealed", encryption="off")
    monkeypatch.setenv(ENCRYPTION_KEY, OTHER)
    with pytest.raises(EncryptionError, match="encrypted with the key '[0-9a-f]{16}'; the one from LLAMA"):
        open_engine(tmp_path / "sealed", searchable_metadata=["a", "b"])
    monkeypatch.delenv(ENCRYPTION_KEY)
    with pytest.raises(EncryptionError, match="is encrypted and no key was given. Set LLAMA_PRESETS_ENC"):
        open_engine(tmp_path / "sealed")
    with pytest.raises(SettingsError, match="encryption is 'on' and there is no key"):
        open_engine(tmp_path / "new", encryption="on")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("key")
def test_the_store_itself_remembers_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the card of the folder was lost, rows under two keys do not meet."""
    with open_engine(tmp_path / "s") as engine:
        engine.ingest([Document(text="Alpha.")])
    (tmp_path / "s" / "preset.json").unlink()
    monkeypatch.setenv(ENCRYPTION_KEY, OTHER)
    with pytest.raises(FingerprintError, match="encryption=aes-256-gcm"):
        open_engine(tmp_path / "s")


@pytest.mark.usefixtures("key")
def test_words_in_clear_are_refused(tmp_path: Path) -> None:
    """A keyword index would hold every word of every document."""
    with pytest.raises(SettingsError, match="keeps the words of all documents in clear"):
        open_engine(tmp_path / "s", pattern="hybrid")


def test_the_key_shows_nowhere(tmp_path: Path, key: str) -> None:
    """Not in explain, repr, serialised stores or errors."""
    with open_engine(tmp_path / "s") as engine:
        shown = f"{engine.explain()} {engine!r} {engine._parts!r} {engine.vector_store.to_dict()}"
    assert key not in shown and repr(bytes.fromhex(key)) not in shown
    assert "AES-256-GCM, key '" in shown


def test_the_key_comes_from_text_file_or_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In hex or base64; the environment goes first; what is no key is refused without being shown."""
    import base64

    ring = ModuleType("keyring")
    ring.get_password = lambda service, name: {"encryption-key": OTHER}[name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", ring)
    ring.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec("keyring", None)
    monkeypatch.delenv(ENCRYPTION_KEY, raising=False)
    assert encryption_key() == (bytes.fromhex(OTHER), "keyring")
    file = tmp_path / "key"
    file.write_text(base64.b64encode(bytes.fromhex(KEY)).decode() + "\n")
    for named in (KEY, KEY.upper(), base64.urlsafe_b64encode(bytes.fromhex(KEY)).decode(), str(file)):
        monkeypatch.setenv(ENCRYPTION_KEY, named)
        assert encryption_key() == (bytes.fromhex(KEY), ENCRYPTION_KEY)
    for wrong in (
        "correct horse battery staple",
        "correct horse" * 30,
    ):  # the second is longer than a file's name can be
        monkeypatch.setenv(ENCRYPTION_KEY, wrong)
        with pytest.raises(SettingsError, match="is no key: expected 64 hex") as refused:
            encryption_key()
        assert "horse" not in str(refused.value)
    monkeypatch.setenv(ENCRYPTION_KEY, str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="cannot be read"):
        encryption_key()


def test_a_row_opens_nowhere_else() -> None:
    """Altered, moved to another row, under another key, or in clear: an error each time, never garbage."""
    sealer, other = Encryptor(bytes.fromhex(KEY)), Encryptor(bytes.fromhex(OTHER))
    sealed = sealer.seal(b"secret", place="a")
    assert sealed != sealer.seal(b"secret", place="a")
    altered = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    for opener, text, place in ((sealer, sealed, "b"), (other, sealed, "a"), (sealer, altered, "a")):
        with pytest.raises(EncryptionError, match="does not open with the key"):
            opener.open(text, place=place)
    with pytest.raises(EncryptionError, match="is not encrypted"):
        sealer.open("secret", place="a")
    for name in (other.seal_id("a"), "a", ""):
        with pytest.raises(EncryptionError, match="stored id does not open"):
            sealer.open_id(name)
    assert sealer.open_id(sealer.seal_id("")) == ""


def test_ciphertext_of_one_row_under_the_id_of_another_is_noticed() -> None:
    """Whoever can write to the files cannot answer with another patient's record."""
    inner = DuckDBVectorStore(":memory:")
    store = EncryptedVectorStore(inner, sealer=Encryptor(bytes.fromhex(KEY)))
    a, b = (Document(id_=name, text=f"Record {name}.", embedding=[1.0, 0.0]) for name in "ab")
    store.add([a, b])
    one, two = inner.get_nodes()
    two.set_content(one.get_content())
    inner.add([two])
    with pytest.raises(EncryptionError, match="does not open"):
        store.get_nodes()


def test_metadata_that_shadows_the_source_document_is_refused() -> None:
    """A filter on doc_id always means the source document."""
    from llama_index_presets.errors import NodeRejectedError

    inner = DuckDBVectorStore(":memory:")
    store = EncryptedVectorStore(inner, sealer=Encryptor(bytes.fromhex(KEY)))
    with pytest.raises(NodeRejectedError, match="metadata key doc_id"):
        store.add([Document(id_="a", text="t", metadata={"doc_id": "x"}, embedding=[1.0])])
    with pytest.raises(SettingsError, match="doc_id cannot be searchable"):
        EncryptedVectorStore(inner, sealer=Encryptor(bytes.fromhex(KEY)), searchable=["doc_id"])
