"""A wrong command line is answered with the one that was meant."""

from __future__ import annotations

import json
import sys

import pytest
import typer
from typer.testing import CliRunner

from llama_index_presets.cli.app import app

_GROUP = typer.main.get_command(app)
_WITH_PRESET = [
    name
    for name, command in _GROUP.commands.items()  # type: ignore[attr-defined]
    if any(one.name == "preset" and one.param_type_name == "argument" for one in command.params)
]


def _said(*words: str) -> str:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 2
    return " ".join(found.stderr.split())


@pytest.mark.parametrize("command", _WITH_PRESET)
@pytest.mark.parametrize("option", ["--preset", "-p"])
def test_every_command_says_where_its_preset_goes(command: str, option: str) -> None:
    """The line to copy has the preset first, and the other words in their order."""
    said = _said(command, option, "financial", "--storage", "a folder")
    line = f"llama-presets {command} financial-documents --storage 'a folder'"
    assert said.endswith(f"No such option: {option}. The preset is the first argument: {line}")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("ask healthcare --question=why", "in quotes: llama-presets ask healthcare why"),
        ("chat --preset", "first argument: llama-presets chat …"),
        ("ask healthcare why --model x", "The option is --llm."),
        ("ask healthcare why --index x", "The option is --storage."),
        ("ingest healthcare --path x", "arguments: llama-presets ingest healthcare x"),
        ("ask healthcare why --top-k 4", "LLAMA_PRESETS_TOP_K=…"),
        ("ask healthcare why --verbose", "The option is --debug"),
        ("costs --preset healthcare", "'costs' goes by the storage, --storage FOLDER; leave the preset out."),
        ("costs healthcare", "'costs' goes by the storage, --storage FOLDER; leave the preset out."),
        ("recommend --preset healthcare", "'recommend' is about no preset"),
        ("init healthcare", "llama-presets init --preset healthcare"),
        ("weights pull --model x", "llama-presets weights pull x"),
        ("--storage x ask healthcare why", "llama-presets ask … --storage …"),
        ("query healthcare", 'Write: llama-presets ask PRESET "…"'),
        ("key add", "Who gets the key"),
    ],
)  # fmt: skip
def test_a_guess_is_answered_with_what_is_meant(words: str, hint: str) -> None:
    """Arguments, settings, other names, and options or presets in the wrong place."""
    assert hint in _said(*words.split())


def test_a_key_on_the_command_line_is_not_repeated() -> None:
    """It says where keys are read from."""
    said = _said("ask", "healthcare", "why", "--api-key", "sk-secret")
    assert "Keys come from the environment" in said and "sk-secret" not in said


def test_wrong_usage_with_json_is_an_object_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that reads standard output gets the same words as people do."""
    words = ["ask", "--preset", "healthcare", "why", "--json"]
    monkeypatch.setattr(sys, "argv", ["llama-presets", *words])
    found = CliRunner().invoke(app, words)
    assert "llama-presets ask healthcare why --json" in json.loads(found.stdout)["error"]
