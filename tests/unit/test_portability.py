"""The package stays usable where Python has no POSIX: nothing in it needs one, or names a file of Linux."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "llama_index_presets"
LINUX_ONLY = {"diagnose/no_egress.py"}
"""Files that say themselves that they need Linux: `doctor --no-egress` watches a network namespace."""

ELSEWHERE = """
import builtins, importlib, os, pkgutil, sys, tempfile

import portalocker, pyarrow, duckdb, llama_index.core  # these choose by the system; ours may not

POSIX = {"fcntl", "resource", "pwd", "grp", "termios"}
import_module = builtins.__import__

def refuse(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if name in POSIX and importer.partition(".")[0] in {"llama_index_presets", "__main__"}:
        raise ModuleNotFoundError(f"{importer} imports {name}", name=name)
    return import_module(name, globals, locals, fromlist, level)

builtins.__import__ = refuse
for name in ("register_at_fork", "fork", "fdatasync", "O_CLOEXEC"):
    delattr(os, name)

import llama_index_presets
for module in pkgutil.walk_packages(llama_index_presets.__path__, "llama_index_presets."):
    if module.name not in LINUX_ONLY and not module.name.endswith("__main__"):
        importlib.import_module(module.name)

from llama_index.core.schema import Document
from tests.fakes import WordEmbedding
from llama_index_presets import build

settings = {"llm": "extractive", "store": "duckdb", "pattern": "hybrid", "answer_floor": -1.0}
with tempfile.TemporaryDirectory() as folder:
    with build("knowledge-base", storage=folder, embed_model=WordEmbedding(), settings=settings) as engine:
        report = engine.ingest([Document(text="The pump P-7 is greased weekly.", doc_id="a")])
        answer = engine.query("How often is the pump P-7 greased?")
    with build("knowledge-base", storage=folder, embed_model=WordEmbedding(), settings=settings) as engine:
        calls = engine.ledger.costs()
print(report.documents, len(answer.source_nodes), "greased weekly" in str(answer), len(calls) > 0)
"""


def test_every_module_works_where_python_has_no_posix() -> None:
    """All are imported without `fcntl` and its like; then one document is ingested, asked for and billed."""
    linux_only = {"llama_index_presets." + name.removesuffix(".py").replace("/", ".") for name in LINUX_ONLY}
    done = subprocess.run(
        [sys.executable, "-c", f"LINUX_ONLY = {linux_only!r}\n{ELSEWHERE}"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-4:] == ["1", "1", "True", "True"]


@pytest.mark.parametrize(
    "name", ["import fcntl", "/proc", "import ctypes", "ctypes.CDLL", "O_CLOEXEC", "import resource\n"]
)
def test_no_source_names_what_only_posix_or_linux_has(name: str) -> None:
    """Locks go through `files.locks`; ctypes reads CPython's own reference count in a forked child, and calls PDFium,
    whose binding it is; the size of a process is read where there is a ``/proc``."""
    own = {
        "import ctypes": {
            "store/duckdb/database.py",
            "ingest/readers/pdf/characters.py",
            "ingest/readers/pdf/words.py",
            "ingest/readers/pdf/form_fields.py",
            "ingest/readers/pdf/hidden.py",
        },
        "import fcntl": {"files/locks.py"},
        "/proc": {"diagnose/cold_start.py"},
    }
    allowed = LINUX_ONLY | own.get(name, set())
    named = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if name in path.read_text("utf-8")
    }
    assert named - allowed == set()


def test_every_text_file_is_opened_with_an_encoding() -> None:
    """Without one it is the system's, such as cp1252. The rule is one of ruff's preview, so not in its settings."""
    ruff = ["check", "--isolated", "--no-cache", "--preview", "--select", "PLW1514", str(SOURCE)]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *ruff], stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
