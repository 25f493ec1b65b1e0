"""Damaged files: the index answers as before, or says so and how to rebuild it; never less, never raw."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index_presets.errors import SettingsError, StoreCorruptError, StoreWriteError
from llama_index_presets.retrieve import BM25Index
from llama_index_presets.retrieve.bm25.consistency import counts_apart, rebuild
from llama_index_presets.retrieve.bm25.index_files import IndexDirectory

FORMAT_1 = Path(__file__).parent / "format-1"
"""Twelve nodes, one more and one deletion in the journal, written by the last version before checksums."""


def nodes(first: int, last: int) -> list[TextNode]:
    return [
        TextNode(id_=f"n{i}", text=f"fish number{i} " + "blue " * i, metadata={"part": i % 2})
        for i in range(first, last)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A snapshot and a journal of several records."""
    place = tmp_path / "index"
    index = BM25Index.from_nodes(nodes(0, 12), place)
    index.compact()
    index.add(nodes(12, 15))
    index.delete("n3")
    index.add(nodes(15, 16))
    return place


def answers(place: Path) -> Any:
    """All that can be asked of an index: ids, scores, texts, filters, digests."""
    index = BM25Index(place)
    odd = MetadataFilters(filters=[MetadataFilter(key="part", value=1)])
    hits = index.as_retriever(top_k=50).retrieve("blue fish")
    return (
        [(hit.node.node_id, hit.score, hit.node.get_content()) for hit in hits],
        index.search("fish", 50, odd),
        index.digests(),
        index.settings,
    )


def flipped(at: float, bits: int) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        place = min(int(at * len(content)), len(content) - 1)
        return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]

    return damage


def damages() -> list[Callable[[bytes], bytes]]:
    """Emptied, cut at many places, bits flipped at many places, zeroed, lengthened."""
    dice = random.Random(16)
    cuts = [lambda content, at=at: content[: int(at * len(content))] for at in (0, 0.1, 0.5, 0.9, 0.999)]
    flips = [flipped(dice.random(), bits) for bits in (1, 0x10, 0x80, 0xFF) for _ in range(4)]
    edges = [flipped(0, 1), flipped(1, 0xFF)]
    others = [lambda content: bytes(len(content)), lambda content: content + b"\0" * 8]
    return [*cuts, *flips, *edges, *others]


def files(place: Path) -> list[str]:
    return sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())


def test_every_damage_of_every_file_is_harmless_or_said(folder: Path) -> None:
    """Flip, cut, empty, zero or lengthen each file of the folder: the same answers, or the error with its remedy."""
    expected = answers(folder)
    whole = {name: (folder / name).read_bytes() for name in files(folder)}
    said = 0
    for name, content in whole.items():
        for damage in damages():
            (folder / name).write_bytes(damage(content) if content else b"x")
            try:
                assert answers(folder) == expected, name
            except StoreCorruptError as error:
                said += 1
                assert "doctor PRESET --storage STORAGE --repair" in str(error), name
        (folder / name).write_bytes(content)
        assert {
            name: (folder / name).read_bytes() for name in files(folder)
        } == whole  # opening changed nothing
    assert said > 20 * 10


@pytest.mark.parametrize(
    "name", ["MANIFEST.json", "journal-1.log", "snapshot-1/rows.npy", "snapshot-1/heads.bin"]
)
def test_a_missing_file_is_said(folder: Path, name: str) -> None:
    """A restore that was not complete is no empty index."""
    (folder / name).unlink()
    with pytest.raises(StoreCorruptError, match="is damaged: it is missing"):
        BM25Index(folder)


def test_a_journal_cut_at_the_edge_of_a_record_is_no_shorter_journal(folder: Path) -> None:
    """Each record that was reported as durable is missed, whichever is the last that is left."""
    journal = next(folder.glob("journal-*.log"))
    whole = journal.read_bytes()
    place, edges = 16, []
    while place < len(whole):
        edges.append(place)
        place += 8 + int.from_bytes(whole[place : place + 4], "little")
    assert len(edges) == 3 and place == len(whole)
    for edge in edges:
        journal.write_bytes(whole[:edge])
        with pytest.raises(StoreCorruptError, match=f"the record at byte {edge} is damaged or missing"):
            BM25Index(folder)


def test_a_journal_cut_under_an_open_index_refuses_the_next_change(folder: Path) -> None:
    """The change is not written behind a hole, and what is in memory stays right."""
    index = BM25Index(folder)
    journal = next(folder.glob("journal-*.log"))
    journal.write_bytes(journal.read_bytes()[:-5])
    with pytest.raises(StoreCorruptError, match="it ends before byte"):
        index.add(nodes(20, 21))
    assert len(index) == 15


def test_damage_met_by_an_open_index_is_said_at_every_call(folder: Path) -> None:
    """Also after the first: an index that could not follow another writer does not answer from before."""
    index = BM25Index(folder)
    BM25Index(folder).compact()
    rows = next(folder.glob("snapshot-*/rows.npy"))
    rows.write_bytes(rows.read_bytes()[:-1])
    for _ in range(2):
        with pytest.raises(
            StoreCorruptError, match=r"rows.npy is damaged: it has [\d,]+ bytes and was written"
        ):
            index.search("fish")


def test_a_folder_of_format_1_is_built_again_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the last version without checksums wrote; the journal's node is there, the deleted one is not."""
    place = tmp_path / "old"
    shutil.copytree(FORMAT_1, place)
    wanted = {f"n{i}" for i in range(12)} - {"n3"} | {"late"}
    index = BM25Index(place)
    assert "written by an earlier version; it is built again from its 12 nodes" in caplog.text
    assert {name for name, _ in index.search("fish", 50)} == wanted
    assert '"format": 3' in (place / "MANIFEST.json").read_text()
    assert index.search('"number6 blue"', 50) == BM25Index(place).search('"number6 blue"', 50) != []
    caplog.clear()
    BM25Index(place)
    assert caplog.text == ""


def test_a_folder_of_format_1_that_cannot_be_written_answers_as_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only disk words are found, phrases are not, and the files stay byte for byte as they are."""
    place = tmp_path / "old"
    shutil.copytree(FORMAT_1, place)
    before = {name: (place / name).read_bytes() for name in files(place)}

    def full(*_: object) -> None:
        raise StoreWriteError("The disk is full.")

    monkeypatch.setattr(IndexDirectory, "commit_snapshot", full)
    index = BM25Index(place)
    assert "stays as it is" in caplog.text
    assert len(index.search("fish", 50)) == 12
    assert index.settings["pairs"] == 0
    assert {name: (place / name).read_bytes() for name in before} == before


def test_damage_of_a_folder_of_format_1_is_never_raw(tmp_path: Path) -> None:
    """Without checksums not every flip can be seen, but none ends in another error than ours."""
    for name in files(FORMAT_1):
        for damage in damages():
            broken = tmp_path / "broken"
            shutil.rmtree(broken, ignore_errors=True)
            shutil.copytree(FORMAT_1, broken)
            (broken / name).write_bytes(damage((broken / name).read_bytes()) or b"")
            with contextlib.suppress(StoreCorruptError, SettingsError):
                answers(broken)


def test_a_damaged_index_is_rebuilt_from_its_store(tmp_path: Path) -> None:
    """The new one is whole before the old one goes; equal to one built afresh."""
    store = SimpleDocumentStore()
    store.add_documents(nodes(0, 40))
    place = tmp_path / "words"
    expected = BM25Index.from_source(store, place).search("blue", 50)
    next(place.glob("snapshot-*/words.json")).write_text("")
    with pytest.raises(StoreCorruptError, match="words.json is damaged"):
        BM25Index(place)
    assert rebuild(store, place).search("blue", 50) == expected
    assert BM25Index(place, nodes=store).search("blue", 50) == expected
    assert [file.name for file in tmp_path.iterdir()] == ["words"]


def test_counts_are_compared_unless_a_change_is_under_way(tmp_path: Path) -> None:
    """A node that only one side has is seen; one that a change is just bringing is not taken for it."""
    store = SimpleDocumentStore()
    store.add_documents(nodes(0, 4))
    words = BM25Index.from_source(store, tmp_path)
    assert counts_apart(store, words) is None
    store.add_documents(nodes(4, 6))
    assert counts_apart(store, words) == (4 + 2, 4)
    with words.transaction("doc"):
        assert counts_apart(store, BM25Index(tmp_path, nodes=store)) is None
