"""Ctrl-C in a command: a stop, also where a library swallows the exception that Python makes of it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import duckdb
import pytest

from llama_index_presets import cli
from llama_index_presets.errors import ModelError
from llama_index_presets.packages.extras import require


class DropsIt:
    """Its end is interrupted, where Python drops exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def in_duckdb() -> None:
    """DuckDB raises RuntimeError in place of what Ctrl-C raised, mostly; else Python raises it after the query."""
    pressed = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    with duckdb.connect() as connection:
        pressed.start()
        connection.execute("SELECT sum(a.range * b.range % 7) FROM range(1000000) a, range(40) b").fetchall()


def in_a_deletion() -> None:
    """The interrupt comes again while something else is done."""
    DropsIt()
    for _ in range(500):
        time.sleep(0.01)


def in_an_import() -> None:
    """A compiled module that cannot be initialized is taken for one that does not fit the machine."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as interrupt:
        raise ModelError("the runtime cannot be loaded here") from interrupt


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """Undo what a shell does to a job in the background, where these tests may run, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stopped(
    during: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Run ``doctor`` with something in place of its work; gives exit code and standard error."""

    def works(*_: object, **__: object) -> NoReturn:
        during()
        raise RuntimeError("it went on")

    monkeypatch.setattr("llama_index_presets.diagnose.doctor.examine", works)
    monkeypatch.setattr(sys, "argv", ["llama-presets", "doctor"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("during", [in_duckdb, in_a_deletion, in_an_import])
def test_a_swallowed_ctrl_c_stops_the_command(
    during: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code 130 and what it leaves; no error of a library, no traceback; afterwards Ctrl-C is Python's again."""
    code, said = stopped(during, monkeypatch, capsys)
    assert (code, said) == (130, "Stopped. A repair that was begun is finished by running it again.\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_without_ctrl_c_stays_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was pressed."""

    def fails() -> None:
        raise ModelError("the runtime cannot be loaded here")

    assert stopped(fails, monkeypatch, capsys) == (1, "Error: the runtime cannot be loaded here\n")


def test_other_dropped_exceptions_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only an interrupt is raised again; the rest goes where it went."""
    shown: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: shown.append(str(dropped.exc_value)))

    class Fails:
        def __del__(self) -> None:
            raise ValueError("no way to close it")

    code, _ = stopped(lambda: Fails() and None, monkeypatch, capsys)
    assert (code, shown) == (1, ["no way to close it"])


def test_an_interrupted_import_is_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled modules report it as the cause of an ImportError; a module that really fails stays one."""
    (tmp_path / "compiled_like.py").write_text(
        "raise ImportError('initialization failed') from KeyboardInterrupt()\n"
    )
    (tmp_path / "broken_like.py").write_text("raise ImportError('libfoo.so: no such file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(KeyboardInterrupt):
        require("compiled_like", extra="local")
    with pytest.raises(ImportError, match=r"libfoo\.so"):
        require("broken_like", extra="local")
