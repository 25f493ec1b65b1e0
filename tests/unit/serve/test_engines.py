"""Engines of a server: from one TOML file, reloaded under load, warm before the first request."""

from __future__ import annotations

import shutil
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.unit.serve.conftest import LocalWords, add_keys, config_of, opener, running, wait_for

from llama_index_presets.errors import SettingsError, StoreError, StoreUnavailableError, UnknownPresetError
from llama_index_presets.monitor.budgets import Budget
from llama_index_presets.serve.app import create_app, make_server
from llama_index_presets.serve.callers.limits import Limits
from llama_index_presets.serve.config import EngineConfig, ServeConfig, read_config
from llama_index_presets.serve.engines import Engines
from llama_index_presets.serve.protocols.problems import Problem

QUESTION = {"question": "What do cats do all day?"}


def written(folder: Path, text: str) -> Path:
    path = folder / "serve.toml"
    path.write_text(text)
    return path


def test_a_file_names_engines_and_limits(tmp_path: Path) -> None:
    """Paths are relative to the file, URLs are not; the first engine is the default."""
    config = read_config(
        written(
            tmp_path,
            """
            [serve]
            port = 9000
            keys = "keys.json"
            hosts = ["kb.example"]
            [serve.limits]
            answer_s = 5
            [engines.hr]
            preset = "knowledge-base"
            storage = "./hr"
            offline = true
            settings = { top_k = 3 }
            [engines.papers]
            preset = "research-papers"
            storage = "s3://bucket/papers"
            """,
        )
    )
    assert (config.port, config.keys, config.hosts) == (9000, str(tmp_path / "keys.json"), ("kb.example",))
    assert config.limits.answer_s == 5
    assert list(config.engines) == ["hr", "papers"]
    assert config.engines["hr"].storage == str(tmp_path / "hr")
    assert config.engines["papers"].storage == "s3://bucket/papers"


ENGINE = "[engines.a]\npreset = 'healthcare'\nstorage = 'x'"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[engines.a", "is not TOML"),
        ("", "no engine to serve"),
        ("[engines.a]\npreset = 'knowledge-base'", "lacks storage"),
        ("[engines.a]\npreset = 'knowledgebase'\nstorage = 'x'", "Did you mean 'knowledge-base'"),
        ("[engines.a]\npreset = 'healthcare'\nstorage = 'x'\noffline = 'yes'", "offline is 'yes'"),
        ("[engines.a]\npreset = 'healthcare'\nstorage = 'x'\nstorge = 'x'", "did you mean 'storage'"),
        ("[engines.'a b']\npreset = 'healthcare'\nstorage = 'x'", "not usable"),
        ("[engines.a]\npreset = 'healthcare'\nstorage = 'x'\nbudget = 'much'", "is no budget"),
        ("[serve]\nhsot = 'x'\n[engines.a]\npreset = 'healthcare'\nstorage = 'x'", "did you mean 'host'"),
        ("[serve]\nport = 99999\n[engines.a]\npreset = 'healthcare'\nstorage = 'x'", "The port is 99999"),
        ("[serve.limits]\nrunning = 0\n[engines.a]\npreset = 'healthcare'\nstorage = 'x'", "running is 0"),
        (
            "[serve.limits]\nrunning = 'x'\n[engines.a]\npreset = 'healthcare'\nstorage = 'x'",
            "running is 'x'",
        ),
        (f"[serve.limits]\nrunning = 1.5\n{ENGINE}", "running is 1.5. Expected a whole number"),
        (f"[serve.limits]\nrate = false\n{ENGINE}", "rate is False"),
        (f"[serve.limits]\nrate = ''\n{ENGINE}", "rate is empty"),
        (f"[serve]\nworkers = true\n{ENGINE}", "workers is True"),
        (f"[serve]\nkeys = ''\n{ENGINE}", "keys is empty"),
        (f"[serve]\ncertificate = ''\n{ENGINE}", "certificate is empty"),
        (f"[serve]\nhost = ''\n{ENGINE}", "host is empty"),
        (f"[serve]\nhost = ' '\n{ENGINE}", "every address"),
        (f"[serve]\nhosts = ['']\n{ENGINE}", "'' in hosts is no name"),
        (f"[serve]\nhosts = ['https://kb.example.com']\n{ENGINE}", "without scheme"),
        (f"[serve]\nhosts = ['*']\n{ENGINE}", "without scheme, port and stars"),
        (f"[serve]\nidentity_header = 'X-User'\nproxies = ['10.0.0.0/8']\n{ENGINE}", "no IP address"),
        (f"[serve]\nidentity_header = 'X User'\nproxies = ['10.0.0.7']\n{ENGINE}", "no name of a header"),
        ("[engines.a]\npreset = 'healthcare'\nstorage = ''", "storage is empty"),
        (f"{ENGINE}\nbudget = ''", "budget is empty"),
        (f"{ENGINE}\nllm = ''", "llm is empty"),
    ],
)
def test_a_wrong_file_is_refused_with_its_fault(tmp_path: Path, text: str, reason: str) -> None:
    """Before anything is opened."""
    with pytest.raises((SettingsError, UnknownPresetError), match=reason):
        read_config(written(tmp_path, text))


@pytest.mark.parametrize("settings", [{}, {"pattern": "hybrid"}, {"store": "duckdb"}])
def test_a_reload_drops_no_request(tmp_path: Path, settings: dict[str, Any]) -> None:
    """While clients ask, an engine is replaced again and again, over the same storage; every answer comes whole."""
    config = config_of(tmp_path)
    top = iter(range(2, 100))

    def reread() -> ServeConfig:
        one = EngineConfig(
            preset="knowledge-base", storage=str(tmp_path / "kb"), settings={**settings, "top_k": next(top)}
        )
        return config.with_changes(engines={"kb": one})

    with running(reread(), reread=reread) as server:
        statuses: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            with server.client() as client:
                while not stop.is_set():
                    answer = client.post("/query", json=QUESTION)
                    statuses.append(answer.status_code if answer.json()["answer"] == "Yes [1]." else 0)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        engines = []
        for _ in range(3):
            engines.append(server.engine)
            server.process.reload().join()
        stop.set()
        for thread in threads:
            thread.join()
        assert len({id(engine) for engine in [*engines, server.engine]}) == 4
        assert server.engine.settings.top_k == 5
        assert statuses and set(statuses) == {200}
        wait_for(lambda: all(engine._parts.closed for engine in engines))


def test_a_reload_that_fails_changes_nothing(tmp_path: Path) -> None:
    """An engine that cannot be opened leaves the others as they were; what was opened for it is closed."""
    opened = []

    def open_some(config: EngineConfig) -> Any:
        if config.storage == "broken":
            raise StoreError("The storage is damaged.")
        opened.append(opener()(config))
        return opened[-1]

    engines = Engines(open_some)
    good = EngineConfig(preset="knowledge-base", storage=str(tmp_path / "a"))
    engines.open({"a": good})
    first = engines.all()[0]
    other = EngineConfig(preset="knowledge-base", storage=str(tmp_path / "b"))
    with pytest.raises(StoreError, match="damaged"):
        engines.open({"a": good, "b": other, "c": EngineConfig(preset="healthcare", storage="broken")})
    assert engines.all() == [first]
    assert [engine._parts.closed for engine in opened] == [False, True]
    engines.open({"b": other, "a": good})
    assert engines.names == ["b", "a"]
    assert engines.all()[1] is first
    engines.close()
    assert opened[0]._parts.closed
    with pytest.raises(Problem, match="starting"):
        engines.take(None)


def test_a_reload_goes_on_while_the_database_of_another_engine_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its engine stays, and finds again once the database is back; one that is new or changed is opened meanwhile."""
    away: set[str] = set()

    def open_some(config: EngineConfig) -> Any:
        if Path(config.storage).name in away:
            raise StoreUnavailableError("Postgres at db/docs cannot be reached. Start the server.")
        return opener()(config)

    engines = Engines(open_some)
    a, b, c = (EngineConfig(preset="knowledge-base", storage=str(tmp_path / name)) for name in "abc")
    engines.open({"a": a, "b": b})
    before = engines.all()[1]
    (tmp_path / "b").rename(tmp_path / "moved")
    away.add("b")
    engines.open({"a": a, "b": b, "c": c})
    assert engines.names == ["a", "b", "c"]
    assert engines.all()[1] is before
    assert (
        "'b' cannot be opened again and stays as it is: Postgres at db/docs cannot be reached" in caplog.text
    )
    with pytest.raises(StoreUnavailableError):
        engines.open({"a": a, "b": EngineConfig(preset="healthcare", storage=b.storage)})
    (tmp_path / "moved").rename(tmp_path / "b")
    assert before.engine.query("What do cats do all day?").source_nodes
    engines.close()


def test_a_server_starts_while_the_database_of_one_engine_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are served, the absent default gets 503 and no stand-in, and comes when its database is back."""
    monkeypatch.setattr("llama_index_presets.serve.engines._AGAIN_S", 0.05)
    away = {"a"}

    def open_some(config: EngineConfig) -> Any:
        if Path(config.storage).name in away:
            raise StoreUnavailableError("Postgres at db/docs cannot be reached. Start the server.")
        return opener()(config)

    a, b = (EngineConfig(preset="knowledge-base", storage=str(tmp_path / name)) for name in "ab")
    engines = Engines(open_some)
    server = make_server(config_of(tmp_path, engines={"a": a, "b": b}), engines=engines)
    server.open(server.config.engines)
    with TestClient(create_app(server), base_url="http://localhost") as client:
        assert (engines.names, engines.absent) == (["b"], ["a"])
        assert "'a' is not served until its database answers: Postgres at db/docs" in caplog.text
        for body in (QUESTION, {**QUESTION, "engine": "a"}):
            answer = client.post("/query", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
            assert answer.headers["retry-after"] and "Postgres" not in answer.text
        assert client.post("/query", json={**QUESTION, "engine": "b"}).status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, "1 of 2 engines" in ready.json()["detail"]) == (503, True)
        engines.open({"a": a, "b": b})  # a reload meanwhile
        away.clear()
        wait_for(lambda: engines.names == ["a", "b"])
        assert client.post("/query", json=QUESTION).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_a_long_try_of_an_absent_engine_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Postgres is tried for 30 s: no reload and no stop waits for that, and what opens after the end is closed."""
    monkeypatch.setattr("llama_index_presets.serve.engines._AGAIN_S", 0.01)
    began, goes_on, opened, tries = threading.Event(), threading.Event(), [], []

    def open_some(config: EngineConfig) -> Any:
        if Path(config.storage).name == "b":
            return opener()(config)
        tries.append(threading.current_thread())
        if len(tries) == 1:
            raise StoreUnavailableError("Postgres at db/docs cannot be reached. Start the server.")
        if len(tries) < 5:
            raise ValueError("another fault")
        began.set()
        assert goes_on.wait(30)
        opened.append(opener()(config))
        return opened[0]

    a, b = (EngineConfig(preset="knowledge-base", storage=str(tmp_path / name)) for name in "ab")
    engines = Engines(open_some)
    engines.open({"a": a, "b": b})
    assert began.wait(30)
    engines.open({"b": b})  # a reload while it is tried
    engines.close()
    goes_on.set()
    wait_for(lambda: opened and opened[0]._parts.closed)
    assert engines.names == []
    assert len(set(tries[1:])) == 1
    assert caplog.text.count("opening the engine 'a' failed") == 1


def test_a_server_whose_only_database_is_away_does_not_start() -> None:
    """Whoever started it sees why; a supervisor starts it again."""

    def away(config: EngineConfig) -> Any:
        raise StoreUnavailableError("Postgres at db/docs cannot be reached. Start the server.")

    engines = Engines(away)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        engines.open({"a": EngineConfig(preset="knowledge-base", storage="a")})
    assert (engines.names, engines.absent) == ([], [])


def test_an_engine_in_use_is_closed_after_its_last_request(tmp_path: Path) -> None:
    """A lease outlives the replacement of its engine."""
    engines = Engines(opener())
    engines.open({"a": EngineConfig(preset="knowledge-base", storage=str(tmp_path / "a"))})
    with engines.leased("a") as served:
        engines.close()
        assert str(served.engine.query("What do cats do all day?")) == "Yes [1]."
    assert served.engine._parts.closed


def test_readiness_waits_for_the_model(tmp_path: Path) -> None:
    """503 with Retry-After while an engine is opened; its embedding model has been called before the first 200."""
    gate, models = threading.Event(), []

    def slowly(config: EngineConfig) -> Any:
        gate.wait(30)
        engine = opener()(config)
        assert isinstance(engine.embed_model, LocalWords)
        engine.embed_model.embedded.clear()
        models.append(engine.embed_model)
        return engine

    from llama_index_presets.serve.server import Process

    process = Process(config_of(tmp_path), engines=Engines(slowly))
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        import httpx

        with httpx.Client(base_url=process.url) as client:
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 503
            early = client.post("/query", json=QUESTION)
            assert (early.status_code, early.json()["error"]["code"]) == (503, "not_ready")
            assert early.headers["retry-after"]
            gate.set()
            wait_for(lambda: client.get("/readyz").status_code == 200)
            assert models[0].embedded == ["warm-up"]
    finally:
        gate.set()
        process.stop()
        thread.join()


def test_a_server_answers_while_engines_are_opened(tmp_path: Path) -> None:
    """Neither health nor a change of the keys waits for an engine that takes its time."""
    keys = add_keys(tmp_path / "keys.json", {"ada": {"budget": "1/day"}})
    gate = threading.Event()
    config = config_of(tmp_path, keys=str(tmp_path / "keys.json"))

    def slowly(one: EngineConfig) -> Any:
        if one.storage.endswith("late"):
            gate.wait(30)
        return opener()(one)

    late = EngineConfig(preset="knowledge-base", storage=str(tmp_path / "late"))
    with (
        running(config, slowly, reread=lambda: config.with_changes(engines={"late": late})) as server,
        server.client(keys["ada"]) as client,
    ):
        reload = server.process.reload()
        other = add_keys(tmp_path / "keys.json", {"bob": {"budget": "0.0000001/day"}})["bob"]
        assert client.get("/v1/models").json()["data"][0]["id"] == "kb"
        assert client.post("/query", json=QUESTION).status_code == 200
        assert (
            client.post("/query", json=QUESTION, headers={"Authorization": f"Bearer {other}"}).status_code
            == 402
        )
        gate.set()
        reload.join()
        assert client.get("/v1/models").json()["data"][0]["id"] == "late"
        assert (
            client.post("/query", json=QUESTION, headers={"Authorization": f"Bearer {other}"}).status_code
            == 402
        )


def test_an_engine_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    """The process ends with the engine's own error, instead of never being ready."""
    from llama_index_presets.serve.server import Process

    def broken(config: EngineConfig) -> Any:
        raise StoreError("The storage is damaged.")

    with pytest.raises(StoreError, match="damaged"):
        Process(config_of(tmp_path), engines=Engines(broken)).run()


def test_the_budget_of_an_engine_holds_for_everybody(tmp_path: Path) -> None:
    """`budget` of an engine's table refuses when the whole engine has spent it."""
    one = EngineConfig(preset="knowledge-base", storage=str(tmp_path / "kb"), budget="0.0000001/day")
    with running(config_of(tmp_path, engines={"kb": one})) as server, server.client() as client:
        assert client.post("/query", json=QUESTION).status_code == 402
        assert client.get("/documents").status_code == 200


@pytest.mark.parametrize(
    ("top", "says"),
    [
        ('keys = "keys.json"', r"'keys' belongs below \[serve\]"),
        ("[limits]\nbody_mb = 1", r"'limits' belongs below \[serve\]"),
        ('[server]\nkeys = "keys.json"', r"'server' is unknown"),
    ],
)
def test_a_name_in_the_wrong_place_does_not_open_the_server(tmp_path: Path, top: str, says: str) -> None:
    """It was passed over, and a server whose keys stood there asked nobody for one."""
    file = tmp_path / "serve.toml"
    file.write_text(f'{top}\n[engines.one]\npreset = "healthcare"\nstorage = "a"\n')
    with pytest.raises(SettingsError, match=says):
        read_config(file)


def test_budgets_hold_before_a_job_of_an_earlier_process_goes_on(tmp_path: Path) -> None:
    """Who is told of an opened engine, such as the queue of ingests, finds it held to the budgets already."""
    held: list[bool] = []
    engines = Engines(opener(), sums=tmp_path / "sums")
    engines.on_change(lambda served: held.append(served.engine.held_to_budgets), lambda served: None)
    engines.hold_to([Budget(limit_usd=Decimal(5), per="day", by="tag", only="key:ada")])
    engines.open({"kb": EngineConfig(preset="knowledge-base", storage=str(tmp_path / "kb"))})
    engines.close()
    assert held == [True]


def test_a_reload_says_what_it_leaves_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Keys and limits count from the next start; an operator who adds them is not told 'Reloaded' alone."""
    config = config_of(tmp_path)
    fresh = config.with_changes(keys=str(tmp_path / "keys.json"), limits=Limits(rate="1/hour"))
    with running(config, reread=lambda: fresh) as server:
        server.process.reload().join()
    assert "keys, limits of the new configuration does not count before the next start" in caplog.text


def test_a_server_says_that_an_index_cannot_be_read_and_opens_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A load balancer sends nobody here meanwhile; a reload opens the engine again, whose configuration is the same."""
    monkeypatch.setattr("llama_index_presets.serve.engines._FRESH_S", 0)
    config = config_of(tmp_path)
    with running(config, reread=lambda: config) as server, server.client() as client:
        first = server.engine
        server.process.reload().join()
        assert server.engine is first
        shutil.copytree(tmp_path / "kb", tmp_path / "backup")
        shutil.rmtree(tmp_path / "kb")
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "unready")
        assert "1 of 1 engines" in answer.json()["detail"] and str(tmp_path) not in answer.text
        assert "deleted or moved" in caplog.text
        assert client.get("/healthz").status_code == 200
        assert client.post("/query", json=QUESTION).status_code == 502
        (tmp_path / "backup").rename(tmp_path / "kb")
        server.process.reload().join()
        assert server.engine is not first
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.post("/query", json=QUESTION).status_code == 200


def test_a_look_at_the_engines_counts_for_a_while(tmp_path: Path) -> None:
    """Anybody may ask whether the server is ready, so the stores are not asked each time."""
    with running(config_of(tmp_path)) as server, server.client() as client:
        looks: list[int] = []
        (served,) = server.process.server.engines.all()
        server.process.server.engines._looked = None
        served.engine.check_ready = lambda: looks.append(1)  # type: ignore[method-assign]
        assert {client.get("/readyz").status_code for _ in range(20)} == {200}
        assert len(looks) == 1


def test_probes_that_wait_for_an_index_share_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may send them: one thread each would leave none for the requests of the others."""
    monkeypatch.setattr("llama_index_presets.serve.protocols.rest._LOOK_S", 0.05)
    with running(config_of(tmp_path)) as server, server.client() as client:
        looks: list[int] = []
        hanging = threading.Event()
        engines = server.process.server.engines
        monkeypatch.setattr(
            engines, "count_unready", lambda: looks.append(1) or (0 if hanging.wait(20) else 1)
        )
        assert {client.get("/readyz").status_code for _ in range(20)} == {503}
        assert len(looks) == 1
        hanging.set()
        wait_for(lambda: client.get("/readyz").status_code == 200)
