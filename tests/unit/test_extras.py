"""The wheel's metadata: a preset's extra brings whatever its parts need. (`make test-wheel` installs it for real.)"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from email.parser import Parser
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from llama_index_presets import PRESETS
from llama_index_presets.presets.matrix import MONITORING, PATTERNS, STORES, embedding_part, llm_part

ROOT = Path(__file__).parents[2]
NAME = "llama-index-presets"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is, without an isolated environment, which would need a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def requirements(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        place = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(place).decode())
    return [Requirement(line) for line in metadata.get_all("Requires-Dist") or []]


LANGUAGE_MODELS = ["extractive", "http://localhost/v1#m", "smollm2"] + [
    f"{name}/m"
    for name in ("openai", "azure", "anthropic", "bedrock", "gemini", "groq", "deepseek", "mistral", "ollama")
]
"""Of the providers whose packages the development extra brings."""


def brought(extra: str, requirements: list[Requirement]) -> set[str]:
    """Distributions that an extra installs by itself, extras of ours followed."""
    found: set[str] = set()
    for wanted in requirements:
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            if wanted.name == NAME:
                found = found.union(*(brought(other, requirements) for other in wanted.extras))
            else:
                found.add(canonical(wanted.name))
    return found


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


carriers_by_package = cache(importlib.metadata.packages_distributions)  # reads every installed distribution


@cache
def distributions_of(module: str) -> set[str]:
    """Which installed distribution carries a module: by its own files, since many share a namespace."""
    path = "/".join(module.split("."))
    top = carriers_by_package().get(module.split(".")[0], [])
    return {
        canonical(name)
        for name in top
        if any(
            str(file).startswith((f"{path}/", f"{path}.py")) for file in importlib.metadata.files(name) or []
        )
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_extra_brings_what_its_parts_need(preset: str, requirements: list[Requirement]) -> None:
    """Every module that a cell names comes with the extra of the preset's name."""
    installed = brought(preset, requirements)
    for column, part in PRESETS[preset].parts().items():
        for module in part.modules:
            carriers = distributions_of(module)
            assert carriers, f"{module} is not installed here"
            assert carriers & installed, (
                f"{preset}: {column} needs {module}, and [{preset}] does not bring it"
            )


def test_every_part_names_an_extra_that_brings_it(requirements: list[Requirement]) -> None:
    """The install line of a missing part is right."""
    parts = [*STORES.values(), *PATTERNS.values(), *MONITORING.values(), *map(llm_part, LANGUAGE_MODELS)]
    parts += [embedding_part(row.embedding) for row in PRESETS.values()]
    for part in parts:
        installed = brought(part.extra, requirements)
        for module in part.modules:
            assert distributions_of(module) & installed, f"[{part.extra}] does not bring {module}"


def test_the_wheel_carries_its_data_and_no_tests(wheel: Path) -> None:
    """Tables, rules, templates and the marker of types are inside; nothing else of the repository is."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for file in (
        "presets/matrix.toml",
        "advise/choosing.toml",
        "advise/project/app.py.txt",
        "embed/catalogue.toml",
    ):
        assert f"llama_index_presets/{file}" in names
    tops = {name.split("/")[0] for name in names}
    assert all(top == "llama_index_presets" or top.endswith(".dist-info") for top in tops)
