"""What `llama-presets doctor` finds, each planted here and found with its fix."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.llms.openai import OpenAI
from tests.fakes import WordEmbedding
from typer.testing import CliRunner

from llama_index_presets import CostTrackingHandler, Ledger, build
from llama_index_presets.cli import app
from llama_index_presets.diagnose.checks import check_engine, check_listeners, check_models
from llama_index_presets.diagnose.doctor import examine
from llama_index_presets.diagnose.finding import Finding
from llama_index_presets.errors import SettingsError
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.monitor.retry import retrying
from llama_index_presets.presets.checks.offline import foreign_listeners


def bad(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {one.check: one for one in findings if one.level in ("warning", "error")}


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["doctor", *arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


def wrong_of(report: dict[str, Any]) -> list[str]:
    return [one["message"] for one in report["findings"] if one["level"] == "error"]


class Elsewhere(BaseEventHandler):
    """A handler of another package."""

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Do nothing."""


Elsewhere.__module__ = "openinference.fake"


@pytest.fixture
def listening() -> Iterator[None]:
    """Somebody instrumented this process."""
    root = get_dispatcher()
    root.event_handlers.append(Elsewhere())
    yield
    root.event_handlers[:] = [one for one in root.event_handlers if not isinstance(one, Elsewhere)]


def test_a_healthy_machine_is_healthy() -> None:
    """Versions, extras, settings, keys, parts, weights; nothing is wrong."""
    code, report = run("healthcare")
    assert (code, report["healthy"], report["errors"]) == (0, True, 0)
    checks = {finding["check"] for finding in report["findings"]}
    assert checks >= {"python", "settings", "keys", "parts", "weights"}


def test_missing_keys_are_errors_and_keys_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset that needs a key says so; offline it does not."""
    code, report = run("knowledge-base")
    (wrong,) = [one for one in report["findings"] if one["level"] == "error"]
    assert code == 1 and wrong["message"].startswith("OPENAI_API_KEY is not set") and wrong["fix"]
    assert run("knowledge-base", "--offline")[0] == 0
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    code, report = run("knowledge-base")
    assert code == 0 and "sk-very-secret" not in json.dumps(report)


def test_a_typo_in_the_settings_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it keeps an engine from being built."""
    monkeypatch.setenv("LLAMA_PRESETS_TOPK", "3")
    assert "LLAMA_PRESETS_TOPK names no setting" in bad(examine("healthcare"))["settings"].message


def test_weights_that_are_missing_or_damaged_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By name and by hash."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    messages = [one.message for one in examine("research-papers") if one.check == "weights"]
    assert "are not on this machine" in messages[0] and "the re-ranker 'cross-encoder/" in messages[1]
    folder = tmp_path / "models" / "all-MiniLM-L6-v2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    assert "is damaged or is another model" in bad(examine("healthcare"))["weights"].message


def test_a_storage_is_opened_and_compared(tmp_path: Path) -> None:
    """Chunks of the store against the manifest, and whether it is encrypted."""
    with build("healthcare", storage=tmp_path / "s") as engine:
        engine.ingest([Document(text="Alpha."), Document(text="Beta.")])
    found = list(examine("healthcare", storage=tmp_path / "s"))
    assert set(bad(iter(found))) <= {"encryption", "storage"}  # the disk may be small
    assert "2 documents, 2 chunks" in {one.message for one in found}
    shutil.rmtree(tmp_path / "s" / "vectors")
    wrong = bad(examine("healthcare", storage=tmp_path / "s"))["storage"]
    assert "is empty, and its manifest lists 2 documents with 2 chunks" in wrong.message
    (tmp_path / "s" / "preset.json").write_text("{")
    assert "is damaged" in bad(examine("healthcare", storage=tmp_path / "s"))["storage"].message


def test_a_storage_that_cannot_be_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a note, "holds no index yet", and the command ended with 0."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        code, report = run("healthcare", "--storage", str(place))
        assert code == 1 and wrong_of(report) == [f"'{tmp_path / 'file'}' is no folder"]
    code, report = run("healthcare", "--storage", "postgresql://db.example/docs")
    assert code == 1 and "names the store 'pgvector'" in wrong_of(report)[0]
    code, report = run("healthcare", "--storage", str(tmp_path / "new"))
    assert code == 0 and not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda *_: False)
    code, report = run("healthcare", "--storage", str(tmp_path / "new"))
    assert code == 1 and wrong_of(report) == [f"'{tmp_path}' cannot be written by this user"]


def test_a_full_disk_is_an_error_before_anything_is_in_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not looked at while there was no index, and a warning later."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    code, report = run("healthcare", "--storage", str(tmp_path))
    assert code == 1 and wrong_of(report) == [f"'{tmp_path}', no room is left"]


def test_a_lost_metadata_file_and_a_damaged_ledger_are_errors(tmp_path: Path) -> None:
    """The index seemed not to be begun; of the ledger nothing was said."""
    with build("healthcare", storage=tmp_path, embed_model=WordEmbedding()) as engine:
        engine.ingest([Document(text="Cats purr.", id_="a")], show_progress=False)
        engine.query("Do cats purr?")
        ledger = engine.ledger.path
        assert all(one.level == "ok" for one in check_engine(engine) if one.check == "ledger")
    ledger.write_bytes(b"damaged" * 1_000)
    with build("healthcare", storage=tmp_path, embed_model=WordEmbedding()) as engine:
        assert f"move '{ledger}' away" in bad(check_engine(engine))["ledger"].fix
    (tmp_path / "preset.json").unlink()
    code, report = run("healthcare", "--storage", str(tmp_path))
    assert code == 1 and "has an index and no preset.json" in wrong_of(report)[0]


def test_contents_are_not_compared_amid_an_ingest(tmp_path: Path) -> None:
    """Manifest and store differ for a moment then: no error, but who ingests; afterwards the difference is an error."""
    with build("healthcare", storage=tmp_path / "s") as engine:
        engine.ingest([Document(text="Alpha.", id_="a"), Document(text="Beta.", id_="b")])
        engine.vector_store.delete("a")
        with ingest_lock(tmp_path / "s" / "ingest.lock"):
            found = [one for one in check_engine(engine) if one.check == "store"]
            assert [one.level for one in found] == ["note"]
            assert found[0].message.startswith("not counted now. Process ")
        assert bad(check_engine(engine))["store"].message == "the store holds 1 chunk, the manifest 2"


def test_a_keyword_index_out_of_step_is_found_and_repaired(tmp_path: Path) -> None:
    """The store is the truth."""
    options: dict[str, Any] = {"settings": {"pattern": "hybrid", "store": "duckdb"}, "offline": True}
    settings = tmp_path / "settings.toml"
    settings.write_text('pattern = "hybrid"\nstore = "duckdb"\n')
    with build("knowledge-base", storage=tmp_path / "s", **options) as engine:
        engine.ingest([Document(text="Alpha beta gamma.")])
    shutil.rmtree(tmp_path / "s" / "keywords")
    arguments = ("knowledge-base", "--storage", str(tmp_path / "s"), "--settings", str(settings), "--offline")
    code, report = run(*arguments)
    (wrong,) = [one for one in report["findings"] if one["level"] == "error"]
    assert code == 1 and wrong["message"].startswith("The keyword index holds 0 nodes and the vector store 1")
    code, report = run(*arguments, "--repair")
    assert code == 0 and "repaired: 1 chunk" in [one["message"] for one in report["findings"]]
    assert run(*arguments)[0] == 0


def test_stacked_retries_are_found() -> None:
    """The model's own inside ours multiply; ours alone are fine."""
    model = OpenAI(api_key="sk-test", max_retries=3)
    assert "retries 3 times on its own" in bad(check_models(model, None))["retries"].message
    ours = retrying(model)
    assert bad(check_models(ours, None)) == {}
    ours.max_retries = 4
    wrong = bad(check_models(ours, None))["retries"]
    assert wrong.level == "error" and "4 times inside our 3 attempts" in wrong.message


def test_streams_without_usage_are_found() -> None:
    """They cost, and nobody says how much."""
    options = {"stream_options": {"include_usage": False}}
    model = OpenAI(api_key="sk-test", max_retries=0, additional_kwargs=options)
    assert "will not report usage" in bad(check_models(model, None))["streaming"].message


@pytest.mark.usefixtures("listening")
def test_double_instrumentation_is_found(tmp_path: Path) -> None:
    """A second instrumentor on the dispatcher; a second handler in the callback manager."""
    assert [type(one) for one in foreign_listeners()] == [Elsewhere]
    assert "instrumentation" not in bad(check_listeners([]))
    get_dispatcher().event_handlers.append(Elsewhere())
    assert "openinference listens 2 times" in bad(check_listeners([]))["instrumentation"].message
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        model = WordEmbedding()
        model.callback_manager = CallbackManager([CostTrackingHandler(ledger), CostTrackingHandler(ledger)])
        messages = [one.message for one in check_listeners([model]) if one.level == "warning"]
    assert any(message.startswith("2 CostTrackingHandler") for message in messages)


@pytest.mark.usefixtures("listening")
def test_a_local_preset_is_not_built_beside_remote_exporters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the application instrumented before; a collector on this machine is fine."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    for kind in (BatchSpanProcessor, SimpleSpanProcessor):
        for endpoint, refused in (
            ("https://api.vendor.example/v1/traces", True),
            ("http://127.0.0.1:6006", False),
        ):
            provider = TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(kind(OTLPSpanExporter(endpoint=endpoint)))
            monkeypatch.setattr(trace, "get_tracer_provider", lambda made=provider: made)
            if refused:
                with pytest.raises(
                    SettingsError, match="openinference listens .* traces to api.vendor.example"
                ):
                    build("healthcare", storage=tmp_path / "s", embed_model=WordEmbedding())
            else:
                with build("healthcare", storage=tmp_path / "s", embed_model=WordEmbedding()) as engine:
                    assert any(one.check == "instrumentation" for one in check_engine(engine))
            provider.shutdown()


@pytest.mark.parametrize("cell", [{"llm": "gpt-4o-mini"}, {"embedding": "text-embedding-3-small"}])
def test_a_service_chosen_in_the_settings_is_refused_by_a_local_preset(
    cell: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one given by hand is."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with pytest.raises(SettingsError, match="would send text elsewhere"):
        build("healthcare", storage=tmp_path / "s", settings=cell)
    assert not (tmp_path / "s").exists()


def test_doctor_needs_a_preset_for_more_than_the_machine() -> None:
    """Wrong usage is 2, as everywhere."""
    done = CliRunner().invoke(app, ["doctor", "--no-egress"])
    assert done.exit_code == 2 and "needs a preset" in done.stderr
    done = CliRunner().invoke(app, ["doctor", "helthcare"])
    assert done.exit_code == 2 and "Did you mean 'healthcare'" in done.stderr
