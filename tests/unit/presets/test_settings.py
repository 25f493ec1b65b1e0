"""The dials of a preset: where values come from, which are refused, how they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.prices import PriceBook
from llama_index_presets.presets import settings as module
from llama_index_presets.presets.matrix import PRESETS
from llama_index_presets.presets.project.file import read_project
from llama_index_presets.presets.project.settings_sources import describe_settings, load_settings
from llama_index_presets.presets.settings import HealthcareSettings, Settings
from llama_index_presets.serve.config import read_config


@dataclass(frozen=True, slots=True, kw_only=True)
class FilingSettings(Settings):
    """Dials of a preset of this test.

    Attributes:
        check_figures: Whether figures are checked.
    """

    check_figures: bool = True


@pytest.fixture
def own_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset with a dial that the others do not have."""
    monkeypatch.setitem(module.SETTINGS, "financial-documents", FilingSettings)


def test_code_beats_environment_beats_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each value says where it came from."""
    file = tmp_path / "settings.toml"
    file.write_text("top_k = 3\nanswer_floor = 0.2\n")
    monkeypatch.setenv("LLAMA_PRESETS_TOP_K", "4")
    values, origins = load_settings(file)
    assert (values.top_k, values.answer_floor, values.context_tokens) == (4, 0.2, 3000)
    assert (origins["top_k"], origins["answer_floor"]) == ("LLAMA_PRESETS_TOP_K", str(file))
    assert origins["context_tokens"] == "default"
    monkeypatch.setenv("LLAMA_PRESETS_SETTINGS", str(file))
    values, origins = load_settings({"top_k": 5})
    assert (values.top_k, values.answer_floor) == (5, 0.2)
    assert (origins["top_k"], origins["answer_floor"]) == ("code", str(file))


def test_a_file_has_a_table_for_each_preset(tmp_path: Path) -> None:
    """The table of a preset goes before what all presets share, and never reaches another preset."""
    file = tmp_path / "settings.toml"
    file.write_text('top_k = 3\n[healthcare]\npii = "refuse"\ntop_k = 4\n')
    healthcare, _ = load_settings(file, "healthcare")
    assert (healthcare.top_k, healthcare.pii) == (4, "refuse")
    others, _ = load_settings(file, "knowledge-base")
    assert (others.top_k, others.pii) == (3, "off")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"topk": 3}, "no setting 'topk' .*Did you mean 'top_k'"),
        ({"top_k": "many"}, "top_k is 'many' .*expected int"),
        ({"top_k": True}, "top_k is True"),
        ({"top_k": 2.0}, "top_k is 2.0"),
        ({"top_k": None}, "top_k is None"),
        ({"top_k": 0}, "must be at least 1"),
        ({"answer_floor": 7}, "a cosine lies between"),
        ({"answer_floor": float("nan")}, "a cosine lies between"),
        ({"chunk_tokens": 3}, "needs at least 16"),
        ({"store": 5}, "store is 5 .*expected str or none"),
        ({"pii": "hide"}, "pii is 'hide' .*expected 'off', 'report', 'redact' or 'refuse'"),
        ({"searchable_metadata": "ward"}, "expected list of str"),
        ("nowhere.toml", "cannot be read"),
        (Settings(), "takes HealthcareSettings, got Settings"),
        (HealthcareSettings(pii="hide"), "pii is 'hide'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_settings_are_refused(given: Any, message: str) -> None:
    """Unknown names, wrong types and values out of range never reach an engine."""
    with pytest.raises(SettingsError, match=message):
        load_settings(given, "healthcare")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[healtcare]\npii = 'off'", "no preset 'healtcare' .*Did you mean 'healthcare'"),
        ("[knowledge-base]\ntopk = 1", "no setting 'topk' .*knowledge-base"),
        ("check_figures = true", "It is a setting of 'financial-documents'"),
        ("top_k = ", "is not TOML"),
    ],
)
@pytest.mark.usefixtures("own_dial")
def test_a_typo_anywhere_in_a_file_is_found(text: str, message: str, tmp_path: Path) -> None:
    """Also in the table of another preset."""
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_settings(file, "healthcare")


@pytest.mark.usefixtures("own_dial")
def test_the_environment_is_read_as_the_type_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, booleans, lists and names; what is empty counts as not set."""
    for name, text in {
        "TOP_K": "8",
        "BLEND": "0.5",
        "RERANKER": "7",
        "LLM": "",
        "CHECK_FIGURES": "false",
        "SEARCHABLE_METADATA": "ward, year",
    }.items():
        monkeypatch.setenv(f"LLAMA_PRESETS_{name}", text)
    values: Any = load_settings(None, "financial-documents")[0]
    assert (values.top_k, values.blend, values.reranker, values.llm) == (8, 0.5, "7", None)
    assert values.check_figures is False and values.searchable_metadata == ("ward", "year")
    assert not hasattr(load_settings(None, "healthcare")[0], "check_figures")


@pytest.mark.usefixtures("own_dial")
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A safety that somebody believes to be on must not be off for a typo; secrets are no settings."""
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", "k")
    monkeypatch.setenv("LLAMA_PRESETS_CHECK_FIGURES", "perhaps")
    load_settings(None, "healthcare")
    with pytest.raises(SettingsError, match="check_figures is 'perhaps' .*expected bool"):
        load_settings(None, "financial-documents")
    monkeypatch.setenv("LLAMA_PRESETS_PIII", "refuse")
    with pytest.raises(SettingsError, match="LLAMA_PRESETS_PIII names no setting. Did you mean 'pii'"):
        load_settings(None, "healthcare")


def test_settings_can_be_given_whole() -> None:
    """A typed object needs no names as text."""
    given = HealthcareSettings(top_k=2)
    assert load_settings(given, "healthcare") == (given, dict.fromkeys(given.to_dict(), "code"))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_dial_is_documented(preset: str) -> None:
    """What it accepts, its environment variable, and what it does."""
    for dial in describe_settings(preset):
        assert dial.about and dial.accepts and dial.environment == f"LLAMA_PRESETS_{dial.name.upper()}"


@pytest.mark.parametrize("name", ["answer_cache_hours", "alert_latency_s", "leg_timeout_s"])
def test_a_setting_that_is_no_number_is_refused(name: str) -> None:
    """TOML knows nan, and nothing is ever above it or past it."""
    with pytest.raises(SettingsError, match=f"{name} is nan; it must be above 0"):
        Settings(**{name: float("nan")})


def test_a_leg_cannot_wait_for_ever() -> None:
    """No function that waits takes infinity, so that every question failed; none is no limit."""
    with pytest.raises(SettingsError, match="leg_timeout_s is inf; .* none for no limit"):
        Settings(leg_timeout_s=float("inf"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"top_k = " + b"9" * 5_000, "not TOML"),
        (b"x = " + b"[" * 5_000, "not TOML .it nests too deeply"),
        (b"x = \xff", "not TOML"),
    ],
    ids=["digits", "depth", "encoding"],
)
def test_a_file_that_python_cannot_read_is_no_toml(tmp_path: Path, text: bytes, reason: str) -> None:
    """The same for the files of settings, projects, servers, models and prices."""
    file = tmp_path / "llama-presets.toml"
    file.write_bytes(text)
    for read in (load_settings, read_project, read_config):
        with pytest.raises(SettingsError, match=reason):
            read(file)  # type: ignore[operator]
    with pytest.raises(SettingsError, match="cannot be read"):
        PriceBook.load(file)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Windows' Notepad writes one."""
    file = tmp_path / "settings.toml"
    file.write_text("top_k = 3\n", encoding="utf-8-sig")
    assert load_settings(file)[0].top_k == 3


@pytest.mark.parametrize("name", ["llm_options", "embedding_options", "reranker_options", "alert_webhook"])
def test_what_may_hold_a_secret_is_not_shown_where_it_is_wrong(name: str) -> None:
    """Errors end up in logs."""
    value = {"key": "sk-secret"} if name == "alert_webhook" else "https://me:sk-secret@host"
    with pytest.raises(SettingsError, match=f"{name} is no (dict|str) or none but a (str|dict)") as refused:
        load_settings({name: value}, "healthcare")
    assert "sk-secret" not in str(refused.value)
