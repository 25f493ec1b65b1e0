"""Run the unit and contract suites on every supported Python of this machine, an environment and a line of result each.

    python tools/pythons.py                # every supported version that is found on PATH, in pyenv, or by uv
    python tools/pythons.py 3.12 3.14      # these; one that is not found is an error
    python tools/pythons.py --list         # what is found, and where
    python tools/pythons.py 3.13 -- tests/contracts -k duckdb     # other tests
    python tools/pythons.py --without-torch                       # and without the packages that need torch

Environments are .venv-3.X, kept for the next run. torch is that of PyTorch's own index, for the CPU. Where that index
does not answer, torch and the tests of what needs it are left out, and the line of result says so: the torch of PyPI
brings several GB of CUDA. A UV_TORCH_BACKEND in the environment is taken as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
WITHOUT_PINS = ("3.14",)
"""The newest Python gets the newest release of everything, as a user does, in place of constraints.txt."""
SUITES = ("tests/unit", "tests/contracts")
PYTEST = (
    "-m",
    "pytest",
    "-rs",
    "-p",
    "xdist",
    "--dist",
    "loadfile",
    "--no-loadscope-reorder",
    "-m",
    "not slow",
)
UV = str(Path(sys.executable).with_name("uv")) if Path(sys.executable).with_name("uv").exists() else "uv"


def find(version: str) -> Path | None:
    """An interpreter of a version: on PATH, in pyenv, then wherever uv knows one. Nothing is downloaded."""
    candidates = [Path(found) for found in [shutil.which(f"python{version}")] if found]
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    candidates += sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)
    known = subprocess.run(
        [UV, "python", "find", "--no-python-downloads", "--managed-python", version],
        capture_output=True,
        text=True,
        check=False,
    )
    candidates += [Path(line) for line in known.stdout.split("\n")[:1] if line]
    return next((python for python in candidates if is_version(python, version)), None)


def is_version(python: Path, version: str) -> bool:
    """Whether an interpreter runs and is of a version; the shims of pyenv are there and do not run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


TORCH = (
    "torch",
    "sentence-transformers",
    "accelerate",
    "llama-index-embeddings-huggingface",
    "llama-index-llms-smollm2",
)
"""What --without-torch leaves out: torch, and what cannot be imported without it."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu/torch/"


def why_without_torch(asked: bool) -> str:
    """Why torch is left out; empty where it is installed: by the caller's own choice of backend, or for the CPU."""
    if asked:
        return "asked for"
    if os.environ.get("UV_TORCH_BACKEND"):
        return ""
    try:
        urllib.request.urlopen(CPU_INDEX, timeout=20).close()
    except OSError as error:
        return f"{CPU_INDEX} does not answer: {getattr(error, 'reason', error)}"
    return ""


def prepare(python: Path, version: str, *, without_torch: bool = False) -> Path:
    """Make or refresh the environment of a version; gives its interpreter."""
    place = ROOT / f".venv-{version}"
    inside = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not inside.exists():
        run(UV, "venv", "--quiet", "--python", str(python), str(place))
    extras = f"{ROOT}[all,offline,dev]"
    pins = [] if version in WITHOUT_PINS else ["-c", "constraints.txt"]
    with tempfile.TemporaryDirectory() as folder:
        left_out = Path(folder) / "overrides.txt"
        left_out.write_text("".join(f"{name}; python_version < '3'\n" for name in TORCH), encoding="utf-8")
        overrides = ["--override", str(left_out)] if without_torch else []
        # NLTK, which LlamaIndex's splitters read their data with, refuses a file with hard links.
        copied = ("--link-mode", "copy")
        run(
            UV,
            "pip",
            "install",
            "--quiet",
            *copied,
            "--python",
            str(inside),
            *pins,
            *overrides,
            "pip",
            "-e",
            extras,
            more={} if without_torch else {"UV_TORCH_BACKEND": os.environ.get("UV_TORCH_BACKEND") or "cpu"},
        )
    run(str(inside), "-m", "llama_index_presets", "weights", "pull", "all-MiniLM-L6-v2")
    return inside


def run(*command: str, more: Mapping[str, str] | None = None) -> None:
    """Run a command in the repository, with more in its environment, and end with its error."""
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **(more or {})})


def suite(inside: Path, tests: list[str]) -> int:
    """Run tests with an interpreter; gives pytest's exit code."""
    workers = str(min(8, os.cpu_count() or 1))
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [str(inside), *PYTEST, "-n", workers, *tests], cwd=ROOT, env=environment, check=False
    )
    return done.returncode


def main() -> None:
    """Run the suites, and end with 1 where one failed."""
    arguments = sys.argv[1:]
    tests = arguments[arguments.index("--") + 1 :] if "--" in arguments else list(SUITES)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="*", help=f"of {', '.join(SUPPORTED)}; default: all that are found")
    parser.add_argument("--list", action="store_true", help="say what is found")
    parser.add_argument("--without-torch", action="store_true", help="leave out what needs torch")
    options = parser.parse_args(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    if unknown := set(options.versions) - set(SUPPORTED):
        parser.error(f"not supported: {', '.join(sorted(unknown))}; choose from {', '.join(SUPPORTED)}")
    found = {version: find(version) for version in options.versions or SUPPORTED}
    for version, python in found.items():
        print(f"Python {version}: {python or 'not found'}", flush=True)
    if options.list:
        return
    missing = [version for version in options.versions if found[version] is None]
    if missing or not any(found.values()):
        raise SystemExit(f"Not found: Python {', '.join(missing or SUPPORTED)}. Install it with pyenv or uv.")
    if why := why_without_torch(options.without_torch):
        print(f"Without torch and the tests of what needs it ({why})", flush=True)
    codes = {}
    for version, python in found.items():
        if python is not None:
            codes[version] = suite(prepare(python, version, without_torch=bool(why)), tests)
    how = ", without torch" if why else ""
    for version, code in codes.items():
        print(f"Python {version}{how}: {'passed' if code == 0 else f'pytest ended with {code}'}", flush=True)
    raise SystemExit(int(any(codes.values())))


if __name__ == "__main__":
    main()
