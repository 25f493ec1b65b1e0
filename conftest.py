"""Runs the Python blocks of README.md and docs/ as tests: a page is one program, in an empty folder, offline."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from llama_index.core.instrumentation import get_dispatcher
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parent


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # not one that was forked off
        shutil.rmtree(folder, ignore_errors=True)


# Examples make folders with `mkdtemp`, and what a stopped process leaves is meant to be left: all of it goes into one
# folder, which the first process removes at the end. The folders that pytest keeps, and the trained CLIP, stay outside.
_OWN_FOLDER = "PRESETS_TESTS_FOLDER"
if _OWN_FOLDER not in os.environ:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ[_OWN_FOLDER] = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="lip-")
    tempfile.tempdir = None  # read TMPDIR
    atexit.register(_remove, os.environ[_OWN_FOLDER], os.getpid())


def enter_empty_folder(namespace: dict[str, Any]) -> None:
    """Start a page in a folder of its own, with the recipes that some pages read."""
    namespace["__before__"] = Path.cwd()
    root = get_dispatcher()
    namespace["__listening__"] = list(root.event_handlers), list(root.span_handlers)
    root.event_handlers, root.span_handlers = (
        [],
        list(root.span_handlers)[:1],
    )  # LlamaIndex's own, which does nothing
    namespace["__environment__"] = dict(os.environ)  # a page may set keys, which are its own
    namespace["__folder__"] = tempfile.mkdtemp()
    shutil.copytree(ROOT / "recipes", Path(namespace["__folder__"]) / "recipes")
    for home in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):  # an audit key, the local part of a remote storage
        os.environ[home] = namespace["__folder__"]
    os.chdir(namespace["__folder__"])


def leave_folder(namespace: dict[str, Any]) -> None:
    """Go back, and leave nothing behind."""
    root = get_dispatcher()
    root.event_handlers, root.span_handlers = namespace["__listening__"]
    os.chdir(namespace["__before__"])
    os.environ.clear()
    os.environ.update(namespace["__environment__"])
    shutil.rmtree(namespace["__folder__"], ignore_errors=True)


def enter_with_clip(namespace: dict[str, Any]) -> None:
    """The same, with the CLIP that the tests train where a user has the published one."""
    from tests.tiny_clip import tiny_clip

    enter_empty_folder(namespace)
    os.environ["CLIP_MODEL"] = str(tiny_clip())


WITH_IMAGES = ["docs/presets/multi-modal.md", "docs/components/clip-embedding.md"]

PAGES = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=WITH_IMAGES,
    setup=enter_empty_folder,
    teardown=leave_folder,
)
PAGES_WITH_IMAGES = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=WITH_IMAGES,
    setup=enter_with_clip,
    teardown=leave_folder,
)

pytest_collect_file = (PAGES + PAGES_WITH_IMAGES).pytest()
