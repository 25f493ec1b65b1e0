"""An ejected project of a hosted preset runs by its own README, in an environment with nothing but its requirements."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.fixtures.package_index import skip_without_index
from tests.servers.openai import OpenAIServer
from tools.pythons import UV

from llama_index_presets import __version__
from llama_index_presets.advise.eject import eject

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "recipes" / "healthcare" / "documents"


def run(
    folder: Path, *command: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command in the project's folder; nothing of this checkout is on the path."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=dict(environment) if environment is not None else clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


def install(folder: Path, wheels: Path) -> None:
    """The README's first line by uv, which is quick; skipped where the requirements cannot be fetched."""
    built = run(folder, UV, "build", "--quiet", "--wheel", "--out-dir", wheels, ROOT)
    made = run(folder, UV, "venv", "--quiet", "--python", sys.executable, ".venv")
    wanted = ("-r", "requirements.txt", "--find-links", wheels, "--link-mode", "copy")
    filled = run(folder, UV, "pip", "install", "--quiet", "--python", ".venv", *wanted)
    for done in (built, made, filled):
        skip_without_index(done)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow("builds a wheel and an environment of about 100 packages from the package index")
def test_a_hosted_project_runs_by_its_readme_in_an_environment_of_its_own(
    openai: OpenAIServer, tmp_path: Path
) -> None:
    """Requirements are complete: ingest and ask work with the wheel, the real clients and a service on loopback."""
    openai.words = ("An antitoxin", " helps", " [1].")
    folder = tmp_path / "project"
    eject(
        "knowledge-base", folder, settings={"answer_floor": -1.0}
    )  # vectors of the loopback server mean nothing
    block = re.search(r"```sh\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    first, *commands = block[1].splitlines()
    assert first == "python -m venv .venv && .venv/bin/pip install -r requirements.txt"
    install(folder, tmp_path / "wheels")

    environment = {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "OPENAI_API_KEY": "sk-test-0123456789",
        "OPENAI_API_BASE": openai.url,
    }
    where = run(
        folder,
        ".venv/bin/python",
        "-c",
        "import importlib.metadata as m, llama_index_presets as p; print(m.version('llama-index-presets'), p.__file__)",
        environment=environment,
    )
    version, place = where.stdout.split()
    assert version == __version__ and Path(place).is_relative_to(folder / ".venv")

    shown = []
    for command in commands:
        words = shlex.split(command.replace("DOCUMENTS", str(DOCUMENTS)))
        done = run(folder, *words, environment=environment)
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    assert shown[0] == "5 documents ingested, 0 unchanged\n"
    assert re.fullmatch(
        rf"An antitoxin helps \[1\]\.\n  \[1\] {re.escape(str(DOCUMENTS))}/[\w-]+\.md\n", shown[1]
    )
    assert {one.path for one in openai.served} == {"/embeddings", "/chat/completions"}
