"""The level `audit`: every question on record, however it was asked and whatever became of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.base.llms.types import CompletionResponse
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import AuditError, SettingsError
from llama_index_presets.monitor.audit import audit_key, audit_key_file, verify
from llama_index_presets.presets.engine import PresetEngine

KEY = "the operator's own secret"
SETTINGS: dict[str, Any] = {
    "monitoring": "audit",
    "pattern": "simple",
    "store": "duckdb",
    "answer_floor": -1.0,
}
REPORT = Document(text="Acme earned 7 million in 2024.", doc_id="acme")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PresetEngine]:
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", KEY)
    with make(tmp_path / "s") as made:
        made.ingest([REPORT])
        yield made


def make(storage: Path, llm: ScriptedLLM | None = None) -> PresetEngine:
    llm = llm or ScriptedLLM(says="7 million [1].", prompts=[])
    return build("knowledge-base", storage=storage, llm=llm, embed_model=WordEmbedding(), settings=SETTINGS)


def entries(engine: PresetEngine) -> list[dict]:
    return [json.loads(line)["entry"] for line in engine._parts.storage.audit.read_text().splitlines()]


def test_a_key_may_be_longer_than_the_name_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it names a file is asked first; the error of a long name had the key in its message."""
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", "k" * 300)
    assert audit_key(make=False) == b"k" * 300


def test_every_way_to_ask_leaves_one_entry(engine: PresetEngine) -> None:
    """Sync, async, streamed, chat: who, which model, what was shown, what it cost, and no text."""

    async def awaited() -> None:
        await engine.aquery("Earned?")
        stream = await engine.astream("Earned?")
        _ = [piece async for piece in stream.async_response_gen()]

    engine.query("Earned?")
    asyncio.run(awaited())
    list(engine.stream("Earned?").response_gen)
    ada = engine.for_user("ada")
    ada.as_chat_engine().chat("Earned?")
    list(ada.as_chat_engine().stream_chat("Earned?").response_gen)
    found = entries(engine)
    assert [entry["number"] for entry in found] == [1, 2, 3, 4, 5, 6]
    assert len({entry["query_id"] for entry in found}) == 6
    assert len({entry["prompt_hmac"] for entry in found}) == len({e["answer_hmac"] for e in found}) == 1
    assert [entry["who"] for entry in found][-2:] == ["ada", "ada"] and all(entry["who"] for entry in found)
    assert {(entry["preset"], entry["model"], entry["status"]) for entry in found} == {
        ("knowledge-base", "scripted", "answered")
    }
    shown = hashlib.sha256(REPORT.text.encode()).hexdigest()
    assert {entry["passages"][0][1] for entry in found} == {shown}
    assert b"million" not in engine._parts.storage.audit.read_bytes()
    assert verify(engine._parts.storage.audit, key=KEY.encode()).ok


def test_the_entry_joins_the_ledger(engine: PresetEngine) -> None:
    """Its query id is that of the response and of the calls."""
    response = engine.query("Earned?")
    assert entries(engine)[0]["query_id"] == (response.metadata or {})["query_id"]


class Broken(ScriptedLLM):
    """Fails; streams two pieces before it does."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: object) -> CompletionResponse:
        raise ConnectionError("the line is dead")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: object) -> Iterator:  # type: ignore[type-arg, override]
        def pieces() -> Iterator[CompletionResponse]:
            yield CompletionResponse(text="", delta="Seven ")
            yield CompletionResponse(text="", delta="million were ")
            raise ConnectionError("the line is dead")

        return pieces()


def test_failures_and_abandoned_streams_are_on_record_too(tmp_path: Path) -> None:
    """The model may have been shown passages, so there is an entry."""
    with make(tmp_path / "s", Broken(prompts=[])) as engine:
        engine.ingest([REPORT])
        with pytest.raises(ConnectionError, match="dead"):
            engine.query("Earned?")
        with pytest.raises(ConnectionError, match="dead"):
            list(engine.stream("Earned?").response_gen)
        pieces = iter(engine.stream("Earned?").response_gen)
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        found = entries(engine)
    assert [entry["status"] for entry in found] == [
        "failed: ConnectionError", "failed: ConnectionError", "abandoned",
    ]  # fmt: skip
    assert found[1]["passages"] and found[2]["passages"]


def test_what_a_reader_is_shown_beside_an_i_do_not_know_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model was shown nothing, the reader the closest passage: the entry said that nobody saw any."""
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", KEY)
    monkeypatch.setitem(SETTINGS, "answer_floor", 1.0)
    with make(tmp_path) as engine:
        engine.ingest([REPORT])
        response = engine.query("Acme earned 9 million in 2024?")
        stream = engine.stream("Acme earned 9 million in 2024?")
        list(stream.response_gen)
        found = entries(engine)
    (closest,) = response.metadata["closest"]
    assert response.source_nodes == []
    shown = [closest["node_id"], hashlib.sha256(REPORT.text.encode()).hexdigest()]
    assert [entry["passages"] for entry in found] == [[shown], [shown]]


def test_a_log_that_cannot_be_written_stops_the_answer(engine: PresetEngine) -> None:
    """No answer without a record; the chain that was there is left alone."""
    engine.query("Earned?")
    path = engine._parts.storage.audit
    path.write_text(path.read_text() + '{"torn')
    with pytest.raises(AuditError, match="cannot be continued"):
        engine.query("Earned?")


def test_without_a_key_in_the_environment_one_is_made_outside_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the user's configuration folder, for its owner alone, and used again; verifying makes none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(SettingsError, match="operator's key is missing"):
        audit_key(make=False)
    for _ in range(2):
        with make(tmp_path / "s") as engine:
            engine.ingest([REPORT])
            engine.query("Earned?")
    file = audit_key_file()
    assert file.is_relative_to(tmp_path / "config") and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_bytes().strip()) == 64
    assert verify(tmp_path / "s" / "audit.jsonl", key=audit_key(make=False)).entries == 2


def test_the_environment_names_the_key_or_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path where it looks like one; a file that is not there is an error, never a key."""
    (tmp_path / "key").write_text(KEY + "\n")
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", str(tmp_path / "key"))
    assert audit_key(make=False) == KEY.encode()
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", KEY)
    assert audit_key(make=False) == KEY.encode()
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="cannot be read"):
        audit_key(make=True)
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", "short")
    with pytest.raises(SettingsError, match="has 5 bytes"):
        audit_key(make=True)
