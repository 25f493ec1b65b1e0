"""Runs the Python blocks of README.md and docs/ as tests: a page is one program, in an empty folder, offline."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parent


def enter_empty_folder(namespace: dict[str, Any]) -> None:
    """Start a page in a folder of its own, with the recipes that some pages read."""
    namespace["__before__"] = Path.cwd()
    namespace["__environment__"] = dict(os.environ)  # a page may set keys, which are its own
    namespace["__folder__"] = tempfile.mkdtemp()
    shutil.copytree(ROOT / "recipes", Path(namespace["__folder__"]) / "recipes")
    os.environ["XDG_CONFIG_HOME"] = namespace["__folder__"]  # where an audit key would be made
    os.chdir(namespace["__folder__"])


def leave_folder(namespace: dict[str, Any]) -> None:
    """Go back, and leave nothing behind."""
    os.chdir(namespace["__before__"])
    os.environ.clear()
    os.environ.update(namespace["__environment__"])
    shutil.rmtree(namespace["__folder__"], ignore_errors=True)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=enter_empty_folder,
    teardown=leave_folder,
).pytest()
