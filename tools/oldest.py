"""Run tests beside the oldest release that pyproject.toml allows of each package, as an app with old pins has them.

    python -m tools.oldest                          # the components' suites, in .venv-oldest
    python -m tools.oldest tests/unit/serve -x      # these

What the packages themselves ask for is the newest that fits, and so are the tools of the extra dev. torch and what
needs it are left out. A limit that is too low is raised in pyproject.toml, or the code learns the older release.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tools.pythons import ROOT, SUPPORTED, TORCH, UV, find, run

VERSION = SUPPORTED[0]
NO_WHEELS = ("llamacpp",)
"""Extras whose packages have to be compiled."""
NOT_FOR_TESTS = (
    "bandit", "check-wheel", "import-linter", "ipykernel", "llama-index", "mkdocs", "mypy", "nbclient", "onnx",
    "openinference", "playwright", "pre-commit", "ruff", "twine", "uv",
)  # fmt: skip
"""What of the extra dev no test of the components needs."""
SUITES = (
    "tests/contracts/test_duckdb.py", "tests/contracts/test_stock_calls.py", "tests/unit/store/test_duckdb.py",
    "tests/unit/store/test_duckdb_faults.py", "tests/unit/store/test_duckdb_matrix.py",
    "tests/unit/store/test_duckdb_replace.py", "tests/unit/store/test_lancedb.py", "tests/unit/test_filters.py",
    "tests/unit/ingest/readers/test_fixtures.py", "tests/unit/ingest/test_read.py",
    "tests/unit/retrieve/test_hybrid.py",
    "tests/unit/embed/test_embed.py", "tests/unit/embed/test_openai.py", "tests/unit/monitor/test_ledger.py",
    "tests/unit/monitor/test_traces.py", "tests/unit/serve/test_rest.py", "tests/unit/serve/test_mcp.py",
    "tests/unit/test_cli.py", "tests/journeys/test_drop_in.py",
)  # fmt: skip


def pins(folder: Path) -> Path:
    """Write the oldest set, in wheels, into a folder; gives the file."""
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    extras = [f"--extra={name}" for name in optional if name not in ("dev", *NO_WHEELS)]
    without_torch, oldest, tools = folder / "without-torch.txt", folder / "oldest.txt", folder / "tools.txt"
    without_torch.write_text("".join(f"{name}; python_version < '3'\n" for name in TORCH), "utf-8")
    tools.write_text("\n".join(one for one in optional["dev"] if not one.startswith(NOT_FOR_TESTS)), "utf-8")
    only = ("--only-binary", ":all:", "--no-binary", "llama-index-presets", "--python-version", VERSION)
    lowest = ("--resolution", "lowest-direct", "--override", str(without_torch), "--output-file", str(oldest))
    run(UV, "pip", "compile", "--quiet", *only, *lowest, *extras, str(ROOT / "pyproject.toml"))
    return oldest


def main() -> None:
    """Make the environment, run the tests, end with their exit code."""
    python, place = find(VERSION), ROOT / ".venv-oldest"
    if python is None:
        raise SystemExit(f"Not found: Python {VERSION}. Install it with pyenv or uv.")
    run(UV, "venv", "--quiet", "--clear", "--python", str(python), str(place))
    inside = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    oldest = pins(place)
    left_out = ("--override", str(place / "without-torch.txt"))
    packages = ("-r", str(oldest), "-r", str(place / "tools.txt"))
    install = (UV, "pip", "install", "--quiet", "--link-mode", "copy", "--python", str(inside))
    run(*install, *left_out, *packages)
    run(*install, "--no-deps", "--editable", str(ROOT))
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    tests = sys.argv[1:] or list(SUITES)
    command = [str(inside), "-m", "pytest", "-m", "not slow", *tests]
    raise SystemExit(
        subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode
    )


if __name__ == "__main__":
    main()
