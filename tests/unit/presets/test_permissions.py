"""Permissions of documents: where they come from, what refuses without a user, and their change."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.schema import QueryBundle, TextNode
from tests.fakes import ScriptedLLM, WordEmbedding
from typer.testing import CliRunner

from llama_index_presets import build
from llama_index_presets.cli import app
from llama_index_presets.errors import IngestError, PermissionsError, SettingsError, StoreError
from llama_index_presets.ingest.metadata.permissions import names_of
from llama_index_presets.ingest.sources.document_source import SourceItem
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.index import access
from llama_index_presets.presets.index.access import StoragePermissions
from llama_index_presets.presets.index.storage import (
    check_metadata,
    open_storage,
    resolve_storage,
    turn_on_permissions,
)
from llama_index_presets.values import Fingerprint

Make = Callable[..., PresetEngine]
PAY = Document(text="Ada earns seven.", id_="pay", metadata={"allowed": ["hr"]})
CATS = Document(text="Cats purr.", id_="cats", metadata={"allowed": "all, hr"})
OPEN = Document(text="Dogs bark.", id_="dogs")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines: list[PresetEngine] = []

    def make_engine(preset: str = "knowledge-base", permissions: str = "on", **options: Any) -> PresetEngine:
        settings = {"permissions": permissions, **options.pop("settings", {})}
        parts = {"embed_model": WordEmbedding(), "llm": ScriptedLLM(), **options}
        engines.append(build(preset, storage=tmp_path / "index", settings=settings, **parts))
        return engines[-1]

    yield make_engine
    for engine in engines:
        engine.close()


def ids(engine: PresetEngine) -> list[str]:
    return [document.id for document in engine.documents()]


def names(engine: PresetEngine) -> set[str]:
    return {Path(document.id).name for document in engine.documents()}


def test_a_source_named_in_metadata_hides_no_document_from_its_permissions(make: Make) -> None:
    """Permissions reach a document with a ``ref_doc_id`` of its own, and no other user can replace it."""
    engine = make()
    pay = Document(text="Ada earns seven.", id_="pay", metadata={"allowed": ["hr"], "ref_doc_id": "other"})
    engine.ingest([pay])
    everything = engine.as_user(user="root", everything=True)
    assert [node.text for node in everything.document_nodes("pay")] == ["Ada earns seven."]
    assert everything.document_text("pay") == "Ada earns seven."
    stranger = engine.as_user(user="bob", groups=["all"])
    report = stranger.ingest([Document(text="Ada earns nothing.", id_="pay")])
    assert [failed.source for failed in report.failed] == ["pay"]
    assert everything.document_text("pay") == "Ada earns seven."
    engine.set_permissions(["pay"], ["finance"])
    assert engine.permissions() == {"pay": ["finance"]}
    assert ids(engine.as_user(groups=["hr"])) == []
    assert ids(engine.as_user(groups=["finance"])) == ["pay"]


WAYS: dict[str, Callable[[PresetEngine], Any]] = {
    "query": lambda engine: engine.query("cats"),
    "stream": lambda engine: list(engine.stream("cats").response_gen),
    "retrieve": lambda engine: engine.retrieve(QueryBundle("cats")),
    "retriever": lambda engine: engine.retriever,
    "index": lambda engine: engine.index,
    "vector_store": lambda engine: engine.vector_store,
    "chat": lambda engine: engine.as_chat_engine().chat("cats"),
    "documents": lambda engine: engine.documents(),
    "document_text": lambda engine: engine.document_text("cats"),
    "delete": lambda engine: engine.delete(["cats"]),
    "tool": lambda engine: engine.as_tool(),
}


@pytest.mark.parametrize("way", WAYS)
def test_without_a_user_nothing_is_shown(make: Make, way: str) -> None:
    """An engine over a storage with permissions refuses whatever would show, or remove, a document."""
    engine = make()
    engine.ingest([CATS])
    with pytest.raises(PermissionsError, match="permissions"):
        WAYS[way](engine)
    tenant = engine.for_tenant("acme")
    with pytest.raises(PermissionsError, match="permissions"):
        WAYS[way](tenant)
    assert ids(engine.as_user(user="root", everything=True)) == ["cats"]


async def test_async_ways_refuse_too(make: Make) -> None:
    """The same of coroutines."""
    engine = make()
    with pytest.raises(PermissionsError, match="no user"):
        await engine.aquery("cats")
    with pytest.raises(PermissionsError, match="no user"):
        await engine.aretrieve(QueryBundle("cats"))


@pytest.mark.parametrize("way", ["index", "vector_store"])
def test_a_user_gets_no_part_that_keeps_no_permissions(make: Make, way: str) -> None:
    """The store itself would show everything."""
    with pytest.raises(PermissionsError, match="keeps no permissions"):
        WAYS[way](make().as_user(groups=["hr"]))


def test_permissions_stay_on(make: Make) -> None:
    """A later process with other settings does not forget them; an earlier release refuses the storage."""
    first = make()
    first.ingest([CATS])
    first.close()
    later = make(permissions="off")
    with pytest.raises(PermissionsError, match="no user"):
        later.query("cats")
    assert later.explain()["settings"]["permissions"] == {"value": "on", "from": "storage"}
    card = json.loads((later._parts.storage.metadata_file).read_text())
    assert card["format"] == 2  # read by releases that know permissions, refused by those before them
    later._parts.storage.metadata_file.write_text(json.dumps(card | {"format": 3}))
    with pytest.raises(StoreError, match="newer release of llama-index-presets made it: upgrade"):
        check_metadata(later._parts.storage, "knowledge-base", later._parts.fingerprint)


def test_a_process_that_began_before_they_were_turned_on_refuses(make: Make) -> None:
    """Turning them on hides what is there, also from engines that are open."""
    before = make(permissions="off")
    before.ingest([OPEN, Document(text="Hostile.", id_="x", metadata={"allowed": ["hr"]})])
    assert len(before.retrieve(QueryBundle("dogs"))) == 2
    after = make()
    with pytest.raises(PermissionsError, match="no user"):
        before.retrieve(QueryBundle("dogs"))
    assert (
        ids(after.as_user(groups=["hr"])) == []
    )  # what an earlier ingest let a document say counts for nothing
    assert ids(after.as_user(user="root", everything=True)) == ["dogs", "x"]


def test_as_user_without_permissions_is_refused(make: Make) -> None:
    """An engine that cannot be held to a user does not pretend to be."""
    with pytest.raises(SettingsError, match="has no permissions"):
        make(permissions="off").as_user(groups=["hr"])


def test_reading_and_setting_permissions_where_there_are_none_says_how_to_get_them(make: Make) -> None:
    """Reading them only said that there are none."""
    engine = make(permissions="off")
    for act in (engine.permissions, lambda: engine.set_permissions(["x"], ["hr"])):
        with pytest.raises(SettingsError, match=r'build with settings=\{"permissions": "on"\}'):
            act()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "neither user nor groups"),
        ({"groups": ["user:ada"]}, "not usable"),
        ({"groups": ["a,b"]}, "not usable"),
        ({"groups": [""]}, "not usable"),
        ({"user": "a,b"}, "not usable"),
        ({"everything": True}, "takes the name of the user"),
        ({"everything": True, "user": "root", "groups": ["hr"]}, "no groups"),
    ],
)
def test_names_that_could_mean_another_are_refused(make: Make, options: dict[str, Any], match: str) -> None:
    """No name of a group stands for a user, and nobody is everybody by leaving a name out."""
    with pytest.raises(SettingsError, match=match):
        make().as_user(**options)


def test_a_view_of_a_view_sees_what_both_see(make: Make) -> None:
    """A view can be narrowed and never widened."""
    engine = make()
    engine.ingest([PAY, CATS, OPEN])
    staff = engine.as_user(groups=["all"])
    assert ids(staff.as_user(groups=["hr"])) == ["cats"]
    with pytest.raises(PermissionsError, match="cannot see everything"):
        staff.as_user(user="root", everything=True)


FRONT = "---\nallowed: [all]\npermissions:allowed: [all]\n---\nText of a file."


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        (["sidecar", "source"], {"beside.md"}),
        (["front-matter"], {"front.md"}),
        (["sidecar", "front-matter"], {"beside.md", "front.md"}),
        ([], set()),
    ],
)
def test_files_say_who_may_see_them_where_they_are_believed(
    make: Make, tmp_path: Path, trusted: list[str], expected: set[str]
) -> None:
    """A sidecar counts, what a file says of itself only when told so; a sidecar wins."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("front.md", "beside.md", "closed.md"):
        (folder / name).write_text(FRONT.replace("a file", name) if name != "beside.md" else "Beside.")
    (folder / "beside.md.meta.json").write_text('{"allowed": ["all"]}')
    (folder / "closed.md.meta.json").write_text('{"allowed": ["board"]}')
    engine = make(settings={"permissions_from": trusted})
    assert engine.ingest(folder, show_progress=False).failed == []
    assert names(engine.as_user(groups=["all"])) == expected


@pytest.mark.parametrize("said", ["null", "[]", '""', '"  "', "{}"])
def test_a_sidecar_that_names_nobody_allows_nobody(make: Make, tmp_path: Path, said: str) -> None:
    """It was taken for a sidecar that says nothing, and the file's own word let all in."""
    (tmp_path / "a.md").write_text(FRONT)
    (tmp_path / "a.md.meta.json").write_text(f'{{"allowed": {said}}}')
    engine = make(settings={"permissions_from": ["sidecar", "front-matter"]})
    engine.ingest(tmp_path / "a.md", show_progress=False)
    assert ids(engine.as_user(groups=["all"])) == []


def test_a_long_sidecar_keeps_its_names(make: Make, tmp_path: Path) -> None:
    """Values are cut to what a chunk can carry; who may see the document is not, nor is a name cut to another's."""
    (tmp_path / "a.md").write_text(FRONT)
    long = {"abstract": ["x" * 999] * 20, "allowed": "b" * 995 + ", finance-board"}
    (tmp_path / "a.md.meta.json").write_text(json.dumps(long))
    (tmp_path / "b.md").write_text(f"---\nallowed: {'b' * 991}, finance-board\n---\nText.")
    engine = make(settings={"permissions_from": ["sidecar", "front-matter"]})
    assert engine.ingest(sorted(tmp_path.glob("?.md")), show_progress=False).failed == []
    assert ids(engine.as_user(groups=["all"])) == []
    assert names(engine.as_user(groups=["finance-board"])) == {"a.md", "b.md"}
    assert ids(engine.as_user(groups=["finance", "fin", "f", "finance-"])) == []


def test_two_words_on_who_is_allowed_fail_the_document(make: Make, tmp_path: Path) -> None:
    """JSON and YAML take the last of two; the first may be the one that was meant."""
    (tmp_path / "a.md").write_text("Text.")
    (tmp_path / "a.md.meta.json").write_text('{"allowed": ["board"], "Allowed": ["all"]}')
    (tmp_path / "b.md").write_text("---\nallowed: [board]\nallowed: [all]\n---\nText.")
    engine = make(settings={"permissions_from": ["sidecar", "front-matter"]})
    failed = engine.ingest(sorted(tmp_path.glob("?.md")), show_progress=False).failed
    assert ["twice" in failure.error for failure in failed] == [True, True]


@pytest.mark.parametrize(
    ("who", "says"),
    [
        ({"groups": None}, "groups is None"),
        ({"user": None}, "user is None"),
        ({"user": "ada", "everything": "false"}, "everything is 'false'"),
    ],
)
def test_a_value_of_another_kind_is_no_user(make: Make, who: dict[str, Any], says: str) -> None:
    """The text 'false' of a configuration counted as True, and showed everything."""
    with pytest.raises(SettingsError, match=says):
        make().as_user(**who)


class Wiki:
    """A connected source whose pages are files with front matter."""

    name = "wiki"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list(self) -> list[SourceItem]:
        return [
            SourceItem(id="staff", version="1", permissions=["staff"]),
            SourceItem(id="sales", version="1", metadata={"allowed": ["sales"]}),
            SourceItem(id="silent", version="1"),
        ]

    def read(self, id: str) -> Path:
        path = self._folder / f"{id}.md"
        path.write_text(FRONT)
        return path


def test_a_connected_source_says_who_may_see_its_documents(make: Make, tmp_path: Path) -> None:
    """What the source says counts, what its pages say of themselves does not."""
    engine = make()
    assert engine.ingest(Wiki(tmp_path), show_progress=False).failed == []
    seen = {group: ids(engine.as_user(groups=[group])) for group in ("staff", "sales", "all")}
    assert seen == {"staff": ["wiki/staff"], "sales": ["wiki/sales"], "all": []}


def test_the_word_of_the_caller_comes_first(make: Make, tmp_path: Path) -> None:
    """``metadata=`` and the folder's name are the caller's, and win over a sidecar."""
    folder = tmp_path / "docs"
    (folder / "sales").mkdir(parents=True)
    (folder / "sales" / "a.md").write_text("Numbers of a quarter.")
    (folder / "sales" / "a.md.meta.json").write_text('{"allowed": ["all"]}')
    engine = make()
    engine.ingest(folder, folder_key="allowed", show_progress=False)
    assert (names(engine.as_user(groups=["sales"])), ids(engine.as_user(groups=["all"]))) == ({"a.md"}, [])
    engine.ingest(folder, metadata={"allowed": "board, user:ada"}, show_progress=False)
    assert names(engine.as_user(user="ada")) == names(engine.as_user(groups=["board"])) == {"a.md"}
    assert ids(engine.as_user(groups=["sales"])) == []
    with pytest.raises(SettingsError, match="allowed is"):
        engine.ingest(folder, metadata={"allowed": 7}, show_progress=False)


def test_a_field_that_is_no_list_of_names_fails_the_document(make: Make) -> None:
    """It is reported, not guessed at."""
    wrong = Document(text="Wrong.", id_="wrong", metadata={"allowed": [7]})
    report = make().ingest([wrong, CATS])
    assert [failure.source for failure in report.failed] == ["wrong"]
    with pytest.raises(IngestError, match="expected names"):
        names_of({"hr": True})


def test_ready_nodes_and_their_own_key_count_for_nothing_more(make: Make) -> None:
    """A node is read as a `Document` is; the key of the store cannot be brought along."""
    engine = make()
    nodes = [
        TextNode(id_="a", text="Cats.", metadata={"allowed": ["hr"]}),
        TextNode(id_="b", text="Dogs.", metadata={"permissions:allowed": ["hr"]}),
    ]
    engine.ingest(nodes)
    assert ids(engine.as_user(groups=["hr"])) == ["a"]
    with pytest.raises(SettingsError, match="who may see it"):
        engine.ingest([OPEN], metadata={"permissions:allowed": ["hr"]})


def test_what_a_user_ingests_is_theirs(make: Make) -> None:
    """Seen by the user alone unless shared in code; a document that they do not see is not replaced or removed."""
    engine = make()
    engine.ingest([PAY, CATS])
    ada = engine.as_user(user="ada", groups=["all"])
    own = Document(text="Diary.", id_="diary", metadata={"allowed": ["board"]})  # the word of the document
    report = ada.ingest([own, Document(text="Ada earns nine.", id_="pay")])
    assert [(failure.source, "does not see" in failure.error) for failure in report.failed] == [("pay", True)]
    assert (ids(ada), ids(engine.as_user(groups=["board"]))) == (["cats", "diary"], [])
    ada.ingest([Document(text="Minutes.", id_="minutes")], metadata={"allowed": ["board"]})
    assert ids(engine.as_user(groups=["board"])) == ["minutes"]
    assert ada.delete(["pay", "minutes", "diary"]) == 1
    assert "seven" in engine.as_user(groups=["hr"]).document_text("pay")


def test_a_retriever_that_ignores_filters_leaks_nothing(make: Make) -> None:
    """The hits are looked at once more before anything is made of them."""
    engine = make()
    engine.ingest([PAY, CATS, OPEN])
    view = engine.as_user(groups=["all"])
    everything = engine.as_user(user="root", everything=True)
    object.__setattr__(view._parts, "retriever", everything._parts.retriever)
    assert [hit.node.ref_doc_id for hit in view.retrieve(QueryBundle("ada"))] == ["cats"]
    assert [hit.node.ref_doc_id for hit in view.retriever.retrieve("ada")] == ["cats"]
    assert [hit.node.ref_doc_id for hit in view.query("What does Ada earn?").source_nodes] == ["cats"]


def test_the_model_reads_no_document_of_others_in_a_conversation(make: Make) -> None:
    """Neither the answer, nor a follow-up, nor a stream puts a hidden text into a prompt."""
    engine = make()
    engine.ingest([PAY, CATS])
    view = engine.as_user(groups=["all"])
    chat = view.as_chat_engine()
    for answer in (chat.chat("What does Ada earn?"), chat.chat("And how much is it in cats?")):
        assert {hit.node.ref_doc_id for hit in answer.source_nodes} == {"cats"}
    list(view.stream("What does Ada earn?").response_gen)
    prompts = " ".join(view.llm.prompts)  # type: ignore[attr-defined]
    assert "purr" in prompts
    assert "seven" not in prompts and "permissions:allowed" not in prompts


@pytest.mark.parametrize("settings", [{}, {"store": "duckdb"}, {"pattern": "hybrid"}], ids=str)
def test_changing_permissions_embeds_nothing(make: Make, settings: dict[str, Any]) -> None:
    """The vectors stay; an ingest of the same document afterwards changes nothing, and a new text keeps the change."""
    engine = make(settings={"embedding_cache": "off", **settings})
    engine.ingest([PAY, CATS])
    model: Any = engine.embed_model
    before = len(model.embedded)
    assert engine.set_permissions(["pay", "unknown"], ["all", "user:ada"]) == 1
    assert len(model.embedded) == before
    assert (ids(engine.as_user(groups=["all"])), ids(engine.as_user(groups=["hr"]))) == (
        ["cats", "pay"],
        ["cats"],
    )
    found = engine.as_user(user="ada").retrieve(QueryBundle("ada earns"))
    assert [hit.node.get_content("none") for hit in found] == ["Ada earns seven."]
    assert engine.ingest([PAY]).unchanged == 1
    engine.ingest([Document(text="Ada earns eight.", id_="pay", metadata={"allowed": ["hr"]})])
    assert ids(engine.as_user(user="ada")) == ["pay"]
    engine.ingest([PAY], metadata={"allowed": ["hr"]})
    assert ids(engine.as_user(user="ada")) == []


@pytest.mark.parametrize("settings", [{}, {"store": "duckdb"}, {"pattern": "hybrid"}], ids=str)
@pytest.mark.parametrize("said", [["hr"], []])
def test_an_ingest_that_says_the_same_again_replaces_what_was_set(
    make: Make, settings: dict[str, Any], said: list[str]
) -> None:
    """The document counted as unchanged and stayed open to those whom nobody allowed any more."""
    engine = make(settings=settings)
    engine.ingest([PAY, CATS], metadata={"allowed": said})
    engine.set_permissions(["pay"], ["all"])
    report = engine.ingest([PAY], metadata={"allowed": said})
    assert (report.unchanged, report.failed) == (1, [])
    assert engine.permissions(["pay"]) == {"pay": said}
    assert ids(engine.as_user(groups=["all"])) == []
    assert not engine.as_user(groups=["all"]).retrieve(QueryBundle("ada earns"))
    engine.ingest([Document(text="Ada earns eight.", id_="pay")])  # what was set holds no longer
    assert engine.permissions(["pay"]) == {"pay": []}


def test_an_ingest_replaces_what_was_set_of_a_file_that_cannot_be_read(make: Make, tmp_path: Path) -> None:
    """What the caller says is no matter of what stands in the file."""
    engine, file = make(), tmp_path / "pay.txt"
    file.write_text("Ada earns seven.")
    engine.ingest(file, metadata={"allowed": ["hr"]})
    engine.set_permissions([str(file)], ["all"])
    file.write_bytes(b"\x00\x01\x02" * 500)
    assert len(engine.ingest(file, metadata={"allowed": []}).failed) == 1
    assert ids(engine.as_user(groups=["all"])) == []


def test_an_ingest_of_a_tenant_does_not_replace_what_was_set_for_another(make: Make) -> None:
    """Whoever knows an id could undo what was set."""
    engine = make()
    acme, globex = engine.for_tenant("acme"), engine.for_tenant("globex")
    acme.ingest([PAY], metadata={"allowed": ["hr"]})
    engine.set_permissions(["pay"], ["board"])
    assert len(globex.ingest([PAY], metadata={"allowed": ["all"]}).failed) == 1
    assert engine.permissions(["pay"]) == {"pay": ["board"]}
    acme.ingest([Document(text="Ada earns eight.", id_="pay")])
    assert engine.permissions(["pay"]) == {"pay": ["board"]}


@pytest.mark.parametrize("settings", [{}, {"pattern": "hybrid"}], ids=str)
def test_a_change_that_dies_in_the_middle_shows_nobody(
    make: Make, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """From the intent on nobody sees the document, in any process, until the change was finished."""
    engine = make(settings=settings)
    engine.ingest([PAY, CATS])
    hr = engine.as_user(groups=["hr"])

    def die(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(engine._parts.vector_store), "add", die)
        with pytest.raises(KeyboardInterrupt):
            engine.set_permissions(["pay"], ["all"])
    assert (ids(hr), ids(engine.as_user(groups=["all"]))) == (["cats"], ["cats"])
    assert [hit.node.ref_doc_id for hit in hr.retrieve(QueryBundle("ada"))] == ["cats"]
    other = make(settings=settings)
    assert ids(other.as_user(groups=["hr"])) == ["cats"]
    other.ingest([OPEN])
    assert (ids(other.as_user(groups=["all"])), ids(hr)) == (["cats", "pay"], ["cats"])


def test_users_and_tenants_cannot_change_what_is_not_theirs(make: Make) -> None:
    """A user sets no permissions; a tenant's engine sets those of its own documents."""
    engine = make()
    engine.ingest([PAY])
    engine.for_tenant("acme").ingest([CATS])
    with pytest.raises(PermissionsError, match="cannot change permissions"):
        engine.as_user(groups=["hr"]).set_permissions(["pay"], ["all"])
    assert engine.for_tenant("acme").set_permissions(["pay", "cats"], ["x"]) == 1
    assert ids(engine.as_user(groups=["x"])) == ["cats"]
    with pytest.raises(SettingsError, match="allowed is"):
        engine.set_permissions(["pay"], [7])  # type: ignore[list-item]


def test_who_saw_everything_is_on_record(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The audit log names the user, and says where permissions did not hold."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    engine = make(settings={"monitoring": "audit"})
    engine.ingest([CATS])
    engine.as_user(user="ada", groups=["all"]).query("cats?")
    engine.as_user(user="root", everything=True).query("cats?")
    lines = [json.loads(line)["entry"] for line in engine._parts.storage.audit.read_text().splitlines()]
    assert [line["who"] for line in lines] == ["ada", "root (sees everything)"]


def test_an_encrypted_storage_keeps_permissions(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names stay in clear, so that the store can filter; text and the rest do not."""
    monkeypatch.setenv("LLAMA_PRESETS_ENCRYPTION_KEY", "00" * 32)
    engine = make(settings={"encryption": "on"})
    engine.ingest([PAY, CATS])
    assert ids(engine.as_user(groups=["all"])) == ["cats"]
    assert engine.set_permissions(["pay"], ["all"]) == 1
    engine.close()
    again = make(permissions="off", settings={"encryption": "on"})
    assert ids(again.as_user(groups=["all"])) == ["cats", "pay"]


def test_sync_removes_only_what_the_user_sees(make: Make, tmp_path: Path) -> None:
    """A vanished file that the user may not see stays."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("a.md", "b.md"):
        (folder / name).write_text(f"Text of {name}.")
    engine = make()
    engine.ingest(folder / "a.md", metadata={"allowed": ["hr"]}, show_progress=False)
    ada = engine.as_user(user="ada")
    ada.ingest(folder / "b.md", show_progress=False)
    for name in ("a.md", "b.md"):
        (folder / name).unlink()
    (folder / "c.md").write_text("New.")
    assert ada.ingest(folder, sync=True, show_progress=False).removed == 1
    assert names(engine.as_user(user="root", everything=True)) == {"a.md", "c.md"}


def test_names_stay_out_of_the_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Setting permissions is logged with its user and count, without names of documents or groups."""
    engine = make()
    engine.ingest([PAY])
    with caplog.at_level(logging.INFO, logger="llama_index_presets"):
        engine.as_user(user="root", everything=True).set_permissions(["pay"], ["secret-group"])
    assert "Permissions of 1 document were set by root (sees everything)." in caplog.text
    assert "secret-group" not in caplog.text


def test_copies_and_pickles_of_a_view_stay_held(make: Make) -> None:
    """Another process that is sent a view sees what the view sees."""
    engine = make()
    engine.ingest([PAY, CATS])
    view = engine.as_user(user="ada", groups=["all"])
    sent = pickle.loads(pickle.dumps(view))
    with sent:
        assert ids(copy.deepcopy(view)) == ids(copy.copy(view)) == ids(sent) == ["cats"]
        assert [hit.node.ref_doc_id for hit in sent.retrieve(QueryBundle("ada earns"))] == ["cats"]


def test_the_command_shows_and_sets_permissions(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may see a document, before and after; questions of the command name their user."""
    for command in ("ask", "storage"):
        monkeypatch.setattr(
            f"llama_index_presets.cli.commands.{command}.open_engine", lambda *args, **options: make()
        )
    engine = make()
    engine.ingest([PAY, CATS])
    place = ["--storage", str(tmp_path / "index"), "--json"]

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, *place])
        return json.loads(result.stdout) if result.exit_code == 0 else (result.exit_code, result.output)

    listed = run("permissions", "knowledge-base")["permissions"]
    assert listed == {"cats": ["all", "hr"], "pay": ["hr"]}
    changed = run("permissions", "knowledge-base", "pay", "--allowed", "all,user:ada")
    assert changed == {"permissions": {"pay": ["all", "user:ada"]}, "changed": 1}
    assert (
        run("ask", "knowledge-base", "What does Ada earn?", "--user", "ada")["citations"][0]["source"]
        == "pay"
    )
    code, said = run("ask", "knowledge-base", "What does Ada earn?")
    assert (code, "no user" in said) == (1, True)
    with pytest.raises(PermissionsError, match="held to a user"):
        engine.as_user(groups=["all"]).permissions()


def test_a_thread_that_looked_before_does_not_turn_permissions_off_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads look, one before they were turned on: what it saw stood beside the stamp of the new metadata."""
    location = resolve_storage(tmp_path / "index")
    open_storage(location, "knowledge-base", Fingerprint(model="m", dim=2))
    has_looked, go_on = threading.Event(), threading.Event()

    def look(at: Any, look: Callable[[Any], bool] = access.has_permissions) -> bool:
        found = look(at)
        if threading.current_thread() is late:
            has_looked.set()
            assert go_on.wait(60)
        return found

    class Watched(StoragePermissions):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if has_looked.is_set() and threading.current_thread() is not late and not go_on.is_set():
                go_on.set()  # the late thread keeps what it saw amid what this one does
                late.join(60)

    monkeypatch.setattr(access, "has_permissions", look)
    permissions = Watched(location, wanted=False)
    late = threading.Thread(target=permissions.on)
    late.start()
    assert has_looked.wait(60)
    turn_on_permissions(location)
    assert permissions.on()
    assert go_on.is_set() and permissions.on()
