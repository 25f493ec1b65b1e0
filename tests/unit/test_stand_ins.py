"""Stood-in packages: their names serve, and who uses them is told."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_stand_in_serves_as_annotation_and_says_so_when_used() -> None:
    """A class of it can be named, and not made."""
    code = (
        "from llama_index_presets.packages.stand_ins import stand_in; stand_in('nowhere'); "
        "from nowhere.deep.models import Thing\n"
        "def f(x: Thing) -> Thing: ...\n"
        "try: Thing()\n"
        "except ImportError as error: print(error)"
    )
    assert run(code) == "nowhere.deep.models.Thing is not loaded in the command line of llama-presets."


def test_a_package_is_stood_in_for_only_inside_the_block() -> None:
    """Afterwards it is missing, as before."""
    code = (
        "import sys; from llama_index_presets.packages.stand_ins import standing_in\n"
        "with standing_in('nowhere'):\n from nowhere import Frame\n"
        "try: import nowhere\n"
        "except ModuleNotFoundError as error: print(Frame.__name__, error.name)"
    )
    assert run(code) == "Frame nowhere"


def test_a_command_shows_no_stray_warning_of_llama_index() -> None:
    """LlamaIndex's `__init__`, which a command need not run, keeps its log off the terminal where nobody reads it."""
    code = (
        "import logging; from llama_index_presets.packages.command_process import run_as_command; run_as_command(); "
        "logging.getLogger('llama_index.core.utils').warning('stray')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
