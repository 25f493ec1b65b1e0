"""The terminal: what a person sees on a real one, and what a pipe gets."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.openai import OpenAIServer

from llama_index_presets.cli.answer_output import show_pieces, show_sources
from llama_index_presets.cli.terminal import Working, model_loads_shown, print_table, table
from llama_index_presets.inference.loading import LoadOnce, loading
from llama_index_presets.ingest.progress import TerminalBar

HERE = Path(__file__).parents[2]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
QUESTION = "How long may an insulin pen in use be kept at room temperature?"


class Terminal:
    """A command on a pseudo terminal of its own; `text` is what was drawn so far."""

    def __init__(self, arguments: list[str], folder: Path, width: int, **environment: str) -> None:
        self._end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llama_index_presets", *arguments],
            stdin=inner, stdout=inner, stderr=inner, cwd=folder, start_new_session=True,
            env={**kept, "PYTHONPATH": str(HERE / "src"), "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.close(inner)
        self.text = ""

    def read_until(self, seen: Callable[[str], bool]) -> str:
        """Read what is drawn until something is seen, or the command ends; two minutes at most."""
        while not seen(self.text) and select.select([self._end], [], [], 120)[0]:
            try:
                self.text += os.read(self._end, 4096).decode(errors="replace")
            except OSError:  # so Linux says that the other end is closed
                break
        return self.text

    def end(self) -> tuple[int, str]:
        """Exit code, and all that was drawn."""
        text = self.read_until(lambda _: False)
        os.close(self._end)
        return self.process.wait(), text


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project over the healthcare recipe's documents, ingested."""
    from llama_index_presets import build

    folder = tmp_path_factory.mktemp("clinic")
    (folder / "llama-presets.toml").write_text('preset = "healthcare"\nstorage = "index"\n')
    with build("healthcare", storage=folder / "index") as engine:
        engine.ingest(HERE / "recipes" / "healthcare" / "documents")
    return folder


@pytest.mark.slow("processes that load an engine on a terminal")
@pytest.mark.parametrize("width", [60, 100, 200])
def test_ask_on_a_terminal_shows_status_sources_and_cited_words(clinic: Path, width: int) -> None:
    """What is being done is said; the table fits the width; the cited words are there; the status goes."""
    code, drawn = Terminal(["ask", QUESTION], clinic, width).end()
    assert code == 0 and "Opening the index …" in drawn and "\x1b[?25l" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # the cursor is back
    shown = ESCAPES.sub("", drawn.split("\x1b[?25h")[-1])
    lines = shown.replace("\r", "").splitlines()
    (head,) = [number for number, line in enumerate(lines) if "Words cited" in line]
    assert all(len(line.rstrip()) <= width for line in lines[head:-1]) and "…" not in "".join(lines[head:])
    words = " ".join(" ".join(lines).split())
    assert "for 28 days. [1]" in words and "Source" in words
    assert re.search(r"A pen in use may be", " ".join(lines[head:]))


def test_a_model_is_named_while_it_is_loaded() -> None:
    """The line says it, and what it said before when the model is there."""
    said: list[str] = []

    class Line(Working):
        """Notes what is said."""

        def begin(self, doing: str) -> None:
            said.append(doing)

        def done(self) -> None:
            said.append("done")

    load = LoadOnce(lambda name: said.append(f"reads {name}"))
    with model_loads_shown(Line("Opening the index")), loading("MiniLM", "embedding"):
        load("MiniLM")
    assert said == ["Loading MiniLM", "reads MiniLM", "done"]


def test_a_model_s_folder_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called "[/old]" ended the command, one called "[old]" was left out of the line."""
    monkeypatch.setattr("llama_index_presets.cli.terminal.is_terminal", lambda stream: True)
    status = Working("Answering")
    status._show()
    status.begin("Loading /models/[/old]/[new]")
    assert str(status._status.status) == "Loading /models/[/old]/[new] …"
    status.stop()
    bar = TerminalBar("Loading [/old]", "documents")
    assert "Loading [/old]" in "".join(str(cell) for cell in bar._bar.columns[0].render(bar._bar.tasks[0]))


@pytest.mark.slow("a process that loads an engine and a model on loopback")
def test_an_answer_is_streamed(clinic: Path) -> None:
    """The first words are on the screen while the model has not said the others."""
    go_on = threading.Event()

    class Words(tuple[str, ...]):
        """Words of which the others come when the first were seen."""

        def __iter__(self) -> Iterator[str]:
            yield from ("Twenty-eight ", "whole ")
            go_on.wait(100)
            yield from ("days", " [1].")

    with OpenAIServer(words=Words()) as server:
        name = f"{server.url}#some-model"
        screen = Terminal(["ask", QUESTION, "--llm", name], clinic, 100, OPENAI_API_KEY="k")
        early = screen.read_until(lambda text: "Twenty-eight" in text)
        go_on.set()
        code, drawn = screen.end()
    assert "Twenty-eight" in early and "days [1]" not in early
    assert code == 0 and "days [1]." in drawn


@pytest.mark.slow("a process that loads an engine, in a pipe")
def test_a_pipe_gets_plain_text_and_the_same_words(clinic: Path) -> None:
    """No escape, no status line, not even where colour is asked of a terminal; the cited words in quotes."""
    done = subprocess.run(
        [sys.executable, "-m", "llama_index_presets", "ask", QUESTION],
        cwd=clinic, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(HERE / "src"), "TERM": "xterm-256color"},
    )  # fmt: skip
    assert "\x1b" not in done.stdout + done.stderr and "…" not in done.stderr
    assert done.stderr == "Project: llama-presets.toml (healthcare)\n"
    assert (
        '\n      "A pen in use may be kept at room temperature, below 30 °C, for 28 days."\n' in done.stdout
    )


@pytest.mark.slow("a process that loads an engine and is stopped")
@pytest.mark.parametrize(
    ("arguments", "safe"),
    [
        (["ask", QUESTION], "The index is as it was"),
        (
            ["ingest", str(HERE / "recipes" / "healthcare" / "documents"), "--storage", "s"],
            "run the same command again",
        ),
    ],
)
def test_ctrl_c_says_what_is_safe(clinic: Path, arguments: list[str], safe: str) -> None:
    """Code 130, no traceback, and the cursor is back."""
    screen = Terminal(arguments, clinic, 100)
    screen.read_until(lambda text: "Opening the index" in text)
    os.killpg(screen.process.pid, signal.SIGINT)
    code, drawn = screen.end()
    assert code == 130 and "Stopped." in drawn and safe in drawn and "Traceback" not in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")


def test_no_color_is_honoured(tmp_path: Path) -> None:
    """An error is red on a terminal, and plain where NO_COLOR is set or the terminal is dumb."""
    code, drawn = Terminal(["show", "helthcare"], tmp_path, 100).end()
    assert code == 2 and "\x1b[1;31mError:" in drawn and "Did you mean 'healthcare'?" in drawn
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        _, drawn = Terminal(["show", "helthcare"], tmp_path, 100, **environment).end()
        assert "Error:" in drawn and "\x1b" not in drawn


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_word_of_the_matrix_is_there_at_any_width(tmp_path: Path, width: int) -> None:
    """Nothing is cut: a table becomes blocks where it would not fit."""
    code, drawn = Terminal(["list"], tmp_path, width).end()
    lines = [line.rstrip() for line in ESCAPES.sub("", drawn).replace("\r", "").splitlines()]
    assert code == 0 and all(len(line) <= width for line in lines[:-1]) and "…" not in drawn
    assert all(word in drawn for word in ("financial-documents", "text-embedding-3-large", "pinecone"))


def test_a_mistyped_command_names_the_next(tmp_path: Path) -> None:
    """For commands, options, presets and settings."""
    mistyped = {
        "igest": "Did you mean 'ingest'",
        "list --jsno": "--json",
        "show halthcare": "Did you mean 'healthcare'?",
        "show healthcare --settings s.toml": "Did you mean 'top_k'?",
    }
    (tmp_path / "s.toml").write_text("topk = 3")
    for line, hint in mistyped.items():
        done = subprocess.run(
            [sys.executable, "-m", "llama_index_presets", *line.split()],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(HERE / "src")},
        )  # fmt: skip
        assert done.returncode == 2 and hint in done.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("llama-presets inge", "ingest"),
        ("llama-presets ask hea", "healthcare"),
        ("llama-presets weights pull clip", "clip-ViT-B-32"),
    ],
)
def test_the_shell_completes_commands_presets_and_models(tmp_path: Path, words: str, completed: str) -> None:
    """By the protocol that the installed script speaks with bash."""
    code = "import sys; sys.argv[0] = 'llama-presets'; from llama_index_presets.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE / "src"), "_LLAMA_PRESETS_COMPLETE": "complete_bash",
             "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
    )  # fmt: skip
    assert done.stdout.split() == [completed]


# -- in this process --------------------------------------------------------------------------------------------------


def test_a_document_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences of a passage or a path are shown, not sent; brackets are no markup."""
    citation: dict[str, Any] = {"n": 1, "source": "a\x1b]0;owned\x07.txt", "page": None, "heading": None,
                                "score": 0.5, "text": "Pens \x1b[2J[red]last[/red]."}  # fmt: skip
    show_sources("Pens last [1].", [citation])
    shown = table("[bold]Name", "b", "c")
    shown.add_row("x\x1b[31m", "[red]y[/red]", "[/]")
    print_table(shown)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out and "[red]last[/red]" in out and "[red]y[/red]" in out


def test_json_is_one_object_without_a_status(run, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Also at a width that breaks tables."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.chdir(tmp_path)
    code, out, err = run("list", "--json")
    assert (code, err) == (0, "") and len(json.loads(out)["presets"]) == 7


@pytest.mark.parametrize(
    ("pieces", "shown"), [(["Ten", " years."], "Ten years.\n"), (["Ten", " ye"], "Ten ye …\n"), ([], "")]
)
def test_an_answer_that_breaks_off_ends_its_line(
    pieces: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an ellipsis; the error is said on the next line, and not where it reads like the answer."""

    def answer() -> Iterator[str]:
        yield from pieces
        if shown != "Ten years.\n":
            raise ConnectionError("the server has gone")

    if shown == "Ten years.\n":
        show_pieces(answer(), Working("Answering"))
    else:
        with pytest.raises(ConnectionError, match="has gone"):
            show_pieces(answer(), Working("Answering"))
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("work", "line"),
    [
        ({"authors": ["A. Noether"], "year": 2019, "title": "On Sums"}, "A. Noether (2019): On Sums. a.eml"),
        ({"authors": ["A. Noether"], "title": "On Sums"}, "A. Noether: On Sums. a.eml"),
        ({"year": 2026, "title": "Order 20418"}, "Order 20418 (2026). a.eml"),
        ({"title": "On Sums"}, "a.eml"),
    ],
)
def test_a_work_is_named_as_far_as_it_is_known(
    work: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mail has a year and no author: it was called "2026: Order 20418"."""
    citation = {
        "n": 1,
        "source": "a.eml",
        "page": None,
        "heading": "",
        "score": 0.5,
        "text": "Beans.",
        **work,
    }
    show_sources("Beans. [1]", [citation])
    assert capsys.readouterr().out.splitlines()[0] == f"  [1] {line}, score 0.500"
