"""What a registry shows of the package: counted extras, links that lead somewhere, complete metadata."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from tests.fixtures.package_index import skip_without_index
from tests.servers.openai import OpenAIServer
from tools import extras, pythons

import llama_index_presets

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
README = (ROOT / "README.md").read_text("utf-8")
RECORD = json.loads(extras.RECORD.read_text("utf-8"))
SOURCE = PROJECT["project"]["urls"]["Source"]


def names(row: str) -> list[str]:
    """Packages of a row of the record."""
    return [line.split("==")[0] for line in RECORD["rows"][row]["packages"]]


def test_the_page_has_the_recorded_table() -> None:
    """`make extras` writes both."""
    page = extras.PAGE.read_text("utf-8")
    assert extras.put_in(page, extras.table(RECORD)) == page


def test_the_record_is_of_what_pyproject_declares() -> None:
    """Whoever changes an extra resolves it again: make extras, or tools/extras.py --counts."""
    assert RECORD["declared"] == extras.declared()
    assert list(RECORD["rows"]) == extras.rows()
    assert [row for row, found in RECORD["rows"].items() if not found["mb"]] in ([], ["llamacpp"])


def test_the_base_is_fifteen_packages_beyond_llama_index_core() -> None:
    """The four components, without an extra."""
    assert len(set(names(extras.BASE)) - set(names(extras.CORE))) <= 15


def test_a_local_preset_needs_no_torch() -> None:
    """The README's install line: at most 105 packages (62 of them LlamaIndex's core), none of them nvidia's."""
    found = names("healthcare,offline")
    assert len(found) <= 105
    heavy = ("torch", "transformers", "sentence-transformers", "scikit-learn", "scipy", "pandas", "triton")
    assert not [name for name in found if name in heavy or name.startswith(("nvidia", "cuda"))]


def test_the_readme_renders_on_a_registry_page() -> None:
    """Every link and image is absolute, and those into the repository lead to a file of it."""
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    assert all(link.startswith(("https://", "#")) for link in links)
    raw = SOURCE.replace("github.com", "raw.githubusercontent.com")
    inside = [re.sub(r"^(blob/|tree/)?main/", "", link[len(base) + 1 :].split("#")[0])
              for link in links for base in (SOURCE, raw) if link.startswith(base)]  # fmt: skip
    assert len(inside) > 10
    assert [path for path in inside if not (ROOT / path).exists()] == []
    anchors = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
               for title in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}  # fmt: skip
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.md")]


def test_the_repository_has_one_address() -> None:
    """`[project.urls]` says it; pages, schema, notebooks and project files written by `init` repeat it."""
    files = [
        *PAGES,
        *ROOT.glob("docs/*.json"),
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("docs/notebooks/*.ipynb"),
    ]
    owner, name = SOURCE.removeprefix("https://github.com/").split("/")
    found = {
        match[0]
        for file in files
        for match in re.finditer(
            rf"(?:raw\.githubusercontent|github)\.com/[\w.-]+/{name}\b", file.read_text("utf-8")
        )
    }
    assert found == {f"github.com/{owner}/{name}", f"raw.githubusercontent.com/{owner}/{name}"}
    assert all(url.startswith(SOURCE) for url in PROJECT["project"]["urls"].values())


def test_the_first_pages_install_from_a_clone() -> None:
    """Until there is a release: README and Start say so, and no first page sends anyone to a registry."""
    for page in (README, (ROOT / "docs/start.md").read_text("utf-8")):
        assert "is on no registry yet" in page and f"git clone {SOURCE} && cd " in page
    first = [
        page for page in PAGES if page.parent.name in ("components", "presets") or "recipes" in page.parts
    ]
    named = re.compile(r'pip install (?:"llama-index-presets\[|llama-index-presets)')
    assert [page.name for page in first if named.search(page.read_text("utf-8"))] == []


def test_metadata_names_the_pythons_that_are_tested() -> None:
    """Classifiers, `requires-python` and `make test-pythons` agree."""
    prefix = "Programming Language :: Python :: "
    named = [
        line.removeprefix(prefix) for line in PROJECT["project"]["classifiers"] if line.startswith(prefix)
    ]
    assert tuple(name for name in named if "." in name) == pythons.SUPPORTED
    assert PROJECT["project"]["requires-python"] == f">={pythons.SUPPORTED[0]}"
    assert {"Homepage", "Documentation", "Source", "Changelog", "Issues"} <= PROJECT["project"]["urls"].keys()


def test_llamahub_knows_every_component() -> None:
    """The table names classes that can be imported from the root."""
    hub = PROJECT["tool"]["llamahub"]
    assert hub["import_path"] == "llama_index_presets"
    assert [name for name in hub["class_authors"] if not hasattr(llama_index_presets, name)] == []


def test_wheel_and_sdist_pass_the_checks_of_a_registry(tmp_path: Path) -> None:
    """`twine check --strict` and `check-wheel-contents`, as `make package` runs them, on what hatchling builds here."""
    code = "import hatchling.build as b, sys; b.build_wheel(sys.argv[1]); b.build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    for command in (["twine", "check", "--strict", wheel, sdist], ["check_wheel_contents", wheel]):
        done = subprocess.run(
            [sys.executable, "-m", *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    with ZipFile(wheel) as archive:
        place = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(place).decode())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert len(metadata.get_all("Project-URL")) == len(PROJECT["project"]["urls"])


def test_interpreters_are_found_by_running_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shim that is there and does not run, as pyenv has, is passed over for one that runs."""
    version = ".".join(map(str, sys.version_info[:2]))
    shim = tmp_path / f"python{version}"
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    shim.chmod(0o755)
    place = tmp_path / "pyenv" / "versions" / f"{version}.99" / "bin"
    place.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert pythons.find(version) == place / "python"
    assert not pythons.is_version(shim, version)


def test_torch_for_other_pythons_is_never_the_one_with_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv takes PyTorch's own index for the CPU, unless the environment names a backend; or torch is left out."""
    version, log = pythons.SUPPORTED[-1], tmp_path / "log"
    interpreter = tmp_path / f".venv-{version}" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    for stub in (interpreter, tmp_path / "uv"):
        stub.write_text(f'#!/bin/sh\necho "backend=$UV_TORCH_BACKEND $*" >> {log}\n', encoding="utf-8")
        stub.chmod(0o755)
    monkeypatch.setattr(pythons, "ROOT", tmp_path)
    monkeypatch.setattr(pythons, "UV", str(tmp_path / "uv"))

    def installed(**options: bool) -> str:
        log.write_text("")
        pythons.prepare(interpreter, version, **options)
        return next(line for line in log.read_text().splitlines() if " install " in line)

    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    assert installed().startswith("backend=cpu pip install") and "--override" not in installed()
    assert "--override" in installed(without_torch=True)
    monkeypatch.setenv("UV_TORCH_BACKEND", "cu130")
    assert installed().startswith("backend=cu130 pip install")


def test_without_pytorchs_index_torch_is_left_out_and_the_reason_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that answers gives torch; one that does not gives the reason; a backend of one's own asks no one."""
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    with OpenAIServer() as server:
        monkeypatch.setattr(pythons, "CPU_INDEX", f"{server.url}/torch/")
        assert pythons.why_without_torch(asked=False) == ""
        assert pythons.why_without_torch(asked=True) == "asked for"
    assert "does not answer" in pythons.why_without_torch(asked=False)
    monkeypatch.setenv("UV_TORCH_BACKEND", "cpu")
    assert pythons.why_without_torch(asked=False) == ""


def resolve(tmp_path: Path, wanted: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`uv pip compile` of some requirements against the package index."""
    source = tmp_path / "wanted.in"
    source.write_text(wanted, encoding="utf-8")
    command = [pythons.UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    skip_without_index(done)
    return done


@pytest.mark.slow("asks the package index")
@pytest.mark.parametrize("python", pythons.SUPPORTED)
def test_the_newest_of_everything_resolves_beside_llama_index(tmp_path: Path, python: str) -> None:
    """The meta package `llama-index` and every extra of ours go together on each Python, in wheels alone."""
    wanted = f"llama-index\nllama-index-presets[all,offline] @ {ROOT.as_uri()}\n"
    only = ["--only-binary", ":all:", "--no-binary", "llama-index-presets", "--python-version", python]
    done = resolve(tmp_path, wanted, *only)
    assert done.returncode == 0, done.stderr
    found = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    assert {"llama-index", "llama-index-core", "duckdb", "lancedb"} <= found.keys()


@pytest.mark.slow("asks the package index")
@pytest.mark.parametrize("python", pythons.SUPPORTED)
def test_the_tested_versions_resolve(tmp_path: Path, python: str) -> None:
    """`make setup` installs constraints.txt on each Python, in wheels; pins that exclude each other would end it."""
    wanted = f"llama-index-presets[all,offline,dev] @ {ROOT.as_uri()}\n"
    patch = f"{python}.5"  # a tool for the documentation asks for 3.11.5
    only = ["--only-binary", ":all:", "--no-binary", "llama-index-presets", "--python-version", patch]
    done = resolve(tmp_path, wanted, "-c", str(ROOT / "constraints.txt"), *only)
    assert done.returncode == 0, done.stderr


def test_the_workflow_runs_the_oldest_and_the_newest_python() -> None:
    """Those of the classifiers; the oldest runs what `.ci/run` says."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text("utf-8"))
    minor = re.compile(r"Programming Language :: Python :: (3\.\d+)")
    named = [found[1] for found in map(minor.fullmatch, PROJECT["project"]["classifiers"]) if found]
    named.sort(key=lambda version: int(version.split(".")[1]))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == [named[0], named[-1]]
    steps = [step for step in workflow["jobs"]["test"]["steps"] if step.get("run") == ".ci/run"]
    assert [step["if"] for step in steps] == [f"matrix.python == '{named[0]}'"]
