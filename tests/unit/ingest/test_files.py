"""A folder is what stands in it: no link leads out of it, round in it, or to something hidden."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT
from llama_index_presets.ingest.sources.files import find_files, root_path
from llama_index_presets.ingest.sources.source import Source, _from_files, sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "docs"
    (made / "sub").mkdir(parents=True)
    (made / "a.txt").write_text("Alpha.")
    (made / "sub" / "b.txt").write_text("Beta.")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("The password is swordfish.")
    return made


def problems(folder: Path, *, separate_folders: bool = False) -> dict[str, str]:
    entries = find_files([folder], separate_folders=separate_folders)
    return {entry.path.relative_to(folder).as_posix(): entry.problem for entry in entries}


@pytest.mark.parametrize("target", ["outside/secret.txt", "outside", "outside/.hidden"])
@pytest.mark.parametrize("place", ["link", "sub/link"])
def test_a_link_out_of_the_folder_is_named_and_not_followed(folder: Path, target: str, place: str) -> None:
    """Files and directories, hidden or not: their text is not the folder's."""
    (folder.parent / "outside" / ".hidden").write_text("More secrets.")
    (folder / place).symlink_to(folder.parent / target)
    found = problems(folder)
    assert found.keys() == {"a.txt", "sub/b.txt", place}
    assert "leads out of" in found[place]


def test_a_link_inside_is_a_document_under_its_own_path(folder: Path) -> None:
    """Of a file as of a folder; deleting the link takes that document out, and no other."""
    (folder / "again.txt").symlink_to("a.txt")
    (folder / "alias").symlink_to("sub")
    assert problems(folder) == dict.fromkeys(["a.txt", "again.txt", "alias/b.txt", "sub/b.txt"], "")


def test_links_that_lead_round_end(folder: Path) -> None:
    """A folder that links to one above it, to itself, and two that link to each other, are walked once."""
    (folder / "sub" / "up").symlink_to("..")
    (folder / "self").symlink_to("self")
    (folder / "left").mkdir()
    (folder / "left" / "right").symlink_to("../sub")
    (folder / "sub" / "left").symlink_to("../left")
    found = problems(folder)
    assert "back to a folder above it" in found["sub/up"]
    assert "leads nowhere" in found["self"]
    assert "reached through a link" in found["left/right/left"]


def test_broken_links_and_links_to_something_hidden_are_named(folder: Path) -> None:
    """Neither is passed over in silence."""
    (folder / ".env").write_text("KEY=1")
    (folder / "broken.txt").symlink_to("gone.txt")
    (folder / "env.txt").symlink_to(".env")
    found = problems(folder)
    assert "leads nowhere" in found["broken.txt"] and "something hidden" in found["env.txt"]
    assert ".env" not in found


def test_a_link_that_is_named_itself_is_followed_under_its_name(folder: Path) -> None:
    """Its ids stay the same when it is pointed at another folder, so that sync sees what vanished."""
    link = folder.parent / "current"
    link.symlink_to(folder)
    assert root_path(link) == link
    assert [entry.path for entry in find_files([link])] == [link / "a.txt", link / "sub" / "b.txt"]
    named = folder / "latest.txt"
    named.symlink_to(folder.parent / "outside" / "secret.txt")
    (source,) = sources(named)
    assert (source.doc_id, source.refusal) == (named.as_posix(), "")


def test_a_folder_that_names_a_tenant_is_not_left_by_a_link(folder: Path) -> None:
    """One tenant's folder must not show what stands in another's."""
    (folder / "acme").mkdir()
    (folder / "acme" / "theirs.txt").symlink_to("../sub/b.txt")
    (folder / "alias").symlink_to("sub")
    found = problems(folder, separate_folders=True)
    assert "leads out of" in found["acme/theirs.txt"] and "leads out of" in found["alias"]
    assert problems(folder)["acme/theirs.txt"] == ""


def test_a_sidecar_or_a_caption_from_outside_is_not_read(folder: Path) -> None:
    """They are text of the document, wherever they stand."""
    (folder.parent / "outside" / "meta.json").write_text(json.dumps({"secret": "swordfish"}))
    (folder / "a.txt.meta.json").symlink_to(folder.parent / "outside" / "meta.json")
    (folder / "photo.png").write_bytes(b"")
    (folder / "photo.txt").symlink_to(folder.parent / "outside" / "secret.txt")
    left_out = {Path(source.doc_id).name: source.refusal for source in sources(folder, images=True)}
    assert "a.txt.meta.json' beside it is a link out" in left_out["a.txt"]
    assert "photo.txt' beside it is a link out" in left_out["photo.png"]


def test_a_name_that_is_not_utf8_is_one_failed_document(folder: Path) -> None:
    """No id can hold it; the name in the report can be printed."""
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt"))).write_text("The recipe.")
    listed: list[Source] = sources(folder)
    (bad,) = (source for source in listed if source.refusal)
    assert bad.doc_id == f"{folder.as_posix()}/caf\\xe9.txt" and "not UTF-8" in bad.refusal
    assert len(listed) == 3


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root, who opens every folder, is another user meanwhile; anybody else stays who they are."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(mine)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_folder_that_cannot_be_opened_is_named() -> None:
    """Its documents are not gone, they cannot be seen."""
    # Folders of pytest and of the test process are closed to other users.
    with tempfile.TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")) as name:
        Path(name).chmod(0o755)
        closed = Path(name) / "closed"
        closed.mkdir(0)
        (Path(name) / "a.txt").write_text("Alpha.")
        with as_nobody():
            found = problems(Path(name))
        assert found["a.txt"] == "" and "cannot be opened" in found["closed"]


@pytest.mark.parametrize(
    ("path", "problem"), [("", "A path is empty"), ("/dev/null", "neither a file nor a folder")]
)
def test_what_is_no_file_or_folder_is_refused(path: str, problem: str) -> None:
    """An empty variable of a script does not mean the folder that one is in."""
    with pytest.raises(IngestError, match=problem):
        find_files([path])


@pytest.mark.parametrize("data", [None, 5, b"docs", {"a": "b"}])
def test_what_cannot_be_ingested_says_what_can(data: object) -> None:
    """Its kind is named, and the kinds that are taken."""
    with pytest.raises(IngestError, match=f"Got {type(data).__name__}; give paths"):
        sources(data)


@pytest.mark.parametrize("when", ["before it is looked at", "before it is read"])
def test_a_link_that_takes_the_place_of_a_file_is_not_read(folder: Path, when: str) -> None:
    """Between the walk and the reading, which may be hours in a large folder, a file may become a link."""
    entries = find_files([folder])
    if when == "before it is looked at":
        swap(folder)
    listed = _from_files(entries, images=False, limit=DEFAULT_LIMIT)
    if when == "before it is read":
        swap(folder)
    problem = {Path(source.doc_id).name: source for source in listed}["a.txt"]
    with pytest.raises(IngestError, match="took its place while it was read"):
        problem.read()
    assert {Path(source.doc_id).name: source for source in listed}["b.txt"].read().plain.text == "Beta."


def swap(folder: Path) -> None:
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(folder.parent / "outside" / "secret.txt")
