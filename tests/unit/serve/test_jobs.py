"""Ingest jobs: uploads with progress, across a restart, in a storage that is in use, and with hostile names."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.serve.conftest import Running, add_keys, config_of, running, wait_for

from llama_index_presets.errors import StoreCorruptError, StoreWriteError
from llama_index_presets.files.locks import FileLock
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.serve.callers.key_file import ANYBODY, Caller
from llama_index_presets.serve.config import EngineConfig
from llama_index_presets.serve.jobs import Jobs
from llama_index_presets.serve.protocols.problems import Problem
from llama_index_presets.serve.turns import JOBS_LOCK, between_batches, let_removals_pass
from llama_index_presets.serve.uploads import document_id, file_of, may_remove, safe_name, upload_folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(config_of(tmp_path)) as one:
        yield one


def finished(client: httpx.Client, response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    place = response.headers["location"]
    ended = ("done", "failed", "cancelled")
    return wait_for(lambda: job if (job := client.get(place).json())["status"] in ended else None)  # type: ignore[no-any-return]


def files(**contents: str | bytes) -> list[tuple[str, tuple[str, str | bytes]]]:
    return [("files", (name.replace("_", "."), content)) for name, content in contents.items()]


def test_files_are_ingested_with_progress(server: Running) -> None:
    """An upload is a job; its documents are found, cited and listed under plain names."""
    with server.client() as client:
        data = {"metadata": '{"department": "zoo"}', "engine": "kb"}
        sent = client.post(
            "/ingest", files=files(owls_txt="Owls hunt mice.", newts_md="# Newts\n\nNewts swim."), data=data
        )
        job = finished(client, sent)
        assert (job["status"], job["finished"], job["total"], job["progress"]) == ("done", 2, 2, 1.0)
        assert (job["report"]["documents"], job["report"]["failed"]) == (2, [])
        found = client.post(
            "/retrieve", json={"question": "Owls hunt mice.", "filters": ["department=zoo"], "top_k": 1}
        )
        assert [one["source"] for one in found.json()["sources"]] == ["uploads/owls.txt"]
        listed = [one["id"] for one in client.get("/documents").json()["documents"]]
        assert {"uploads/owls.txt", "uploads/newts.md"} <= set(listed)


def test_a_second_upload_of_a_name_replaces_the_first(server: Running) -> None:
    """The same name is the same document; an unchanged file costs nothing."""
    with server.client() as client:
        finished(client, client.post("/ingest", files=files(owls_txt="Owls hunt mice.")))
        same = finished(client, client.post("/ingest", files=files(owls_txt="Owls hunt mice.")))
        assert (same["report"]["documents"], same["report"]["unchanged"]) == (0, 1)
        finished(client, client.post("/ingest", files=files(owls_txt="Owls hunt voles.")))
        texts = [
            one["text"] for one in client.post("/retrieve", json={"question": "Owls hunt"}).json()["sources"]
        ]
        assert "Owls hunt voles." in texts
        assert "Owls hunt mice." not in texts


def test_deleting_an_upload_takes_the_file_too(server: Running, tmp_path: Path) -> None:
    """Neither index nor disk holds it afterwards."""
    with server.client() as client:
        finished(client, client.post("/ingest", files=files(owls_txt="Owls hunt mice.")))
        assert client.delete("/documents/uploads/owls.txt").status_code == 200
        assert not list((tmp_path / "kb").rglob("owls.txt"))
        assert "uploads/owls.txt" not in client.get("/documents").text


def test_a_file_that_cannot_be_read_is_reported(server: Running) -> None:
    """The others are ingested; a job of nothing but unreadable files has failed. No path of the server is told."""
    with server.client() as client:
        mixed = finished(
            client, client.post("/ingest", files=files(good_txt="Good.", bad_pdf=b"%PDF-1.4 nonsense"))
        )
        assert (mixed["status"], mixed["report"]["documents"]) == ("done", 1)
        assert [one["source"] for one in mixed["report"]["failed"]] == ["uploads/bad.pdf"]
        bad = finished(client, client.post("/ingest", files=files(bad_pdf=b"%PDF-1.4 nonsense")))
        assert bad["status"] == "failed"
        assert "/serve/" not in str(bad)


def test_a_storage_in_use_by_an_ingest_is_waited_for(server: Running, tmp_path: Path) -> None:
    """The job says that it waits, and goes on when the other one is done."""
    with server.client() as client:
        with ingest_lock(tmp_path / "kb" / "ingest.lock"):
            job = client.post("/ingest", files=files(owls_txt="Owls hunt mice.")).json()
            place = f"/ingest/{job['id']}"
            waiting = wait_for(
                lambda: one if (one := client.get(place).json())["status"] == "waiting" else None
            )
            assert "in use" in waiting["error"]
        assert wait_for(lambda: client.get(place).json()["status"] == "done")


def test_a_removal_does_not_wait_for_an_ingest(server: Running, tmp_path: Path) -> None:
    """409 with Retry-After at once; the document stays, and goes when the ingest is done."""
    with server.client() as client:
        with ingest_lock(tmp_path / "kb" / "ingest.lock"):
            response = client.delete("/documents/cats.txt")
            assert (response.status_code, response.json()["error"]["code"]) == (409, "storage_in_use")
            assert response.headers["retry-after"]
        assert client.delete("/documents/cats.txt").status_code == 200


def test_a_removal_comes_between_two_batches_of_a_job(tmp_path: Path) -> None:
    """It was refused for as long as anybody's jobs ran."""
    running, over, batches = threading.Event(), threading.Event(), []

    def job() -> None:
        with FileLock(tmp_path / JOBS_LOCK) as turn:
            turn.acquire()
            while not over.is_set() and len(batches) < 100:
                let_removals_pass(tmp_path)
                with ingest_lock(tmp_path / "ingest.lock"):
                    running.set()
                    time.sleep(0.05)
                batches.append(1)

    def remove() -> int:
        with ingest_lock(tmp_path / "ingest.lock", wait=False):
            return len(batches)

    thread = threading.Thread(target=job)
    thread.start()
    running.wait(30)
    before = len(batches)
    try:
        assert between_batches(tmp_path, remove) - before <= 2
    finally:
        over.set()
        thread.join()


def test_a_removal_over_http_takes_its_turn(server: Running) -> None:
    """Of 12 batches of a job not all are over when it has happened."""
    texts = [{"id": f"t{number}", "text": f"Text number {number}."} for number in range(8 * 12)]
    with server.client() as client:
        place = client.post("/ingest", json={"documents": texts}).headers["location"]
        wait_for(lambda: client.get(place).json()["finished"])
        assert client.delete("/documents/cats.txt").status_code == 200
        assert client.get(place).json()["status"] == "running"
        wait_for(lambda: client.get(place).json()["status"] == "done")
        assert "cats.txt" not in client.get("/documents").text


def test_a_storage_in_use_is_said_without_the_server_s_folders(server: Running, tmp_path: Path) -> None:
    """Whoever has a key learns neither path, machine nor process."""
    with server.client() as client, ingest_lock(tmp_path / "kb" / "ingest.lock"):
        message = client.delete("/documents/cats.txt").json()["error"]["message"]
    assert message == "The index is in use: something is ingested or removed. Try again in a moment."


def test_a_caller_sees_their_jobs_however_many_others_send(tmp_path: Path) -> None:
    """The newest 100 of all callers hid the jobs of one who sends few."""
    jobs = Jobs(tmp_path)
    ada, bob = (Caller(name=name, tenant="t", id=name) for name in ("ada", "bob"))
    of_ada = jobs.add(ada, "first", [], 1, {})
    for number in range(101):
        jobs.add(bob, f"b{number}", [], 1, {})
    assert jobs.recent(ada) == [of_ada]
    assert [one.id for one in jobs.recent(bob)][:2] == ["b100", "b99"]
    assert len(jobs.recent(bob)) == 100
    assert jobs.recent(Caller(name="ada", tenant="u", id="ada")) == []


def test_a_job_is_cancelled(server: Running, tmp_path: Path) -> None:
    """Also while it waits; what is cancelled does not run later."""
    with server.client() as client:
        with ingest_lock(tmp_path / "kb" / "ingest.lock"):
            place = client.post("/ingest", files=files(owls_txt="Owls hunt mice.")).headers["location"]
            wait_for(lambda: client.get(place).json()["status"] == "waiting")
            assert client.delete(place).json()["status"] == "cancelled"
        after = finished(client, client.post("/ingest", files=files(newts_txt="Newts swim.")))
        assert after["status"] == "done"
        assert client.get(place).json()["status"] == "cancelled"


def test_a_job_survives_a_restart(tmp_path: Path) -> None:
    """What a stopped server left unfinished is done by the next one, and shown under the same id."""
    state = tmp_path / "kb" / "serve"
    with running(config_of(tmp_path)) as server, server.client() as client:
        finished(client, client.post("/ingest", files=files(first_txt="First.")))
        with ingest_lock(tmp_path / "kb" / "ingest.lock"):
            place = client.post("/ingest", files=files(owls_txt="Owls hunt mice.")).headers["location"]
            wait_for(lambda: client.get(place).json()["status"] == "waiting")
            server.process.stop()
            wait_for(lambda: not any(thread.name.startswith("ingest-") for thread in threading.enumerate()))
    assert [job.status for job in Jobs(state).unfinished()] == ["waiting"]
    with running(config_of(tmp_path)) as server, server.client() as client:
        assert wait_for(lambda: client.get(place).json()["status"] == "done")
        assert "uploads/owls.txt" in client.get("/documents").text


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt", "..\\evil.txt", "/etc/passwd", "C:\\evil.txt", "a/b.txt", "..", ".", ".hidden",
        "a\x00.txt", "a\n.txt",
        "x" * 300 + ".txt", "a\u202e.txt", "", "~", "a.txt.", "nul:.txt",
    ],
)  # fmt: skip
def test_file_names_are_plain(name: str) -> None:
    """Paths, control and direction characters and hidden files are refused, not repaired."""
    with pytest.raises(Problem, match="not usable"):
        safe_name(name)


def test_an_upload_cannot_leave_its_folder(server: Running, tmp_path: Path) -> None:
    """A traversal is refused and writes nothing, also where it is encoded in the form."""
    before = {path for path in tmp_path.rglob("*") if path.name.startswith("evil")}
    with server.client() as client:
        for name in ("../evil.txt", "..%2Fevil.txt/../../evil.txt", "/tmp/evil.txt"):
            response = client.post("/ingest", files=[("files", (name, "x"))])
            assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_file_name")
        assert client.delete("/documents/uploads/../../../calls.duckdb").status_code == 404
    assert {path for path in tmp_path.rglob("*") if path.name.startswith("evil")} == before == set()
    assert (tmp_path / "kb").exists()


def test_forms_are_checked(server: Running) -> None:
    """No file, an unknown field, bad metadata, twins, and a form that is none."""
    with server.client() as client:
        for options, code in (
            ({"data": {"x": "y"}, "files": files(a_txt="a")}, "bad_form"),
            ({"files": files(a_txt="a"), "data": {"metadata": "[]"}}, "malformed_json"),
            ({"files": files(a_txt="a"), "data": {"metadata": '{"tenant": "x"}'}}, "bad_metadata"),
            ({"files": files(a_txt="a"), "data": {"metadata": '{"x": {"deep": 1}}'}}, "bad_body"),
            ({"files": [*files(a_txt="a"), *files(a_txt="b")]}, "bad_form"),
            (
                {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
                "malformed_form",
            ),
            ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "malformed_form"),
        ):
            response = client.post("/ingest", **options)  # type: ignore[arg-type]
            assert (response.status_code, response.json()["error"]["code"]) == (400, code), options


def test_tenants_never_share_an_upload(tmp_path: Path) -> None:
    """Two tenants may send files of one name; each has its own, and neither can delete the other's."""
    keys = add_keys(tmp_path / "keys.json", {"ada": {"tenant": "acme"}, "bob": {"tenant": "globex"}})
    config = config_of(tmp_path, keys=str(tmp_path / "keys.json"))
    with running(config) as server:
        ada, bob = server.client(keys["ada"]), server.client(keys["bob"])
        with ada, bob:
            finished(ada, ada.post("/ingest", files=files(plan_txt="Acme plans anvils.")))
            finished(bob, bob.post("/ingest", files=files(plan_txt="Globex plans globes.")))
            assert bob.delete("/documents/uploads/plan.txt").status_code == 200
            found = ada.post("/retrieve", json={"question": "Acme plans anvils."}).json()["sources"]
            assert [one["text"] for one in found] == ["Acme plans anvils."]
            assert bob.post("/retrieve", json={"question": "plans"}).json()["sources"] == []


def test_keys_without_a_tenant_own_what_they_upload(tmp_path: Path) -> None:
    """They read one index, but none can replace or remove an upload of another, under whatever name it asks."""
    keys = add_keys(tmp_path / "keys.json", {"ada": {}, "bob": {}})
    with running(config_of(tmp_path, keys=str(tmp_path / "keys.json"))) as server:
        ada, bob = server.client(keys["ada"]), server.client(keys["bob"])
        with ada, bob:
            finished(ada, ada.post("/ingest", files=files(plan_txt="Ada plans anvils.")))
            finished(bob, bob.post("/ingest", files=files(plan_txt="Bob plans globes.")))
            said = bob.post("/retrieve", json={"question": "Ada plans anvils."}).json()["sources"]
            assert {"Ada plans anvils.", "Bob plans globes."} <= {one["text"] for one in said}
            listed = [one["id"] for one in bob.get("/documents").json()["documents"]]
            of_ada = next(name for name in listed if re.fullmatch(r"uploads/[0-9a-f]{24}/plan\.txt", name))
            assert "uploads/plan.txt" in listed
            refused = bob.delete(f"/documents/{of_ada}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "document_not_found")
            state = server.process.server.engines.all()[0].state
            stolen = {"id": f"{state.as_posix()}/{of_ada}", "text": "Bob was here."}
            refused = bob.post("/ingest", json={"documents": [stolen]})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_id")
            assert str(state) not in refused.text
            assert bob.delete("/documents/uploads/plan.txt").status_code == 200
            assert (state / of_ada).read_text() == "Ada plans anvils."
            assert ada.delete("/documents/uploads/plan.txt").status_code == 200
            assert not (state / of_ada).exists()


def test_who_may_remove_an_upload() -> None:
    """Its owner; its tenant; whom permissions show it to; of a server without keys, everybody who has no tenant."""
    state = Path("/srv/serve")
    ada, bob = Caller(name="ada", id="1"), Caller(name="bob", id="2")
    acme, too, globex = (
        Caller(name=n, id=n, tenant=t) for n, t in [("a", "acme"), ("b", "acme"), ("g", "globex")]
    )
    hr = Caller(name="hr", id="3", groups=("hr",))

    def upload(caller: Caller) -> str:
        return (upload_folder(state, caller) / "x.txt").as_posix()

    assert [may_remove(state, one, upload(ada)) for one in (ada, bob, acme, hr, ANYBODY)] == [
        True, False, False, True, True,
    ]  # fmt: skip
    assert [may_remove(state, one, upload(acme)) for one in (acme, too, globex, ada)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [may_remove(state, one, upload(ANYBODY)) for one in (ada, acme, ANYBODY)] == [True, False, True]
    assert may_remove(state, bob, "/data/manual.txt")


def test_document_ids_are_shown_without_folders() -> None:
    """And lead back to the caller's own folder alone."""
    state, ada = Path("/srv/serve"), Caller(name="ada", tenant="acme")
    stored = (upload_folder(state, ada) / "a.pdf").as_posix()
    assert document_id(state, ada, stored) == "uploads/a.pdf"
    assert file_of(state, ada, "uploads/a.pdf") == stored
    assert file_of(state, ANYBODY, "uploads/a.pdf") != stored
    assert file_of(state, ada, "uploads/../../x") == "uploads/../../x"
    assert document_id(state, ada, "/data/b.pdf") == "/data/b.pdf"


def test_a_damaged_or_closed_place_of_jobs_is_named(tmp_path: Path) -> None:
    """An error says which file and what to do; a damaged one is left as it is."""
    (tmp_path / "jobs.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(StoreCorruptError, match=r"jobs\.sqlite' are damaged .*move the file away"):
        Jobs(tmp_path)
    assert (tmp_path / "jobs.sqlite").read_bytes() == b"no database " * 100
    (tmp_path / "folder" / "jobs.sqlite").mkdir(parents=True)
    with pytest.raises(StoreWriteError, match="cannot be read or written"):
        Jobs(tmp_path / "folder")


def test_the_place_of_a_job_names_its_engine(tmp_path: Path) -> None:
    """A job of another engine than the default was not found where the answer said."""
    two = {
        name: EngineConfig(preset="knowledge-base", storage=str(tmp_path / name)) for name in ("kb", "other")
    }
    with running(config_of(tmp_path, engines=two)) as server, server.client() as client:
        body = {"engine": "other", "documents": [{"id": "owls", "text": "Owls hunt mice."}]}
        assert finished(client, client.post("/ingest", json=body))["status"] == "done"
        assert "owls" in client.get("/documents?engine=other").text
        assert "owls" not in client.get("/documents").text
