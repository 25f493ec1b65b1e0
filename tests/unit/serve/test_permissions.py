"""A server over a storage with permissions: each key is shown what its groups allow, whatever it asks through."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core import Document
from tests.unit.serve.conftest import LocalWords, PaidLLM, Running, config_of, opener, running

from llama_index_presets import build
from llama_index_presets.errors import PermissionsError
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.serve.callers.key_file import Caller, KeyFile
from llama_index_presets.serve.config import EngineConfig
from llama_index_presets.serve.engines import Engines
from llama_index_presets.serve.protocols.problems import Problem

SECRETS = {
    "hr": "Salaries are seven marmots.",
    "sales": "Quotas are nine marmots.",
    "none": "Nobody reads marmots.",
}
ALLOWED = {"hr": ["hr"], "sales": ["sales"], "none": []}
WORDS = {"hr": "seven", "sales": "nine", "none": "nobody"}


def open_engine(config: EngineConfig) -> PresetEngine:
    settings = {"permissions": "on", "monitoring": "audit"}
    engine = build(
        config.preset, storage=config.storage, embed_model=LocalWords(), llm=PaidLLM(), settings=settings
    )
    engine.ingest(
        [
            Document(text=text, id_=f"{name}.txt", metadata={"allowed": ALLOWED[name]})
            for name, text in SECRETS.items()
        ],
        show_progress=False,
    )
    return engine


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    groups = {"ada": ("hr",), "bob": ("sales",), "cyd": ("hr", "sales"), "eve": ("marketing",), "old": ()}
    made = {name: file.add(Caller(name=name, groups=listed)) for name, listed in groups.items()}
    return {**made, "file": str(file.path)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, str]) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("permitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        with running(config_of(folder, keys=keys["file"]), open_engine) as one:
            yield one


def mcp(client: httpx.Client, tool: str, **arguments: Any) -> str:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    }
    accept = {"Accept": "application/json, text/event-stream"}
    return client.post("/mcp", json=body, headers=accept).raise_for_status().text


ASK = "How many marmots are salaries and quotas, and what does nobody read?"
WAYS: dict[str, Callable[[httpx.Client], str]] = {
    "query": lambda client: client.post("/query", json={"question": ASK}).raise_for_status().text,
    "stream": lambda client: client.post("/query/stream", json={"question": ASK}).raise_for_status().text,
    "filtered": lambda client: (
        client.post("/retrieve", json={"question": ASK, "filters": ["permissions:allowed!=x"]})
        .raise_for_status()
        .text
    ),
    "retrieve": lambda client: client.post("/retrieve", json={"question": ASK}).raise_for_status().text,
    "documents": lambda client: client.get("/documents").raise_for_status().text,
    "openai": lambda client: (
        client.post(
            "/v1/chat/completions",
            json={"model": "kb", "messages": [{"role": "user", "content": ASK}]},
        )
        .raise_for_status()
        .text
    ),
    "follow-up": lambda client: (
        client.post(
            "/v1/chat/completions",
            json={
                "model": "kb",
                "messages": [
                    {"role": "user", "content": "Salaries?"},
                    {"role": "assistant", "content": "See hr.txt and sales.txt."},
                    {"role": "user", "content": ASK},
                ],
            },
        )
        .raise_for_status()
        .text.replace("See hr.txt and sales.txt.", "")
    ),
    "mcp search": lambda client: mcp(client, "search", query=ASK),
    "mcp ask": lambda client: mcp(client, "ask", question=ASK),
    "mcp documents": lambda client: mcp(client, "list_documents"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "groups"), [("ada", {"hr"}), ("bob", {"sales"}), ("cyd", {"hr", "sales"}), ("eve", set())]
)
def test_no_way_shows_what_the_groups_do_not_allow(
    server: Running, keys: dict[str, str], way: str, name: str, groups: set[str]
) -> None:
    """What comes back names the documents of the caller's groups, and holds no word of the others."""
    with server.client(keys[name]) as client:
        said = WAYS[way](client).lower()
    shown = {
        one
        for one in SECRETS
        if f"{one}.txt" in said or (WORDS[one] in said and WORDS[one] not in ASK.lower())
    }
    assert shown <= groups
    assert way in ("query", "openai", "follow-up", "mcp ask") or shown == groups


def test_the_model_reads_nothing_of_others(server: Running, keys: dict[str, str]) -> None:
    """No prompt of a caller's question holds a passage that they may not see."""
    model: Any = server.engine.llm
    model.prompts.clear()
    with server.client(keys["ada"]) as client:
        client.post("/query", json={"question": "What are quotas of marmots?"}).raise_for_status()
    assert not any("nine" in prompt for prompt in model.prompts)


@pytest.mark.parametrize("name", ["old", "eve"])
def test_other_documents_are_not_there(server: Running, keys: dict[str, str], name: str) -> None:
    """A key without groups is refused, a document of other groups is none."""
    with server.client(keys[name]) as client:
        refused = client.get("/documents") if name == "old" else client.delete("/documents/hr.txt")
        expected = (403, "groups_needed") if name == "old" else (404, "document_not_found")
        assert (refused.status_code, refused.json()["error"]["code"]) == expected


def test_uploads_of_one_name_stay_apart(server: Running, keys: dict[str, str]) -> None:
    """What a key uploads is seen by that key alone; a second upload of the name replaces nothing of the first."""
    for name, word in (("ada", "alpha"), ("cyd", "gamma")):
        with server.client(keys[name]) as client:
            files = {"file": ("notes.txt", f"The password is {word}.".encode())}
            job = client.post("/ingest", files=files).raise_for_status().json()["id"]
            until = time.monotonic() + 30
            while client.get(f"/ingest/{job}").json()["status"] not in ("done", "failed"):
                assert time.monotonic() < until
                time.sleep(0.05)
            assert client.get(f"/ingest/{job}").json()["report"]["failed"] == []
            sidecar = {"file": ("notes.txt", b"x"), "metadata": (None, '{"allowed": ["sales"]}')}
            assert client.post("/ingest", files=sidecar).status_code == 400
    for name, own, other in (("ada", "alpha", "gamma"), ("cyd", "gamma", "alpha")):
        with server.client(keys[name]) as client:
            said = client.post("/retrieve", json={"question": "What is the password?"}).text
            listed = [one["id"] for one in client.get("/documents").json()["documents"]]
        assert own in said and other not in said
        assert listed.count("uploads/notes.txt") == 1


def test_embeddings_need_groups_too_and_the_audit_log_names_the_key(
    server: Running, keys: dict[str, str]
) -> None:
    """Every request is one of a user; what was asked is on record under the name of the key."""
    with server.client(keys["ada"]) as ada, server.client(keys["old"]) as old:
        body = {"model": "kb", "input": "marmots"}
        assert ada.post("/v1/embeddings", json=body).status_code == 200
        assert old.post("/v1/embeddings", json=body).status_code == 403
        ada.post("/query", json={"question": ASK}).raise_for_status()
    log = Path(server.engine.explain()["state"]) / "audit.jsonl"
    assert re.findall(r'"who": ?"([^"]*)"', log.read_text())[-1] == "ada"
    assert json.loads(log.read_text().splitlines()[-1])["entry"]["who"] == "ada"


def test_permissions_that_are_turned_on_meanwhile_hold_for_all_callers(tmp_path: Path) -> None:
    """The first caller after the change is not the only one whose view is made again."""
    config = EngineConfig(preset="knowledge-base", storage=str(tmp_path / "kb"))
    engines = Engines(opener())
    engines.open({"kb": config})
    served = engines.all()[0]
    callers = [Caller(name=name, id=name) for name in ("ada", "bob")]
    before = [served.view(caller) for caller in callers]
    build(
        config.preset,
        storage=config.storage,
        embed_model=served.engine.embed_model,
        llm=served.engine.llm,
        settings={"permissions": "on"},
    ).close()
    for caller, view in zip(callers, before, strict=True):
        with pytest.raises(Problem, match="caller has none"):
            served.view(caller)
        with pytest.raises(PermissionsError, match="user"):
            view.query("What do cats do?")
    engines.close()
