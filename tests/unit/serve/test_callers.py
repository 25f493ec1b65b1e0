"""API keys: hashes in a file, refusals with the right status, and everything of a caller following from the key."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import re
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core import Document
from tests.unit.serve.conftest import Running, add_keys, config_of, running, wait_for
from typer.testing import CliRunner

from llama_index_presets.cli import app
from llama_index_presets.errors import SettingsError
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.monitor.audit import AuditLog, audit_key
from llama_index_presets.monitor.quality import QUALITY_FILE
from llama_index_presets.serve.app import make_server
from llama_index_presets.serve.callers.key_file import (
    Caller,
    KeyFile,
    default_key_file,
    parse_budget,
    parse_expiry,
    parse_rate,
)
from llama_index_presets.serve.config import EngineConfig

QUESTION = {"question": "What do cats do all day?"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("callers")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    return add_keys(
        folder / "keys.json",
        {
            "ada": {"tenant": "acme"},
            "bob": {"tenant": "globex", "read_only": True},
            "poor": {"budget": "0.0000001/day"},
            "eager": {"rate": "2/hour"},
            "late": {"expires": "2020-01-01"},
            "grouped": {"groups": ("hr",)},
            "free": {},
            "idle": {},
            "anne": {"tenant": "acme"},
        },
    )


@pytest.fixture(scope="module")
def server(folder: Path, keys: dict[str, str]) -> Iterator[Running]:
    with running(config_of(folder, keys=str(folder / "keys.json")), sums=folder / "sums") as one:
        one.engine.for_tenant("acme").ingest([Document(text="Acme sells anvils.", id_="anvils.txt")])
        yield one


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Basic YTpi"}, "missing_api_key"),
        ({"Authorization": "Bearer"}, "missing_api_key"),
        ({"Authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"Authorization": "Bearer lp-000000000000-wrong"}, "invalid_api_key"),
        ({"Authorization": "Bearer lp--"}, "invalid_api_key"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/query"), ("POST", "/query/stream"), ("POST", "/retrieve"), ("POST", "/ingest"),
        ("GET", "/ingest"), ("GET", "/documents"), ("DELETE", "/documents/x"), ("GET", "/costs"), ("GET", "/metrics"),
        ("GET", "/engines"), ("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/responses"),
        ("POST", "/v1/embeddings"), ("POST", "/mcp"),
    ],
)  # fmt: skip
def test_no_route_of_an_index_answers_without_a_key(
    server: Running, method: str, path: str, header: dict[str, str], code: str
) -> None:
    """401 before the body is read, whatever is sent in place of a key."""
    with server.client() as client:
        assert refusal(client.request(method, path, headers=header)) == (401, code)


def test_health_needs_no_key(server: Running) -> None:
    """A load balancer has none."""
    with server.client() as client:
        assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/")] == [200, 200, 200]


def test_an_altered_key_is_refused(server: Running, keys: dict[str, str]) -> None:
    """The right id with another secret opens nothing."""
    with server.client(keys["ada"][:-1] + ("x" if keys["ada"][-1] != "x" else "y")) as client:
        assert refusal(client.get("/documents")) == (401, "invalid_api_key")


def test_an_expired_key_says_so(server: Running, keys: dict[str, str]) -> None:
    """401 with the day that it ended."""
    with server.client(keys["late"]) as client:
        response = client.post("/query", json=QUESTION)
    assert refusal(response) == (401, "expired_api_key")
    assert "2020-01-01" in response.json()["error"]["message"]


def test_keys_are_compared_in_constant_time(
    folder: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key, known or not, goes through one comparison of whole hashes."""
    lengths: list[tuple[int, int]] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(
        hmac, "compare_digest", lambda a, b: lengths.append((len(a), len(b))) or compare(a, b)
    )
    file = KeyFile(folder / "keys.json")
    assert file.caller(keys["ada"]).name == "ada"
    for wrong in ("", "x", "lp-0-0", keys["ada"] + "x"):
        with pytest.raises(Exception, match="not known"):
            file.caller(wrong)
    assert lengths == [(64, 64)] * 5


@pytest.mark.parametrize(
    ("asker", "other"), [("free", "idle"), ("free", "ada"), ("ada", "anne"), ("ada", "free")]
)
def test_only_who_asked_can_rate_the_answer(
    server: Running, keys: dict[str, str], asker: str, other: str
) -> None:
    """Neither another key without a tenant, nor one of the same tenant: the answer is not found, and stays unrated."""
    with server.client(keys[asker]) as mine, server.client(keys[other]) as theirs:
        query_id = mine.post("/query", json=QUESTION).raise_for_status().json()["query_id"]
        body = {"query_id": query_id, "rating": "down"}
        assert refusal(theirs.post("/feedback", json=body)) == (404, "query_not_found")
        assert thumbs(server, query_id) == 0
        assert mine.post("/feedback", json=body).status_code == 200
        assert thumbs(server, query_id) == -1


def thumbs(server: Running, query_id: str) -> int:
    """Rating of an answer, as it is kept."""
    path = Path(server.engine.explain()["state"]) / QUALITY_FILE
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(
            connection.execute("select thumb from outcomes where query_id = ?", (query_id,)).fetchone()[0]
        )


def test_the_tenant_is_the_keys(server: Running, keys: dict[str, str]) -> None:
    """Each sees and finds its own documents; what is ingested belongs to the key's tenant."""
    with (
        server.client(keys["ada"]) as ada,
        server.client(keys["bob"]) as bob,
        server.client(keys["free"]) as free,
    ):
        assert [one["id"] for one in ada.get("/documents").json()["documents"]] == ["anvils.txt"]
        assert bob.get("/documents").json()["documents"] == []
        assert len(free.get("/documents").json()["documents"]) == 3
        assert bob.post("/retrieve", json={"question": "Acme sells anvils."}).json()["sources"] == []
        found = ada.post("/retrieve", json={"question": "Acme sells anvils."}).json()["sources"]
        assert [one["source"] for one in found] == ["anvils.txt"]
        assert bob.post("/query", json=QUESTION).json()["known"] is False


def test_a_tenant_cannot_be_named_in_a_request(server: Running, keys: dict[str, str]) -> None:
    """Neither in the body, nor as a filter, a header or a parameter."""
    with server.client(keys["bob"]) as bob:
        assert refusal(bob.post("/query", json={**QUESTION, "tenant": "acme"})) == (400, "bad_body")
        narrowed = bob.post(
            "/retrieve",
            json={"question": "Acme sells anvils.", "filters": ["tenant=acme"]},
            headers={"X-Tenant": "acme", "X-Forwarded-User": "ada"},
        )
        assert narrowed.json()["sources"] == []
        assert refusal(bob.post("/retrieve?tenant=acme", json=QUESTION)) == (400, "bad_parameter")


def test_a_read_only_key_changes_nothing(server: Running, keys: dict[str, str]) -> None:
    """403 on every route that writes."""
    with server.client(keys["bob"]) as bob:
        body = {"documents": [{"id": "a", "text": "b"}]}
        assert refusal(bob.post("/ingest", json=body)) == (403, "read_only_key")
        assert refusal(bob.delete("/documents/anvils.txt")) == (403, "read_only_key")
        assert refusal(bob.delete("/ingest/x")) == (403, "read_only_key")


def test_one_callers_job_is_nobody_elses(server: Running, keys: dict[str, str]) -> None:
    """It is not listed, not shown and not stopped by another key."""
    with server.client(keys["ada"]) as ada, server.client(keys["free"]) as free:
        job = ada.post("/ingest", json={"documents": [{"id": "a", "text": "Acme."}]}).json()
        assert [one["id"] for one in ada.get("/ingest").json()["jobs"]] == [job["id"]]
        assert free.get("/ingest").json()["jobs"] == []
        assert refusal(free.get(f"/ingest/{job['id']}")) == (404, "job_not_found")
        assert refusal(free.delete(f"/ingest/{job['id']}")) == (404, "job_not_found")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/query", QUESTION),
        ("/v1/chat/completions", {"model": "kb", "messages": [{"role": "user", "content": QUESTION["question"]}]}),
        (
            "/v1/chat/completions",
            {"model": "kb", "stream": True, "messages": [{"role": "user", "content": QUESTION["question"]}]},
        ),
        ("/v1/responses", {"model": "kb", "input": QUESTION["question"]}),
    ],
)  # fmt: skip
def test_a_budget_refuses_before_the_model_is_called(
    server: Running, keys: dict[str, str], path: str, body: dict[str, Any]
) -> None:
    """402 with the end of the period for people and programs; the model hears nothing."""
    before = len(server.engine.llm.prompts)  # type: ignore[attr-defined]
    with server.client(keys["poor"]) as poor:
        response = poor.post(path, json=body)
    assert refusal(response) == (402, "budget_exceeded")
    error = response.json()["error"]
    assert "resets at" in error["message"] and error["resets_at"].endswith("00:00:00+00:00")
    assert 0 < int(response.headers["retry-after"]) <= 86_400
    assert len(server.engine.llm.prompts) == before  # type: ignore[attr-defined]


def test_a_stream_over_budget_ends_with_the_refusal(server: Running, keys: dict[str, str]) -> None:
    """Sources have been sent by then; the error event has the status that the response cannot have any more."""
    with server.client(keys["poor"]) as poor:
        text = poor.post("/query/stream", json=QUESTION).text
    name, data = text.strip().split("\n\n")[-1].split("\n")
    error = json.loads(data.removeprefix("data: "))
    assert (name, error["status"], error["error"]["code"]) == ("event: error", 402, "budget_exceeded")


def test_a_rate_is_kept(server: Running, keys: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """429 with the seconds to wait, for that caller alone; the log says who is held back."""
    caplog.set_level("INFO", logger="llama_index_presets.serve")
    with server.client(keys["eager"]) as eager, server.client(keys["free"]) as free:
        assert [eager.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
        response = eager.get("/v1/models")
        assert refusal(response) == (429, "rate_limited")
        assert 0 < int(response.headers["retry-after"]) <= 1_800
        assert free.get("/v1/models").status_code == 200
    assert [one.args[-1] for one in caplog.records if one.args and 429 in one.args] == ["eager"] * 2


def test_groups_without_permissions_are_refused(server: Running, keys: dict[str, str]) -> None:
    """Fail closed: where the storage has no permissions to hold an engine to, a key with groups sees nothing."""
    with server.client(keys["grouped"]) as grouped:
        assert refusal(grouped.post("/query", json=QUESTION)) == (403, "permissions_off")
        assert refusal(grouped.get("/documents")) == (403, "permissions_off")


def test_costs_are_the_callers_own(server: Running, keys: dict[str, str]) -> None:
    """A key without a tenant sees its own calls, a tenant's key those of the tenant."""
    with server.client(keys["free"]) as free, server.client(keys["ada"]) as ada:
        free.post("/query", json=QUESTION).raise_for_status()
        mine = free.get("/costs", params={"by": "tag"}).json()
        assert "key:free" in [line["key"] for line in mine["by"]]
        assert not {"key:ada", "key:poor"} & {line["key"] for line in mine["by"]}
        theirs = ada.get("/costs", params={"by": "tenant"}).json()
        assert [line["key"] for line in theirs["by"]] == ["acme"]


def test_a_key_is_revoked_and_added_while_the_server_runs(server: Running, folder: Path) -> None:
    """The next request decides by the file as it is then."""
    file = KeyFile(folder / "keys.json")
    key = file.add(Caller(name="brief", budget="0.0000001/day"))
    with server.client(key) as client:
        assert client.get("/v1/models").status_code == 200
        assert refusal(client.post("/query", json=QUESTION)) == (402, "budget_exceeded")
        file.revoke("brief")
        assert refusal(client.get("/v1/models")) == (401, "invalid_api_key")


def test_damaged_keys_let_nobody_in(server: Running, folder: Path, keys: dict[str, str]) -> None:
    """503, not an open door; the file as it was opens it again."""
    path = folder / "keys.json"
    content = path.read_text()
    with server.client(keys["ada"]) as client:
        path.write_text("{")
        assert refusal(client.get("/v1/models")) == (503, "keys_unreadable")
        path.write_text(content)
        assert client.get("/v1/models").status_code == 200


def test_the_audit_log_names_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`who` is the name of the key, whatever the request says."""
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", "0" * 32)
    keys = add_keys(tmp_path / "keys.json", {"auditor": {}})
    engines = {
        "kb": EngineConfig(
            preset="knowledge-base", storage=str(tmp_path / "kb"), settings={"monitoring": "audit"}
        )
    }
    with running(config_of(tmp_path, keys=str(tmp_path / "keys.json"), engines=engines)) as server:
        with server.client(keys["auditor"]) as client:
            client.post("/query", json=QUESTION, headers={"X-User": "root"}).raise_for_status()
        state = Path(server.engine.explain()["state"])
    log = AuditLog(state / "audit.jsonl", key=audit_key(make=False))
    assert log.verify().ok
    assert re.findall(r'"who": ?"([^"]*)"', log.path.read_text()) == ["auditor"]


def test_a_proxys_user_is_believed_only_of_the_proxy(tmp_path: Path) -> None:
    """The header counts from a named address; from another it does not, and an unknown user is refused."""
    add_keys(tmp_path / "keys.json", {"ada": {"tenant": "acme"}})
    common: dict[str, Any] = {"keys": str(tmp_path / "keys.json"), "identity_header": "X-Forwarded-User"}
    with running(config_of(tmp_path, proxies=("127.0.0.1",), **common)) as server, server.client() as client:
        assert client.get("/documents", headers={"X-Forwarded-User": "ada"}).json()["documents"] == []
        assert refusal(client.get("/documents", headers={"X-Forwarded-User": "eve"})) == (
            403,
            "unknown_caller",
        )
    with running(config_of(tmp_path, proxies=("10.0.0.1",), **common)) as server, server.client() as client:
        assert refusal(client.get("/documents", headers={"X-Forwarded-User": "ada"})) == (
            401,
            "missing_api_key",
        )


def test_an_identity_that_came_twice_is_refused(tmp_path: Path) -> None:
    """One of the two may be of the client, and which one a proxy appends is its own affair."""
    add_keys(tmp_path / "keys.json", {"ada": {"tenant": "acme"}, "eve": {}})
    options: dict[str, Any] = {"keys": str(tmp_path / "keys.json"), "proxies": ("127.0.0.1",)}
    with (
        running(config_of(tmp_path, identity_header="X-Forwarded-User", **options)) as server,
        server.client() as client,
    ):
        twice = [("X-Forwarded-User", "ada"), ("x-forwarded-user", "eve")]
        assert refusal(client.get("/documents", headers=twice)) == (403, "two_identities")


def test_an_identity_header_without_keys_is_no_access(tmp_path: Path) -> None:
    """Its names are those of keys: without any, everybody was let in."""
    config = config_of(tmp_path, identity_header="X-User", proxies=("127.0.0.1",))
    with pytest.raises(SettingsError, match="there are no keys"):
        make_server(config)


def test_a_first_key_closes_a_server_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as there is a file of keys each request needs one; not when the file is gone again either."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with running(config_of(tmp_path)) as server, server.client() as client:
        assert client.get("/documents").status_code == 200
        file = KeyFile(default_key_file())
        key = file.add(Caller(name="ada", budget="0.0000001/day"))
        assert refusal(client.get("/documents")) == (401, "missing_api_key")
        with server.client(key) as ada:
            assert ada.get("/documents").status_code == 200
            assert refusal(ada.post("/query", json=QUESTION)) == (402, "budget_exceeded")
        file.path.unlink()
        assert refusal(client.get("/documents")) == (401, "missing_api_key")


def test_a_link_that_leads_nowhere_is_a_file_of_keys(tmp_path: Path) -> None:
    """A mount that is late does not open the server."""
    (tmp_path / "keys.json").symlink_to(tmp_path / "not-mounted-yet")
    assert KeyFile(tmp_path / "keys.json").asked


def test_a_key_revoked_in_an_ingest_ends_it(tmp_path: Path) -> None:
    """The next batch is not ingested: the key's budget went with the key, so nothing would hold it."""
    keys = add_keys(tmp_path / "keys.json", {"ada": {}, "bob": {}})
    with running(config_of(tmp_path, keys=str(tmp_path / "keys.json"))) as server:
        with server.client(keys["ada"]) as ada, ingest_lock(tmp_path / "kb" / "ingest.lock"):
            job = ada.post("/ingest", json={"documents": [{"id": "owls", "text": "Owls hunt."}]}).json()["id"]
            wait_for(lambda: ada.get(f"/ingest/{job}").json()["status"] == "waiting")
            KeyFile(tmp_path / "keys.json").revoke("ada")
        table = server.process.server.jobs.table(server.process.server.engines.all()[0])
        ended = wait_for(
            lambda: one if (one := table.get(job)).status not in ("waiting", "running") else None
        )
        assert (ended.status, "was revoked" in ended.error) == ("failed", True)
        assert "owls" not in server.engine.documents()


def test_a_key_has_one_budget_over_all_engines(tmp_path: Path) -> None:
    """What it spends with one engine is missing at the other; another key is not held to it."""
    keys = add_keys(tmp_path / "keys.json", {"ada": {"budget": "0.00001/day"}, "bob": {}})
    engines = {
        name: EngineConfig(preset="knowledge-base", storage=str(tmp_path / name)) for name in ("one", "two")
    }
    with (
        running(
            config_of(tmp_path, keys=str(tmp_path / "keys.json"), engines=engines), sums=tmp_path / "sums"
        ) as server,
        server.client(keys["ada"]) as ada,
        server.client(keys["bob"]) as bob,
    ):
        first = next(iter(server.process.server.engines.all())).engine
        first.ledger.record(
            kind="llm", provider="openai", model="gpt-4o-mini", prompt_tokens=1_000, completion_tokens=0, latency_ms=1,
            tags=("key:ada",),
        )  # fmt: skip
        for name in ("one", "two"):
            assert refusal(ada.post("/query", json={**QUESTION, "engine": name})) == (402, "budget_exceeded")
            assert bob.post("/query", json={**QUESTION, "engine": name}).status_code == 200


def test_a_budget_race_of_64_callers_spends_no_more(tmp_path: Path) -> None:
    """Of 64 questions at once, those that the budget covers are answered; the ledger holds no cent beyond."""
    keys = add_keys(tmp_path / "keys.json", {"racer": {"budget": "0.003/day"}})
    with running(config_of(tmp_path, keys=str(tmp_path / "keys.json")), sums=tmp_path / "sums") as server:
        statuses: list[int] = []

        def ask() -> None:
            with server.client(keys["racer"]) as client:
                statuses.append(client.post("/query", json=QUESTION).status_code)

        threads = [threading.Thread(target=ask) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 402}
        spent = server.engine.ledger.get_usage_stats(tag="key:racer")
        assert float(spent.total_cost_usd) <= 0.003
        assert len(server.engine.llm.prompts) == statuses.count(200)  # type: ignore[attr-defined]


# -- the file and its commands ----------------------------------------------------------------------------------------


def test_the_file_holds_hashes_for_its_owner_alone(tmp_path: Path) -> None:
    """No part of a secret is in it, and nobody else may read it."""
    path = tmp_path / "deep" / "keys.json"
    key = KeyFile(path).add(Caller(name="ada"))
    assert key.split("-", 2)[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_slow_read_does_not_bring_a_revoked_key_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads read the file, one before a key was revoked: its callers stood under the stamp of the new file."""
    KeyFile(tmp_path / "keys.json").add(Caller(name="ada"))
    has_read, go_on = threading.Event(), threading.Event()
    read = KeyFile._read

    class Served(KeyFile):
        def _read(self) -> list[Caller]:
            found = read(self)
            if threading.current_thread() is late:
                has_read.set()
                assert go_on.wait(60)
            return found

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if has_read.is_set() and threading.current_thread() is not late and not go_on.is_set():
                go_on.set()  # the late thread keeps what it read amid what this one does
                late.join(60)

    served = Served(tmp_path / "keys.json")
    late = threading.Thread(target=served.callers)
    late.start()
    assert has_read.wait(60)
    KeyFile(tmp_path / "keys.json").revoke("ada")
    assert not served.callers()
    assert go_on.is_set() and not served.callers()


def test_a_file_of_keys_that_notepad_saved_is_read(tmp_path: Path) -> None:
    """A byte order mark is no reason to let nobody in."""
    file = KeyFile(tmp_path / "keys.json")
    key = file.add(Caller(name="ada"))
    file.path.write_text(file.path.read_text("utf-8"), encoding="utf-8-sig")
    assert KeyFile(file.path).caller(key).name == "ada"


def test_commands_add_list_and_revoke(tmp_path: Path) -> None:
    """The key is printed once, alone on standard output; a list has no hash."""
    runner, path = CliRunner(), str(tmp_path / "keys.json")
    options = [
        "--tenant",
        "acme",
        "--groups",
        "hr,all",
        "--budget",
        "5/day",
        "--expires",
        "90d",
        "--keys",
        path,
    ]
    made = runner.invoke(app, ["key", "add", "ada", *options])
    assert made.exit_code == 0
    caller = KeyFile(Path(path)).caller(made.stdout.strip())
    assert (caller.tenant, caller.groups, caller.budget) == ("acme", ("hr", "all"), "5/day")
    listed = json.loads(runner.invoke(app, ["key", "list", "--keys", path, "--json"]).stdout)["keys"]
    assert [one["name"] for one in listed] == ["ada"]
    assert "sha256" not in listed[0]
    assert runner.invoke(app, ["key", "add", "ada", "--keys", path]).exit_code == 2
    assert runner.invoke(app, ["key", "revoke", "ada", "--keys", path]).exit_code == 0
    assert runner.invoke(app, ["key", "revoke", "ada", "--keys", path]).exit_code == 2


@pytest.mark.parametrize("text", ["five/day", "0/day", "-1/day", "5/year", "nan/day", "inf/day", ""])
def test_budgets_are_amounts_and_periods(text: str) -> None:
    """Anything else is refused where the key is made."""
    with pytest.raises(SettingsError, match="is no budget"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["many/minute", "²/minute", "0/minute", "5/year", "5", "1.5/minute"])
def test_rates_are_counts_and_periods(text: str) -> None:
    """Anything else is refused where the key is made."""
    with pytest.raises(SettingsError, match="is no rate"):
        parse_rate(text)


@pytest.mark.parametrize(
    "caller", [Caller(name=""), Caller(name="a b"), Caller(name="a\n"), Caller(name="x" * 101)]
)
def test_names_are_plain(tmp_path: Path, caller: Caller) -> None:
    """A name goes into tags, logs and tables."""
    with pytest.raises(SettingsError, match="not usable"):
        KeyFile(tmp_path / "keys.json").add(caller)
    with pytest.raises(SettingsError, match="is no date"):
        parse_expiry("soon")
    with pytest.raises(SettingsError, match="is over already"):
        parse_expiry("2020-01-31")


ENTRY: dict[str, Any] = {"name": "ada", "id": "abc", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tenant": None}, "tenant is None, expected a text"),
        ({"tenant": []}, r"tenant is \[\], expected a text"),
        ({"tenant": " "}, "outer spaces"),
        ({"tenant": "\0bob"}, "control characters"),  # the folder of uploads of the key bob
        ({"tenat": "acme"}, "'tenat' is unknown"),
        ({"groups": "hr"}, "groups is 'hr', expected a list"),
        ({"groups": None}, "groups is None"),
        ({"groups": [None]}, r"groups is \[None\]"),
        ({"groups": [""]}, "group '' is not usable"),
        ({"groups": ["user:root"]}, "not usable"),
        ({"budget": None}, "budget is None"),
        ({"budget": 5}, "budget is 5"),
        ({"budget": "NaN/day"}, "is no budget"),
        ({"budget": "-1/day"}, "is no budget"),
        ({"budget": "€5/day"}, "is no budget"),
        ({"rate": False}, "rate is False"),
        ({"rate": "0/minute"}, "is no rate"),
        ({"expires": None}, "expires is None"),
        ({"expires": 0}, "expires is 0"),
        ({"expires": "soon"}, "is no date"),
        ({"read_only": None}, "read_only is None"),
        ({"read_only": "yes"}, "read_only is 'yes'"),
        ({"id": ""}, "id and sha256"),
        ({"sha256": ""}, "id and sha256"),
        ({"name": ""}, "is not usable"),
    ],
)
def test_an_entry_that_is_wrong_opens_nothing(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    """A tenant that is null, or a budget, was taken for none at all. No key of such a file counts; it says which."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"version": 1, "keys": [{**ENTRY, **change}]}))
    with pytest.raises(SettingsError, match=f"key 1, .*{reason}.*no key is accepted"):
        KeyFile(path).callers()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "JSONDecodeError"),
        ("[]", "expected"),
        ('{"keys": {}}', "expected"),
        ('{"version": 2, "keys": []}', "expected"),
        ('{"keys": [5]}', "key 1 is no object"),
        ('{"keys": [{"tenant": "acme", "tenant": ""}]}', "'tenant' is given twice"),
        (json.dumps({"keys": [ENTRY, {**ENTRY, "id": "b"}]}), "two keys have the name 'ada'"),
        (json.dumps({"keys": [ENTRY, {**ENTRY, "name": "b"}]}), "two keys have the id 'abc'"),
    ],
)
def test_a_file_that_means_two_things_opens_nothing(tmp_path: Path, text: str, reason: str) -> None:
    """Of two values JSON takes the last, and of two keys one would be found by name and another by id."""
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(SettingsError, match=reason):
        KeyFile(tmp_path / "keys.json").callers()


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")
def test_a_file_that_anybody_may_write_opens_nothing(tmp_path: Path) -> None:
    """Any user of the machine could add a key; a change of the mode alone is seen."""
    file = KeyFile(tmp_path / "keys.json")
    key = file.add(Caller(name="ada"))
    assert file.caller(key).name == "ada"
    file.path.chmod(0o646)
    with pytest.raises(SettingsError, match="chmod o-w"):
        file.caller(key)


@pytest.mark.parametrize("option", ["--tenant", "--groups", "--budget", "--rate", "--expires", "--keys"])
def test_an_empty_option_makes_no_key(tmp_path: Path, option: str) -> None:
    """`--tenant "$TENANT"` with a variable that is not set made a key that sees every tenant."""
    path = tmp_path / "keys.json"
    made = CliRunner().invoke(app, ["key", "add", "ada", "--keys", str(path), option, ""])
    assert (made.exit_code, f"{option} is empty" in made.output, path.exists()) == (2, True, False)
