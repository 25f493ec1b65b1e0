"""Ids that occur twice, in one run or in the index: nothing is replaced that belongs to another document or tenant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from tests.fakes import WordEmbedding

from llama_index_presets import build
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.ingest.sources.frames import FrameColumns
from llama_index_presets.ingest.sources.source import Source, sources
from llama_index_presets.presets.engine import PresetEngine

ANOTHER = "is another tenant's, or the shared index's; it was kept"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PresetEngine]:
    with built(tmp_path / "index") as made:
        yield made


def built(folder: Path, **parts: Any) -> PresetEngine:
    settings = {"store": "duckdb", "encryption": "off"}
    return build("healthcare", storage=folder, embed_model=WordEmbedding(), settings=settings, **parts)


def node(name: str, text: str, document: str | None = None) -> TextNode:
    made = TextNode(id_=name, text=text)
    if document is not None:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return made


def texts(engine: PresetEngine) -> list[str]:
    return sorted(one.get_content() for one in engine.vector_store.get_nodes())


def refusals(data: Any, **options: Any) -> dict[str, str]:
    return {one.doc_id: one.refusal for one in sources(data, **options) if one.refusal}


# -- ids that occur twice in one run ----------------------------------------------------------------------------------


def test_rows_of_one_id_are_refused_and_the_others_stay_stable(engine: PresetEngine) -> None:
    """Rows 7, 7 and 8: both 7 are reported with their id, 8 is there, and further runs change nothing."""
    frame = pd.DataFrame({"id": [7, 7, 8], "note": ["Apples are red.", "Zebras run.", "Boats sail."]})
    reports = [engine.ingest(frame, text_column="note", id_column="id") for _ in range(3)]
    assert [(one.documents, one.unchanged) for one in reports] == [(1, 0), (0, 1), (0, 1)]
    for report in reports:
        (failure,) = report.failed
        assert failure.error.startswith("2 documents have the id 'row-7' and differ")
    assert texts(engine) == ["Boats sail."]


def test_what_the_index_holds_of_a_repeated_id_is_kept(engine: PresetEngine) -> None:
    """A refused document neither replaces nor, by sync, removes what was stored before."""
    engine.ingest([Document(text="First.", doc_id="d")])
    report = engine.ingest([Document(text="One.", doc_id="d"), Document(text="Two.", doc_id="d")])
    assert [failure.source for failure in report.failed] == ["d"]
    assert texts(engine) == ["First."]


REPEATS: dict[str, tuple[Any, dict[str, Any]]] = {
    "documents": ([Document(text="One.", doc_id="d"), Document(text="Two.", doc_id="d")], {}),
    "documents of a generator": ((Document(text=text, doc_id="d") for text in ("One.", "Two.")), {}),
    "metadata alone": ([Document(text="One.", doc_id="d", metadata={"n": n}) for n in (1, 2)], {}),
    "a document and its node": ([Document(text="One.", doc_id="d"), node("n", "Two.", "d")], {}),
    "nodes of one document": ([node("n", "One.", "d"), node("n", "Two.", "d")], {}),
    "number and text": (
        pd.DataFrame({"id": [7, "7"], "t": ["a", "b"]}),
        {"columns": FrameColumns(text="t", id="id")},
    ),
}


@pytest.mark.parametrize("kind", REPEATS)
def test_an_id_of_two_different_things_is_refused(kind: str) -> None:
    """Whatever brings the same id twice with other content, neither is taken."""
    data, options = REPEATS[kind]
    listed = sources(data, **options)
    assert [bool(source.refusal) for source in listed] == [True]
    assert "differ; storing one would delete the other" in listed[0].refusal


def test_a_node_id_in_two_documents_refuses_both() -> None:
    """Nodes are stored by id: the second document would take the node from the first."""
    listed = refusals([node("n", "Same.", "d"), node("n", "Same.", "e"), node("m", "Other.", "f")])
    assert listed.keys() == {"d", "e"}
    assert listed["d"].startswith("Several nodes have the id 'n' and differ")


def test_the_same_thing_twice_is_one(tmp_path: Path) -> None:
    """Equal id and equal content is the same document: objects, rows without ids, a file given by two paths."""
    document = Document(text="One.", doc_id="d")
    assert [one.refusal for one in sources([document, document])] == [""]
    assert [one.refusal for one in sources([node("n", "One.", "d"), node("n", "One.", "d")])] == [""]
    frame = pd.DataFrame({"note": ["Same.", "Same."]})
    assert [one.refusal for one in sources(frame, columns=FrameColumns(text="note"))] == [""]
    (tmp_path / "a.txt").write_text("Text.")
    assert [one.refusal for one in sources([tmp_path, tmp_path / "a.txt"])] == [""]


# -- ids that another document or tenant has --------------------------------------------------------------------------


def test_a_tenant_cannot_take_the_id_of_another(engine: PresetEngine) -> None:
    """The document of the first is kept, the second is told without a name; each may change its own."""
    acme, globex = engine.for_tenant("acme"), engine.for_tenant("globex")
    acme.ingest([Document(text="Acme pays 5.", doc_id="1")])
    report = globex.ingest([Document(text="Globex pays 9.", doc_id="1"), Document(text="Free.", doc_id="2")])
    assert [(failure.source, ANOTHER in failure.error) for failure in report.failed] == [("1", True)]
    assert report.documents == 1 and "acme" not in report.failed[0].error
    assert acme.ingest([Document(text="Acme pays 6.", doc_id="1")]).documents == 1
    assert texts(engine) == ["Acme pays 6.", "Free."]


def test_a_tenant_cannot_take_the_id_of_the_shared_index(engine: PresetEngine) -> None:
    """Nobody's document is not a tenant's to replace."""
    engine.ingest([Document(text="For all.", doc_id="1")])
    assert engine.for_tenant("acme").ingest([Document(text="Mine.", doc_id="1")]).failed
    assert texts(engine) == ["For all."]


def test_the_shared_engine_cannot_take_a_document_from_a_tenant(engine: PresetEngine) -> None:
    """Without the tenant it would leave the tenant's view; with it, it is the same document of the same tenant."""
    engine.for_tenant("acme").ingest([Document(text="Acme pays 5.", doc_id="1")])
    assert ANOTHER in engine.ingest([Document(text="Lost.", doc_id="1")]).failed[0].error
    assert engine.ingest([Document(text="Lost.", doc_id="1")], metadata={"tenant": "globex"}).failed
    assert (
        engine.ingest([Document(text="Acme pays 6.", doc_id="1")], metadata={"tenant": "acme"}).documents == 1
    )
    assert [hit.text for hit in engine.for_tenant("acme").retriever.retrieve("pays")] == ["Acme pays 6."]
    assert ANOTHER in engine.ingest([Document(text="Lost.", doc_id="1")]).failed[0].error


def test_a_tenant_of_another_key_is_another_tenant(engine: PresetEngine) -> None:
    """Who sees all of an organisation does not take a document from the tenant inside it."""
    engine.for_tenant("x", key="org").for_tenant("acme").ingest([Document(text="Acme's.", doc_id="1")])
    assert engine.for_tenant("x", key="org").ingest([Document(text="Org's.", doc_id="1")]).failed
    assert engine.for_tenant("acme").ingest([Document(text="Less.", doc_id="1")]).failed
    assert texts(engine) == ["Acme's."]


def test_what_was_put_on_by_metadata_or_folder_belongs_to_that_tenant(
    engine: PresetEngine, tmp_path: Path
) -> None:
    """The tenant may go on with what the shared engine ingested for it; another may not."""
    (tmp_path / "docs" / "acme").mkdir(parents=True)
    file = tmp_path / "docs" / "acme" / "a.txt"
    file.write_text("Acme pays 5.")
    engine.ingest(tmp_path / "docs", folder_key="tenant")
    file.write_text("Acme pays 6.")
    assert engine.for_tenant("globex").ingest(file).failed
    assert engine.for_tenant("acme").ingest(file).documents == 1
    file.write_text("Acme pays 7.")
    assert engine.ingest(tmp_path / "docs", folder_key="tenant").documents == 1
    assert texts(engine) == ["Acme pays 7."]


def test_sync_removes_only_what_the_run_may_change(engine: PresetEngine, tmp_path: Path) -> None:
    """A folder that two tenants share: neither a tenant's sync nor the shared one takes out what is another's."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("acme", "globex", "shared"):
        (folder / f"{name}.txt").write_text(f"{name}.")
    for name in ("acme", "globex"):
        engine.for_tenant(name).ingest(folder / f"{name}.txt")
    engine.ingest(folder / "shared.txt")
    for name in ("acme", "globex", "shared"):
        (folder / f"{name}.txt").unlink()
    (folder / "new.txt").write_text("new.")
    assert engine.for_tenant("acme").ingest(folder, sync=True).removed == 1
    assert texts(engine) == ["globex.", "new.", "shared."]
    (folder / "other.txt").write_text("other.")
    (folder / "new.txt").unlink()
    assert engine.ingest(folder, sync=True).removed == 1
    assert texts(engine) == ["globex.", "new.", "other."]


def test_a_node_of_another_document_is_not_taken(engine: PresetEngine) -> None:
    """A ready node under the id of a stored chunk would replace it in its document."""
    acme, globex = engine.for_tenant("acme"), engine.for_tenant("globex")
    acme.ingest([Document(text="Acme pays 5.", doc_id="1")])
    (chunk,) = engine.vector_store.get_nodes()
    report = globex.ingest([node(chunk.node_id, "Globex pays 9.", "2"), node("free", "Free.", "3")])
    assert [failure.source for failure in report.failed] == ["2"]
    assert f"holds its node '{chunk.node_id}' in another document" in report.failed[0].error
    assert texts(engine) == ["Acme pays 5.", "Free."]
    assert globex.ingest([node("free", "Still free.", "3")]).documents == 1


def test_documents_of_an_earlier_release_belong_to_whose_nodes_they_are(
    engine: PresetEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a recorded owner the store decides: a tenant may change what is all its own."""
    with monkeypatch.context() as earlier:
        earlier.setattr(Manifest, "_owner", lambda *_: None)
        engine.for_tenant("acme").ingest([Document(text="Acme pays 5.", doc_id="1")])
    assert engine._parts.manifest.owners() == {}
    assert engine.for_tenant("globex").ingest([Document(text="Globex.", doc_id="1")]).failed
    assert engine.for_tenant("acme").ingest([Document(text="Acme pays 6.", doc_id="1")]).documents == 1
    assert engine._parts.manifest.owners() == {"1": {"tenant": "acme"}}


def test_a_lost_manifest_gives_no_document_away(engine: PresetEngine) -> None:
    """What the manifest does not know, because it was lost or another machine wrote it, is looked up in the store."""
    engine.for_tenant("acme").ingest([Document(text="Acme pays 5.", doc_id="1"), node("2", "Acme's node.")])
    engine._parts.manifest.forget(["1", "2"])
    globex = engine.for_tenant("globex")
    taken = [Document(text="Globex.", doc_id="1"), node("2", "Globex."), Document(text="Free.", doc_id="3")]
    assert [failure.source for failure in globex.ingest(taken).failed] == ["1", "2"]
    assert engine.for_tenant("acme").ingest([Document(text="Acme pays 6.", doc_id="1")]).documents == 1
    assert texts(engine) == ["Acme pays 6.", "Acme's node.", "Free."]


@pytest.mark.parametrize("cause", ["an earlier release", "a lost manifest"])
def test_the_shared_engine_leaves_a_tenants_nodes_alone_where_no_owner_is_recorded(
    tmp_path: Path, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store says whose they are; a document that itself names a tenant is still the shared engine's to change."""
    words = {"tenant": "acme"}
    with monkeypatch.context() as earlier, built(tmp_path) as engine:
        earlier.setattr(Manifest, "_owner", lambda *_: None)
        engine.for_tenant("acme").ingest([Document(text="Acme pays 5.", doc_id="1")])
        engine.ingest([Document(text="Old.", doc_id="2", metadata=words), Document(text="Old.", doc_id="3")])
    if cause == "a lost manifest":
        for file in tmp_path.glob("documents.sqlite*"):
            file.unlink()
    new = [
        Document(text="Taken.", doc_id="1"),
        Document(text="New 2.", doc_id="2", metadata=words),
        Document(text="New 3.", doc_id="3"),
    ]
    with built(tmp_path) as engine:
        report = engine.ingest(new)
        assert [(failure.source, ANOTHER in failure.error) for failure in report.failed] == [("1", True)]
        assert texts(engine) == ["Acme pays 5.", "New 2.", "New 3."]
        assert engine.ingest(new[1:]).unchanged == 2


def test_a_store_that_lists_nothing_keeps_tenants_apart(tmp_path: Path) -> None:
    """The manifest knows the owner; what it does not know is refused where the store cannot tell."""

    class Blind(SimpleVectorStore):
        stores_text: bool = True

    with built(tmp_path, vector_store=Blind()) as engine:
        acme, globex = engine.for_tenant("acme"), engine.for_tenant("globex")
        acme.ingest([Document(text="Acme pays 5.", doc_id="1"), node("n", "Acme's.", "2")])
        engine.ingest([Document(text="For all.", doc_id="3")])
        taken = [Document(text="Globex.", doc_id="1"), Document(text="Globex.", doc_id="3")]
        assert [failure.source for failure in globex.ingest(taken).failed] == ["1", "3"]
        assert acme.ingest([Document(text="Acme pays 6.", doc_id="1")]).documents == 1


def test_an_earlier_manifest_opens_and_learns_owners(tmp_path: Path) -> None:
    """The column for owners is added to what an earlier release wrote; its documents stay known."""
    import sqlite3

    with sqlite3.connect(tmp_path / "m.sqlite") as earlier:
        earlier.execute(
            "CREATE TABLE documents (doc_id TEXT PRIMARY KEY, content_hash TEXT NOT NULL, chunks INTEGER NOT NULL, "
            "tokens INTEGER NOT NULL, ingested_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        earlier.execute(
            "INSERT INTO documents (doc_id, content_hash, chunks, tokens) VALUES ('a', 'h', 2, 20)"
        )
    earlier.close()
    manifest = Manifest(tmp_path / "m.sqlite")
    assert (manifest.hashes(), manifest.owners(), manifest.totals()) == ({"a": "h"}, {}, (1, 2))
    manifest.close()


def test_a_refused_source_keeps_its_id_and_loses_its_hash() -> None:
    """It never counts as unchanged, so it is reported each time."""
    refused = Source("d", "hash", lambda: []).refused("Why.")
    assert (refused.doc_id, refused.content_hash, refused.refusal) == ("d", "", "Why.")
