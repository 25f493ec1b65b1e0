"""A server that others try to misuse: foreign hosts and pages, slow clients, public addresses, hostile texts, logs."""

from __future__ import annotations

import datetime
import errno
import logging
import shutil
import socket
import ssl
import threading
import time
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from tests.fakes import ScriptedLLM
from tests.servers.openai import Fault, OpenAIServer
from tests.unit.serve.conftest import Running, add_keys, config_of, opener, running, wait_for

from llama_index_presets.errors import (
    EncryptionError,
    ModelError,
    MonitorError,
    PresetsError,
    ServeError,
    SettingsError,
    StoreCorruptError,
    StoreWriteError,
)
from llama_index_presets.providers.language_models import make_language_model
from llama_index_presets.serve import job_queue
from llama_index_presets.serve.app import create_app, make_server
from llama_index_presets.serve.callers.limits import Limits
from llama_index_presets.serve.engines import Engines
from llama_index_presets.serve.protocols import rest
from llama_index_presets.serve.protocols.problems import log_fault
from llama_index_presets.serve.server import Process

QUESTION = {"question": "What do cats do all day?"}


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", "", "[", "@"]
)
def test_a_foreign_host_is_refused(server: Running, host: str) -> None:
    """DNS rebinding: a page's name that resolves to this machine is not this server's name."""
    with server.client() as client:
        assert code(client.post("/query", json=QUESTION, headers={"Host": host})) == (403, "unknown_host")
        assert code(client.get("/", headers={"Host": host})) == (403, "unknown_host")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_a_page_of_another_origin_is_refused(server: Running, headers: dict[str, str]) -> None:
    """CSRF: a reader's browser must not ask, ingest or spend for a page elsewhere."""
    with server.client() as client:
        assert code(client.post("/query", json=QUESTION, headers=headers)) == (403, "cross_origin")
        assert code(client.get("/documents", headers=headers)) == (403, "cross_origin")


def test_a_page_of_this_server_is_served(server: Running) -> None:
    """Its own origin passes, and so does a link from elsewhere that opens the page."""
    with server.client() as client:
        assert client.post("/query", json=QUESTION, headers={"Origin": server.url}).status_code == 200
        navigation = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert client.get("/", headers=navigation).status_code == 200


def test_a_navigation_of_another_page_only_reads(server: Running) -> None:
    """A form that a page elsewhere submits is a navigation, too."""
    with server.client() as client:
        navigation = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert code(client.post("/query", json=QUESTION, headers=navigation)) == (403, "cross_origin")
        assert code(client.delete("/documents/cats.txt", headers=navigation)) == (403, "cross_origin")


def test_a_body_with_two_lengths_is_refused(server: Running) -> None:
    """A proxy may see its end elsewhere, and the rest as another request; the connection is closed."""
    address = server.url.removeprefix("http://")
    with socket.create_connection(tuple(address.split(":")), timeout=10) as connection:
        connection.sendall(
            f"POST /query HTTP/1.1\r\nHost: {address}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            f"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
        )
        answered = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert b"two_lengths" in answered
    assert answered.count(b"HTTP/1.1 ") == 1


def test_where_an_application_is_mounted_opens_no_route(tmp_path: Path) -> None:
    """Below /page everything looked like a file of the chat page, and needed no key."""
    keys = add_keys(tmp_path / "keys.json", {"ada": {}})
    engine = opener()(config_of(tmp_path).engines["kb"])
    inner = create_app({"kb": engine}, config=config_of(tmp_path, keys=str(tmp_path / "keys.json")))
    with TestClient(inner, base_url="http://localhost"):
        client = TestClient(Starlette(routes=[Mount("/page", inner)]), base_url="http://localhost")
        assert code(client.get("/page/documents")) == (401, "missing_api_key")
        with_key = {"Authorization": f"Bearer {keys['ada']}"}
        assert client.get("/page/documents", headers=with_key).json()["document_count"] == 2
        assert client.get("/page/healthz").status_code == 200


def test_cors_is_off_and_every_response_is_guarded(server: Running) -> None:
    """No origin is allowed anything; a strict policy is on answers, errors and pages."""
    with server.client() as client:
        for response in (client.get("/"), client.post("/query", json=QUESTION), client.get("/nowhere")):
            assert "access-control-allow-origin" not in response.headers
            assert "default-src 'none'" in response.headers["content-security-policy"]
            assert response.headers["x-content-type-options"] == "nosniff"
        preflight = client.options("/query", headers={"Origin": "https://evil.example"})
        assert preflight.status_code == 403


def test_a_form_of_a_page_is_no_question(server: Running) -> None:
    """What a form can send without asking first (text/plain, urlencoded) is not taken."""
    with server.client() as client:
        for media in ("text/plain", "application/x-www-form-urlencoded"):
            response = client.post("/query", content='{"question": "x"}', headers={"content-type": media})
            assert code(response) == (415, "not_json")


def test_a_public_address_needs_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not start without; with keys it does, and refuses who has none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(SettingsError, match="there are no keys"):
            make_server(config_of(tmp_path, host=host))
    with pytest.raises(SettingsError, match="there are no keys"):
        make_server(config_of(tmp_path, host="0.0.0.0", keys=str(tmp_path / "missing.json")))
    add_keys(tmp_path / "keys.json", {"ada": {}})
    assert make_server(config_of(tmp_path, host="0.0.0.0", keys=str(tmp_path / "keys.json"))).keys.asked
    assert not make_server(config_of(tmp_path)).keys.asked


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    """The message names port and host; an address of another machine is refused likewise."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = config_of(tmp_path).with_changes(port=taken.getsockname()[1])
        with pytest.raises(ServeError, match=rf"Port {config.port} of '127.0.0.1' cannot be had"):
            Process(config)


def certificate(folder: Path, name: str = "server") -> tuple[str, str]:
    """A self-signed certificate for loopback and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(chain), str(secret)


def test_tls_works_and_a_wrong_certificate_is_said(tmp_path: Path) -> None:
    """HTTPS with a fitting pair; another key, no file, and no PEM are refused before the start."""
    chain, key = certificate(tmp_path)
    _, other = certificate(tmp_path, "other")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for wrong in ((chain, other), (str(tmp_path / "none.pem"), key), (str(nonsense), key)):
        with pytest.raises(SettingsError, match="certificate|no file"):
            Process(config_of(tmp_path, certificate=wrong[0], private_key=wrong[1]))
    config = config_of(tmp_path, certificate=chain, private_key=key)
    process = Process(config, engines=Engines(opener()))
    assert process.url.startswith("https://")
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        port = process._socket.getsockname()[1]
        trusting = ssl.create_default_context(cafile=chain)
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trusting) as client:
            assert client.get("/healthz").json() == {"status": "ok"}
        trusting.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError), httpx.Client(verify=trusting) as client:
            client.get(f"https://localhost:{port}/healthz")
    finally:
        process.stop()
        thread.join()


def test_slow_clients_are_dropped(tmp_path: Path) -> None:
    """A head that drips, a body that stops, and a connection that says nothing end in time; others are served."""
    limits = Limits(header_s=0.3, body_s=0.3)
    with running(config_of(tmp_path, limits=limits)) as server:
        address = server.process._socket.getsockname()
        silent, head, body = (socket.create_connection(address, timeout=20) for _ in range(3))
        head.sendall(b"POST /query HTTP/1.1\r\nHost: localhost\r\n")
        body.sendall(
            b"POST /query HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"
        )
        with server.client() as client:
            assert client.post("/query", json=QUESTION).status_code == 200
        assert silent.recv(100) == b""
        assert head.recv(100) == b""
        assert b"408" in body.recv(1_000)
        for one in (silent, head, body):
            one.close()


def test_a_full_disk_is_answered_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It counted as a client that has left: an answer without JSON, and not a word in the log."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with running(config_of(tmp_path)) as server, server.client() as client:
        monkeypatch.setattr(rest, "_write", full)
        assert code(client.post("/ingest", files={"f": ("a.txt", "Owls hunt.")})) == (507, "disk_full")
        monkeypatch.undo()
        monkeypatch.setattr(
            job_queue, "_keep_texts", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no"))
        )
        body = {"documents": [{"id": "owls", "text": "Owls hunt."}]}
        assert code(client.post("/ingest", json=body)) == (500, "internal")
        metrics = client.get("/metrics").text
    assert "a request failed: OSError" in caplog.text and "a request failed: PermissionError" in caplog.text
    assert 'route="/ingest",status="507"' in metrics


def test_the_log_says_what_a_broken_storage_wants(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It had the names of classes alone; the caller still learns no path."""
    with running(config_of(tmp_path)) as server, server.client() as client:
        shutil.rmtree(tmp_path / "kb")
        answer = client.post("/query", json=QUESTION)
    assert (answer.status_code, str(tmp_path) in answer.text) == (502, False)
    assert (
        f"StoreUnavailableError: The storage folder '{tmp_path / 'kb'}' was deleted or moved" in caplog.text
    )
    assert "Put it back, or build the engine again (a server: SIGHUP or a restart)." in caplog.text


@pytest.mark.parametrize("kind", [StoreCorruptError, StoreWriteError, EncryptionError, MonitorError])
def test_the_log_tells_of_storages_and_of_nothing_else(
    kind: type[PresetsError], caplog: pytest.LogCaptureFixture
) -> None:
    """A model, a filter or a library may repeat the question, a passage or a key."""
    error = kind("'/srv/kb' is full. Make room.")
    error.__cause__ = ModelError("my secret question")
    error.__cause__.__cause__ = OSError(28, "No space left on device", "secret.pdf")
    log_fault("a request", error)
    assert "Make room" in caplog.text and "OSError: No space left on device" in caplog.text
    assert "ModelError\n" in caplog.text and "secret" not in caplog.text


def test_a_client_that_leaves_amid_its_body_is_no_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody could fill the log with failures of the server, and raise its alarms."""
    head = b"POST /query HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"
    with running(config_of(tmp_path)) as server:
        with socket.create_connection(server.process._socket.getsockname(), timeout=20) as leaving:
            leaving.sendall(head)
            time.sleep(0.2)
        with server.client() as client:
            wait_for(lambda: 'route="/query",status="499"' in client.get("/metrics").text)
    assert "failed" not in caplog.text


def test_a_client_that_does_not_read_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response is given up in time; nothing of it stays open."""
    import asyncio

    from llama_index_presets.serve.callers.limits import ClientTooSlow, bounded_send

    async def never(message: object) -> None:
        await asyncio.Event().wait()

    async def send() -> None:
        await bounded_send(never, 0.05)({"type": "http.response.body", "body": b"x"})

    with pytest.raises(ClientTooSlow, match=r"not read within 0\.05 s"):
        asyncio.run(send())


def test_logs_hold_no_question_passage_or_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests, refusals and a failure are logged with route, status and caller; never with a text or a secret."""
    keys = add_keys(tmp_path / "keys.json", {"ada": {}})
    caplog.set_level(logging.DEBUG, "llama_index_presets")
    with (
        running(config_of(tmp_path, keys=str(tmp_path / "keys.json"))) as server,
        server.client(keys["ada"]) as client,
    ):
        client.post("/query", json={"question": "SECRETQUESTION purr cats all day"})
        client.post("/query/stream", json={"question": "SECRETQUESTION purr cats all day"})
        client.post("/query?question=SECRETQUESTION", content=b"{SECRETQUESTION")
        client.get("/documents/SECRETQUESTION")

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("SECRETQUESTION in an error of a library")

        server.engine.vector_store.__dict__["_broken"] = True
        view = server.process.server.engines.all()[0].view(
            next(iter(server.process.server.keys.callers().values()))
        )  # type: ignore[union-attr]
        view.query = fail  # type: ignore[method-assign,assignment]
        failed = client.post("/query", json={"question": "SECRETQUESTION"})
        assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal")
        assert "SECRETQUESTION" not in failed.text
    assert "POST /query 200" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "SECRETQUESTION" not in caplog.text
    assert keys["ada"] not in caplog.text
    assert keys["ada"].split("-", 2)[2] not in caplog.text


def test_waiting_requests_are_bounded(tmp_path: Path) -> None:
    """When all places are taken and the queue is full, the next one is told to come back."""
    gate = threading.Event()

    class Slow(ScriptedLLM):
        def complete(self, prompt: str, formatted: bool = False, **kwargs: object):  # type: ignore[no-untyped-def,override]
            gate.wait(30)
            return super().complete(prompt, formatted, **kwargs)

    limits = Limits(running=1, waiting=1, wait_s=0.2)
    with running(config_of(tmp_path, limits=limits), opener(Slow)) as server:
        answers: list[httpx.Response] = []

        def ask() -> None:
            with server.client() as client:
                answers.append(client.post("/query", json=QUESTION))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        wait_for(lambda: len(answers) == 2)
        assert [code(one) for one in answers] == [(503, "busy")] * 2
        assert all(int(one.headers["retry-after"]) > 0 for one in answers)
        gate.set()
        for thread in threads:
            thread.join()
        assert answers[-1].status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """504, whole and as a stream; the thread is free again when the model has ended."""
    gate = threading.Event()

    class Slow(ScriptedLLM):
        def complete(self, prompt: str, formatted: bool = False, **kwargs: object):  # type: ignore[no-untyped-def,override]
            gate.wait(30)
            return super().complete(prompt, formatted, **kwargs)

        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: object):  # type: ignore[no-untyped-def,override]
            gate.wait(30)
            return super().stream_complete(prompt, formatted, **kwargs)

    with (
        running(config_of(tmp_path, limits=Limits(answer_s=0.3)), opener(Slow)) as server,
        server.client() as client,
    ):
        assert code(client.post("/query", json=QUESTION)) == (504, "timeout")
        assert '"status":504' in client.post("/query/stream", json=QUESTION).text.replace(" ", "")
        gate.set()
        wait_for(lambda: server.process.server.answers.slots.taken == 0)
        assert client.post("/query", json=QUESTION).status_code == 200


def test_a_model_that_asks_to_wait_longer_than_the_answer_may_take_is_not_waited_for(tmp_path: Path) -> None:
    """The thread slept, and then paid for an answer that nobody waited for."""
    with OpenAIServer(fail_always=Fault(status=429, retry_after="60")) as models:

        def limited() -> object:
            return make_language_model(f"{models.url}#qwen3", {"context_window": 8_000})

        with (
            running(config_of(tmp_path, limits=Limits(answer_s=30)), opener(limited)) as server,
            server.client() as client,
        ):
            began = time.monotonic()
            answer = client.post("/query", json=QUESTION, timeout=60)
            assert code(answer) == (502, "upstream_failed")  # it was "The server failed"
            assert answer.headers["retry-after"] == "60"
            assert time.monotonic() - began < 25
            wait_for(lambda: server.process.server.answers.slots.taken == 0)
        assert len(models.requests) == 1


def test_limits_are_numbers_above_zero() -> None:
    """All faults at once."""
    with pytest.raises(SettingsError, match=r"answer_s is -1; running is 0"):
        Limits(running=0, answer_s=-1)
    with pytest.raises(SettingsError, match=r"stop_s is inf. Expected a number > 0, at most 1,000,000,000"):
        Limits(stop_s=float("inf"))  # which no function that waits takes
    with pytest.raises(SettingsError, match="is no rate"):
        Limits(rate="fast")


def test_an_identity_header_needs_a_proxy(tmp_path: Path) -> None:
    """A header that anybody can send is believed of nobody by default."""
    with pytest.raises(SettingsError, match="belong together"):
        config_of(tmp_path, identity_header="X-User")
